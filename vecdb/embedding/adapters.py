"""Models of other libraries, and any function, as embedders. The libraries are imported when a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from vecdb.embedding.base import EmbedFunction, FromSpec, as_vectors, checked_texts
from vecdb.errors import InvalidInput, MissingExtra, ModelUnavailable
from vecdb.types import Vector


class CallableEmbedder:
    """A function from a list of strings to an (N, D) array, for documents and queries alike.

    name is the function's `name` attribute, or its module and qualified name: renaming the function makes it another
    model for collections that were filled with it.
    """

    def __init__(self, function: EmbedFunction) -> None:
        self._function = function
        self.name = _name_of(function)

    @cached_property
    def dimension(self) -> int:
        return int(self.embed_documents(["dimension"]).shape[1])

    def embed_documents(self, texts: list[str]) -> Vector:
        texts = checked_texts(texts)
        return as_vectors(self._function(texts), len(texts), self.name)

    def embed_queries(self, texts: list[str]) -> Vector:
        return self.embed_documents(texts)

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self.embed_documents([text])[0]
        return vector


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "name", None)
    if isinstance(name, str) and name:
        return name
    named = function if hasattr(function, "__qualname__") else type(function)
    qualified = f"{named.__module__}.{named.__qualname__}"
    if "<lambda>" in qualified:
        raise InvalidInput(
            "a lambda has no name that a collection could remember as its embedding model; "
            "use a named function, or set its `name` attribute"
        )
    return qualified


class SentenceTransformersEmbedder(FromSpec):
    """A model of the package sentence-transformers, by its name on the Hugging Face hub or its folder.

    Queries and documents get the prompts that the model's configuration names for them. Only weights in safetensors are
    read: the older format is a pickle, which can run code.
    """

    def __init__(self, model: str) -> None:
        self.name = model
        self.spec = f"sentence-transformers:{model}"
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise _missing("sentence-transformers", error) from error
        try:
            self._model = SentenceTransformer(model, model_kwargs={"use_safetensors": True})
        except Exception as error:  # the hub, the file system and torch each have errors of their own
            raise _unavailable(self.spec, error) from error
        # Before version 5 there is one `encode` and no prompts by kind of text.
        self._encode_query = getattr(self._model, "encode_query", self._model.encode)
        self._encode_document = getattr(self._model, "encode_document", self._model.encode)

    @cached_property
    def dimension(self) -> int:
        return int(self.embed_documents(["dimension"]).shape[1])

    def embed_documents(self, texts: list[str]) -> Vector:
        texts = checked_texts(texts)
        return as_vectors(self._encode_document(texts, show_progress_bar=False), len(texts), self.name)

    def embed_queries(self, texts: list[str]) -> Vector:
        texts = checked_texts(texts)
        return as_vectors(self._encode_query(texts, show_progress_bar=False), len(texts), self.name)

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self.embed_queries([text])[0]
        return vector


class Model2VecEmbedder(CallableEmbedder, FromSpec):
    """A static model of the package model2vec, by its name on the Hugging Face hub or its folder."""

    def __init__(self, model: str) -> None:
        self.spec = f"model2vec:{model}"
        try:
            from model2vec import StaticModel
        except ImportError as error:
            raise _missing("model2vec", error) from error
        try:
            loaded = StaticModel.from_pretrained(model, force_download=False)
        except Exception as error:  # the hub and the file system each have errors of their own
            raise _unavailable(self.spec, error) from error
        super().__init__(loaded.encode)
        self.name = model


def _missing(package: str, error: ImportError) -> MissingExtra:
    """Of packages that no extra of vecdb brings, because they are large or have needs of their own."""
    return MissingExtra(
        f"embed='{package}:…' needs the package {package}, which cannot be imported ({error}); "
        f"run: pip install {package}"
    )


def _unavailable(spec: str, error: Exception) -> ModelUnavailable:
    return ModelUnavailable(
        f"the embedding model {spec!r} cannot be loaded: {error}; "
        "check the name, and that the hub can be reached or the model lies in a local folder"
    )
