"""`python -m vecdb.rerank.training METHOD --slates FILE --out FOLDER`: train a reranker; one JSON line at the end."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from vecdb.errors import InvalidInput
from vecdb.rerank.training import slates as slates_of

# method -> (steps, slates a step, learning rate): the papers', with fewer slates a step for one GPU
DEFAULTS = {
    "first": (700, 8, 5e-6),
    "full": (500, 8, 5e-6),
    "e2rank": (700, 16, 2e-5),
    "mvp": (1500, 16, 1e-4),
    "cross-encoder": (700, 16, 2e-5),
    "setwise": (300, 4, 1e-6),
    "group": (300, 4, 1e-6),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m vecdb.rerank.training", description=__doc__)
    parser.add_argument("method", choices=sorted(DEFAULTS))
    parser.add_argument("--slates", type=Path, required=True, help="JSON lines: query, passages, ranks, grades")
    parser.add_argument("--model", help="where training starts: a name or folder; the offline model without it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="training ends after so long, whatever --steps says")
    parser.add_argument(
        "--frozen", metavar="PART", help="weights with this in their name stay, such as word_embeddings"
    )
    parser.add_argument("--half", action="store_true", help="matrix products in bfloat16 (on a GPU)")
    parser.add_argument("--pooling", choices=("mean", "last", "first", "query"), help="of e2rank's encoder")
    parser.add_argument("--feedback", type=int, default=20, help="documents that stand in e2rank's listwise query")
    parser.add_argument("--tokens", type=int, default=256, help="where a document, or a query with one, is cut")
    given = parser.parse_args(arguments)

    from vecdb.rerank.training.recipes import Schedule, seeded, train

    steps, batch, rate = DEFAULTS[given.method]
    schedule = Schedule(
        steps=given.steps or steps,
        batch=given.batch or batch,
        rate=given.rate or rate,
        seed=given.seed,
        seconds=given.seconds,
        frozen=given.frozen,
        half=given.half,
    )
    seeded(schedule.seed)  # new layers are drawn before training starts
    recipe = recipe_of(given.method, given.model, pooling=given.pooling, feedback=given.feedback, tokens=given.tokens)
    since = time.perf_counter()
    course = train(recipe, slates_of.read(given.slates), schedule, told=_tell)
    given.out.mkdir(parents=True, exist_ok=True)
    recipe.save(given.out)
    ending = course[-max(1, len(course) // 10) :]
    line = {
        "method": given.method,
        "model": given.model,
        "pooling": given.pooling,
        "steps": len(course),
        "of": schedule.steps,
        "batch": schedule.batch,
        "rate": schedule.rate,
        "seed": schedule.seed,
        "frozen": schedule.frozen,
        "half": schedule.half,
        "tokens": given.tokens,
        "feedback": given.feedback,
        "first_loss": course[0],
        "last_loss": sum(ending) / len(ending),
        "seconds": round(time.perf_counter() - since, 1),
    }
    print(json.dumps(line))
    return 0


def recipe_of(method: str, name: str | None, *, pooling: Any = None, feedback: int = 20, tokens: int = 256) -> Any:
    """The method's recipe on the model with this name, on the best device there is. pooling: of e2rank's encoder, whose listwise
    query shows `feedback` documents.

    tokens: where e2rank's documents, and what MVP and a cross-encoder read at once, are cut.
    """
    from vecdb.rerank.models.encoder import TextEncoder
    from vecdb.rerank.models.loading import best_device, load_chat, load_encoder, load_for_training
    from vecdb.rerank.models.multiview import MultiView
    from vecdb.rerank.models.transformers_lm import TransformersModel
    from vecdb.rerank.training import recipes

    if method == "e2rank":
        model, tokenizer = load_encoder(name)
        encoder = TextEncoder(model.to(best_device()), tokenizer, pooling=pooling)
        return recipes.Listwise(encoder, feedback=feedback, document_tokens=tokens)
    if method == "mvp":
        return recipes.Views(MultiView(*load_encoder(name)).to(best_device()), max_tokens=tokens)
    if method == "cross-encoder":
        model, tokenizer = load_for_training(name)
        return recipes.Pairs(model.to(best_device()), tokenizer, max_tokens=tokens)
    chat = load_chat(name)
    if not isinstance(chat, TransformersModel):
        raise InvalidInput(f"{name!r} is a service, which cannot be trained from here; name a model of transformers")
    if method == "first":
        return recipes.WrittenOrder(chat, letters=True, rank=10.0)
    if method == "full":
        return recipes.WrittenOrder(chat, letters=False, weighted=True)
    return recipes.Outcome(chat, method=method)


def _tell(step: int, loss: float) -> None:
    if step % 20 == 0:
        print(f"step {step}: loss {loss:.4f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
