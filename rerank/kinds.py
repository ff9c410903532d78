"""What `rerank=` takes, as stages: names, names with options, objects, or a list of them to be gone through in order.

    rerank="maxsim"
    rerank={"kind": "maxsim", "alpha": 0.05, "deadline_ms": 50}
    rerank=["maxsim", {"kind": "listwise", "top": 20, "model": "…"}]

Two options are the stage's, whatever its kind: `top`, how many of the best candidates it looks at (the others follow, in the
order that they had); `deadline_ms`, after which it keeps the order that it was given. The rest are the keyword arguments of the
class. Nothing is imported before a kind is used.

An option whose value is a model to load, a file, or a host to call must have one of the names in REACHING, and no other: what a
client of the service may reach is checked by these names.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from vecdb.errors import InvalidQuery
from vecdb.rerank.base import BatchReranker, OneByOne, Reranker
from vecdb.rerank.options import check_options

OneSpec = str | Mapping[str, Any] | Reranker | BatchReranker
RerankSpec = OneSpec | Sequence[OneSpec]

# name -> "module:class". The keyword arguments of the class are the options of the kind.
KINDS: dict[str, str] = {
    "maxsim": "vecdb.rerank.late_interaction:MaxSim",
    "blend": "vecdb.rerank.blend:Blend",
    "cosine": "vecdb.rerank.cosine:Cosine",
    "relevance_x_time": "vecdb.rerank.recency:RelevanceTime",
    "feedback": "vecdb.rerank.feedback:Feedback",
    "first": "vecdb.rerank.listwise.first:First",
    "sliding": "vecdb.rerank.listwise.written:Sliding",
    "listwise": "vecdb.rerank.listwise.written:Sliding",  # the field's word for it; reports call it sliding
    "full": "vecdb.rerank.listwise.written:Full",
    "graded": "vecdb.rerank.listwise.graded:Graded",
    "group": "vecdb.rerank.listwise.group:Groupwise",
    "setwise": "vecdb.rerank.listwise.setwise:Setwise",
    "mvp": "vecdb.rerank.mvp:Mvp",
    "e2rank": "vecdb.rerank.e2rank:E2Rank",
    "cross-encoder": "vecdb.rerank.cross_encoder:CrossEncoder",
}

REACHING = frozenset({"model", "encoder", "tokenizer", "file", "url", "key_env"})

_MOST_STAGES = 8
_DEEPEST = 16  # options within options
_MOST_CANDIDATES = 100_000
_INSTANCES = 64  # kept by their options, so that models are loaded once


@dataclass(frozen=True, slots=True)
class Stage:
    """One reranker of a search. name: as the trace calls it. top: how many candidates it sees; None: all there are."""

    name: str
    reranker: BatchReranker
    top: int | None = None
    deadline_s: float | None = None


def stages_of(given: RerankSpec | None) -> tuple[Stage, ...]:
    """Raises InvalidQuery for what is no reranker."""
    if given is None:
        return ()
    listed = list(given) if isinstance(given, list | tuple) else [given]
    if not 1 <= len(listed) <= _MOST_STAGES:
        raise InvalidQuery(f"rerank has {len(listed)} stages; give between 1 and {_MOST_STAGES}")
    return tuple(_stage(spec) for spec in listed)


def reranker_of(given: OneSpec) -> BatchReranker:
    """One reranker, without options of a stage. Raises InvalidQuery."""
    if isinstance(given, Mapping) and not {"top", "deadline_ms"}.isdisjoint(given):
        raise InvalidQuery(f"{dict(given)!r} is part of another reranker; top and deadline_ms belong to that one")
    return _stage(given).reranker


def reached(given: Any, *, depth: int = 0) -> Iterator[Any]:
    """What such a specification, as it came out of JSON, would load or call; also that of rerankers within rerankers.

    Raises InvalidQuery for one that is nested too deep.
    """
    if depth > _DEEPEST:
        raise InvalidQuery(f"rerank is nested more than {_DEEPEST} deep; use a list of stages instead")
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if name in REACHING and value is not None:
            yield value
        yield from reached(value, depth=depth + 1)
    for part in given if isinstance(given, list) else ():
        yield from reached(part, depth=depth + 1)


def _stage(given: Any) -> Stage:
    if isinstance(given, str):
        given = {"kind": given}
    if isinstance(given, Mapping):
        options = dict(given)
        if "kind" not in options:
            raise InvalidQuery(f"rerank is {options!r}, which has no 'kind'; give one of {', '.join(KINDS)}")
        name = options.pop("kind")
        top, deadline_ms = options.pop("top", None), options.pop("deadline_ms", None)
        if top is not None and (not isinstance(top, int) or isinstance(top, bool) or not 1 <= top <= _MOST_CANDIDATES):
            raise InvalidQuery(f"top of rerank is {top!r}; it must be a whole number from 1 to {_MOST_CANDIDATES:,}")
        if deadline_ms is not None and (
            not isinstance(deadline_ms, int | float) or isinstance(deadline_ms, bool) or not deadline_ms > 0
        ):
            raise InvalidQuery(f"deadline_ms of rerank is {deadline_ms!r}; it must be milliseconds above 0")
        return Stage(str(name), _made(name, options), top, None if deadline_ms is None else deadline_ms / 1e3)
    if isinstance(given, type):
        raise InvalidQuery(f"rerank is the class {given.__name__}; give an object of it: {given.__name__}()")
    if isinstance(given, BatchReranker):
        return Stage(_name_of(given), given)
    if callable(getattr(given, "rerank", None)):
        return Stage(type(given).__name__, OneByOne(given))
    raise InvalidQuery(
        f"rerank is {given!r}; give one of {', '.join(KINDS)}, such a name with options as {{'kind': …}}, an object with "
        "rerank(query, candidates, k), or a list of them"
    )


def _made(name: object, options: dict[str, Any]) -> BatchReranker:
    if not isinstance(name, str) or name not in KINDS:
        raise InvalidQuery(
            f"rerank is {name!r}; it must be one of {', '.join(KINDS)}, or an object with rerank(query, candidates, k)"
        )
    try:
        key = orjson.dumps(options, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an option is an object of the caller's: a model, a function
        return _new(name, options)
    return _remembered(name, key)


@lru_cache(_INSTANCES)
def _remembered(name: str, options: bytes) -> BatchReranker:
    return _new(name, orjson.loads(options))


def _new(name: str, options: dict[str, Any]) -> BatchReranker:
    module, _, attribute = KINDS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    check_options(name, kind, options)
    try:
        made: BatchReranker = kind(**options)
    except InvalidQuery:
        raise
    except (TypeError, ValueError) as error:  # of a list or an object that holds something else than it should
        raise InvalidQuery(f"rerank {name!r} does not take {options!r}: {error}") from error
    return made


def _name_of(reranker: BatchReranker) -> str:
    """As reports call it: the name of its kind; a caller's own goes by the name of its class."""
    kind = type(reranker)
    place = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, known in KINDS.items() if known == place), kind.__name__)
