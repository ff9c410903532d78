"""The routes: what they answer to the odd and the malformed. That they agree with the library tests/test_congruence.py shows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.server import schemas

BODIES: dict[tuple[str, str], type[schemas.Body]] = {
    ("POST", "/v1/collections"): schemas.CollectionBody,
    ("POST", "/v1/collections/docs/records"): schemas.AddBody,
    ("POST", "/v1/collections/docs/dedupe"): schemas.DedupeBody,
    ("PUT", "/v1/collections/docs/records"): schemas.WriteBody,
    ("PATCH", "/v1/collections/docs/records"): schemas.UpdateBody,
    ("PUT", "/v1/collections/docs/parents"): schemas.ReplaceBody,
    ("POST", "/v1/collections/docs/records/get"): schemas.GetBody,
    ("POST", "/v1/collections/docs/records/delete"): schemas.DeleteBody,
    ("POST", "/v1/collections/docs/records/count"): schemas.CountBody,
    ("POST", "/v1/collections/docs/records/facets"): schemas.FacetsBody,
    ("POST", "/v1/collections/docs/records/scan"): schemas.ScanBody,
    ("POST", "/v1/collections/docs/records/neighbours"): schemas.NeighboursBody,
    ("POST", "/v1/collections/docs/search"): schemas.SearchBody,
    ("POST", "/v1/collections/docs/search/batch"): schemas.BatchBody,
    ("POST", "/v1/collections/docs/search/groups"): schemas.GroupsBody,
    ("POST", "/v1/collections/docs/why-not"): schemas.WhyNotBody,
    ("POST", "/v1/collections/docs/explain"): schemas.ExplainBody,
    ("POST", "/v1/collections/docs/context"): schemas.ContextBody,
    ("POST", "/v1/collections/docs/recall-report"): schemas.RecallBody,
    ("POST", "/v1/collections/docs/tune"): schemas.TuneBody,
    ("POST", "/v1/collections/docs/adapt"): schemas.AdaptBody,
    ("POST", "/v1/collections/docs/links"): schemas.LinksBody,
    ("POST", "/v1/collections/docs/links/delete"): schemas.UnlinkBody,
    ("POST", "/v1/collections/docs/links/get"): schemas.LinksOfBody,
    ("POST", "/v1/collections/docs/links/entities"): schemas.EntitiesBody,
    ("POST", "/v1/collections/docs/derive"): schemas.DeriveBody,
    ("POST", "/v1/collections/docs/learn-similarity"): schemas.LearnSimilarityBody,
    ("POST", "/v1/collections/docs/records/vector"): schemas.VectorBody,
    ("POST", "/v1/collections/docs/fit-fusion"): schemas.FitFusionBody,
    ("POST", "/v1/collections/docs/storage"): schemas.StorageBody,
    ("POST", "/v1/collections/docs/plan-storage"): schemas.StoragePlanBody,
    ("PUT", "/v1/collections/docs/queries"): schemas.SaveQueryBody,
    ("POST", "/v1/collections/docs/queries/delete"): schemas.DeleteQueryBody,
}
SEARCH = "/v1/collections/docs/search"
JSON = {"Content-Type": "application/json"}


def is_problem(answer: Any) -> bool:
    """Whether an answer is a whole problem document of a client's mistake."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    assert problem["error"] in vecdb.__all__
    assert {"type", "title", "detail"} <= problem.keys()
    return 400 <= int(answer.status_code) < 500


# -- malformed input


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"{}x",
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"unknown": 1}',
        b'{"\\ud800": 1}',
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_not_the_body_wanted_is_a_problem(body: bytes, http: Any, docs: vecdb.Collection) -> None:
    for method, path in BODIES:
        assert is_problem(http.request(method, path, content=body, headers=JSON)), path


NUMBERS = st.one_of(st.integers(-5, 5), st.integers(), st.floats(), st.sampled_from([2**63, 2**64, 1e308, -0.0]))
TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(["a", "b", "wing", "$and", "{", '"', "\x00", "-", "rrf", "base64", "AAAA"])
)
OPERATORS = st.sampled_from(
    ["$and", "$or", "$not", "$eq", "$gte", "$in", "$exists", "$contains", "$prefix", "$date", "n"]
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(TEXTS, OPERATORS), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """A route, and its example with some fields made anything."""
    (method, path), kind = draw(st.sampled_from(sorted(BODIES.items(), key=lambda item: item[0])))
    body = dict(kind.example)
    fields = draw(st.lists(st.sampled_from(sorted(kind.model_fields)), min_size=1, max_size=3))
    for field in fields:
        if field == "records" and draw(st.booleans()):
            record = dict(schemas.RecordBody.example)
            record[draw(st.sampled_from(sorted(schemas.RecordBody.model_fields)))] = draw(ANYTHING)
            body[field] = [record]
        else:
            body[field] = draw(ANYTHING)
    return method, path, body


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(request=requests())
def test_no_body_makes_the_service_fail(
    request: tuple[str, str, dict[str, Any]], http: Any, docs: vecdb.Collection
) -> None:
    """The test's client raises whatever the service does not handle, so a 500 cannot hide."""
    method, path, body = request
    try:
        content = json.dumps(body).encode()
    except UnicodeEncodeError:
        return
    answer = http.request(method, path, content=content, headers=JSON)
    assert answer.status_code < 300 or is_problem(answer), answer.text
    if path == "/v1/collections" and answer.is_success and answer.json()["name"] != "docs":
        http.delete("/v1/collections/" + answer.json()["name"].replace("%", "%25").replace("/", "%2F"))


def test_unknown_paths_and_methods_are_problems(http: Any, docs: vecdb.Collection) -> None:
    for method, path, status in [
        ("GET", "/", 404),
        ("GET", "/v2", 404),
        ("GET", SEARCH, 405),
        ("PATCH", "/v1/collections", 405),
        ("GET", "/v1/collections/absent", 404),
        ("GET", "/v1/collections/docs/records/absent", 404),
        ("GET", "/v1/collections/docs/records/a?vectors=perhaps", 422),
        ("GET", "/docs", 404),
    ]:
        answer = http.request(method, path)
        assert answer.status_code == status, path
        assert is_problem(answer)


def test_a_problem_names_the_class_and_the_place(http: Any, docs: vecdb.Collection) -> None:
    records = [{"id": "c", "text": "fine"}, {"id": "d", "vector": [1, 2]}]
    answer = http.post("/v1/collections/docs/records", json={"records": records})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["error"] == "DimensionMismatch"
    assert problem["title"] == "Dimension mismatch"
    assert problem["type"] == "urn:vecdb:error:DimensionMismatch"
    assert problem["position"] == 1
    shape = http.post("/v1/collections/docs/records", json={"records": [{"id": "c"}, {"id": "d", "seq": "x"}]}).json()
    assert (shape["error"], shape["position"]) == ("InvalidRecord", 1)
    assert docs.count() == 2


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"query": "wing", "k": 0}, 422, "InvalidQuery"),
        ({"query": "wing", "mode": "best"}, 422, "InvalidQuery"),
        ({"query": "wing", "where": {"n": {"$no": 1}}}, 422, "InvalidFilter"),
        ({"query": "wing", "where": "n"}, 422, "InvalidFilter"),
        ({"vector": [1, 2]}, 422, "DimensionMismatch"),
        ({"vector": [0, 0, 0]}, 422, "InvalidVector"),
        ({"vector": [1, "2", 3]}, 422, "InvalidVector"),
        ({"vector_base64": "****"}, 422, "InvalidVector"),
        ({"vector_base64": "AAA="}, 422, "InvalidVector"),
        ({"vector": [1, 0, 0], "vector_base64": "AAAA"}, 422, "InvalidVector"),
        ({"query": "wing", "fusion": {"kind": "weighted", "k": 3}}, 422, "InvalidQuery"),
        ({"query": "wing", "fusion": {"kind": "rrf", "weights": [0, 0]}}, 422, "InvalidQuery"),
        ({"query": "wing", "prefetch": [{"where": {"n": {"$no": 1}}}]}, 422, "InvalidFilter"),
        ({"query": "wing", "prefetch": [{"k": 10**6}]}, 422, "InvalidQuery"),
        ({"query": "wing", "prefetch": [{"rerank": {"kind": "cross-encoder", "model": "x"}}]}, 422, "InvalidQuery"),
        ({"query": "wing", "plan": {"k": 10**6}}, 422, "InvalidQuery"),
        ({"query": "wing", "plan": "absent"}, 404, "QueryNotFound"),
        ({"query": "wing", "params": {"a": 1}}, 422, "InvalidQuery"),
        ({"recommend": {"positive": ["absent"]}}, 404, "RecordNotFound"),
        ({}, 422, "InvalidQuery"),
    ],
)
def test_queries_are_refused_with_the_librarys_errors(
    body: Any, status: int, error: str, http: Any, docs: vecdb.Collection
) -> None:
    answer = http.post(SEARCH, json=body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_the_status_of_an_error_is_that_of_its_nearest_class(
    http: Any, db: vecdb.Database, docs: vecdb.Collection
) -> None:
    from vecdb.server.problems import STATUS, status_of

    for name in vecdb.__all__:
        kind = getattr(vecdb, name)
        if isinstance(kind, type) and issubclass(kind, vecdb.VecdbError):
            assert 400 <= status_of(kind("x")) < 600
    assert status_of(vecdb.DimensionMismatch("x")) == STATUS[vecdb.InvalidInput]
    assert http.post("/v1/collections", json={"name": "docs", "dimension": 9}).status_code == 409
    assert http.post("/v1/collections/docs/records", json={"records": [{"id": "a"}]}).status_code == 409
    db.close()
    closed = http.get("/readyz")
    assert (closed.status_code, closed.headers["retry-after"]) == (503, "1")
    assert http.post(SEARCH, json={"query": "wing"}).status_code == 503


def test_a_busy_database_says_when_to_come_back(path: Any) -> None:
    from starlette.testclient import TestClient

    from vecdb.server.app import create_app
    from vecdb.server.settings import Settings

    with (
        vecdb.open(path, background=False) as holder,
        vecdb.open(path, background=False, busy_timeout_s=0.05) as db,
    ):
        docs = db.collection("docs")
        http = TestClient(create_app(db, Settings()), base_url="http://localhost")
        with holder._store.write():
            answer = http.post("/v1/collections/docs/records", json={"records": [{"id": "a", "text": "t"}]})
        assert (answer.status_code, answer.json()["error"]) == (503, "DatabaseBusy")
        assert answer.headers["retry-after"] == "1"
        assert docs.count() == 0


# -- forms of values


def test_vectors_travel_as_numbers_or_as_base64(http: Any, docs: vecdb.Collection) -> None:
    from vecdb import wire

    vector = np.array([0.1, -0.25, 1 / 3], dtype=np.float32)
    body = {"records": [{"id": "n", "vector": vector.tolist()}, {"id": "t", "vector_base64": wire.to_base64(vector)}]}
    assert http.post("/v1/collections/docs/records", json=body).status_code == 201
    ask = {"ids": ["n", "t"], "vectors": True}
    as_numbers = http.post("/v1/collections/docs/records/get", json=ask).json()["records"]
    as_text = http.post("/v1/collections/docs/records/get", json={**ask, "vector_format": "base64"}).json()["records"]
    assert as_numbers[0]["vector"] == as_numbers[1]["vector"]
    for numbers, text in zip(as_numbers, as_text):
        assert np.array_equal(np.asarray(numbers["vector"], np.float32), wire.from_base64(text["vector_base64"]))
    hit = http.post(SEARCH, json={"vector_base64": wire.to_base64(vector), "vectors": True, "k": 1}).json()["hits"][0]
    assert len(hit["vector"]) == 3
    one = http.get("/v1/collections/docs/records/n", params={"vectors": "true"}).json()
    assert one["vector"] == as_numbers[0]["vector"]


def test_dates_travel_in_metadata_and_filters(http: Any, docs: vecdb.Collection) -> None:
    date = {"$date": "2024-05-01T10:00:00Z"}
    http.post("/v1/collections/docs/records", json={"records": [{"id": "c", "text": "t", "metadata": {"seen": date}}]})
    assert http.get("/v1/collections/docs/records/c").json()["metadata"] == {"seen": date}
    where = {"seen": {"$lte": date}}
    assert http.post("/v1/collections/docs/records/count", json={"where": where}).json() == {"count": 1}
    facets = http.post("/v1/collections/docs/records/facets", json={"key": "seen"}).json()["facets"]
    assert facets == [{"value": date, "count": 1}]


def test_an_embedding_model_must_be_one_that_the_service_offers(serve: Any, tmp_path: Any) -> None:
    http = serve(models=("default",))
    for embed in ("openai:m@http://169.254.169.254/", f"model2vec:{tmp_path}", "sentence-transformers:x/y"):
        answer = http.post("/v1/collections", json={"name": "c", "embed": embed})
        assert (answer.status_code, answer.json()["error"]) == (422, "InvalidInput")
    assert http.get("/v1/collections").json() == {"collections": []}


# -- the description


def test_every_body_is_described_with_an_example_that_is_valid(http: Any) -> None:
    document = http.get("/openapi.json").json()
    components = document["components"]["schemas"]
    bodies = 0
    identifiers = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            identifiers.append(operation["operationId"])
            assert operation["description"], path
            if method in ("post", "put", "patch") and path not in (
                "/v1/collections/{name}/optimize",
                "/v1/collections/{name}/warm",
                "/v1/collections/{name}/compact",
            ):
                ((media, content),) = operation["requestBody"]["content"].items()
                assert content["example"], path
                bodies += 1
                if media == "application/json":
                    name = content["schema"]["$ref"].removeprefix("#/components/schemas/")
                    assert name in components
                    assert schemas.parsed(getattr(schemas, name), json.dumps(content["example"]).encode())
    assert bodies == len(BODIES) + 1
    assert len(set(identifiers)) == len(identifiers)


def test_every_reference_of_the_description_leads_somewhere(http: Any) -> None:
    text = http.get("/openapi.json").text
    components = json.loads(text)["components"]["schemas"]
    names = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= components.keys()
    assert "SearchBody" in names


def test_examples_work_in_the_order_of_a_first_session(http: Any) -> None:
    """A new user pastes the examples of the description."""
    for method, path in [
        ("POST", "/v1/collections"),
        ("POST", "/v1/collections/papers/records"),
        ("PUT", "/v1/collections/papers/records"),
        ("PATCH", "/v1/collections/papers/records"),
        ("PUT", "/v1/collections/papers/parents"),
        ("POST", "/v1/collections/papers/records/get"),
        ("POST", "/v1/collections/papers/records/count"),
        ("POST", "/v1/collections/papers/records/facets"),
        ("POST", "/v1/collections/papers/records/scan"),
        ("POST", "/v1/collections/papers/records/neighbours"),
        ("POST", "/v1/collections/papers/search"),
        ("POST", "/v1/collections/papers/search/batch"),
        ("POST", "/v1/collections/papers/search/groups"),
        ("POST", "/v1/collections/papers/why-not"),
        ("POST", "/v1/collections/papers/explain"),
        ("POST", "/v1/collections/papers/context"),
        ("POST", "/v1/collections/papers/recall-report"),
        ("POST", "/v1/collections/papers/records/delete"),
    ]:
        kind = BODIES[method, path.replace("papers", "docs")]
        answer = http.request(method, path, json=kind.example)
        assert answer.is_success, (path, answer.text)
