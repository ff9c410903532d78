"""A codec's text: steps joined by "+", reducers first and one format last ("float32" where none is named).

pca:N[,whiten][,exact|randomised]   random:N   truncate:N   rotate   opq:PARTS (pq:PARTS follows by itself)
float32   float16   bfloat16   float8[:e4m3|e5m2][,vector|dimension]   int8[:affine|symmetric]   int4[:affine|symmetric]
pq:PARTS   mpq:PARTS[,GROUPS]   rabitq:1|2|4|8
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vecdb.errors import InvalidInput
from vecdb.index.arguments import as_dimension, as_metric
from vecdb.index.codecs.base import Format, Reducer, whole_number
from vecdb.index.codecs.codec import Codec
from vecdb.index.codecs.float8 import Float8
from vecdb.index.codecs.floats import BFloat16, Float16, Float32
from vecdb.index.codecs.levels import Levels, Pairs
from vecdb.index.codecs.linear import Pca, RandomProjection, Rotation, Truncation
from vecdb.index.codecs.products import GroupedQuantiser, Opq, ProductQuantiser
from vecdb.index.codecs.rabitq import RaBitQ

_MOST = 65_536
_MOST_GROUPS = 64


def parse(text: str, dimension: int, metric: str = "cosine") -> Codec:
    """The codec that a text describes, unfitted, for vectors of so many numbers. Raises InvalidInput."""
    size = as_dimension(dimension)
    if not isinstance(text, str) or not text:
        raise InvalidInput(f"codec is {text!r}; give a text such as 'float8' or 'pca:192+int8'")
    reducers: list[Reducer] = []
    steps = text.split("+")
    if steps[-1].partition(":")[0] == Opq.name:
        steps.append(f"{ProductQuantiser.name}:{steps[-1].partition(':')[2]}")
    elif steps[-1].partition(":")[0] in _REDUCERS:
        steps.append(Float32.name)
    for step in steps[:-1]:
        name, options = _split(step)
        if name not in _REDUCERS:
            raise InvalidInput(
                f"{step!r} in codec {text!r} is no reducer; these may stand before a format: {', '.join(_REDUCERS)}"
            )
        reducers.append(_REDUCERS[name](size, options, step))
        size = reducers[-1].size
    name, options = _split(steps[-1])
    if name not in _FORMATS:
        raise InvalidInput(f"{steps[-1]!r} in codec {text!r} is no format; it must be one of {', '.join(_FORMATS)}")
    return Codec(dimension, as_metric(metric), tuple(reducers), _FORMATS[name](size, options, steps[-1]))


def _split(step: str) -> tuple[str, list[str]]:
    name, colon, rest = step.partition(":")
    return name, rest.split(",") if colon else []


def _chosen(options: list[str], step: str, *choices: tuple[str, ...]) -> list[str]:
    """One of each of choices: the option that is among them, else the first. Raises InvalidInput for an option of none."""
    found = []
    left = list(options)
    for choice in choices:
        named = [option for option in left if option in choice]
        found.append(named[0] if named else choice[0])
        left = [option for option in left if option not in named[:1]]
    if left:
        raise InvalidInput(
            f"{step!r} has the option {left[0]!r}; it may have {' and '.join(' or '.join(c) for c in choices) or 'none'}"
        )
    return found


def _count(options: list[str], step: str) -> int:
    if not options:
        raise InvalidInput(f"{step!r} wants a number, such as {step}:64")
    return whole_number(options[0], f"the number of {step!r}", 1, _MOST)


def _pca(size: int, options: list[str], step: str) -> Pca:
    kept = _count(options, step)
    whiten, method = _chosen(options[1:], step, ("", "whiten"), ("auto", "exact", "randomised"))
    return Pca(size, kept, whiten=bool(whiten), method=method)  # type: ignore[arg-type]


def _sized(kind: Callable[[int, int], Any]) -> Callable[[int, list[str], str], Any]:
    def make(size: int, options: list[str], step: str) -> Any:
        count = _count(options, step)
        _chosen(options[1:], step)
        return kind(size, count)

    return make


def _plain(kind: Callable[[int], Any]) -> Callable[[int, list[str], str], Any]:
    def make(size: int, options: list[str], step: str) -> Any:
        _chosen(options, step)
        return kind(size)

    return make


def _levels(kind: type[Levels]) -> Callable[[int, list[str], str], Levels]:
    def make(size: int, options: list[str], step: str) -> Levels:
        (ranges,) = _chosen(options, step, ("affine", "symmetric"))
        return kind(size, ranges)  # type: ignore[arg-type]

    return make


def _float8(size: int, options: list[str], step: str) -> Float8:
    kind, scale = _chosen(options, step, ("e4m3", "e5m2"), ("vector", "dimension"))
    return Float8(size, kind, scale)  # type: ignore[arg-type]


def _grouped(size: int, options: list[str], step: str) -> GroupedQuantiser:
    parts = _count(options, step)
    groups = 4 if len(options) < 2 else whole_number(options[1], f"the groups of {step!r}", 2, _MOST_GROUPS)
    _chosen(options[2:], step)
    return GroupedQuantiser(size, parts, groups)


def _rabitq(size: int, options: list[str], step: str) -> RaBitQ:
    (bits,) = _chosen(options, step, ("1", "2", "4", "8"))
    return RaBitQ(size, int(bits))


_REDUCERS: dict[str, Callable[[int, list[str], str], Reducer]] = {
    Pca.name: _pca,
    RandomProjection.name: _sized(RandomProjection),
    Truncation.name: _sized(Truncation),
    Rotation.name: _plain(Rotation),
    Opq.name: _sized(Opq),
}
_FORMATS: dict[str, Callable[[int, list[str], str], Format]] = {
    Float32.name: _plain(Float32),
    Float16.name: _plain(Float16),
    BFloat16.name: _plain(BFloat16),
    Float8.name: _float8,
    Levels.name: _levels(Levels),
    Pairs.name: _levels(Pairs),
    ProductQuantiser.name: _sized(ProductQuantiser),
    GroupedQuantiser.name: _grouped,
    RaBitQ.name: _rabitq,
}
