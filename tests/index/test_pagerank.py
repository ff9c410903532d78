"""Personalised PageRank: walks and decomposition against a matrix inverse and power iteration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidInput
from vecdb.index.adjacency import Adjacency, pairs_once, power_iteration, spread
from vecdb.index.pagerank import Fingerprints, fingerprints, finished, personalised

C = 0.15


def random_graph(seed: int, nodes: int = 120, edges: int = 600, dangling: int = 5) -> Adjacency:
    """Directed, weighted over three orders of magnitude, with parallel edges, self links and nodes without edges out."""
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, nodes - dangling, edges)
    return Adjacency.of(nodes, sources, rng.integers(0, nodes, edges), np.exp(rng.normal(0, 2, edges)))


def transitions(graph: Adjacency) -> np.ndarray:
    """P as a dense matrix, by a loop that anyone can check."""
    matrix = np.zeros((len(graph), len(graph)))
    for node in range(len(graph)):
        edges = range(graph.starts[node], graph.starts[node + 1])
        total = sum(float(graph.weights[e]) for e in edges)
        for e in edges:
            matrix[node, graph.targets[e]] += float(graph.weights[e]) / total
        if not edges:
            matrix[node, node] = 1.0
    return matrix


def exact(graph: Adjacency, restart: float = C) -> np.ndarray:
    """Row s is p_s = c (I - (1-c) P)^-1, row s."""
    return restart * np.linalg.inv(np.eye(len(graph)) - (1 - restart) * transitions(graph))


def exact_prints(graph: Adjacency) -> Fingerprints:
    """True PageRank vectors in the place of estimates."""
    rows = exact(graph)
    count = len(graph)
    ids = np.tile(np.arange(count, dtype=np.int32), count)
    return Fingerprints(np.arange(count + 1) * count, ids, rows.ravel(), 1, C)  # type: ignore[arg-type]  # float64 values


def dense(prints: Fingerprints, count: int) -> np.ndarray:
    rows = np.zeros((count, count))
    for node in range(count):
        part = slice(prints.starts[node], prints.starts[node + 1])
        rows[node, prints.ids[part]] = prints.values[part]
    return rows


# -- the graph -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(0, 80))
def test_a_graph_keeps_its_edges_in_every_form(seed: int, nodes: int, edges: int) -> None:
    rng = np.random.default_rng(seed)
    lines = [
        (int(a), int(b), float(w), int(label))
        for a, b, w, label in zip(
            rng.integers(0, nodes, edges),
            rng.integers(0, nodes, edges),
            rng.integers(1, 100, edges),
            rng.integers(0, 3, edges),
        )
    ]

    def made(some: list[tuple[int, int, float, int]]) -> Adjacency:
        columns = [np.array(column) for column in zip(*some)] or [np.zeros(0, np.int64)] * 4
        return Adjacency.of(nodes, *columns)  # type: ignore[arg-type]

    def listed(graph: Adjacency) -> list[tuple[int, int, float, int]]:
        return sorted(
            zip(graph.sources.tolist(), graph.targets.tolist(), graph.weights.tolist(), graph.labels.tolist())
        )

    graph, half = made(lines), edges // 2
    assert listed(graph) == sorted(lines)
    assert listed(made(lines[:half]).merged(made(lines[half:]))) == sorted(lines)
    assert listed(graph.reverse) == sorted((b, a, w, label) for a, b, w, label in lines)
    numbers = np.where(np.arange(nodes) % 3 == 1, -1, np.cumsum(np.arange(nodes) % 3 != 1) - 1)
    kept = [(numbers[a], numbers[b], w, label) for a, b, w, label in lines if numbers[a] >= 0 and numbers[b] >= 0]
    assert listed(graph.renumbered(numbers, nodes)) == sorted(kept)
    some = np.flatnonzero(rng.random(nodes) < 0.5)
    places, counts = graph.edges_of(some)
    assert places.tolist() == [e for node in some for e in range(graph.starts[node], graph.starts[node + 1])]
    assert counts.sum() == len(places)


def test_edges_that_lead_nowhere_or_weigh_nothing_are_refused() -> None:
    one = np.array([0])
    for targets, weights in (
        ([2], [1.0]),
        ([-1], [1.0]),
        ([1], [0.0]),
        ([1], [-1.0]),
        ([1], [np.nan]),
        ([1], [np.inf]),
    ):
        with pytest.raises(InvalidInput):
            Adjacency.of(2, one, np.array(targets), np.array(weights))


def test_a_pair_that_names_each_other_is_one_edge() -> None:
    low, high, weights = pairs_once(np.array([2, 0, 1, 3]), np.array([0, 2, -1, 1]), np.array([0.5, 0.5, 1.0, 0.0]))
    assert (low.tolist(), high.tolist(), weights.tolist()) == ([0], [2], [0.5])
    assert len(pairs_once(np.zeros(0, int), np.zeros(0, int), np.zeros(0))[0]) == 0


# -- exactness -----------------------------------------------------------------------------------------------------------


def test_power_iteration_is_the_matrix_inverse() -> None:
    graph = random_graph(1)
    rows = exact(graph)
    for source in (0, 7, len(graph) - 1):  # the last one is dangling
        assert np.abs(power_iteration(graph, np.eye(len(graph))[source]) - rows[source]).max() < 1e-11
    uniform = np.full(len(graph), 1 / len(graph))
    assert np.abs(power_iteration(graph, uniform) - uniform @ rows).max() < 1e-11


@pytest.mark.parametrize("rounds", range(6))
def test_decomposition_over_exact_vectors_is_exact_for_any_number_of_rounds(rounds: int) -> None:
    graph = random_graph(2)
    rows, prints = exact(graph), exact_prints(graph)
    seeds, weights = np.array([3, 17, 118]), np.array([0.5, 0.3, 0.2])
    truth = weights @ rows[seeds]
    flow = spread(graph, seeds, weights, rounds=rounds, threshold=0.0)
    scores = flow.scores.copy()
    assert finished(scores, *flow.leftover, prints) == 0
    assert np.abs(scores - truth).max() < 1e-10
    found = personalised(
        graph, [dict(zip(seeds.tolist(), weights.tolist()))], len(graph), prints=prints, rounds=rounds, threshold=0.0
    )
    kept = found.nodes[0] >= 0
    assert np.abs(truth[found.nodes[0][kept]] - found.scores[0][kept]).max() < 1e-10
    assert found.scores[0].sum() == pytest.approx(1.0, abs=1e-10)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.sampled_from([0.0, 1e-4, 1e-2, 0.5]))
def test_no_mass_is_lost_unseen(seed: int, rounds: int, threshold: float) -> None:
    graph = random_graph(seed, nodes=40, edges=100)
    rng = np.random.default_rng(seed)
    seeds = rng.choice(40, 3, replace=False)
    flow = spread(graph, seeds, np.array([0.2, 0.3, 0.5]), rounds=rounds, threshold=threshold)
    assert flow.scores.sum() + flow.leftover[1].sum() + flow.residual == pytest.approx(1.0, abs=1e-12)
    assert (flow.leftover[1] >= threshold).all() or not rounds
    found = personalised(
        graph, [dict(zip(seeds.tolist(), [0.2, 0.3, 0.5]))], 40, prints=None, rounds=rounds, threshold=threshold
    )
    # What is left over has nobody to say where it goes, so it is residual too.
    assert found.scores[0].sum() + found.residual[0] == pytest.approx(1.0, abs=1e-12)
    assert np.allclose(
        found.scores[0][found.nodes[0] >= 0], flow.scores[found.nodes[0][found.nodes[0] >= 0]], atol=1e-12
    )


def test_barred_nodes_let_nothing_pass() -> None:
    line = Adjacency.undirected(4, np.array([0, 1, 2]), np.array([1, 2, 3]), np.ones(3))
    barred = np.array([False, False, True, False])
    flow = spread(line, np.array([0]), np.ones(1), rounds=6, threshold=0.0, barred=barred)
    assert flow.scores[2] == flow.scores[3] == 0
    assert flow.residual > 0


# -- walks ---------------------------------------------------------------------------------------------------------------


def test_walks_are_unbiased() -> None:
    """The mean of many independent indexes is the truth within three standard errors, nearly everywhere."""
    graph = random_graph(3, nodes=30, edges=90, dangling=2)
    estimates = np.stack([dense(fingerprints(graph, walks=5, seed=seed), 30) for seed in range(200)])
    error = np.abs(estimates.mean(axis=0) - exact(graph))
    allowed = 3 * estimates.std(axis=0, ddof=1) / np.sqrt(200)
    beyond = (error > allowed + 1e-12) & (exact(graph) > 1e-2)  # fewer visits than 60 are not normal
    assert beyond.mean() < 0.01  # 0.3 % by chance
    assert estimates.sum(axis=2).mean() == pytest.approx(1.0, abs=0.02)


def test_edges_are_walked_by_weight() -> None:
    star = Adjacency.of(3, np.array([0, 0]), np.array([1, 2]), np.array([1.0, 9.0]))
    rows = dense(fingerprints(star, walks=20_000), 3)
    assert rows[0, 2] / rows[0, 1] == pytest.approx(9.0, rel=0.1)


@pytest.mark.parametrize("threads", [2, 3])
def test_walks_do_not_depend_on_threads(threads: int) -> None:
    graph = random_graph(4, nodes=1500, edges=9000)
    one, other = (fingerprints(graph, walks=7, seed=9, threads=t) for t in (1, threads))
    assert one.starts.tobytes() == other.starts.tobytes()
    assert one.ids.tobytes() == other.ids.tobytes()
    assert one.values.tobytes() == other.values.tobytes()
    assert one.ids.tobytes() != fingerprints(graph, walks=7, seed=10).ids.tobytes()


def test_the_error_falls_with_the_root_of_the_walks() -> None:
    graph = random_graph(5, nodes=200, edges=1600, dangling=0)
    rows = exact(graph)
    errors = [np.abs(dense(fingerprints(graph, walks=walks), 200) - rows).sum(axis=1).mean() for walks in (10, 160)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.25)


def test_two_rounds_cut_the_error_of_fingerprints_to_a_quarter() -> None:
    points = np.random.default_rng(6).standard_normal((400, 5))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1:11]
    graph = Adjacency.of(400, np.repeat(np.arange(400), 10), nearest.ravel(), np.ones(4000))
    rows, prints = exact(graph), fingerprints(graph, walks=10)
    errors = []
    for rounds in range(4):
        found = personalised(graph, np.arange(50), 400, prints=prints, rounds=rounds, threshold=0.0)
        guessed = np.zeros((50, 400))
        for source in range(50):
            kept = found.nodes[source] >= 0
            guessed[source, found.nodes[source][kept]] = found.scores[source][kept]
        errors.append(np.abs(guessed - rows[:50]).sum(axis=1).mean())
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[0] > 4 * errors[2]


# -- batches -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_is_its_sources_one_by_one(threads: int) -> None:
    graph = random_graph(7, nodes=300, edges=3000)
    prints = fingerprints(graph, walks=10)
    rng = np.random.default_rng(0)
    sources = [{int(n): float(w) for n, w in zip(rng.choice(300, 3, False), rng.random(3) + 0.1)} for _ in range(60)]
    sources += sources[:5]
    together = personalised(graph, sources, 20, prints=prints, threads=threads)
    for place, source in enumerate(sources):
        alone = personalised(graph, [source], 20, prints=prints, threads=1)
        assert alone.nodes[0].tolist() == together.nodes[place].tolist()
        assert alone.scores[0].tolist() == together.scores[place].tolist()
        assert alone.residual[0] == together.residual[place]


def test_the_best_come_first_and_ties_by_number() -> None:
    star = Adjacency.undirected(6, np.zeros(5, int), np.arange(1, 6), np.ones(5))
    found = personalised(star, np.array([0]), 10, prints=None, rounds=3, threshold=0.0)
    assert found.nodes[0].tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1, -1]
    assert found.scores[0, 6:].tolist() == [0, 0, 0, 0]
    assert personalised(star, np.array([0]), 3, prints=None, rounds=3, threshold=0.0).nodes[0].tolist() == [0, 1, 2]


def test_only_edges_near_the_source_are_touched() -> None:
    ring = Adjacency.undirected(10_000, np.arange(10_000), (np.arange(10_000) + 1) % 10_000, np.ones(10_000))
    assert personalised(ring, np.array([5]), 5, prints=None, rounds=3).pushes[0] == 2 * (1 + 2 + 3)


def test_awkward_graphs() -> None:
    lonely = Adjacency.of(1, np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    prints = fingerprints(lonely, walks=1000)
    assert prints.ids.tolist() == [0]
    assert prints.values[0] == pytest.approx(1.0, abs=0.1)
    found = personalised(lonely, np.array([0]), 2, prints=prints)
    assert (found.nodes[0].tolist(), found.scores[0].tolist()) == ([0, -1], [1.0, 0.0])
    empty = Adjacency.of(0, np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    assert fingerprints(empty).nbytes == 8


@pytest.mark.parametrize(
    "sources", [[{}], [{0: 0.0}], [{0: -1.0}], [{0: np.nan}], [{0: np.inf}], [{9: 1.0}], [{-1: 1.0}], np.array([3])]
)
def test_bad_sources_are_refused(sources: list[dict[int, float]]) -> None:
    pair = Adjacency.undirected(2, np.array([0]), np.array([1]), np.ones(1))
    with pytest.raises(InvalidInput):
        personalised(pair, sources, 1, prints=None)


def test_bad_settings_are_refused() -> None:
    pair = Adjacency.undirected(2, np.array([0]), np.array([1]), np.ones(1))
    for call in (
        lambda: fingerprints(pair, walks=0),
        lambda: fingerprints(pair, restart=0.0),
        lambda: personalised(pair, np.array([0]), 0, prints=None),
        lambda: personalised(pair, np.array([0]), 1, prints=None, rounds=-1),
        lambda: personalised(pair, np.array([0]), 1, prints=fingerprints(pair, restart=0.5)),
    ):
        with pytest.raises(InvalidInput):
            call()
