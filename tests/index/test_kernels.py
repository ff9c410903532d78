"""Compiled kernels against their slow twins. Vectors hold small integers, so that float32 sums are exact and ties are ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_index import nearest, search_layer, select_neighbours
from numpy.typing import NDArray

from vecdb.index import kernels
from vecdb.index.base import METRICS, HnswConfig
from vecdb.index.graph import HnswGraph, draw_levels

Floats = NDArray[np.float32]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    kernels.warm()


def whole_vectors(count: int, dimension: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).integers(-3, 4, (count, dimension)).astype(np.float32)


def inner(vectors: Floats, a: int, query: Floats, metric: str) -> float:
    """The distance that kernels use inside: exact for whole numbers."""
    return float(((vectors[a] - query) ** 2).sum() if metric == "l2" else -(vectors[a] * query).sum())


def linked_graph(count: int, dimension: int, metric: str) -> HnswGraph:
    """A graph on one level whose links are drawn at random, so that a walk has something to get wrong."""
    config = HnswConfig(M=4, ef_construction=8)
    graph = HnswGraph(dimension, metric, config)
    graph.append(whole_vectors(count, dimension))
    graph.levels[:] = 0
    rng = np.random.default_rng(count)
    for node in range(count):
        links = rng.permutation(count)[: rng.integers(1, 9)]
        links = links[links != node]
        graph.base[node, : len(links)] = links
    graph.entry, graph.top = 0, 0
    graph.changed()
    return graph


def links_of(graph: HnswGraph) -> dict[int, list[int]]:
    return {node: [int(link) for link in row if link >= 0] for node, row in enumerate(graph.base[: graph.size])}


@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False), st.integers(0, 2**31 - 1)), max_size=30))
def test_keys_sort_by_distance_then_node(entries: list[tuple[float, int]]) -> None:
    keys = [int(kernels.key_of.py_func(np.float32(away), node)) for away, node in entries]
    by_key = [entry for _, entry in sorted(zip(keys, entries), key=lambda pair: pair[0])]
    assert by_key == sorted(entries)
    for key, (away, node) in zip(keys, entries):
        assert kernels.node_of.py_func(key) == node
        assert kernels.distance_of.py_func(key) == np.float32(away)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", [1, 3, 123, 384])
@pytest.mark.parametrize("ef", [1, 5, 40])
def test_search_walks_as_algorithm_2_does(metric: str, dimension: int, ef: int) -> None:
    graph = linked_graph(50, dimension, metric)
    links = links_of(graph)
    queries = whole_vectors(8, dimension, seed=9)
    positions = np.empty((8, ef), np.int64)
    distances = np.empty((8, ef), np.float32)
    work = np.empty(8, np.int64)
    marks, clock = np.zeros(50, np.uint8), np.array([253])  # two queries before the marks are cleared
    no_mask = np.zeros(0, np.bool_)
    kernels.search(graph.view(), queries, 0, 8, ef, ef, no_mask, False, marks, clock, positions, distances, work)
    for i, query in enumerate(queries):
        found = search_layer([0], ef, links, lambda node, query=query: inner(graph.vectors, node, query, metric))
        want = nearest(graph.vectors, query, ef, metric, [node for _, node in found])
        assert positions[i, : len(want)].tolist() == [node for _, node in want]
        np.testing.assert_allclose(distances[i, : len(want)], [away for away, _ in want])
        assert (positions[i, len(want) :] == -1).all()


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_filtered_walk_meets_allowed_nodes_over_two_links_at_most(metric: str, share: float) -> None:
    """A wide beam expands all it meets, so the walk must find exactly what the two-link graph connects to its starts."""
    graph = linked_graph(40, 5, metric)
    links = links_of(graph)
    allowed = np.random.default_rng(5).random(40) < share
    allowed[7] = True
    beyond = {
        node: {a for a in links[node] if allowed[a]}
        | {b for a in links[node] if not allowed[a] for b in links[a] if allowed[b]}
        for node in links
    }
    queries = whole_vectors(1, 5, seed=9)
    positions, distances, work = np.empty((1, 40), np.int64), np.empty((1, 40), np.float32), np.empty(1, np.int64)
    marks, clock = np.zeros(40, np.uint8), np.zeros(1, np.int64)
    seeds = np.array([7], np.int32)
    kernels.search_allowed(
        graph.view(), queries, 0, 1, 40, 40, allowed, seeds, marks, clock, positions, distances, work
    )
    found = positions[0][positions[0] >= 0].tolist()
    reachable, waiting = {7} | beyond[0], [7, *beyond[0]]
    while waiting:
        for node in beyond[waiting.pop()] - reachable:
            reachable.add(node)
            waiting.append(node)
    assert set(found) <= reachable
    assert allowed[found].all()
    assert len(found) == len(set(found)) == work[0] - 1  # one more distance: to the entry
    # Steps end at 2M nodes for one expansion, and a node stepped over once is not looked behind again.
    assert len(found) >= 0.9 * len(reachable)


@pytest.mark.parametrize("metric", METRICS)
def test_scan_finds_the_nearest_of_the_rows(metric: str) -> None:
    graph = linked_graph(50, 3, metric)
    rows = np.arange(0, 50, 3)
    queries = whole_vectors(4, 3, seed=9)
    positions, distances, work = np.empty((4, 20), np.int64), np.empty((4, 20), np.float32), np.empty(4, np.int64)
    kernels.scan(graph.view(), queries, 0, 4, 20, rows, positions, distances, work)
    for i, query in enumerate(queries):
        want = nearest(graph.vectors, query, 20, metric, rows.tolist())
        assert positions[i, : len(want)].tolist() == [node for _, node in want]
    assert (positions[:, len(rows) :] == -1).all()


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("dimension", [1, 3, 123])
def test_new_nodes_choose_among_the_graph_and_their_peers(metric: str, dimension: int) -> None:
    graph = linked_graph(50, dimension, metric)
    links = links_of(graph)
    vectors = graph.vectors[:50]
    graph.append(whole_vectors(9, dimension, seed=4))
    graph.levels[:] = 0
    batch = np.arange(50, 59, dtype=np.int32)
    marks, clock = np.zeros(59, np.uint8), np.zeros(1, np.int64)
    kernels.choose_links(graph.view(), graph.base, graph.upper, batch, 0, 9, 8, marks, clock)
    for node in range(50, 59):
        query = graph.vectors[node]
        found = search_layer([0], 8, links, lambda other, query=query: inner(vectors, other, query, metric))
        peers = [(inner(graph.vectors, peer, query, metric), peer) for peer in range(50, 59) if peer != node]
        want = select_neighbours(
            sorted([*found, *peers])[:8],
            4,
            lambda a, b: inner(graph.vectors, a, graph.vectors[b], metric),
        )
        assert [int(link) for link in graph.base[node] if link >= 0] == want


def test_reverse_links_are_chosen_by_the_same_rule_and_keep_the_tree() -> None:
    graph = linked_graph(50, 3, "l2")
    before = links_of(graph)
    sources = np.array([40, 41, 42, 43, 44, 45, 46, 47, 48, 49], np.int32)
    targets, bounds = np.array([3, 8], np.int32), np.array([0, 1, 10])
    parents = np.full(50, -1, np.int32)
    pinned = before[8][0]
    parents[pinned] = 8
    lost = np.zeros(50, np.uint8)
    kernels.merge_links(graph.view(), graph.base, graph.upper, 0, targets, bounds, sources, 0, 2, parents, lost)
    after = links_of(graph)
    for target, incoming in ((3, [40]), (8, list(range(41, 50)))):
        candidates = [*before[target], *(node for node in incoming if node not in before[target])]
        if len(candidates) <= 8:
            assert after[target] == candidates
            continue
        kept = [node for node in candidates if parents[node] == target]
        rest = [
            (inner(graph.vectors, node, graph.vectors[target], "l2"), node) for node in candidates if node not in kept
        ]
        between = lambda a, b: inner(graph.vectors, a, graph.vectors[b], "l2")  # noqa: E731
        assert after[target] == select_neighbours(rest, 8, between, kept)
        assert pinned in after[target]
        assert set(np.flatnonzero(lost)) == set(before[target]) - set(after[target])
    unchanged = set(range(50)) - {3, 8}
    assert all(after[node] == before[node] for node in unchanged)


def test_levels_thin_out_by_m_and_do_not_depend_on_batches() -> None:
    config = HnswConfig(M=16, seed=5)
    levels = draw_levels(config, 0, 200_000)
    assert (levels >= 1).mean() == pytest.approx(1 / 16, rel=0.05)
    assert (levels >= 2).mean() == pytest.approx(1 / 256, rel=0.15)
    pieces = [draw_levels(config, start, 50_000) for start in range(0, 200_000, 50_000)]
    assert np.array_equal(levels, np.concatenate(pieces))
    assert not np.array_equal(levels, draw_levels(HnswConfig(M=16, seed=6), 0, 200_000))


def test_every_kernel_has_one_signature_that_takes_memory_maps_and_arrays() -> None:
    assert all(len(function.signatures) == 1 for function in kernels.SIGNATURES)
