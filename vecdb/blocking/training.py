"""Training of the hash in PyTorch, on mined triplets, reproducible from a seed; what comes out needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.blocking.codes import Codes, Matrix, Places, Views, codes_of, cosines_of_pairs, nearest
from vecdb.blocking.hashing import HashConfig, Head
from vecdb.errors import InvalidInput, MissingExtra

Told = Callable[[int, float], None]  # epochs done, how far from their matches held-out records are
_WEIGHTS_RATE = 20.0  # times the head's: there are few weights of views, and each matters much


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of records that are the same: places in a table's views and in the other's."""

    left: Places
    right: Places

    def __len__(self) -> int:
        return len(self.left)

    def turned(self) -> Matches:
        return Matches(self.right, self.left)


@dataclass(frozen=True, slots=True)
class Learned:
    """head, weights (V,) that sum to 1. course: after each epoch, 0 first, the mean log2 of the ranks of held-out matches."""

    head: Head
    weights: Matrix
    course: tuple[float, ...]

    def codes(self, views: Views) -> Codes:
        return codes_of(views, self.head(views.meaning), self.weights)


def start(sides: tuple[Views, Views], config: HashConfig) -> Learned:
    """The hash before it is trained: every view counts the same."""
    count = 1 + len(sides[0].words)
    head = Head.of_directions(np.concatenate([views.meaning for views in sides]), config.dimension)
    return Learned(head, np.full(count, 1 / count, np.float32), ())


def train(
    sides: tuple[Views, Views],
    matches: Matches,
    config: HashConfig,
    *,
    held_out: tuple[tuple[Views, Views], Matches] | None = None,
    told: Told | None = None,
) -> Learned:
    """The hash after the epoch that was best for held-out matches (the last, without any); untrained if none was better.

    Records that are in no match serve as others. Raises InvalidInput without a match, or if there is nothing else than matches;
    MissingExtra without PyTorch.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", extra="learned", what="training a blocker") from error
    if not len(matches):
        raise InvalidInput("there is no match to learn from; give pairs of records that are the same")
    if len(sides[0]) < 2 and len(sides[1]) < 2:
        raise InvalidInput("there are no records that do not match; a blocker learns by telling them apart")
    random = np.random.default_rng([config.seed, 11])
    best = current = start(sides, config)
    course = [np.inf if held_out is None else rank_of_matches(current, *held_out)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _Network(torch, current, config)
        for epoch in range(config.epochs):
            for turned in (False, True) if epoch % 2 else (True, False):
                triplets = _triplets(current, sides[::-1] if turned else sides, matches, config, random, turned)
                network.learn(triplets, random)
            current = network.learned()
            course.append(0.0 if held_out is None else rank_of_matches(current, *held_out))
            if course[-1] < min(course[:-1]):
                best = current
            if told is not None:
                told(epoch + 1, course[-1])
    chosen = best if held_out is not None else current
    return Learned(chosen.head, chosen.weights, tuple(course))


def rank_of_matches(learned: Learned, sides: tuple[Views, Views], matches: Matches) -> float:
    """How far records are from their matches: the mean of log2 of the match's rank among the other table's records, both ways."""
    a, b = (learned.codes(views) for views in sides)
    ranks = [ranks_of(a, b, matches), ranks_of(b, a, matches.turned())]
    return float(np.log2(np.concatenate(ranks)).mean())


def ranks_of(codes: Codes, others: Codes, matches: Matches) -> NDArray[np.int64]:
    """(M,) from 1: the place of each match's right record among all others, by nearness to its left one; ties count against."""
    return ranks_and_products(codes, others, matches)[0]


def ranks_and_products(codes: Codes, others: Codes, matches: Matches) -> tuple[NDArray[np.int64], Matrix]:
    """The ranks as in `ranks_of`, and (M,) the inner products of matches."""
    chosen = codes.taken(matches.left)
    ranks, products = np.empty(len(matches), np.int64), np.empty(len(matches), np.float32)
    for first, scores in chosen.products(others):
        part = slice(first, first + len(scores))
        products[part] = scores[np.arange(len(scores)), matches.right[part]]
        ranks[part] = (scores >= products[part, None]).sum(axis=1)
    return ranks, products


@dataclass(frozen=True, slots=True)
class Triplets:
    """For each match (P) its vectors and those of its others (P, n), with cosines of the sparse views; shown: which views exist.

    Where a record has fewer than n others, the nearest stands again.
    """

    p: Matrix  # (P, D)
    q: Matrix  # (P, D)
    r: Matrix  # (P, n, D)
    pq: Matrix  # (P, V - 1)
    pr: Matrix  # (P, n, V - 1)
    shown_p: NDArray[np.bool_]  # (P, V)
    shown_q: NDArray[np.bool_]
    shown_r: NDArray[np.bool_]  # (P, n, V)


def triplets_of(sides: tuple[Views, Views], matches: Matches, others: Places) -> Triplets:
    """others (P, n): places among the right side's records."""
    a, b = sides
    count, n = others.shape
    left = np.repeat(matches.left, n)
    pr = cosines_of_pairs(a, b, left, others.ravel()) if a.words else np.zeros((count * n, 0), np.float32)
    pq = cosines_of_pairs(a, b, matches.left, matches.right) if a.words else np.zeros((count, 0), np.float32)
    return Triplets(
        a.meaning[matches.left],
        b.meaning[matches.right],
        b.meaning[others],
        pq,
        pr.reshape(count, n, -1),
        a.shown[matches.left],
        b.shown[matches.right],
        b.shown[others],
    )


def hard_others(codes: Codes, others: Codes, matches: Matches, count: int) -> Places:
    """(M, count): the nearest others of each left record that are no match of it."""
    known: dict[int, set[int]] = {}
    for left, right in zip(matches.left.tolist(), matches.right.tolist()):
        known.setdefault(left, set()).add(right)
    most = max(map(len, known.values()))
    chosen = codes.taken(matches.left)
    places, _ = nearest(chosen, others, count + most)
    found = np.empty((len(matches), count), np.int64)
    for i, (left, row) in enumerate(zip(matches.left.tolist(), places.tolist())):
        free = [place for place in row if place not in known[left]]
        # A record that matches all others has none; its own match stands in, at whose distance the loss pulls both ways.
        found[i] = np.resize(free or row[:1], count)
    return found


def _triplets(
    learned: Learned,
    sides: tuple[Views, Views],
    matches: Matches,
    config: HashConfig,
    random: np.random.Generator,
    turned: bool,
) -> Triplets:
    ordered = matches.turned() if turned else matches
    a, b = (learned.codes(views) for views in sides)
    return triplets_of(sides, ordered, hard_others(a, b, ordered, config.negatives))


def train_on_triples(
    units: Matrix, triples: NDArray[np.int64], config: HashConfig, judge: Callable[[Head], float]
) -> Head:
    """units (N, D) rows of unit length, triples (T, 3) of their places: like the first is the second, not the third. The head
    after the epoch that judge gives most, untrained if none is better. Raises MissingExtra without PyTorch.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", extra="learned", what="learning a similarity") from error
    random = np.random.default_rng([config.seed, 14])
    first = Learned(Head.of_directions(units, config.dimension), np.ones(1, np.float32), ())
    best, best_share = first.head, judge(first.head)
    p, q, r = (units[triples[:, column]] for column in range(3))
    none, every = np.zeros((len(p), 0), np.float32), np.ones((len(p), 1), np.bool_)
    given = Triplets(p, q, r[:, None], none, none[:, None], every, every, every[:, None])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _Network(torch, first, config)
        for _ in range(config.epochs):
            network.learn(given, random)
            head = network.learned().head
            if (share := judge(head)) > best_share:
                best, best_share = head, share
    return best


class _Network:
    """The head and the weights while they are learned."""

    def __init__(self, torch: Any, first: Learned, config: HashConfig) -> None:
        self._torch = torch
        self._config = config
        self._matrix = torch.nn.Parameter(torch.from_numpy(first.head.matrix.copy()))
        self._logits = torch.nn.Parameter(torch.from_numpy(np.log(first.weights)))
        groups = [
            {"params": [self._matrix], "lr": config.rate},
            {"params": [self._logits], "lr": config.rate * _WEIGHTS_RATE},
        ]
        self._optimiser = torch.optim.Adam(groups)

    def learn(self, triplets: Triplets, random: np.random.Generator) -> None:
        """One pass over them."""
        torch = self._torch
        tensors = [torch.from_numpy(np.ascontiguousarray(getattr(triplets, name))) for name in Triplets.__slots__]
        order = torch.from_numpy(random.permutation(len(triplets.p)))
        for batch in order.split(self._config.batch):
            loss = self._loss(*(tensor[batch] for tensor in tensors))
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self._optimiser.step()

    def learned(self) -> Learned:
        weights = self._torch.softmax(self._logits.detach(), dim=0).numpy().copy()
        return Learned(Head(self._matrix.detach().numpy().copy()), weights, ())

    def _loss(self, p: Any, q: Any, r: Any, pq: Any, pr: Any, shown_p: Any, shown_q: Any, shown_r: Any) -> Any:
        torch, config = self._torch, self._config
        weights = torch.softmax(self._logits, dim=0)
        p, q, r = (torch.nn.functional.normalize(vectors @ self._matrix, dim=-1) for vectors in (p, q, r))
        lengths = [torch.sqrt((shown.float() @ weights).clamp_min(1e-12)) for shown in (shown_p, shown_q, shown_r)]
        near = (weights[0] * (p * q).sum(-1) + pq @ weights[1:]) / (lengths[0] * lengths[1])
        far = (weights[0] * (p[:, None] * r).sum(-1) + pr @ weights[1:]) / (lengths[0][:, None] * lengths[2])
        near, far = (torch.sqrt((2 - 2 * products).clamp_min(1e-8)) for products in (near, far))
        if config.loss == "triplet":
            return torch.relu(near[:, None] - far + (config.gap - 1) * config.radius).mean()
        outside = torch.relu(near - config.radius).mean()
        return outside + torch.relu(config.gap * config.radius - far).mean()
