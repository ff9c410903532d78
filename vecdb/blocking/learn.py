"""From two tables, and pairs that match in them, to a blocker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.blocking.blocker import Blocker, encoded
from vecdb.blocking.codes import Places, Views, lexicons_of, views_of
from vecdb.blocking.encoders import Encoder, offline_encoder
from vecdb.blocking.hashing import HashConfig
from vecdb.blocking.pseudo import pseudo_matches
from vecdb.blocking.rule import Rule, calibrate, check_wanted
from vecdb.blocking.tables import Table, read_rows
from vecdb.blocking.training import Matches, train
from vecdb.embedding.base import DEFAULT_MODEL
from vecdb.errors import InvalidInput

Pairs = Iterable[tuple[str, str]]
Progress = Callable[[str, int, int], None]  # what is done, how far, of how many
_HELD_OUT = 0.25  # of the matches: 3 to 1, as the benchmark's splits have it
_LEAST_MATCHES = 8  # below it neither learning nor settling k on held-out ones means anything
_ANY_RULE = Rule("a", 1)  # until it is settled


def train_blocker(
    a: Table,
    b: Table,
    pairs: Pairs | None = None,
    *,
    recall: float = 0.95,
    confidence: float = 0.9,
    fields: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    tune_encoder: bool = False,
    config: HashConfig | None = None,
    progress: Progress | None = None,
) -> Blocker:
    """A blocker for tables a and b, learned from pairs (id in a, id in b) that are the same record.

    A quarter of the matches, apart from the others by record, is held out: training stops where it is best for them, and side, k
    and distance are settled on them so that recall is reached with this confidence (see `vecdb.blocking.rule`). Without pairs,
    near duplicates in the data stand for matches; the recall that is settled on those is too optimistic, and says so
    (`calibration.is_supervised`). fields: that are compared; None: those that both tables have, or else all.

    encoder: None is the offline model. tune_encoder: train its layers too (see `vecdb.blocking.tuned`); the blocker then
    needs PyTorch. Raises InvalidInput, MissingExtra without PyTorch, ModelUnavailable.
    """
    check_wanted(recall, confidence)
    config = config or HashConfig()
    known = None if pairs is None else matches_of(a, b, pairs)
    shared = tuple(field for field in a.fields if field in b.fields)
    chosen = tuple(fields) if fields is not None else shared or tuple(dict.fromkeys((*a.fields, *b.fields)))
    if not chosen:
        raise InvalidInput("fields is empty; name at least one to compare records by")
    embedding = encoder or offline_encoder(DEFAULT_MODEL)
    lexicons = lexicons_of((a, b), chosen)

    def looked_at(by: Encoder) -> tuple[Views, Views]:
        vectors = encoded((a, b), chosen, by, _part(progress, "encoding"))
        return views_of(a, vectors[0], chosen, lexicons), views_of(b, vectors[1], chosen, lexicons)

    views = looked_at(embedding)
    matches = pseudo_matches(*views) if known is None else known
    if len(matches) < _LEAST_MATCHES:
        what = "near duplicates were found, which are" if pairs is None else "matches were given, which are"
        raise InvalidInput(
            f"{len(matches)} {what} too few to learn from; give at least {_LEAST_MATCHES} pairs that match"
        )
    learning, held_out = apart(matches, config.seed)
    layers = None
    if tune_encoder:
        from vecdb.blocking.tuned import Tuned, tune

        texts = a.texts(chosen), b.texts(chosen)
        layers = tune(texts, learning, held_out, config, progress=_part(progress, "training the encoder"))
        embedding = Tuned(layers)
        views = looked_at(embedding)
    own, renamed = without_matches_of(views, held_out, learning)
    told = None if progress is None else (lambda epoch, _: progress("training", epoch, config.epochs))
    learned = train(own, renamed, config, held_out=(views, held_out), told=told)
    blocker = Blocker(
        chosen, embedding.name, learned.head, learned.weights, lexicons, _ANY_RULE, None, learned.course, layers
    )
    rule, calibration = calibrate(
        blocker.codes(views[0]),
        blocker.codes(views[1]),
        held_out,
        recall=recall,
        confidence=confidence,
        is_supervised=pairs is not None,
    )
    return replace(blocker, rule=rule, calibration=calibration)


def read_pairs(path: str | Path) -> list[tuple[str, str]]:
    """The matches of a file of pairs: the first column has ids of a, the second of b; a column "label" is 1 for a match, 0 for
    none (which is passed over), and without it all are matches. Raises NotFound, InvalidInput.
    """
    pairs = []
    for number, row in enumerate(read_rows(Path(path)), 1):
        names = [name for name in row if name.lower() != "label"]
        if len(names) < 2:
            raise InvalidInput(f"{path}, row {number}: two columns with ids are wanted, there are {', '.join(row)}")
        label = next((str(row[name]).strip() for name in row if name.lower() == "label"), "1")
        if label not in ("0", "1", "True", "False", "true", "false"):
            raise InvalidInput(f"{path}, row {number}: label is {label!r}; it must be 1 or 0")
        if label in ("1", "True", "true"):
            pairs.append((str(row[names[0]]), str(row[names[1]])))
    return pairs


def matches_of(a: Table, b: Table, pairs: Pairs) -> Matches:
    """Pairs of ids as places. Raises InvalidInput (`.position`) for an id that is not there."""
    places = a.places(), b.places()
    found: dict[tuple[int, int], None] = {}
    for position, pair in enumerate(pairs):
        for name, id, known in zip("ab", pair, places):
            if id not in known:
                raise InvalidInput(f"pair {position} names {id!r}, which is not in table {name}", position=position)
        found[places[0][pair[0]], places[1][pair[1]]] = None
    numbers = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    return Matches(np.ascontiguousarray(numbers[:, 0]), np.ascontiguousarray(numbers[:, 1]))


def apart(matches: Matches, seed: int, share: float = _HELD_OUT) -> tuple[Matches, Matches]:
    """Matches to learn from and held-out ones, no record in both: records that are joined by matches stay together."""
    groups = _groups(matches)
    order = np.random.default_rng([seed, 12]).permutation(int(groups.max()) + 1)
    sizes = np.bincount(groups)[order]
    held = order[: int(np.searchsorted(np.cumsum(sizes), share * len(matches))) + 1]
    is_held = np.isin(groups, held)
    if is_held.all():
        raise InvalidInput("all matches are of one record; give matches of several, so that some can be held out")
    return tuple(Matches(matches.left[mask], matches.right[mask]) for mask in (~is_held, is_held))  # type: ignore[return-value]


def without_matches_of(
    sides: tuple[Views, Views], left_out: Matches, matches: Matches
) -> tuple[tuple[Views, Views], Matches]:
    """The sides less the records of some matches, and the other matches by their new places."""
    kept: list[Places] = [
        np.setdiff1d(np.arange(len(side)), gone) for side, gone in zip(sides, (left_out.left, left_out.right))
    ]
    renamed = [np.searchsorted(places, old) for places, old in zip(kept, (matches.left, matches.right))]
    return (sides[0].taken(kept[0]), sides[1].taken(kept[1])), Matches(*renamed)


def _groups(matches: Matches) -> NDArray[np.int64]:
    """(M,): the number, from 0, of the set of joined records that each match is in."""
    parents: dict[tuple[int, int], tuple[int, int]] = {}

    def root(node: tuple[int, int]) -> tuple[int, int]:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    ends = [((0, left), (1, right)) for left, right in zip(matches.left.tolist(), matches.right.tolist())]
    for left, right in ends:
        parents[root(left)] = root(right)
    numbers: dict[tuple[int, int], int] = {}
    return np.array([numbers.setdefault(root(left), len(numbers)) for left, _ in ends], dtype=np.int64)


def _part(progress: Progress | None, what: str) -> Any:
    return None if progress is None else (lambda done, of: progress(what, done, of))
