"""FastRP's settings chosen by hidden links: what is hidden, what a trial is worth, and that a choice must prove itself."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.errors import InvalidInput
from vecdb.index import fastrp_tuning
from vecdb.index.adjacency import Adjacency
from vecdb.index.fastrp import FastRPConfig, embed
from vecdb.index.fastrp_tuning import tune


def bipartite(seed: int = 0, groups: int = 4, people: int = 120, things: int = 80) -> Adjacency:
    """People choose things of their own group: the links of a bipartite graph that can be foretold."""
    rng = np.random.default_rng(seed)
    edges = set()
    for person in range(people):
        own = np.arange(things)[np.arange(things) % groups == person % groups]
        for thing in rng.choice(own, 8, replace=False):
            edges.add((person, people + int(thing)))
    ends = np.array(sorted(edges))
    return Adjacency.undirected(people + things, ends[:, 0], ends[:, 1], np.ones(len(ends)))


def test_no_node_loses_its_last_link_and_hidden_ones_are_gone() -> None:
    graph = bipartite()
    left, hidden = fastrp_tuning._split(graph, np.random.default_rng(1))
    assert len(hidden) == int(0.2 * graph.edges / 2)
    assert (np.diff(left.starts) > 0).all()
    still = set(zip(left.sources.tolist(), left.targets.tolist()))
    assert not still & set(map(tuple, hidden.tolist()))
    assert left.edges + 2 * len(hidden) == graph.edges


def test_false_links_are_none_and_end_as_true_ones_do() -> None:
    graph = bipartite()
    _, hidden = fastrp_tuning._split(graph, np.random.default_rng(1))
    false = fastrp_tuning._false(graph, hidden, np.random.default_rng(2))
    linked = set(zip(graph.sources.tolist(), graph.targets.tolist()))
    assert not linked & set(map(tuple, false.tolist()))
    assert set(false[:, 1].tolist()) <= set(hidden[:, 1].tolist())
    assert np.array_equal(false[:, 0], hidden[:, 0])


def test_a_trial_is_worth_what_the_vectors_of_its_setting_are() -> None:
    """The shortcut by moments of the powers against vectors that are made and standardised as a whole."""
    graph = bipartite(3)
    left, hidden = fastrp_tuning._split(graph, np.random.default_rng(1))
    false = fastrp_tuning._false(graph, hidden, np.random.default_rng(2))
    config = FastRPConfig(dimension=32, degree_exponent=-0.25)
    trial = fastrp_tuning._Trial(left, config, hidden, false)
    for weights in ((1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 0.03, 0.2)):
        vectors = embed(
            left, FastRPConfig(dimension=32, degree_exponent=-0.25, weights=weights), dtype=np.float64
        ).vectors
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        true, wrong = (np.einsum("md,md->m", unit[ends[:, 0]], unit[ends[:, 1]]) for ends in (hidden, false))
        assert trial.won(weights).mean() == pytest.approx((true > wrong).mean(), abs=0.02)


def test_tuning_betters_a_bad_setting_and_lets_a_good_one_be() -> None:
    graph = bipartite(4)
    blind = FastRPConfig(dimension=32, weights=(0.0, 1.0, 0.0, 1.0))  # even powers alone: the sides never meet
    found = tune(graph, blind)
    assert found.auc is not None
    assert found.auc_before is not None
    assert found.auc_before < 0.75
    assert found.auc > 0.85
    assert found.config.weights[0] > 0 or found.config.weights[2] > 0
    assert (found.config.dimension, found.config.seed) == (32, 0)
    again = tune(graph, found.config)
    assert again.auc is not None
    assert again.auc_before is not None
    assert again.auc >= again.auc_before
    assert tune(graph, blind, threads=2) == found


def test_links_that_follow_no_rule_change_nothing_by_much() -> None:
    rng = np.random.default_rng(5)
    ends = rng.integers(0, 300, (2, 900))
    ends = ends[:, ends[0] != ends[1]]
    found = tune(Adjacency.undirected(300, ends[0], ends[1], np.ones(ends.shape[1])), trials=5)
    assert found.auc is not None
    assert 0.35 < found.auc < 0.65


def test_awkward_graphs_keep_their_setting() -> None:
    config = FastRPConfig(dimension=4)
    for size, sources, targets in ((0, [], []), (3, [], []), (2, [0], [1]), (40, list(range(39)), list(range(1, 40)))):
        graph = Adjacency.undirected(size, np.array(sources, int), np.array(targets, int), np.ones(len(sources)))
        assert tune(graph, config).config == config
    with pytest.raises(InvalidInput):
        tune(bipartite(), trials=0)
