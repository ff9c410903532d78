"""Training of projection heads on states of a frozen encoder, in PyTorch, reproducible from a seed (arXiv 2510.12327).

The loss is that of n-way distillation: a query's sampled documents have target probabilities (softmax of their grades or of a
teacher's scores), and MaxSim through the head is to give the same by KL divergence. Only the document token that wins for a query
token gets a gradient, as in any MaxSim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput, MissingExtra
from vecdb.rerank.projection import Head, HeadConfig, unit

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Slate:
    """One query with documents. query (Q, h) and each of documents (T, h): states of tokens; targets (n,): larger is better."""

    query: Array
    documents: Sequence[Array]
    targets: Array


@dataclass(frozen=True, slots=True)
class Recipe:
    """One step looks at `slates` queries, each with one of its best documents and `others` more, cut at `tokens`.

    sharpness: what targets are multiplied with before their softmax. temperature: what mean cosines are divided by. start: the
    head begins as the main directions of the states ("pca"), or at random.
    """

    steps: int = 200
    slates: int = 8
    others: int = 7
    tokens: int = 128
    rate: float = 1e-3
    sharpness: float = 2.0
    temperature: float = 0.03
    start: str = "pca"
    seed: int = 0


def train_head(
    config: HeadConfig, slates: Sequence[Slate], recipe: Recipe, *, version: str = "trained", device: str = "cpu"
) -> Head:
    """A head trained on these slates; one without a better and a worse document teaches nothing and is passed over.

    device: where PyTorch computes, "cuda" for a GPU.

    Raises InvalidInput if none is left, MissingExtra without PyTorch.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", extra="rerank", what="training of heads") from error
    useful = [slate for slate in slates if len(slate.targets) > 1 and np.ptp(slate.targets) > 0 and len(slate.query)]
    if not useful:
        raise InvalidInput("no slate has documents of different targets; give judged queries")
    rng = np.random.default_rng(recipe.seed)
    weights = {name: torch.from_numpy(w).to(device) for name, w in initial(config, useful, recipe, rng).items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights.values(), lr=recipe.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    losses = []
    for _ in range(recipe.steps):
        chosen = rng.choice(len(useful), min(recipe.slates, len(useful)), replace=False)
        loss = torch.stack([_loss(useful[i], config, weights, recipe, rng) for i in chosen]).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    facts = {
        "recipe": asdict(recipe),
        "slates": len(useful),
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-10:])),
    }
    return Head(config, {name: w.detach().cpu().numpy() for name, w in weights.items()}, version, facts)


def taught_by_states(slates: Sequence[Slate]) -> list[Slate]:
    """The same slates with other targets: mean MaxSim of the states themselves. A head that learns these keeps, in fewer
    dimensions, the order that all of them give; no judgements are needed. Train with `sharpness` = 1 / `temperature`.
    """
    taught = []
    for slate in slates:
        query = unit(slate.query.astype(np.float32))
        if len(query):
            targets = [float((query @ unit(d.astype(np.float32)).T).max(axis=1).mean()) for d in slate.documents]
            taught.append(Slate(slate.query, slate.documents, np.array(targets)))
    return taught


def initial(
    config: HeadConfig, slates: Sequence[Slate], recipe: Recipe, rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Weights to begin with. "pca": whatever the kind, the head is then (relu, silu: nearly) the same projection onto the main
    directions of the documents' states, so that kinds differ in how they train and in nothing else.
    """
    if recipe.start not in ("pca", "random"):
        raise InvalidInput(f"start is {recipe.start!r}; it must be 'pca' or 'random'")
    if recipe.start == "random":
        return {
            name: (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
            for name, shape in config.shapes().items()
        }
    some = [slates[i].documents for i in rng.permutation(len(slates))[:500]]
    states = np.concatenate([documents[rng.integers(len(documents))] for documents in some]).astype(np.float64)
    states /= np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-9)
    directions = np.linalg.eigh(states.T @ states)[1][:, ::-1][:, : config.dimension].T
    if config.kind == "linear":
        return {"W": np.ascontiguousarray(directions, dtype=np.float32)}
    middle = config.upscale * config.width
    frame = np.linalg.qr(rng.standard_normal((middle, config.width)))[0]  # frame.T @ frame = 1
    small = 0.01 * rng.standard_normal((middle, config.width)) / np.sqrt(config.width)
    made = {"W1": frame, "W2": directions @ frame.T}
    if config.kind == "glu":
        made["V"] = small
        made["W1"] = 2.0 * frame  # a gate that begins at the sigmoid of 0 lets half of it through
    if config.residual:
        made |= {"W1": small, "R": frame}
    return {name: np.ascontiguousarray(made[name], dtype=np.float32) for name in config.shapes()}


def _loss(slate: Slate, config: HeadConfig, weights: dict[str, Any], recipe: Recipe, rng: np.random.Generator) -> Any:
    import torch

    targets = np.asarray(slate.targets, dtype=np.float64)
    best = rng.choice(np.flatnonzero(targets == targets.max()))
    worse = np.flatnonzero(targets < targets.max())
    places = [best, *rng.choice(worse, min(recipe.others, len(worse)), replace=False)]
    documents = [slate.documents[place][: recipe.tokens] for place in places]
    device = weights["W" if config.kind == "linear" else "W2"].device
    states = torch.from_numpy(np.concatenate([slate.query, *documents])).to(device).float()
    vectors = apply(states, config, weights)
    query, tokens = vectors[: len(slate.query)], vectors[len(slate.query) :]
    similarities = query @ tokens.T
    ends = np.cumsum([0] + [len(document) for document in documents])
    scores = torch.stack([similarities[:, a:b].amax(dim=1).mean() for a, b in pairwise(ends)])
    wanted = torch.from_numpy(recipe.sharpness * targets[places]).to(device).float().log_softmax(0)
    given = (scores / recipe.temperature).log_softmax(0)
    return torch.nn.functional.kl_div(given, wanted, log_target=True, reduction="sum")


def apply(states: Any, config: HeadConfig, weights: dict[str, Any]) -> Any:
    """`Head.project` in PyTorch. What folds is multiplied together first: the same gradients, for the price of one matrix."""
    import torch
    from torch.nn.functional import normalize

    acts = {"identity": lambda x: x, "relu": torch.relu, "silu": torch.nn.functional.silu}
    if config.kind == "linear":
        return normalize(states @ weights["W"].T, dim=-1)
    if config.folds:
        inner = weights["W1"] + weights["R"] if config.residual else weights["W1"]
        return normalize(states @ (weights["W2"] @ inner).T, dim=-1)
    middle = states @ weights["W1"].T
    if config.kind == "glu":
        gate = states @ weights["V"].T
        middle = middle * (torch.sigmoid(gate) if config.activation == "identity" else acts[config.activation](gate))
    else:
        middle = acts[config.activation](middle)
    if config.residual:
        middle = middle + states @ weights["R"].T
    return normalize(middle @ weights["W2"].T, dim=-1)
