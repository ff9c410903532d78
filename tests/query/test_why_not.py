"""why_not names the stage that dropped a record, and its remedy really brings the record in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.query.fusion import Weighted, ZScore
from vecdb.query.selection import KCenter, Mmr
from vecdb.rerank.base import Candidate, Ranked


class AsTheyCome:
    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> list[Ranked]:
        return [Ranked(i, -float(i)) for i in range(min(k, len(candidates)))]


@pytest.fixture
def collection(db: vecdb.Database) -> vecdb.Collection:
    """Vectors on a quarter circle: record i is number i + 1 for the query (1, 0)."""
    collection = db.collection("c", dimension=2)
    angles = np.linspace(0, 1.5, 300)
    collection.add(
        ids=[f"r{i}" for i in range(300)],
        vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1),
        texts=[f"word{i} {'common' if i % 2 else 'rare'}" for i in range(300)],
        metadata=[{"even": i % 2 == 0, "n": i} for i in range(300)],
        parents=[f"doc{i // 10}" for i in range(300)],
    )
    collection.add([{"id": "no vector", "text": "common"}])
    return collection


def test_a_hit_is_a_hit(collection: vecdb.Collection) -> None:
    why = collection.why_not("r3", [1, 0])
    assert (why.stage, why.rank) == (None, 4)


def test_an_unknown_record_is_unknown(collection: vecdb.Collection) -> None:
    assert collection.why_not("r999", [1, 0]).stage == "records"


def test_the_filters_failing_clause_is_named(collection: vecdb.Collection) -> None:
    why = collection.why_not("r3", [1, 0], where={"even": True, "n": {"$lt": 100}})
    assert why.stage == "filter"
    assert '{"even": true}' in why.reason
    assert '"n"' not in why.reason
    assert why.change == {"where": {"n": {"$lt": 100}}}
    assert collection.why_not("r3", [1, 0], where={"even": True}).change == {"where": None}


def test_all_that_stands_in_the_way_is_changed(collection: vecdb.Collection) -> None:
    options = {"where": {"even": True}, "min_score": 0.9999, "distinct": "parent", "k": 2}
    why = collection.why_not("r29", [1, 0], **options)  # type: ignore[arg-type]
    assert why.stage == "filter"
    assert why.change is not None
    assert set(why.change) == {"where", "min_score", "per_group", "k"}
    assert "r29" in collection.search([1, 0], **{**options, **why.change}).ids  # type: ignore[arg-type]


def test_k_is_the_remedy_for_a_record_further_down(collection: vecdb.Collection) -> None:
    why = collection.why_not("r24", [1, 0], k=10)
    assert (why.stage, why.rank, why.remedy, why.change) == ("vector", 25, "pass k=25", {"k": 25})
    assert "r24" in collection.search([1, 0], k=25).ids
    assert "r24" not in collection.search([1, 0], k=24).ids


def test_k_is_named_when_the_record_was_found_but_cut(collection: vecdb.Collection) -> None:
    why = collection.why_not("r24", [1, 0], k=10, candidates=50)
    assert (why.stage, why.rank) == ("k", 25)


def test_candidates_are_the_remedy_in_a_hybrid_search(collection: vecdb.Collection) -> None:
    options: Any = {"vector": [1, 0], "fusion": "rrf"}
    why = collection.why_not("r250", "rare", k=5, **options)
    assert why.stage == "text"
    assert why.change is not None
    k = why.change["k"]
    assert why.change == {"k": k}  # a larger k looks deeper into the lists, too
    assert "r250" in collection.search("rare", k=k, **options).ids
    assert "r250" not in collection.search("rare", k=k - 1, **options).ids


def test_weights_are_the_remedy_of_an_adaptive_fusion(collection: vecdb.Collection) -> None:
    why = collection.why_not("r250", "rare", vector=[1, 0], k=5)
    assert why.change is not None
    assert isinstance(why.change["fusion"], ZScore)
    assert "r250" in collection.search("rare", vector=[1, 0], **{"k": 5, **why.change}).ids


def test_a_record_without_vector_or_words_says_so(collection: vecdb.Collection) -> None:
    why = collection.why_not("no vector", [1, 0])
    assert "no vector" in why.reason
    assert why.change is None
    by_words = collection.why_not("no vector", "common", vector=[1, 0], mode="vector").change
    assert by_words is not None
    assert by_words["mode"] == "hybrid"
    assert "no vector" in collection.search("common", vector=[1, 0], **by_words).ids
    assert "none of the query's words" in collection.why_not("r3", "zeppelin", mode="text").reason


def test_selection_stages_are_named(collection: vecdb.Collection) -> None:
    why = collection.why_not("r3", [1, 0], distinct="parent", k=5)
    assert why.stage == "group"
    assert "doc0" in why.reason
    assert collection.why_not("r20", [1, 0], min_score=0.9999, candidates=50).stage == "min_score"
    why = collection.why_not("r1", [1, 0], select=Mmr(0.9, pool=300), k=3)
    assert why.stage == "select"
    assert why.change is not None
    turn = why.change["k"]
    assert collection.search([1, 0], select=Mmr(0.9, pool=300), k=turn).ids[-1] == "r1"


def test_a_selection_that_chose_from_fewer_gets_a_larger_pool(collection: vecdb.Collection) -> None:
    why = collection.why_not("r150", [1, 0], select="kcenter", k=8)
    assert why.change is not None
    assert why.change["select"] == KCenter(pool=151)
    assert "r150" in collection.search([1, 0], **{"select": "kcenter", "k": 8, **why.change}).ids


def test_a_reranker_that_never_saw_a_record_is_named(collection: vecdb.Collection) -> None:
    why = collection.why_not("r80", "common", vector=[1, 0], k=5, rerank=AsTheyCome())
    assert why.stage == "rerank"
    assert "looked at" in why.reason
    assert why.change is not None
    assert "r80" in collection.search("common", vector=[1, 0], rerank=AsTheyCome(), **why.change).ids


def test_earlier_pages_are_named(collection: vecdb.Collection) -> None:
    why = collection.why_not("r3", [1, 0], k=5, offset=10)
    assert (why.stage, why.change) == ("page", {"offset": 3})


def test_a_fusion_that_outweighs_the_better_list_is_named(collection: vecdb.Collection) -> None:
    collection.add([{"id": "rarest", "text": "zeppelin common", "vector": [-1.0, 0.1]}])
    options = {"fusion": Weighted(weights=(1.0, 0.1)), "candidates": 400}
    why = collection.why_not("rarest", "zeppelin common", vector=[1, 0], **options)  # type: ignore[arg-type]
    assert why.stage == "fusion"
    assert "number 1 of the text list" in why.reason
    assert why.change is not None
    assert set(why.change) == {"fusion"}
    assert "rarest" in collection.search("zeppelin common", vector=[1, 0], **{**options, **why.change}).ids
    assert 0.1 < why.change["fusion"].weights[1] < 2
