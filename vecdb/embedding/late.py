"""Encoders that give a vector for each token (late interaction), and from what a user gives as `tokens=` to one of them.

"default" is the offline default model with a small trained head on its last layer: one matrix product more than the embedding
of the text. "colbert:NAME" is any encoder that transformers loads, with the linear head that ColBERT checkpoints carry, or with
`head=`.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from inspect import getattr_static
from io import BytesIO
from typing import Any

import numpy as np

from vecdb.config import TokenConfig
from vecdb.embedding.minilm import MiniLM
from vecdb.errors import InvalidInput, MissingExtra, ModelUnavailable
from vecdb.rerank.base import TokenEncoder
from vecdb.rerank.projection import Head, HeadConfig, unit
from vecdb.types import Vector

DEFAULT_ENCODER = "all-MiniLM-L6-v2-int8-tokens-v1"  # the identity of MiniLMTokens with the head that ships

_CHOICES = (
    f"'default' (or its name, {DEFAULT_ENCODER!r}), 'colbert:NAME' (a model that transformers loads), or an object with name, "
    "dimension, encode_documents and encode_queries"
)


class MiniLMTokens:
    """all-MiniLM-L6-v2, one unit vector for each token that is no punctuation; [CLS] and [SEP] are left out.

    head: from a token's state (384 numbers) to its vector; None: the one that ships. model: one that is loaded already.
    """

    def __init__(self, head: Head | None = None, model: MiniLM | None = None) -> None:
        self.head = head or default_head()
        self.name = DEFAULT_ENCODER if head is None else f"all-MiniLM-L6-v2-int8-tokens-{head.version}"
        self.dimension = self.head.config.dimension
        self._model = model or MiniLM()
        if self.head.config.width != self._model.dimension:
            raise InvalidInput(
                f"the head takes states of {self.head.config.width} numbers, MiniLM gives {self._model.dimension}"
            )

    def encode_documents(self, texts: Sequence[str]) -> list[Vector]:
        return self._encoded(texts, without=punctuation())

    def encode_queries(self, texts: Sequence[str]) -> list[Vector]:
        return self._encoded(texts, without=punctuation())

    def _encoded(self, texts: Sequence[str], without: frozenset[int]) -> list[Vector]:
        tokens = self._model.token_ids(texts)
        vectors: list[Vector] = [np.empty((0, self.dimension), np.float32)] * len(tokens)

        def made(position: int, states: Vector) -> None:
            keep = [i for i, token in enumerate(tokens[position]) if 0 < i < len(states) - 1 and token not in without]
            vectors[position] = self.head.project(states[keep])

        self._model.token_states(tokens, made)
        return vectors


class TransformersTokens:
    """Any encoder of transformers, with a head on its last layer. model: a name or folder, or a loaded (model, tokenizer).

    head None: the checkpoint's own `linear.weight`, as ColBERT v2 checkpoints have it; without one, states are compared as they
    are. Special tokens are left out, and no marker or mask tokens are added to queries.
    """

    def __init__(self, model: Any, head: Head | None = None, *, device: str = "cpu", max_tokens: int = 256) -> None:
        self._model, self._tokenizer = model if isinstance(model, tuple) else _from_hub(model)
        self._model = self._model.to(device).eval()
        self._device, self._max_tokens = device, max_tokens
        self.head = head = head or (_own_head(model) if isinstance(model, str) else None)
        width = int(self._model.config.hidden_size)
        if head is not None and head.config.width != width:
            raise InvalidInput(f"the head takes states of {head.config.width} numbers, the model gives {width}")
        self.dimension = width if head is None else head.config.dimension
        label = model if isinstance(model, str) else getattr(self._model.config, "name_or_path", "") or "model"
        self.name = f"colbert:{label}" + (f"-{head.version}" if head is not None else "")

    def encode_documents(self, texts: Sequence[str]) -> list[Vector]:
        return self._encoded(texts)

    def encode_queries(self, texts: Sequence[str]) -> list[Vector]:
        return self._encoded(texts)

    def _encoded(self, texts: Sequence[str]) -> list[Vector]:
        import torch

        vectors: list[Vector] = []
        special = set(self._tokenizer.all_special_ids)
        for start in range(0, len(texts), 16):
            batch = self._tokenizer(
                list(texts[start : start + 16]),
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                states = self._model(**batch).last_hidden_state.float().cpu().numpy()
            for row, ids in enumerate(batch["input_ids"].cpu().tolist()):
                keep = [i for i, token in enumerate(ids) if token not in special]
                vectors.append(unit(states[row][keep]) if self.head is None else self.head.project(states[row][keep]))
        return vectors


def load_token_encoder(spec: str | TokenEncoder, *, model: Any = None) -> TokenEncoder:
    """The encoder that spec asks for; an object that is one is given back. model: a MiniLM that is loaded already.

    Raises InvalidInput for what is no spec, MissingExtra or ModelUnavailable if the model cannot be loaded.
    """
    if not isinstance(spec, str):
        missing = object()
        wanted = ("name", "dimension", "encode_documents", "encode_queries")
        if isinstance(spec, type) or any(getattr_static(spec, name, missing) is missing for name in wanted):
            lacks = [name for name in wanted if not hasattr(spec, name)]
            raise InvalidInput(f"tokens is {spec!r}, which lacks {', '.join(lacks) or 'an instance'}; give {_CHOICES}")
        return spec
    if loads_tokens_offline(spec):
        return MiniLMTokens(model=model if isinstance(model, MiniLM) else None)
    kind, _, rest = spec.partition(":")
    if kind == "colbert" and rest:
        return TransformersTokens(rest)
    raise InvalidInput(f"tokens is {spec!r}; give {_CHOICES}")


def token_settings(given: Any) -> tuple[TokenConfig, TokenEncoder]:
    """What `tokens=` takes (a name, a TokenConfig, a dict of one, an encoder) as complete settings, and the encoder."""
    if isinstance(given, Mapping):
        try:
            given = TokenConfig(**given)
        except TypeError as error:
            raise InvalidInput(
                f"tokens is {dict(given)!r}: {error}; give {{'encoder': 'default', 'codec': 'int8'}}"
            ) from error
    config = given if isinstance(given, TokenConfig) else TokenConfig()
    encoder = load_token_encoder(config.encoder if isinstance(given, TokenConfig) else given)
    if config.dimension not in (None, encoder.dimension):
        raise InvalidInput(
            f"tokens of {encoder.name!r} have {encoder.dimension} numbers, not {config.dimension}; leave it out"
        )
    return TokenConfig(encoder.name, config.codec, encoder.dimension), encoder


def loads_tokens_offline(spec: str) -> bool:
    """Whether loading it reaches no network: one that came out of a database file is somebody else's word."""
    return spec in ("default", DEFAULT_ENCODER)


@lru_cache(1)
def default_head() -> Head:
    return Head.load(BytesIO(resources.files("vecdb.embedding").joinpath("minilm_head.npz").read_bytes()))


@lru_cache(1)
def punctuation() -> frozenset[int]:
    """The token ids of punctuation in BERT's vocabulary: it says little, and takes room in every document."""
    from vecdb.embedding.minilm import _make_tokenizer

    found = (_make_tokenizer().token_to_id(mark) for mark in string.punctuation)
    return frozenset(token for token in found if token is not None)


def _own_head(name: str) -> Head | None:
    """The head in the checkpoint's file, if it has one."""
    from safetensors import safe_open
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(name, "model.safetensors")
        with safe_open(path, framework="np") as file:
            if "linear.weight" not in file.keys():  # noqa: SIM118  # it is no mapping
                return None
            matrix = np.ascontiguousarray(file.get_tensor("linear.weight"), dtype=np.float32)
    except OSError:  # in several files, which ColBERT checkpoints are not
        return None
    return Head(HeadConfig("linear", matrix.shape[1], matrix.shape[0]), {"W": matrix}, "own")


def _from_hub(name: str) -> tuple[Any, Any]:
    try:
        import torch  # noqa: F401
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtra.of("transformers", extra="rerank", what=f"the token encoder {name!r}") from error
    try:
        return AutoModel.from_pretrained(name, use_safetensors=True), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"the model {name!r} cannot be loaded: {error}; give a folder with its files, or a name while there is a network"
        ) from error
