from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from vecdb import wire
from vecdb.query.fusion import Adaptive, CombMnz, Distribution, Rrf, Vstash, Weighted, ZScore
from vecdb.query.fusion.learned import LEAN
from vecdb.query.selection import Coverage, Dpp, KCenter, Mmr
from vecdb.types import Context, Hit, Hits, Page, Passage, Record, StageReport, TraceStep

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
KEYS = TEXT.filter(lambda key: key != "" and not key.startswith("$"))
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
        st.dates(),
        st.datetimes(timezones=st.just(UTC)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
METADATA = st.dictionaries(KEYS, VALUES, max_size=3)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VECTORS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5).map(
    lambda numbers: np.array(numbers, dtype=np.float32)
)
RECORDS = st.builds(
    Record,
    id=TEXT,
    text=st.none() | TEXT,
    metadata=METADATA,
    vector=st.none(),
    parent=st.none() | TEXT,
    seq=st.none() | st.integers(-(2**63), 2**63 - 1),
    created=FINITE,
    updated=FINITE,
    expires=st.none() | FINITE,
)
HITS = st.builds(
    Hits,
    hits=st.lists(
        st.builds(
            Hit,
            id=TEXT,
            rank=st.integers(1, 10),
            score=FINITE,
            text=st.none() | TEXT,
            metadata=METADATA,
            vector=st.none(),
            parent=st.none() | TEXT,
            snippet=st.none() | TEXT,
            seq=st.none() | st.integers(0, 9),
            trace=st.lists(
                st.builds(
                    TraceStep,
                    stage=TEXT,
                    rank=st.none() | st.integers(1, 9),
                    score=st.none() | FINITE,
                    detail=st.just({})
                    | st.dictionaries(TEXT, FINITE | st.lists(st.dictionaries(TEXT, TEXT), max_size=2)),
                )
            ).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    cursor=st.none() | TEXT,
    estimated_recall=st.none() | st.floats(0, 1),
    no_answer=st.none() | st.floats(0, 1),
    trace=st.lists(
        st.builds(StageReport, stage=TEXT, candidates=st.integers(0, 9), ms=FINITE, detail=st.dictionaries(TEXT, TEXT)),
        max_size=1,
    ).map(tuple),
)


def travelled(value: Any) -> Any:
    return wire.loads(wire.dumps(value))


@given(RECORDS)
def test_records_come_back_as_they_were(record: Record) -> None:
    assert wire.record_from_wire(travelled(wire.record_to_wire(record))) == record


@given(HITS)
def test_hits_come_back_as_they_were(hits: Hits) -> None:
    assert wire.hits_from_wire(travelled(wire.hits_to_wire(hits))) == hits


@given(VECTORS, st.booleans())
def test_vectors_come_back_to_the_bit(vector: np.ndarray[Any, Any], compact: bool) -> None:
    record = wire.record_from_wire(travelled(wire.record_to_wire(Record("a", vector=vector), compact=compact)))
    assert record.vector is not None
    assert record.vector.dtype == np.float32
    assert record.vector.tobytes() == (vector + 0 if not compact else vector).tobytes() or np.array_equal(
        record.vector, vector
    )


def test_pages_and_contexts_come_back_as_they_were() -> None:
    page = Page((Record("a", metadata={"d": date(2020, 1, 1)}), Record("b")), "cursor")
    assert wire.page_from_wire(travelled(wire.page_to_wire(page))) == page
    passage = Passage(1, "a", "text", "source", 0.5, 3, {"seen": datetime(2020, 1, 1, tzinfo=UTC)})
    context = Context("q?", "[1] text", (passage,), 3, True, Hits((Hit("a", 1, 0.5),)))
    assert wire.context_from_wire(travelled(wire.context_to_wire(context))) == context


@given(st.lists(st.tuples(VALUES.filter(lambda v: not isinstance(v, list | dict)), st.integers(1, 9)), max_size=3))
def test_facets_come_back_as_they_were(facets: list[tuple[Any, int]]) -> None:
    came = wire.facets_from_wire(travelled(wire.facets_to_wire(facets)))
    assert came == facets
    assert [type(value) for value, _ in came] == [type(value) for value, _ in facets]


@pytest.mark.parametrize("text", ["", "*", "AAA", "AAAA", "AAAAAAA=", "AAAA AAAA", "ÄÄÄÄ"])
def test_what_is_not_base64_of_float32_is_refused(text: str) -> None:
    with pytest.raises(vecdb.InvalidVector, match="vector_base64"):
        wire.from_base64(text)


@pytest.mark.parametrize(
    ("where", "sent"),
    [
        (None, None),
        ({}, {}),
        ({"a": date(2020, 1, 2)}, {"a": {"$date": "2020-01-02"}}),
        ({"a": {"$gte": datetime(2020, 1, 2, 3, tzinfo=UTC)}}, {"a": {"$gte": {"$date": "2020-01-02T03:00:00Z"}}}),
        ({"a": {"$in": (1, np.int64(2))}}, {"a": {"$in": [1, 2]}}),
        ({"a": {"$in": {"x"}}}, {"a": {"$in": ["x"]}}),
        ({"a": np.float32(0.5)}, {"a": 0.5}),
    ],
)
def test_filters_are_sent_as_they_are_written(where: Any, sent: Any) -> None:
    assert travelled({"where": wire.filter_to_wire(where)}) == {"where": sent}


@pytest.mark.parametrize(
    "where", [{"a": float("nan")}, {"a": {"$in": [float("inf")]}}, {"a": 2**64}, {"a": object()}, {1: 2}]
)
def test_filters_that_json_would_change_are_refused(where: Any) -> None:
    with pytest.raises(vecdb.InvalidFilter):
        wire.filter_to_wire(where)


@pytest.mark.parametrize(
    "select", [Mmr(0.7), KCenter(pool=9), Dpp(0.2), Coverage(1, 0.5, 0, tau=2.0, clusters=3, pool=50)]
)
def test_selections_come_back_as_they_were(select: Any) -> None:
    assert wire.selection_from_wire(travelled(wire.selection_to_wire(select))) == select
    why = vecdb.WhyNot("a", "select", "too small a pool", "…", 3, {"select": select, "fusion": Rrf(5.0), "k": 4})
    assert wire.why_not_from_wire(travelled(wire.why_not_to_wire(why))) == why


@pytest.mark.parametrize(
    "fusion",
    [
        Rrf(),
        Rrf(k=7.5, weights=(0.0, 2.0), base=0),
        Weighted(weights=(0.3, 0.7)),
        ZScore(),
        Distribution(weights=(1.0, 0.0)),
        CombMnz(),
        Vstash(gate=False),
        Adaptive(),
        Adaptive(usual=(0.4, 0.7, 0.6), lean=LEAN),
    ],
)
def test_fusions_come_back_as_they_were(fusion: Any) -> None:
    assert wire.fusion_from_wire(travelled(wire.fusion_to_wire(fusion))) == fusion


def test_every_error_comes_back_as_its_class() -> None:
    for name, kind in wire.ERRORS.items():
        error = kind("what happened")
        if issubclass(kind, vecdb.InvalidInput):
            error = kind("what happened", position=3)
        came = wire.error_from_wire(400, wire.dumps(wire.problem(error, 400)))
        assert type(came) is kind, name
        assert str(came) == "what happened"
        assert getattr(came, "position", None) == getattr(error, "position", None)


def test_a_position_is_moved_to_its_place_in_the_input() -> None:
    body = json.dumps({"detail": "bad", "error": "InvalidRecord", "position": 2}).encode()
    came = wire.error_from_wire(422, body, first=100)
    assert isinstance(came, vecdb.InvalidRecord)
    assert came.position == 102
    assert "from 100 on" in str(came)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, b"", vecdb.ServiceError),
        (504, b"gateway", vecdb.RequestTimeout),
        (400, b"[1]", vecdb.ServiceError),
        (400, b'{"detail": 5}', vecdb.ServiceError),
        (400, b'{"detail": "d", "error": "open"}', vecdb.ServiceError),
        (400, b'{"detail": "d", "error": "DuplicateId", "position": "x"}', vecdb.DuplicateId),
        (400, b'{"detail": "d", "error": ["x"]}', vecdb.ServiceError),
    ],
)
def test_an_answer_of_anybody_becomes_an_error_of_ours(status: int, body: bytes, kind: type[Exception]) -> None:
    assert type(wire.error_from_wire(status, body)) is kind
