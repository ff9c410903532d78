"""Everything a user may call records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import vecdb

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "alpha", "vector": [1.0, 0.0], "metadata": {"year": 2001}},
    {"id": "b", "text": "beta", "vector": [0.0, 1.0], "metadata": {"year": 2002}},
    {"id": "ü/λ 3", "text": None, "vector": [0.6, 0.8], "metadata": {"year": 2003}},
]


def as_pandas() -> Any:
    return pytest.importorskip("pandas").DataFrame(
        [{**{k: r[k] for k in ("id", "text", "vector")}, **r["metadata"]} for r in ROWS]
    )


def as_polars() -> Any:
    polars = pytest.importorskip("polars")
    return polars.DataFrame([{**{k: r[k] for k in ("id", "text", "vector")}, **r["metadata"]} for r in ROWS])


def as_arrow() -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.table(
        {
            "id": [r["id"] for r in ROWS],
            "text": [r["text"] for r in ROWS],
            "vector": pyarrow.array([r["vector"] for r in ROWS], pyarrow.list_(pyarrow.float32(), 2)),
            "year": [r["metadata"]["year"] for r in ROWS],
        }
    )


FORMS: dict[str, Callable[[], Any]] = {
    "dicts": lambda: ROWS,
    "generator": lambda: (row for row in ROWS),
    "records": lambda: [
        vecdb.Record(r["id"], r["text"], r["metadata"], np.array(r["vector"], np.float32)) for r in ROWS
    ],
    "pandas": as_pandas,
    "polars": as_polars,
    "arrow": as_arrow,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_input_stores_the_same_records(db: vecdb.Database, form: str) -> None:
    collection = db.collection("c", metric="l2")
    assert collection.add(FORMS[form]()).added == 3
    for row in ROWS:
        record = collection.get(row["id"], vectors=True)
        assert record is not None
        assert (record.text, record.metadata) == (row["text"], row["metadata"])
        np.testing.assert_allclose(record.vector, row["vector"], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_columns_by_keyword_take_arrays_of_any_number_type(db: vecdb.Database, dtype: type) -> None:
    collection = db.collection("c", metric="l2")
    vectors = np.array([[1, 2], [3, 4]], dtype=dtype)
    collection.add(ids=["a", "b"], vectors=vectors, texts=["x", None], metadata=[{"n": 1}, None])
    record = collection.get("b", vectors=True)
    assert record is not None
    np.testing.assert_array_equal(record.vector, [3, 4])
    assert record.metadata == {}


def test_records_without_id_get_one_each(db: vecdb.Database) -> None:
    result = db.collection("c").add(texts=["one", "two"])
    assert len(set(result.ids)) == 2
    assert db.collection("c").get(result.ids[1]).text == "two"  # type: ignore[union-attr]


def test_records_may_lack_vector_or_text(db: vecdb.Database) -> None:
    collection = db.collection("c", dimension=2)
    collection.add([{"id": "t", "text": "only text"}, {"id": "v", "vector": [1, 0]}, {"id": "m", "metadata": {"a": 1}}])
    assert collection.search([1, 0], k=5).ids == ["v"]
    assert collection.search("only", k=5, mode="text").ids == ["t"]
    assert collection.count({"a": 1}) == 1


@pytest.mark.parametrize(
    "moment",
    [
        lambda: datetime.now(UTC) + timedelta(hours=1),
        lambda: datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1),
        lambda: timedelta(hours=1),
        lambda: (datetime.now(UTC) + timedelta(hours=1)).timestamp(),
    ],
    ids=["datetime", "naive datetime", "timedelta", "seconds"],
)
def test_expires_takes_moments_and_durations(db: vecdb.Database, moment: Callable[[], Any]) -> None:
    collection = db.collection("c")
    collection.add([{"id": "a", "text": "x", "expires": moment()}])
    record = collection.get("a")
    assert record is not None
    assert record.expires == pytest.approx((datetime.now(UTC) + timedelta(hours=1)).timestamp(), abs=60)


def test_generators_are_cut_into_transactions_of_batch_size(db: vecdb.Database) -> None:
    collection = db.collection("c")
    seen: list[int] = []

    def broken() -> Any:
        for i in range(25):
            yield {"id": f"r{i}", "text": "x"}
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        collection.add(broken(), batch_size=10, progress=lambda done, total: seen.append(done))
    assert len(collection) == 20
    assert seen == [10, 20]


def test_without_batch_size_a_broken_generator_leaves_nothing(db: vecdb.Database) -> None:
    def broken() -> Any:
        yield {"id": "a", "text": "x"}
        raise RuntimeError("the source broke")

    collection = db.collection("c")
    with pytest.raises(RuntimeError):
        collection.add(broken())
    assert len(collection) == 0


def test_records_without_any_key_are_empty_records(db: vecdb.Database) -> None:
    collection = db.collection("c")
    assert collection.add([{}, {}]).added == 2
    assert collection.search("anything", mode="text").ids == []
    with pytest.raises(vecdb.InvalidInput, match="id None"):
        collection.update([{}])
