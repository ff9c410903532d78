from __future__ import annotations

import itertools
import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

import vecdb
from vecdb.errors import InvalidInput, NotFound
from vecdb.server.keys import KeyStore, create_key, list_keys, revoke_key


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_found_by_its_text_and_kept_only_as_a_digest(keys_file: Path) -> None:
    key = create_key(keys_file, name="app", scope="write", collections=["docs"])
    assert key not in keys_file.read_text()
    found = KeyStore(keys_file).find(key)
    assert found is not None
    assert (found.name, found.scope, found.collections) == ("app", "write", ("docs",))
    assert KeyStore(keys_file).find(key[:-1]) is None
    assert KeyStore(keys_file).find("") is None


def test_keys_are_long_and_never_the_same(keys_file: Path) -> None:
    keys = [create_key(keys_file, name=str(i)) for i in range(20)]
    assert len(set(keys)) == 20
    assert all(len(key) >= 43 for key in keys)  # 256 bits in base64
    assert [entry.name for entry in list_keys(keys_file)] == [str(i) for i in range(20)]


def test_only_the_owner_can_read_the_key_file(keys_file: Path) -> None:
    create_key(keys_file, name="app")
    assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600


def test_names_of_keys_are_given_once(keys_file: Path) -> None:
    create_key(keys_file, name="app")
    with pytest.raises(InvalidInput, match="already"):
        create_key(keys_file, name="app")
    with pytest.raises(InvalidInput, match="no name"):
        create_key(keys_file, name=" ")
    with pytest.raises(InvalidInput, match="scope"):
        create_key(keys_file, name="x", scope="admin")  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="it holds: app"):
        revoke_key(keys_file, "other")


def test_a_running_store_follows_its_file(keys_file: Path) -> None:
    first = create_key(keys_file, name="first")
    store = KeyStore(keys_file)
    second = create_key(keys_file, name="second")
    assert store.find(second) is not None
    revoke_key(keys_file, "first")
    assert store.find(first) is None
    keys_file.write_text("{")
    assert store.find(second) is None, "a broken file lets nobody in"
    keys_file.unlink()
    assert store.find(second) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"keys": 3}',
        '{"keys": [{}]}',
        json.dumps({"keys": [{"name": "a", "sha256": "00", "scope": "read", "collections": None}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "zz" * 32, "scope": "read", "collections": None}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "00" * 32, "scope": "all", "collections": None}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "00" * 32, "scope": "read", "collections": "docs"}]}),
    ],
)
def test_a_malformed_key_file_is_refused(content: str, keys_file: Path) -> None:
    keys_file.write_text(content)
    with pytest.raises(InvalidInput, match="cannot be read as a key file"):
        KeyStore(keys_file)


# -- what each key may do over HTTP

READS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/collections/{name}", None),
    ("POST", "/v1/collections/{name}/search", {"query": "wing"}),
    ("POST", "/v1/collections/{name}/search/batch", {"queries": ["wing"]}),
    ("POST", "/v1/collections/{name}/search/groups", {"queries": ["wing"]}),
    ("POST", "/v1/collections/{name}/why-not", {"id": "a", "query": "wing"}),
    ("POST", "/v1/collections/{name}/explain", {"query": "wing"}),
    ("GET", "/v1/collections/{name}/fusion", None),
    ("POST", "/v1/collections/{name}/context", {"question": "wing"}),
    ("POST", "/v1/collections/{name}/recall-report", {}),
    ("POST", "/v1/collections/{name}/records/get", {"ids": ["a"]}),
    ("POST", "/v1/collections/{name}/records/count", {}),
    ("POST", "/v1/collections/{name}/records/facets", {"key": "n"}),
    ("POST", "/v1/collections/{name}/records/scan", {}),
    ("POST", "/v1/collections/{name}/records/neighbours", {"parent": "p", "first": 0, "last": 1}),
    ("POST", "/v1/collections/{name}/records/vector", {"id": "a"}),
    ("POST", "/v1/collections/{name}/links/get", {}),
    ("GET", "/v1/collections/{name}/records/a", None),
    ("GET", "/v1/collections/{name}/sources", None),
    ("GET", "/v1/collections/{name}/stats", None),
    ("GET", "/v1/collections/{name}/check", None),
    ("GET", "/v1/collections/{name}/tuning", None),
    ("GET", "/v1/collections/{name}/queries", None),
    ("GET", "/v1/collections/{name}/adapter", None),
    ("POST", "/v1/collections/{name}/warm", None),
    ("GET", "/v1/collections/{name}/storage", None),
    ("POST", "/v1/collections/{name}/plan-storage", {}),
    ("POST", "/v1/collections", {"name": "{name}", "create": False}),
]
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/collections/{name}/records", {"records": [{"id": "z", "text": "t"}]}),
    ("PUT", "/v1/collections/{name}/records", {"records": [{"id": "a", "text": "t"}]}),
    ("PATCH", "/v1/collections/{name}/records", {"records": [{"id": "a", "text": "t"}]}),
    ("PUT", "/v1/collections/{name}/parents", {"parent": "p", "records": []}),
    ("POST", "/v1/collections/{name}/records/delete", {"ids": ["nothing"]}),
    ("DELETE", "/v1/collections/{name}/records/nothing", None),
    ("POST", "/v1/collections/{name}/dedupe", {}),
    ("POST", "/v1/collections/{name}/links", {"links": []}),
    ("POST", "/v1/collections/{name}/links/delete", {"ends": []}),
    ("POST", "/v1/collections/{name}/links/entities", {"extractor": "names"}),
    ("POST", "/v1/collections/{name}/derive", {"dimension": 4}),
    ("POST", "/v1/collections/{name}/learn-similarity", {"triples": []}),
    ("POST", "/v1/collections/{name}/records/bulk", b'{"text": "t"}'),
    ("PUT", "/v1/collections/{name}/queries", {"name": "q", "plan": {}}),
    ("POST", "/v1/collections/{name}/queries/delete", {"name": "nothing"}),
    ("POST", "/v1/collections/{name}/optimize", None),
    ("POST", "/v1/collections/{name}/storage", {"codec": "float32"}),
    ("POST", "/v1/collections/{name}/compact", None),
    ("POST", "/v1/collections/{name}/tune", {"budget_s": 0.01}),
    ("POST", "/v1/collections/{name}/adapt", {}),
    ("DELETE", "/v1/collections/{name}/adapter", None),
    ("POST", "/v1/collections/{name}/fit-fusion", {"queries": ["wing", "heat"]}),
    ("DELETE", "/v1/collections/{name}/fusion", None),
    ("DELETE", "/v1/collections/{name}", None),
]
WHOLE: list[tuple[str, str, Any]] = [("GET", "/v1/check", None), ("GET", "/metrics", None)]
OPEN: list[tuple[str, str, Any]] = [("GET", "/healthz", None), ("GET", "/readyz", None), ("GET", "/openapi.json", None)]


def send(http: Any, method: str, path: str, body: Any, name: str, key: str | None = None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if isinstance(body, dict):
        body = json.dumps(body).replace("{name}", name).encode()
        headers["Content-Type"] = "application/json"
    elif body is not None:
        headers["Content-Type"] = "application/x-ndjson"
    answer = http.request(method, path.format(name=name), content=body, headers=headers)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
    return int(answer.status_code)


def test_every_route_is_in_one_list_of_these_tests(http: Any) -> None:
    """So that a new route cannot forget its key."""
    tested = {(method, path) for method, path, _ in [*READS, *WRITES, *WHOLE, *OPEN]}
    tested = {(method, re.sub("/(a|nothing)$", "/{id}", path)) for method, path in tested}
    tested |= {("GET", "/v1"), ("GET", "/v1/collections")}
    described = {
        (method.upper(), path) for path, item in http.get("/openapi.json").json()["paths"].items() for method in item
    }
    assert described <= tested, described - tested


def test_without_a_key_only_health_is_told(serve: Any, docs: vecdb.Collection, keys_file: Path) -> None:
    create_key(keys_file, name="app")
    http = serve(keys_file=keys_file)
    for method, path, body in [*READS, *WRITES, *WHOLE, ("GET", "/v1", None), ("GET", "/v1/collections", None)]:
        assert send(http, method, path, body, "docs") == 401, (method, path)
        assert send(http, method, path, body, "docs", "vecdb_wrong") == 401, (method, path)
    for method, path, body in OPEN:
        assert send(http, method, path, body, "docs") == 200
    assert http.get("/v1").headers["www-authenticate"] == "Bearer"


def test_scopes_hold_on_every_route(serve: Any, db: vecdb.Database, docs: vecdb.Collection, keys_file: Path) -> None:
    db.collection("other").add(ids=["a"], texts=["wing"])
    keys = {
        (scope, limited): create_key(
            keys_file, name=f"{scope} {limited}", scope=scope, collections=["docs"] if limited else None
        )
        for scope, limited in itertools.product(("read", "write"), (False, True))
    }
    http = serve(keys_file=keys_file)
    for (scope, limited), key in keys.items():
        for name in ("docs", "other"):
            may_see = name == "docs" or not limited
            for method, path, body in READS:
                status = send(http, method, path, body, name, key)
                assert (status != 403) == may_see, (scope, limited, method, path, name, status)
            for method, path, body in WRITES[:-1]:
                status = send(http, method, path, body, name, key)
                assert (status != 403) == (may_see and scope == "write"), (scope, limited, method, path, name, status)
        for method, path, body in WHOLE:
            assert (send(http, method, path, body, "docs", key) == 200) == (not limited)
        listed = http.get("/v1/collections", headers={"X-Api-Key": key}).json()["collections"]
        assert listed == (["docs"] if limited else ["docs", "other"])
        may_create = (scope == "write") and not limited
        new = {"name": f"new {scope} {limited}"}
        assert (send(http, "POST", "/v1/collections", new, "", key) == 201) == may_create
    assert send(http, "DELETE", "/v1/collections/{name}", None, "other", keys["write", True]) == 403
    assert send(http, "DELETE", "/v1/collections/{name}", None, "docs", keys["write", True]) == 204
    assert send(http, "DELETE", "/v1/collections/{name}", None, "other", keys["read", False]) == 403


def test_a_web_page_cannot_reach_a_service_without_keys(http: Any, docs: vecdb.Collection) -> None:
    rebound = http.get("/v1/collections", headers={"Host": "attacker.example"})
    assert rebound.status_code == 403
    simple = http.post(
        "/v1/collections/docs/records/delete", content=b'{"where": {}}', headers={"Content-Type": "text/plain"}
    )
    assert simple.status_code == 415
    assert docs.count() == 2
