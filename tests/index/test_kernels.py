"""Compiled kernels against their slow twins, on small graphs whose links are drawn at random: there is much to get wrong.

Dimensions lie below and above the width of a vector register, of a cache line, and of what a line holds (104 and 232).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_index import Found, SlowGraph, as_line, coordinates, distance, nearest, quantised, reached_from, room_for
from numpy.typing import NDArray

from vecdb.index import exact_search, kernels
from vecdb.index.base import METRICS, HnswConfig, Metric
from vecdb.index.graph import HnswGraph
from vecdb.index.kernels import FILTERED, PLAIN
from vecdb.index.levels import draw_levels

Floats = NDArray[np.float32]
COUNT = 80
M = 4
DIMENSIONS = [1, 3, 64, 123, 384]
NO_MASK, NO_WEIGHTS = np.empty(0, np.bool_), np.empty(0, np.float32)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    kernels.warm()


def some_vectors(count: int, dimension: int, metric: str, seed: int = 0) -> Floats:
    rng = np.random.default_rng([seed, dimension])
    vectors = rng.standard_normal((count, dimension)).astype(np.float32)
    if metric == "cosine":
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
    return vectors * rng.uniform(0.5, 2.0, (count, 1)).astype(np.float32)


def linked_graph(dimension: int, metric: Metric, *, by_lines: bool = True, count: int = COUNT) -> HnswGraph:
    """Links are drawn at random, on every level."""
    graph = HnswGraph(dimension, metric, HnswConfig(M=M, ef_construction=8))
    graph.append(some_vectors(count, dimension, metric))
    graph.coding = graph.coding._replace(by_lines=by_lines)
    rng = np.random.default_rng(count)
    for level in range(int(graph.levels[:count].max()) + 1):
        there = np.flatnonzero(graph.levels[:count] >= level)
        rows, width = (graph.base, 2 * M) if level == 0 else (graph.upper, M)
        for node in there:
            links = rng.permutation(there[there != node])[: rng.integers(1, width + 1)]
            rows[node if level == 0 else graph.starts[node] + level - 1, : len(links)] = links
    graph.choose_entry()
    return graph


def links_of(graph: HnswGraph, level: int = 0) -> dict[int, list[int]]:
    slow = SlowGraph(graph.view())
    return {int(node): slow.links(int(node), level) for node in np.flatnonzero(graph.levels[: graph.size] >= level)}


def scratch(count: int, clock: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.zeros(count, np.uint8), np.array([clock])


@dataclass
class Answers:
    positions: NDArray[np.int64]
    distances: Floats
    work: NDArray[np.int64]
    scores: Floats


def search(
    graph: HnswGraph,
    queries: Floats,
    k: int,
    ef: int,
    walk: int = PLAIN,
    allowed: NDArray[np.bool_] = NO_MASK,
    weights: Floats = NO_WEIGHTS,
    threshold: float = 0.0,
) -> Answers:
    count = len(queries)
    out = Answers(
        np.empty((count, k), np.int64),
        np.empty((count, k), np.float32),
        np.empty(count, np.int64),
        np.empty(count, np.float32),
    )
    filters = walk, allowed, weights, threshold
    marks = scratch(graph.size, 253)  # two queries before the marks are cleared
    answer = out.positions, out.distances, out.work, out.scores
    kernels.search(graph.framed()[1], queries, 0, count, k, ef, *filters, *marks, *answer)
    return out


def trace(
    graph: HnswGraph, queries: Floats, truth: NDArray[np.int32], ef: int, walk: int = PLAIN, **how: Any
) -> tuple[Floats, NDArray[np.int64]]:
    count, k = truth.shape
    steps = np.zeros((count, how.get("room", 400), kernels.FEATURES + 2), np.float32)
    lengths = np.zeros(count, np.int64)
    filters = walk, how.get("allowed", NO_MASK)
    is_true = np.zeros(graph.size, np.uint8)
    marks = scratch(graph.size)
    kernels.trace(graph.view(), queries, 0, count, k, ef, *filters, truth, is_true, *marks, steps, lengths)
    assert not is_true.any()
    return steps, lengths


# Numbers


@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False), st.integers(0, 2**31 - 1)), max_size=30))
def test_keys_sort_by_distance_then_node(entries: list[tuple[float, int]]) -> None:
    keys = [int(kernels.key_of.py_func(np.float32(away), node)) for away, node in entries]
    by_key = [entry for _, entry in sorted(zip(keys, entries), key=lambda pair: pair[0])]
    assert by_key == sorted(entries)
    for key, (away, node) in zip(keys, entries):
        assert kernels.node_of.py_func(key) == node
        assert kernels.distance_of.py_func(key) == np.float32(away)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_codes_and_lines_are_written_as_their_twins_say(metric: Metric, dimension: int) -> None:
    graph = linked_graph(dimension, metric)
    slow, coding = SlowGraph(graph.view()), graph.coding
    for node in range(COUNT):
        code, scale = quantised(graph.vectors[node], coding)
        assert np.array_equal(slow.codes[node], code)
        assert slow.scale[node] == scale
        assert (graph.codes[node, dimension:] == kernels.MIDDLE).all()
        assert np.array_equal(slow.numbers[node], as_line(coordinates(code, scale, coding)))
        length = float(code @ code) * float(scale) ** 2
        assert slow.norm[node] == (0 if metric == "ip" else pytest.approx(length, rel=1e-6))


def test_a_zero_vector_has_a_code_of_zeros() -> None:
    graph = HnswGraph(5, "ip", HnswConfig(M=M, ef_construction=8))
    graph.append(np.zeros((3, 5), np.float32))
    assert (graph.codes[:3] == kernels.MIDDLE).all()
    assert (SlowGraph(graph.view()).scale == 0).all()


@pytest.mark.parametrize("dimension", [3, 384])
def test_agreement_counts_who_is_near_by_codes_and_by_lines(dimension: int) -> None:
    graph = linked_graph(dimension, "l2")
    slow = SlowGraph(graph.view())
    probes, others = np.arange(0, COUNT, 7, dtype=np.int32), np.arange(5, COUNT, dtype=np.int32)
    shares = np.empty(len(probes), np.float32)
    kernels.agreement(graph.view(), probes, others, shares)
    for share, node in zip(shares, probes):
        probe = slow.probe_of(int(node))
        rest = [int(other) for other in others if other != node]
        near = {other for _, other in sorted((slow.measure(probe, other), other) for other in rest)[:10]}
        likely = {other for _, other in sorted((slow.guess(probe, other), other) for other in rest)[:30]}
        assert share == pytest.approx(len(near & likely) / 10)


@pytest.mark.parametrize(("dimension", "size"), [(1, 1), (5, 3), (40, 40)])
def test_subspaces_are_the_dominant_eigenvectors(dimension: int, size: int) -> None:
    rng = np.random.default_rng(dimension)
    turn, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    matrix = (turn * 0.6 ** np.arange(dimension)) @ turn.T
    basis = rng.standard_normal((dimension, size))
    kernels.iterate_subspace(matrix, basis, 60)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size), atol=1e-9)
    if size < dimension:
        np.testing.assert_allclose(basis @ basis.T, turn[:, :size] @ turn[:, :size].T, atol=1e-9)


def test_an_orthonormal_basis_has_zeros_for_what_adds_no_direction() -> None:
    basis = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    kernels.iterate_subspace(np.zeros((0, 0)), basis, 0)
    assert basis.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


# Walks


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("ef", [1, 5, 40])
@pytest.mark.parametrize("by_lines", [True, False])
def test_search_walks_as_its_twin_does(metric: Metric, dimension: int, ef: int, by_lines: bool) -> None:
    graph = linked_graph(dimension, metric, by_lines=by_lines)
    slow = SlowGraph(graph.view())
    queries = some_vectors(6, dimension, metric, seed=9)
    for k in {1, ef}:
        got = search(graph, queries, k, ef)
        for i, query in enumerate(queries):
            want, work = slow.search(query, k, ef, metric)
            assert got.positions[i, : len(want)].tolist() == [node for _, node in want]
            np.testing.assert_allclose(got.distances[i, : len(want)], [away for away, _ in want], rtol=1e-6, atol=1e-7)
            assert (got.positions[i, len(want) :] == -1).all()
            assert np.isinf(got.distances[i, len(want) :]).all()
            assert got.work[i] == work


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", [3, 123, 384])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_filtered_walks_are_as_their_twins(metric: Metric, dimension: int, share: float) -> None:
    graph = linked_graph(dimension, metric)
    slow = SlowGraph(graph.view())
    allowed = np.random.default_rng(5).random(COUNT) < share
    allowed[7] = True
    queries = some_vectors(6, dimension, metric, seed=9)
    for k, ef in ((1, 1), (3, 12), (20, 40)):
        got = search(graph, queries, k, ef, FILTERED, allowed)
        for i, query in enumerate(queries):
            want, work = slow.search(query, k, ef, metric, kind=FILTERED, allowed=allowed)
            assert got.positions[i, : len(want)].tolist() == [node for _, node in want]
            assert (got.positions[i, len(want) :] == -1).all()
            assert got.work[i] == work


@pytest.mark.parametrize("walk", [PLAIN, FILTERED])
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_traces_tell_of_every_step(walk: int, k: int, metric: Metric) -> None:
    graph = linked_graph(20, metric)
    slow = SlowGraph(graph.view())
    allowed = np.random.default_rng(5).random(COUNT) < 0.4
    queries = some_vectors(4, 20, metric, seed=9)
    truth = np.full((4, k), -1, np.int32)
    for i, query in enumerate(queries):
        true = nearest(graph.vectors[:COUNT], query, k, metric, range(COUNT))
        truth[i] = [node for _, node in true]
    steps, lengths = trace(graph, queries, truth, 30, walk, allowed=allowed)
    for i, query in enumerate(queries):
        how: dict[str, Any] = {} if walk == PLAIN else {"allowed": allowed, "kind": walk}
        want: Found = slow.walk_base(slow.probe(query), 30, room=room_for(k, 30), k=k, **how)
        assert lengths[i] == len(want.steps)
        got = steps[i, : lengths[i]]
        np.testing.assert_allclose(got[:, : kernels.FEATURES], np.array(want.steps)[:, :-1], rtol=1e-4, atol=1e-4)
        assert got[:, -1].tolist() == [step[-1] for step in want.steps]
        reported = search(graph, queries[i : i + 1], k, 30, walk, allowed).positions[0]
        assert got[-1, -2] >= len(set(reported.tolist()) & set(truth[i].tolist()))


def test_a_trace_ends_where_its_room_does() -> None:
    graph = linked_graph(20, "l2")
    queries = some_vectors(2, 20, "l2", seed=9)
    truth = np.array([[0], [1]], np.int32)
    whole, _ = trace(graph, queries, truth, 30)
    short, lengths = trace(graph, queries, truth, 30, room=5)
    assert lengths.tolist() == [5, 5]
    assert np.array_equal(short, whole[:, :5])


@pytest.mark.parametrize("k", [1, 5])
def test_a_walk_ends_at_the_step_where_its_score_reaches_the_threshold(k: int) -> None:
    graph = linked_graph(20, "l2")
    queries = some_vectors(8, 20, "l2", seed=9)
    steps, lengths = trace(graph, queries, np.zeros((8, k), np.int32), 30)
    weights = np.array([0.1, 0.5, 0.01, 0.3, 0.2, 0.05, 0.02, -0.4], np.float32)
    for threshold in (0.7, 1.5):
        got = search(graph, queries, k, 30, weights=weights, threshold=threshold)
        for i in range(8):
            scores = steps[i, : lengths[i], : kernels.FEATURES] @ weights
            assert np.abs(scores - threshold).min() > 1e-5  # no step is in doubt
            stop = int(np.argmax(scores >= threshold)) if (scores >= threshold).any() else len(scores) - 1
            assert got.scores[i] == pytest.approx(scores[stop], rel=1e-5)
            if stop < len(scores) - 1:
                descent = got.work[i] - steps[i, stop, -1]
                assert 1 <= descent < COUNT
                assert descent == search(graph, queries[i : i + 1], k, 30).work[0] - steps[i, lengths[i] - 1, -1]
    unreached = search(graph, queries, k, 30, weights=weights, threshold=1e9)
    assert np.array_equal(unreached.positions, search(graph, queries, k, 30).positions)


def test_what_was_never_judged_has_an_infinite_score() -> None:
    """A walk that meets fewer than k nodes has no k-th nearest to judge by."""
    graph = linked_graph(20, "l2", count=5)
    got = search(graph, some_vectors(3, 20, "l2", seed=9), 9, 9, weights=np.ones(8, np.float32), threshold=-1e9)
    assert np.isinf(got.scores).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_scan_finds_the_nearest_of_the_rows(metric: Metric, dimension: int) -> None:
    graph = linked_graph(dimension, metric)
    rows = np.arange(0, COUNT, 3)
    queries = some_vectors(4, dimension, metric, seed=9)
    for k in (1, 20, 40):
        positions, distances, work = np.empty((4, k), np.int64), np.empty((4, k), np.float32), np.empty(4, np.int64)
        kernels.scan(graph.view(), queries, 0, 4, k, rows, positions, distances, work)
        for i, query in enumerate(queries):
            want = nearest(graph.vectors, query, k, metric, rows.tolist())
            assert positions[i, : len(want)].tolist() == [node for _, node in want]
            np.testing.assert_allclose(distances[i, : len(want)], [away for away, _ in want], rtol=1e-6, atol=1e-7)
        assert (positions[:, len(rows) :] == -1).all()
        assert (work == len(rows)).all()


def far_from_the_origin(vectors: Floats, rng: np.random.Generator) -> Floats:
    return vectors + np.float32(1000)


def of_all_lengths(vectors: Floats, rng: np.random.Generator) -> Floats:
    return vectors * np.exp(rng.normal(0, 3, (len(vectors), 1))).astype(np.float32)


def with_one_far_longer(vectors: Floats, rng: np.random.Generator) -> Floats:
    return np.concatenate([vectors[:1] * np.float32(10_000), vectors[1:]])


def often_equal(vectors: Floats, rng: np.random.Generator) -> Floats:
    return np.rint(vectors)


def nearly_equal(vectors: Floats, rng: np.random.Generator) -> Floats:
    return np.asarray(vectors[np.arange(len(vectors)) % 4] + 1e-4 * vectors, np.float32)


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("dimension", [1, 5, 100])
@pytest.mark.parametrize(
    "change", [far_from_the_origin, of_all_lengths, with_one_far_longer, often_equal, nearly_equal]
)
def test_scan_is_exact_however_rough_the_codes_are(metric: Metric, dimension: int, change: Any) -> None:
    rng = np.random.default_rng(dimension)
    vectors = np.ascontiguousarray(change(some_vectors(300, dimension, metric), rng), np.float32)
    graph = HnswGraph(dimension, metric, HnswConfig(M=M, ef_construction=8))
    graph.append(vectors)
    rows = np.arange(0, 300, 2)
    allowed = np.zeros(300, np.bool_)
    allowed[rows] = True
    queries = np.concatenate([vectors[:4], some_vectors(2, dimension, metric, seed=9)])
    for k in (1, 7):
        positions, distances, work = np.empty((6, k), np.int64), np.empty((6, k), np.float32), np.empty(6, np.int64)
        kernels.scan(graph.view(), queries, 0, 6, k, rows, positions, distances, work)
        true = exact_search(vectors, queries, k, metric, allowed)
        np.testing.assert_allclose(distances, true.distances, rtol=1e-6, atol=1e-30)
        same = distances == true.distances
        assert np.array_equal(positions[same.all(axis=1)], true.positions[same.all(axis=1)])


@pytest.mark.parametrize("metric", METRICS)
def test_distances_that_are_reported_are_those_of_full_precision(metric: Metric) -> None:
    graph = linked_graph(123, metric)
    query = some_vectors(1, 123, metric, seed=9)
    got = search(graph, query, 10, 40)
    want = [np.float32(distance(graph.vectors[node], query[0], metric)) for node in got.positions[0]]
    np.testing.assert_allclose(got.distances[0], want, rtol=1e-6, atol=1e-7)
    assert (np.diff(got.distances[0]) >= 0).all()


# Links


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("by_lines", [True, False])
def test_new_nodes_choose_among_the_graph_and_their_peers(metric: Metric, dimension: int, by_lines: bool) -> None:
    graph = linked_graph(dimension, metric, by_lines=by_lines)
    graph.append(some_vectors(9, dimension, metric, seed=4))
    graph.coding = graph.coding._replace(by_lines=by_lines)
    graph.changed()
    batch = np.arange(COUNT, COUNT + 9, dtype=np.int32)
    slow = SlowGraph(graph.view())
    peers = {int(node): [int(peer) for peer in batch if peer != node] for node in batch}
    want = {node: slow.choose(node, peers[node], 8) for node in peers}
    kernels.choose_links(graph.view(), graph.base, graph.upper, batch, 0, 9, 8, *scratch(COUNT + 9))
    for node, levels in want.items():
        assert [slow.links(node, level) for level in range(len(levels) - 1, -1, -1)] == levels


def test_the_first_nodes_choose_among_themselves() -> None:
    graph = HnswGraph(3, "l2", HnswConfig(M=M, ef_construction=8))
    batch = graph.append(some_vectors(40, 3, "l2"))
    slow = SlowGraph(graph.view())
    kernels.choose_links(graph.view(), graph.base, graph.upper, batch, 0, 40, 8, *scratch(40))
    for node in range(40):
        levels = slow.choose(node, [peer for peer in range(40) if peer != node], 8)
        assert [slow.links(node, level) for level in range(len(levels) - 1, -1, -1)] == levels
    assert (graph.levels[:40] > 0).any()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", [1, 3, 123, 384])
def test_reverse_links_are_chosen_by_the_same_rule_and_keep_the_tree(metric: Metric, dimension: int) -> None:
    graph = linked_graph(dimension, metric)
    full = np.flatnonzero(graph.base[:, -1] >= 0)
    free = int(np.flatnonzero((graph.base[:COUNT, 0] >= 0) & (graph.base[:COUNT, -2] < 0))[0])
    targets = np.array([free, *full[:3]], np.int32)
    # One more, a few more, and more than are looked at; what is linked already does not count twice.
    others = {int(target): [node for node in range(COUNT) if node != target] for target in targets}
    incoming = [others[int(target)][::-1][:count] for target, count in zip(targets, (1, 1, 12, 60))]
    bounds = np.append(0, np.cumsum([len(nodes) for nodes in incoming])).astype(np.int64)
    sources = np.array([node for nodes in incoming for node in nodes], np.int32)
    before = links_of(graph)
    parents = np.full(COUNT, -1, np.int32)
    pinned = {int(target): before[int(target)][1:3] for target in targets[1:]}
    for target, nodes in pinned.items():
        for node in nodes:
            if parents[node] < 0:
                parents[node] = target
    slow = SlowGraph(graph.view())
    want = {}
    for target, nodes in zip(targets, incoming):
        want[int(target)] = slow.merge(int(target), 0, nodes, np.flatnonzero(parents == target).tolist())
    lost = np.zeros(COUNT, np.uint8)
    kernels.merge_links(graph.view(), graph.base, graph.upper, 0, targets, bounds, sources, 1, 4, parents, lost)
    after = links_of(graph)
    assert after[free] == before[free]  # not in the range that was asked for
    kernels.merge_links(graph.view(), graph.base, graph.upper, 0, targets, bounds, sources, 0, 1, parents, lost)
    after = links_of(graph)
    for target, nodes in want.items():
        assert after[target] == nodes
        assert set(np.flatnonzero(parents == target)) <= set(nodes)
    gone = {node for target in want for node in set(before[target]) - set(after[target])}
    assert set(np.flatnonzero(lost).tolist()) == gone
    assert all(after[node] == before[node] for node in set(range(COUNT)) - set(want))


def test_reverse_links_above_the_base_level_know_no_tree() -> None:
    graph = linked_graph(3, "l2")
    tall = np.flatnonzero(graph.levels[:COUNT] >= 1)
    full = [int(node) for node in tall if graph.upper[graph.starts[node], -1] >= 0]
    target = full[0]
    sources = np.array([node for node in tall if node != target], np.int32)
    slow = SlowGraph(graph.view())
    before, want = slow.links(target, 1), slow.merge(target, 1, sources.tolist(), [])
    lost, parents = np.zeros(COUNT, np.uint8), np.full(COUNT, target, np.int32)
    bounds = np.array([0, len(sources)])
    targets = np.array([target], np.int32)
    kernels.merge_links(graph.view(), graph.base, graph.upper, 1, targets, bounds, sources, 0, 1, parents, lost)
    assert slow.links(target, 1) == want != before
    assert set(np.flatnonzero(lost).tolist()) == set(before) - set(want)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("fill", [False, True])
def test_those_who_lose_links_choose_among_what_the_dead_led_to(
    metric: Metric, level: int, share: float, fill: bool
) -> None:
    graph = linked_graph(20, metric)
    dead = np.random.default_rng(3).random(COUNT) < share
    rows = np.flatnonzero(~dead & (graph.levels[:COUNT] >= level)).astype(np.int32)
    slow = SlowGraph(graph.view())
    want = {int(node): slow.mend(int(node), level, dead, fill) for node in rows}
    before = links_of(graph, level)
    lost = np.zeros(COUNT, np.uint8)
    queue = np.empty(COUNT, np.int32)
    for start, stop in ((0, len(rows) // 2), (len(rows) // 2, len(rows))):
        links = graph.base, graph.upper
        part = rows, start, stop
        kernels.mend_links(graph.view(), *links, level, int(fill), *part, dead, lost, *scratch(COUNT), queue)
    after = links_of(graph, level)
    assert {node: after[node] for node in want} == want
    assert all(after[node] == before[node] for node in before if node not in want)
    gone = {link for node in want for link in set(before[node]) - set(after[node]) if not dead[link]}
    assert set(np.flatnonzero(lost).tolist()) == gone


# Repair


def tree_of(graph: HnswGraph) -> NDArray[np.int32]:
    parents = np.full(graph.size, -1, np.int32)
    parents[graph.entry] = graph.entry
    queue = np.empty(2 * graph.size, np.int32)
    queue[0] = graph.entry
    end = kernels.grow_tree(graph.base, parents, queue, 1)
    assert end == (parents >= 0).sum()
    return parents


def assert_tree(graph: HnswGraph, parents: NDArray[np.int32]) -> None:
    """Each node of the tree hangs on a base link of its parent, and the root is above it."""
    links = links_of(graph)
    for node in np.flatnonzero(parents >= 0).tolist():
        assert node == graph.entry or node in links[parents[node]]
        above, steps = node, 0
        while above != graph.entry:
            above, steps = int(parents[above]), steps + 1
            assert steps <= graph.size


def in_pieces(seed: int, metric: Metric = "l2") -> HnswGraph:
    """A graph of several parts that no link connects, and all of whose lists are full."""
    graph = linked_graph(8, metric)
    rng = np.random.default_rng(seed)
    for node in range(COUNT):
        near = [other for other in range(COUNT) if other % 5 == node % 5 and other != node]
        graph.base[node] = rng.permutation(near)[: 2 * M]
    return graph


def test_a_tree_grows_to_all_that_can_be_reached() -> None:
    for graph in (linked_graph(3, "l2"), in_pieces(1)):
        parents = tree_of(graph)
        assert set(np.flatnonzero(parents >= 0).tolist()) == reached_from(graph.entry, links_of(graph))
        assert_tree(graph, parents)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ef", [1, 16])
def test_attaching_brings_every_node_into_the_tree_and_cuts_none_off(metric: Metric, ef: int) -> None:
    graph = in_pieces(2, metric)
    parents = tree_of(graph)
    before = links_of(graph)
    lost = np.zeros(COUNT, np.uint8)
    missed = np.flatnonzero(parents < 0).astype(np.int32)
    assert len(missed) > COUNT / 2
    queue = np.empty(2 * COUNT, np.int32)
    kernels.attach(graph.view(), graph.base, parents, lost, missed, ef, *scratch(COUNT), queue)
    assert (parents >= 0).all()
    assert_tree(graph, parents)
    after = links_of(graph)
    assert reached_from(graph.entry, after) == set(range(COUNT))
    gone = {link for node in after for link in set(before[node]) - set(after[node])}
    assert gone <= set(np.flatnonzero(lost).tolist())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ef", [1, 4, 16])
def test_who_finds_itself_is_told_as_its_twin_does(metric: Metric, ef: int) -> None:
    graph = linked_graph(20, metric)
    slow = SlowGraph(graph.view())
    rows = np.arange(COUNT, dtype=np.int32)
    found = np.zeros(COUNT, np.uint8)
    kernels.find_selves(graph.view(), rows, 0, COUNT, ef, *scratch(COUNT), found)
    for node in range(COUNT):
        probe = slow.probe_of(node)
        best = slow.walk_base(probe, ef, room=ef, sought=node).best
        is_met = any(other == node for _, other in best)
        is_crowded = len(best) == ef and best[-1][0] <= slow.measure(probe, node)
        assert found[node] == (is_met or is_crowded)
    if metric != "ip":
        assert found.sum() > 0


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_strengthening_links_to_the_missed_from_where_they_were_looked_for(metric: Metric) -> None:
    graph = linked_graph(20, metric)
    parents = tree_of(graph)
    rows = np.arange(COUNT, dtype=np.int32)
    found = np.zeros(COUNT, np.uint8)
    kernels.find_selves(graph.view(), rows, 0, COUNT, 2, *scratch(COUNT), found)
    missed = rows[found == 0][:1]
    assert len(missed)
    node = int(missed[0])
    slow = SlowGraph(graph.view())
    ends = [other for _, other in slow.walk_base(slow.probe_of(node), 2, room=2, sought=node).best]
    before = links_of(graph)
    lost = np.zeros(COUNT, np.uint8)
    kernels.strengthen(graph.view(), graph.base, parents, lost, missed, 2, *scratch(COUNT))
    after = links_of(graph)
    changed = [other for other in before if after[other] != before[other]]
    assert len(changed) == 1
    assert changed[0] in ends
    assert node in after[changed[0]]
    gone = set(before[changed[0]]) - set(after[changed[0]])
    assert gone == set(np.flatnonzero(lost).tolist())
    assert_tree(graph, parents)
    kernels.find_selves(graph.view(), missed, 0, 1, 2, *scratch(COUNT), found)
    assert found[0]


# All of them


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
