"""Graphs that hnswlib and faiss have built, taken over as they are: vectors and links are copied, nothing is built again.

What is added is what those libraries do not promise: links to nodes that none led to or that did not find themselves
(repair.py), and elements that were only marked as deleted leave for good. Read in the sources of hnswlib 0.8 (hnswalg.h,
python_bindings/bindings.cpp) and faiss 1.15 (impl/HNSW.h).
"""

from __future__ import annotations

import os
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import CorruptIndex, DimensionMismatch, InvalidInput, InvalidVector, MissingExtra, StorageError
from vecdb.index.arguments import as_metric
from vecdb.index.base import HnswConfig, Metric, Vectors
from vecdb.index.hnsw import HnswIndex

Bytes = NDArray[np.uint8]
Links = NDArray[np.int32]

_NARROWEST = 2  # the smallest M of a graph of ours; narrower lists get room
_UNIT_SLACK = 1e-3  # "unit" vectors of others may have been through float16

# hnswlib's saveIndex: offset of level 0, room, elements, bytes of an element, offset of label, offset of data (uint64);
# top (int32), entry (uint32); links per node above, on level 0, M (uint64); 1 / ln M (double), ef_construction (uint64)
_HNSWLIB_HEADER = struct.Struct("<6QiI3QdQ")
_COUNT_BYTES = 4  # before each list: its length (uint16), on level 0 then the mark of deletion
_LABEL_BYTES = 8


@dataclass(frozen=True, slots=True)
class Imported:
    """An index and labels (N,) int64: the number by which the other library knew the vector at each position."""

    index: HnswIndex
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A graph in our layout (graph.py), still with its own widths: base (N, W0), upper (U, W), levels (N,), -1 for no link."""

    vectors: Vectors
    base: NDArray[np.int64]
    upper: NDArray[np.int64]
    levels: NDArray[np.int64]
    entry: int
    ef_construction: int
    deleted: NDArray[np.bool_]
    labels: NDArray[np.int64]


def from_hnswlib(
    source: Any,
    *,
    space: str | None = None,
    dimension: int | None = None,
    ef: int = 64,
    threads: int | None = None,
) -> Imported:
    """The graph of an `hnswlib.Index`, or of a file that its `save_index` wrote (a path; hnswlib need not be installed).

    space: "l2", "ip" or "cosine", which a file does not say; an index object does. dimension, if given, is checked. ef: the
    default beam width of searches, which hnswlib does not save. Vectors of space "cosine" come at unit length, as hnswlib
    keeps them. Raises CorruptIndex for a file that is cut short or not hnswlib's, DimensionMismatch and InvalidInput for
    arguments that do not fit it.
    """
    if isinstance(source, (str, os.PathLike)):
        if space is None:
            raise InvalidInput(f"{source} does not say its space; give space='l2', 'ip' or 'cosine', as it was built")
        foreign = _of_file(Path(source))
    else:
        state = _hnswlib_state(source)
        if space not in (None, state["space"]):
            raise InvalidInput(f"space is {space!r}, but the index has {state['space']!r}; leave it out")
        space = state["space"]
        foreign = _of_state(state)
    metric = as_metric(str(space))
    if dimension not in (None, foreign.vectors.shape[1]):
        raise DimensionMismatch(f"dimension is {dimension}, but the index holds vectors of {foreign.vectors.shape[1]}")
    return _adopted(foreign, metric, ef, threads)


def from_faiss(index: Any, *, metric: str | None = None, ef: int = 64, threads: int | None = None) -> Imported:
    """The graph of a faiss `IndexHNSWFlat`, or of an `IndexIDMap` over one, whose ids become the labels.

    metric: None takes the index's own; "cosine" reads it as one of unit vectors, which faiss has no metric for. ef: the
    default beam width of searches. Raises InvalidInput for any other kind of index: compressed vectors are not the vectors.
    """
    faiss = _package("faiss", extra="faiss")
    if not isinstance(index, faiss.Index):
        raise InvalidInput(f"{type(index).__name__} is no faiss index; read a file by faiss.read_index first")
    # What downcast_index returns does not keep alive what it was made from, so `index` must stay bound until the end.
    inner = faiss.downcast_index(index)
    labels = np.arange(inner.ntotal)
    if isinstance(inner, faiss.IndexIDMap):
        labels = faiss.vector_to_array(inner.id_map).astype(np.int64)
        inner = faiss.downcast_index(inner.index)
    if not isinstance(inner, faiss.IndexHNSWFlat):
        raise InvalidInput(
            f"a faiss {type(inner).__name__} cannot be taken over, only an IndexHNSWFlat (or an IndexIDMap over one); "
            "build an index from the original vectors"
        )
    own = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "ip"}.get(inner.metric_type)
    if own is None:
        raise InvalidInput(f"the faiss index has metric number {inner.metric_type}; vecdb knows L2 and inner product")
    if metric not in (None, own, "cosine"):
        raise InvalidInput(f"metric is {metric!r}, but the index has {own!r}; leave it out, or say 'cosine'")
    return _adopted(_of_faiss(faiss, inner, labels), as_metric(metric or own), ef, threads)


def _adopted(foreign: _Foreign, metric: Metric, ef: int, threads: int | None) -> Imported:
    """A sound index with the foreign graph's links, without its deleted elements."""
    _check_vectors(foreign, metric)
    count = len(foreign.vectors)
    M = max(foreign.upper.shape[1], -(-foreign.base.shape[1] // 2), _NARROWEST)
    config = HnswConfig(M=M, ef_construction=max(foreign.ef_construction, M), ef=ef)
    levels, starts = foreign.levels, np.cumsum(foreign.levels) - foreign.levels
    holders = np.repeat(np.arange(count), levels)
    heights = np.arange(len(holders)) - starts[holders] + 1
    top = int(levels[foreign.entry]) if count else -1
    if count and top < levels.max():
        raise CorruptIndex(f"the entry is on level {top}, the highest on {levels.max()}; the index is damaged")
    base = _sound(foreign.base, np.arange(count), np.zeros(count, np.int64), levels, 2 * M)
    upper = _sound(foreign.upper, holders, heights, levels, M)
    index = _opened(foreign.vectors, base, upper, levels.astype(np.uint8), foreign.entry, metric, config)
    index.remove(np.flatnonzero(foreign.deleted), threads=threads)
    index.settle(threads=threads)
    return Imported(index, foreign.labels[index.compact()])


def adopt(
    vectors: Vectors,
    base: Links,
    upper: Links,
    levels: NDArray[np.uint8],
    metric: Metric,
    config: HnswConfig,
    threads: int | None,
) -> HnswIndex:
    """An index with these links, which are sound and as graph.py tells, and with those that let every node be found."""
    index = _opened(vectors, base, upper, levels, int(levels.argmax()) if len(levels) else -1, metric, config)
    index.settle(threads=threads)
    return index


def _opened(
    vectors: Vectors,
    base: Links,
    upper: Links,
    levels: NDArray[np.uint8],
    entry: int,
    metric: Metric,
    config: HnswConfig,
) -> HnswIndex:
    count = len(vectors)
    return HnswIndex.open(
        {
            "kind": "hnsw",
            "dimension": vectors.shape[1],
            "metric": metric,
            "config": asdict(config),
            # Nobody has been searched for yet, so all count as unchecked, and `settle` looks for all.
            "state": {
                "entry": entry,
                "top": int(levels[entry]) if count else -1,
                "drawn": count,
                "unchecked": count,
            },
        },
        {
            "vectors": vectors,
            "base": base,
            "upper": upper,
            "starts": (np.cumsum(levels, dtype=np.int64) - levels).astype(np.int32),
            "levels": levels,
            "live": np.ones(count, np.bool_),
        },
    )


def _check_vectors(foreign: _Foreign, metric: Metric) -> None:
    wrong = np.flatnonzero(~np.isfinite(foreign.vectors).all(axis=1))
    if len(wrong):
        raise InvalidVector(
            f"the vector with label {foreign.labels[wrong[0]]} has numbers that are not finite; remove it"
        )
    if metric == "cosine":
        lengths = np.sqrt(np.einsum("nd,nd->n", foreign.vectors, foreign.vectors))
        wrong = np.flatnonzero((np.abs(lengths - 1) > _UNIT_SLACK) & (lengths > 0))
        if len(wrong):
            raise InvalidVector(
                f"the vector with label {foreign.labels[wrong[0]]} has length {lengths[wrong[0]]:.4g}, not 1; "
                "was the index built for cosine? Its links follow another metric, so that no scaling helps"
            )


def _sound(
    rows: NDArray[np.int64],
    holders: NDArray[np.int64],
    heights: NDArray[np.int64],
    levels: NDArray[np.int64],
    width: int,
) -> Links:
    """(n, width) int32: the links rows (n, W) of holders (n,) on levels heights (n,), each once, to others of that level."""
    count = len(levels)
    if rows.max(initial=-1) >= count:
        raise CorruptIndex(f"a node links to number {rows.max()}, but there are {count}; the index is damaged")
    is_link = (rows >= 0) & (rows != holders[:, None])
    is_link &= levels[rows] >= heights[:, None]
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    repeats = np.zeros(rows.shape, np.bool_)
    np.put_along_axis(repeats, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    is_link &= ~repeats
    packed = np.argsort(~is_link, axis=1, kind="stable")  # links to the front, in the order they had
    links = np.full((len(rows), width), -1, np.int32)
    links[:, : rows.shape[1]] = np.where(
        np.take_along_axis(is_link, packed, axis=1), np.take_along_axis(rows, packed, axis=1), -1
    )
    return links


def _hnswlib_state(source: Any) -> dict[str, Any]:
    """What pickle would keep of an hnswlib.Index."""
    hnswlib = _package("hnswlib", extra="hnswlib")
    if not isinstance(source, hnswlib.Index):
        raise InvalidInput(f"{type(source).__name__} is no hnswlib.Index, nor a path to a saved one")
    state: dict[str, Any] = source.__getstate__()[0]
    if not state["index_inited"]:
        raise InvalidInput("the hnswlib.Index has not been initialised; call its init_index or load_index first")
    return state


def _of_state(state: dict[str, Any]) -> _Foreign:
    count = int(state["cur_element_count"])
    return _of_blocks(
        state["data_level0"].view(np.uint8).reshape(count, int(state["size_data_per_element"])),
        state["link_lists"].view(np.uint8).reshape(-1, int(state["size_links_per_element"])),
        state["element_levels"][:count].astype(np.int64),
        offset_data=int(state["offset_data"]),
        offset_label=int(state["label_offset"]),
        entry=int(state["enterpoint_node"]) if count else -1,
        ef_construction=int(state["ef_construction"]),
    )


def _of_file(path: Path) -> _Foreign:
    try:
        size = path.stat().st_size
        content = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error}; give a file that hnswlib's save_index wrote") from error
    if size < _HNSWLIB_HEADER.size:
        raise CorruptIndex(f"{path} has {size} bytes, fewer than the header of an hnswlib index; it was cut short")
    head = _HNSWLIB_HEADER.unpack(content[: _HNSWLIB_HEADER.size].tobytes())
    (
        offset_level0,
        room,
        count,
        element_bytes,
        offset_label,
        offset_data,
        _,
        entry,
        upper_width,
        base_width,
        M,
        _,
        ef,
    ) = head
    number_bytes = offset_label - offset_data
    is_ours = (
        offset_level0 == 0
        and upper_width == M
        and count <= room
        and offset_data == _COUNT_BYTES + 4 * base_width
        and element_bytes == offset_label + _LABEL_BYTES
        and number_bytes > 0
        and number_bytes % 4 == 0
        and (entry < count or count == 0)
    )
    if not is_ours:
        raise CorruptIndex(f"{path} is not an hnswlib index of float32 vectors; give a file that save_index wrote")
    end = _HNSWLIB_HEADER.size + count * element_bytes
    if end > size:
        raise CorruptIndex(f"{path} has {size:,} bytes; its {count:,} elements alone need {end:,}; it was cut short")
    list_bytes = _COUNT_BYTES + 4 * upper_width
    levels, lists = _upper_lists(path, content, end, count, list_bytes)
    return _of_blocks(
        content[_HNSWLIB_HEADER.size : end].reshape(count, element_bytes),
        lists,
        levels,
        offset_data=offset_data,
        offset_label=offset_label,
        entry=entry if count else -1,
        ef_construction=ef,
    )


def _upper_lists(
    path: Path, content: Bytes, start: int, count: int, list_bytes: int
) -> tuple[NDArray[np.int64], Bytes]:
    """Levels (N,) and the lists above level 0 (U, list_bytes): for each element the bytes of its lists (uint32), then they."""
    levels = np.zeros(count, np.int64)
    parts = [np.empty(0, np.uint8)]
    at = start
    for element in range(count):
        length = int.from_bytes(content[at : at + 4].tobytes(), "little")
        stop = at + 4 + length
        if stop > len(content) or length % list_bytes:
            raise CorruptIndex(f"{path} ends, or goes wrong, in the links of element {element:,} of {count:,}")
        if length:
            parts.append(content[at + 4 : stop])
            levels[element] = length // list_bytes
        at = stop
    if at != len(content):
        raise CorruptIndex(f"{path} has {len(content) - at:,} bytes behind its end; it is no hnswlib index, or damaged")
    return levels, np.concatenate(parts).reshape(-1, list_bytes)


def _of_blocks(
    elements: Bytes,
    lists: Bytes,
    levels: NDArray[np.int64],
    *,
    offset_data: int,
    offset_label: int,
    entry: int,
    ef_construction: int,
) -> _Foreign:
    """From hnswlib's memory: elements (N, bytes) have links, data and label, lists (U, bytes) the links of the levels above."""
    return _Foreign(
        vectors=_column(elements, offset_data, offset_label, "<f4").astype(np.float32, copy=False),
        base=_hnswlib_links(elements[:, :offset_data]),
        upper=_hnswlib_links(lists),
        levels=levels,
        entry=entry,
        ef_construction=ef_construction,
        deleted=(elements[:, 2] & 1).astype(np.bool_),
        labels=_column(elements, offset_label, offset_label + _LABEL_BYTES, "<i8")[:, 0].astype(np.int64),
    )


def _hnswlib_links(lists: Bytes) -> NDArray[np.int64]:
    """(n, width) int64, -1 behind the end, from lists (n, 4 + 4 * width) of bytes."""
    lengths = _column(lists, 0, 2, "<u2")
    links = _column(lists, _COUNT_BYTES, lists.shape[1], "<u4").astype(np.int64)
    if lengths.max(initial=0) > links.shape[1]:
        raise CorruptIndex(f"a list has {lengths.max()} links and room for {links.shape[1]}; the index is damaged")
    links[np.arange(links.shape[1]) >= lengths] = -1
    return links


def _column(block: Bytes, start: int, stop: int, dtype: str) -> NDArray[Any]:
    """block[:, start:stop] read as numbers of a dtype: a copy (n, numbers)."""
    return np.ascontiguousarray(block[:, start:stop]).view(dtype)


def _of_faiss(faiss: Any, index: Any, labels: NDArray[np.int64]) -> _Foreign:
    graph, count = index.hnsw, int(index.ntotal)
    levels = faiss.vector_to_array(graph.levels).astype(np.int64) - 1  # faiss counts the base level too
    links = faiss.vector_to_array(graph.neighbors).astype(np.int64)
    offsets = faiss.vector_to_array(graph.offsets).astype(np.int64)
    borders = faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
    widths = np.diff(borders)
    if len(levels) != count or len(offsets) != count + 1 or int(offsets[-1]) != len(links) or len(labels) != count:
        raise CorruptIndex(f"the faiss index says {count:,} vectors and links {len(levels):,} nodes; it is damaged")
    top = int(levels.max(initial=0))
    starts = np.cumsum(levels) - levels
    upper = np.full((int(levels.sum()), int(widths[1 : top + 1].max(initial=0))), -1, np.int64)
    for level in range(1, top + 1):
        nodes = np.flatnonzero(levels >= level)
        width = int(widths[level])
        upper[starts[nodes] + level - 1, :width] = links[(offsets[nodes] + borders[level])[:, None] + np.arange(width)]
    return _Foreign(
        vectors=np.ascontiguousarray(index.storage.reconstruct_n(0, count), np.float32).reshape(count, index.d),
        base=links[offsets[:-1, None] + np.arange(int(widths[0]))],
        upper=upper,
        levels=levels,
        entry=int(graph.entry_point),
        ef_construction=int(graph.efConstruction),
        deleted=np.zeros(count, np.bool_),
        labels=labels,
    )


def _package(name: str, *, extra: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise MissingExtra.of(name, extra=extra, what=f"taking over an index of {name}") from error
