from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.server.bulk import Lines

URL = "/v1/collections/docs/records/bulk"
NDJSON = {"Content-Type": "application/x-ndjson"}


def lines_of(*records: Any) -> bytes:
    return b"".join(
        (record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n" for record in records
    )


def upload(http: Any, body: Any, **query: str) -> Any:
    return http.post(URL, content=body, params=query, headers=NDJSON)


# -- cutting into lines


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b""))), st.integers(1, 40), st.integers(1, 5))
def test_lines_are_cut_the_same_in_any_pieces(texts: list[bytes], cut: int, batch: int) -> None:
    body = b"\n".join(texts)
    lines = Lines(batch, max_line_bytes=100)
    batches = [b for start in range(0, len(body), cut) for b in lines.feed(body[start : start + cut])]
    last = lines.finish()
    assert all(len(b) == batch for b in batches)
    assert len(last) <= batch  # a full one, if the body ends without a newline
    expected = [(number, text) for number, text in enumerate(body.split(b"\n"), 1) if text.strip()]
    assert [line for b in [*batches, last] for line in b] == expected


def test_a_line_that_is_too_long_is_dropped_and_numbered() -> None:
    lines = Lines(10, max_line_bytes=8)
    assert list(lines.feed(b"short\n" + b"x" * 9 + b"\n" + b"y" * 8 + b"\n" + b"z" * 5)) == []
    assert list(lines.feed(b"z" * 5 + b"\nend")) == []
    assert lines.finish() == [(1, b"short"), (2, None), (3, b"y" * 8), (4, None), (5, b"end")]


def test_batches_are_bounded_in_bytes_too() -> None:
    lines = Lines(1_000, max_line_bytes=10)
    batches = list(lines.feed(b"12345678\n" * 9))
    assert [len(batch) for batch in batches] == [3, 3, 3]


# -- uploads


def test_good_lines_are_written_and_bad_ones_are_told(http: Any, docs: vecdb.Collection) -> None:
    body = lines_of(
        {"id": "new", "text": "t", "vector": [1, 2, 3], "metadata": {"d": {"$date": "2020-01-02"}}},
        b"{not json",
        b"",
        {"id": "a", "text": "exists already"},
        {"id": "new", "text": "twice"},
        {"id": "short", "vector": [1, 2]},
        {"id": "zero", "vector": [0, 0, 0]},
        {"id": 5},
        {"id": "odd", "colour": "red"},
        {"id": "nan", "vector": [1, 2, b"?".decode()]},
        {"id": "meta", "metadata": {"$bad": 1}},
        {"text": "without an id"},
        b"[1, 2]",
        b'{"id": "inf", "vector": [1e999, 0, 0]}',
    )
    answer = upload(http, body)
    assert answer.status_code == 200
    account = answer.json()
    assert {k: account[k] for k in ("added", "updated", "failed", "errors_omitted")} == {
        "added": 2,
        "updated": 0,
        "failed": 11,
        "errors_omitted": 0,
    }
    told = {error["line"]: error["error"] for error in account["errors"]}
    assert told == {
        2: "InvalidRecord",
        4: "DuplicateId",
        5: "DuplicateId",
        6: "DimensionMismatch",
        7: "InvalidVector",
        8: "InvalidRecord",
        9: "InvalidRecord",
        10: "InvalidVector",
        11: "InvalidRecord",
        13: "InvalidRecord",
        14: told[14],
    }
    assert all(error["detail"] for error in account["errors"])
    assert docs.count() == 4
    record = docs.get("new")
    assert record is not None
    assert record.text == "t"
    assert docs.get("a").text == "a wing"  # type: ignore[union-attr]


def test_upsert_replaces(http: Any, docs: vecdb.Collection) -> None:
    account = upload(http, lines_of({"id": "a", "text": "new"}, {"id": "c", "text": "c"}), op="upsert").json()
    assert (account["added"], account["updated"], account["failed"]) == (1, 1, 0)
    assert docs.get("a").text == "new"  # type: ignore[union-attr]


@pytest.mark.parametrize("bad_line", [1, 2, 7, 12])
def test_abort_writes_everything_before_the_bad_line_and_nothing_after(
    bad_line: int, serve: Any, docs: vecdb.Collection
) -> None:
    http = serve(bulk_batch=5)
    records: list[Any] = [{"id": f"r{i}", "text": "t"} for i in range(1, 13)]
    for broken in (b"{", {"id": "z", "vector": [0, 0, 0]}, {"id": "a"}):
        docs.delete([f"r{i}" for i in range(1, 13)])
        records[bad_line - 1] = broken
        answer = upload(http, lines_of(*records), on_error="abort")
        assert answer.status_code in (409, 422)
        problem = answer.json()
        assert (problem["line"], problem["added"]) == (bad_line, bad_line - 1)
        assert problem["error"] in ("InvalidRecord", "InvalidVector", "DuplicateId")
        assert docs.count() == 2 + bad_line - 1


def test_many_bad_lines_are_counted_and_only_some_are_listed(serve: Any, docs: vecdb.Collection) -> None:
    account = upload(serve(max_errors=3), lines_of(*[b"?"] * 10)).json()
    assert (account["failed"], account["errors_omitted"]) == (10, 7)
    assert [error["line"] for error in account["errors"]] == [1, 2, 3]


def test_an_upload_in_pieces_and_in_gzip(http: Any, docs: vecdb.Collection) -> None:
    body = lines_of(*({"id": f"r{i}", "text": "t" * 50} for i in range(2_000)))

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 7_919):
            yield body[start : start + 7_919]

    assert upload(http, pieces()).json()["added"] == 2_000
    answer = http.post(
        URL, content=gzip.compress(body), params={"op": "upsert"}, headers={**NDJSON, "Content-Encoding": "gzip"}
    )
    assert answer.json()["unchanged"] + answer.json()["updated"] == 2_000
    assert docs.count() == 2_002


def test_an_upload_that_grows_too_long_says_what_it_wrote(db: vecdb.Database, docs: vecdb.Collection) -> None:
    import httpx2

    from vecdb.server.app import create_app
    from vecdb.server.settings import Settings

    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield lines_of({"id": f"r{sent}", "text": "t" * 50})

    async def scenario() -> Any:
        transport = httpx2.ASGITransport(app=create_app(db, Settings(max_bulk_bytes=5_000, bulk_batch=10)))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.post(URL, content=endless(), headers=NDJSON)

    answer = asyncio.run(scenario())
    assert answer.status_code == 413
    written = answer.json()["added"]
    assert 0 < written < sent < 100
    assert docs.count() == 2 + written


def test_an_empty_upload_is_no_error(http: Any, docs: vecdb.Collection) -> None:
    for body in (b"", b"\n\n  \n"):
        assert upload(http, body).json() == {
            "added": 0, "updated": 0, "unchanged": 0, "failed": 0, "errors": [], "errors_omitted": 0,
        }  # fmt: skip


def test_wrong_options_collections_and_types_are_refused(http: Any, docs: vecdb.Collection) -> None:
    assert upload(http, b"{}", op="delete").status_code == 422
    assert upload(http, b"{}", on_error="retry").status_code == 422
    assert http.post("/v1/collections/absent/records/bulk", content=b"{}", headers=NDJSON).status_code == 404
    assert http.post(URL, content=b"{}", headers={"Content-Type": "application/json"}).status_code == 415


@settings(max_examples=40)
@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b'{"id":"q"}', b'{"text":"t"}', b'{"vector":[1,0,0]}']))
    )
)
def test_whatever_is_uploaded_is_written_or_told(texts: list[bytes]) -> None:
    from starlette.testclient import TestClient

    from vecdb.server.app import create_app
    from vecdb.server.settings import Settings

    with vecdb.open(":memory:", background=False) as db:
        docs = db.collection("docs", dimension=3)
        http = TestClient(create_app(db, Settings(bulk_batch=3)), base_url="http://localhost")
        body = b"\n".join(texts)
        account = upload(http, body).json()
        expected = sum(1 for line in body.split(b"\n") if line.strip())
        assert account["added"] + account["failed"] == expected
        assert docs.count() == account["added"]
