"""FastRP against the formula written out with dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import InvalidInput
from vecdb.index.adjacency import Adjacency
from vecdb.index.fastrp import FastRPConfig, embed, projection


def graph_of(seed: int, nodes: int = 500, edges: int = 2500) -> Adjacency:
    rng = np.random.default_rng(seed)
    sources, targets = rng.integers(0, nodes - 3, (2, edges))  # the last three are isolated
    kept = sources != targets
    return Adjacency.undirected(nodes, sources[kept], targets[kept], rng.random(int(kept.sum())) + 0.1)


def walk_matrix(graph: Adjacency) -> np.ndarray:
    matrix = np.zeros((len(graph), len(graph)))
    np.add.at(matrix, (graph.sources, graph.targets), graph.weights.astype(np.float64))
    sums = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)


def test_the_iteration_is_the_matrix_formula() -> None:
    graph = graph_of(1)
    config = FastRPConfig(dimension=32, weights=(0.5, 1.0, 2.0, 4.0), degree_exponent=-0.6, normalise=False)
    found = embed(graph, config, dtype=np.float64)
    walk = walk_matrix(graph)
    degrees = np.bincount(graph.sources, graph.weights.astype(np.float64), minlength=500)
    scale = np.where(degrees > 0, np.where(degrees > 0, degrees, 1) ** -0.6, 0)
    start = np.diag(scale) @ projection(np.arange(500), config)
    powers = sum(a * np.linalg.matrix_power(walk, r) for r, a in enumerate(config.weights, 1))
    raw = powers @ start
    known = degrees > 0
    expected = (raw - raw[known].mean(axis=0)) / raw[known].std(axis=0)
    assert np.abs(found.vectors[known] - expected[known]).max() < 1e-8


def test_nodes_without_edges_have_no_vector() -> None:
    found = embed(graph_of(2), FastRPConfig(dimension=16))
    assert not found.known[-3:].any()
    assert not found.vectors[-3:].any()
    assert np.isfinite(found.vectors).all()
    nothing = embed(Adjacency.of(3, np.zeros(0, int), np.zeros(0, int), np.zeros(0)), FastRPConfig(dimension=4))
    assert not nothing.known.any()


def test_columns_have_mean_zero_and_variance_one() -> None:
    found = embed(graph_of(3), FastRPConfig(dimension=16))
    part = found.vectors[found.known]
    assert np.abs(part.mean(axis=0)).max() < 1e-4
    assert np.abs(part.std(axis=0) - 1).max() < 1e-3


def test_the_projection_is_sparse_centred_and_never_empty() -> None:
    config = FastRPConfig(dimension=64, sparsity=100.0)
    rows = projection(np.arange(20_000), config)
    assert rows.any(axis=1).all()
    values = rows[rows != 0]
    assert np.abs(np.abs(values) - np.sqrt(100 / 64)).max() < 1e-12
    # 1 % of the entries, and one in each row that would have none: half of the rows at 64 columns.
    assert (rows != 0).mean() == pytest.approx(0.01 + 0.99**64 / 64, rel=0.05)
    assert abs(np.sign(values).mean()) < 0.03
    alone = projection(np.array([17, 400]), config)
    assert np.array_equal(alone, rows[[17, 400]])  # a row depends on its key only


def test_more_dimensions_keep_products_better() -> None:
    """Johnson & Lindenstrauss: inner products of rows before and after projection."""
    graph = graph_of(4)
    walk = walk_matrix(graph)
    full = np.linalg.matrix_power(walk, 2)
    pairs = np.random.default_rng(0).integers(0, 497, (1000, 2))
    truth = np.einsum("ij,ij->i", full[pairs[:, 0]], full[pairs[:, 1]])
    agreed = []
    for dimension in (64, 256, 1024):
        thin = full @ projection(np.arange(500), FastRPConfig(dimension=dimension))
        agreed.append(np.corrcoef(truth, np.einsum("ij,ij->i", thin[pairs[:, 0]], thin[pairs[:, 1]]))[0, 1])
    assert agreed[0] < agreed[1] < agreed[2]
    assert agreed[2] > 0.8


def test_a_new_node_gets_what_a_whole_run_with_it_would_give_it() -> None:
    """But for the way back to itself, which its neighbours' rows do not know: at a degree of 20, a good part of four hops."""
    graph = graph_of(5, nodes=800, edges=8000)
    config = FastRPConfig(dimension=64)
    before = embed(graph, config)
    friends = np.array([5, 90, 300, 511])
    alone = Adjacency.of(801, np.zeros(4, int), friends + 1, np.ones(4))
    vectors, known = before.extended(np.array([800]), alone)
    assert known.tolist() == [True]
    ends = np.full(4, 800)
    whole = Adjacency.undirected(
        801,
        np.concatenate([graph.sources[graph.sources < graph.targets], ends]),
        np.concatenate([graph.targets[graph.sources < graph.targets], friends]),
        np.concatenate([graph.weights[graph.sources < graph.targets], np.ones(4)]),
    )
    after = embed(whole, config)
    cosine = vectors[0] @ after.vectors[800] / np.linalg.norm(vectors[0]) / np.linalg.norm(after.vectors[800])
    assert cosine > 0.7  # measured .83; two nodes that have nothing to do with each other are within .3 of 0
    nobody, known = before.extended(np.array([800]), Adjacency.of(801, np.zeros(0, int), np.zeros(0, int), np.zeros(0)))
    assert not known.any()
    assert not nobody.any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_new_nodes_are_what_the_formula_says_worked_out_row_by_row(seed: int, count: int, normalise: bool) -> None:
    """N_r of a new node is the weighted mean of its old neighbours' N_{r-1}; edges among new nodes tell nothing."""
    rng = np.random.default_rng(seed)
    graph = graph_of(seed, nodes=20, edges=60)
    config = FastRPConfig(dimension=8, weights=(1.0, 0.0, 0.5), normalise=normalise)
    before = embed(graph, config, dtype=np.float64)
    edges = [
        (int(rng.integers(count)), int(rng.integers(count + 20)), float(rng.integers(1, 9))) for _ in range(3 * count)
    ]
    ends = [np.array(column) for column in zip(*edges)]
    vectors, known = before.extended(np.arange(100, 100 + count), Adjacency.of(count + 20, *ends))  # type: ignore[arg-type]
    for node in range(count):
        own = [(target - count, weight) for source, target, weight in edges if source == node and target >= count]
        assert known[node] == bool(own)
        if not own:
            assert not vectors[node].any()
            continue
        total = np.zeros(8)
        for r, alpha in enumerate(config.weights):
            level = sum(weight * before.powers[r][old] for old, weight in own) / sum(weight for _, weight in own)
            length = float(np.linalg.norm(level)) if normalise else 1.0
            total += alpha * level / (length or 1.0)
        assert np.abs(vectors[node] - (total - before.mean) / before.deviation).max() < 1e-6


def test_an_old_node_extended_by_its_own_edges_is_itself() -> None:
    graph = graph_of(6)
    found = embed(graph, FastRPConfig(dimension=32))
    node = 42
    own = slice(*graph.starts[node : node + 2])
    again = Adjacency.of(501, np.zeros(own.stop - own.start, int), graph.targets[own] + 1, graph.weights[own])
    vectors, _ = found.extended(np.array([1000]), again)
    assert np.abs(vectors[0] - found.vectors[node]).max() < 1e-4


def test_threads_change_nothing() -> None:
    graph = graph_of(7, nodes=5000, edges=20_000)
    one, two = (embed(graph, FastRPConfig(dimension=8), threads=t).vectors for t in (1, 2))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"dimension": 0},
        {"weights": ()},
        {"weights": (0.0, 0.0)},
        {"weights": (np.nan,)},
        {"degree_exponent": 0.5},
        {"degree_exponent": -2},
        {"sparsity": 0.5},
        {"seed": -1},
    ],
)
def test_bad_settings_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        FastRPConfig(**options)  # type: ignore[arg-type]
