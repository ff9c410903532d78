"""Links made on the device against the same rules written out, and against what the CPU builds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vecdb.gpu import links, reference
from vecdb.gpu.corpus import Corpus
from vecdb.gpu.topk import topk
from vecdb.index.base import HnswConfig
from vecdb.index.device_build import build_on
from vecdb.index.exact import exact_search
from vecdb.index.hnsw import HnswIndex

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter, whose time goes with them."""
    if DEVICE == "cpu":
        monkeypatch.setattr(links, "_SLOTS", 16)
        monkeypatch.setattr(links, "_FIRST_GROUP", 256)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half().float().to(DEVICE)


def diverse(similar: torch.Tensor, node: int, candidates: list[int], keep: int) -> list[int]:
    """Algorithm 4, one by one."""
    taken: list[int] = []
    for candidate in candidates:
        if candidate in (-1, node) or candidate in taken:
            continue
        if all(similar[candidate, other] < similar[candidate, node] for other in taken):
            taken.append(candidate)
    return taken[:keep]


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_pruning_takes_what_algorithm_4_takes(metric: Any) -> None:
    base = normal(120, 20)
    corpus = Corpus(base, metric=metric, device=DEVICE)
    similar = reference.similarities(base.double(), base.double(), metric)
    nodes = torch.tensor([3, 50, 119], device=DEVICE)
    candidates = similar[nodes].topk(15).indices
    candidates[1, 10:] = -1
    candidates[2, 7] = candidates[2, 6]
    chosen = links.prune(corpus, nodes, candidates, 8)
    for node, of_node, row in zip(nodes.tolist(), candidates.tolist(), chosen.tolist()):
        wanted = diverse(similar, node, of_node, 8)
        assert row == wanted + [-1] * (8 - len(wanted))
    few = links.prune(corpus, nodes, candidates[:, :6], 8, all_if_few=True)
    assert [set(row) - {-1} for row in few.tolist()] == [
        set(of) - {n} for n, of in zip([3, 50, 119], candidates[:, :6].tolist())
    ]


def test_all_links_are_those_of_the_rules_written_out() -> None:
    base = 5 * normal(24, 20)
    slots, first = (16, 256) if DEVICE == "cpu" else (64, 1024)
    found = links.link_all(Corpus(base, metric="l2", device=DEVICE, group=8), own=3, most=6)
    wanted = reference.link_all(base, own=3, most=6, metric="l2", candidates=slots - 1, first_group=first)
    assert (found.cpu() == wanted).all()


def test_groups_double_and_those_that_were_chosen_link_back() -> None:
    """The plain twin against loops: 8 nodes meet each other, then 8 meet 16, 16 meet 32, and 8 meet all 40."""
    base = normal(40, 8).cpu()
    similar = reference.similarities(base.double(), base.double(), "l2")
    chosen = []
    for node in range(40):
        end = next(end for end in (8, 16, 32, 40) if node < end)
        near = similar[node, :end].topk(6).indices.tolist()
        chosen.append(diverse(similar, node, near, 2))
    made = reference.link_all(base, own=2, most=4, metric="l2", candidates=6, first_group=8)
    for node, row in enumerate(made.tolist()):
        partners = {*chosen[node], *(other for other in range(40) if node in chosen[other])}
        nearest = sorted(partners, key=lambda other, node=node: -float(similar[node, other]))[:6]
        wanted = nearest if len(nearest) <= 4 else diverse(similar, node, nearest, 4)
        assert row == wanted + [-1] * (4 - len(wanted))


@pytest.mark.parametrize("metric", ["cosine", "l2"] if DEVICE == "cuda" else ["cosine"])
def test_a_graph_built_on_the_device_is_sound_and_finds_as_much(metric: Any, rng: np.random.Generator) -> None:
    count = 20_000 if DEVICE == "cuda" else 40
    vectors = rng.normal(size=(count, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    config = HnswConfig(M=6 if DEVICE == "cuda" else 3, ef=48)
    index = build_on(DEVICE, vectors, metric, config)
    assert index.check() == []
    queries = vectors[:40] + rng.normal(size=(40, 16)).astype(np.float32) / 10
    truth = exact_search(vectors, queries, 5, metric, None).positions

    def recall(of: HnswIndex) -> float:
        found = of.search(queries, 5, ef=16)
        return float(np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.positions.tolist(), truth.tolist())]))

    assert recall(index) >= recall(HnswIndex.build(vectors, metric, config)) - 0.05
    again = HnswIndex.open(index.settings(), index.arrays())
    assert again.check() == []


def test_a_prefix_of_a_corpus_is_searched_alone() -> None:
    queries, base = normal(3, 16), normal(400, 16, seed=1)
    first = links._prefix(Corpus(base, metric="l2", device=DEVICE), 256)
    found, truth = topk(queries, first, 5), reference.topk(queries, base[:256], 5, metric="l2")
    assert (found.rows == truth[1]).all()


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_hardly_any_vectors_make_a_sound_graph(count: int) -> None:
    vectors = np.eye(8, dtype=np.float32)[:count]
    index = build_on(DEVICE, vectors.reshape(count, 8), "cosine", HnswConfig(M=4))
    assert index.check() == []
    assert index.search(np.eye(8, dtype=np.float32)[:1], 3).positions.shape == (1, 3)


def test_copies_of_one_vector_all_find_themselves() -> None:
    vectors = np.repeat(np.eye(4, 8, dtype=np.float32), 4, axis=0)
    index = build_on(DEVICE, vectors, "l2", HnswConfig(M=4))
    assert index.check() == []
