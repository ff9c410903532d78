"""From what a user gives as `embed=` to an embedder, and back to the string that a collection remembers."""

from __future__ import annotations

from inspect import getattr_static

from vecdb.embedding.base import DEFAULT_MODEL, Embedder, EmbedFunction, FromSpec
from vecdb.errors import InvalidInput

EmbedSpec = str | Embedder | EmbedFunction  # what `embed=` takes

_CHOICES = (
    f"'default' (or its name, {DEFAULT_MODEL!r}), 'sentence-transformers:NAME', 'model2vec:NAME', "
    "'openai:MODEL@https://host/v1', a callable from a list of strings to an array, "
    "or an object with name, dimension, embed_documents and embed_query"
)


def load_embedder(spec: EmbedSpec, *, key_env: str | None = None) -> Embedder:
    """The embedder that spec asks for; an object that is one is given back as it is.

    key_env names the environment variable with the API key of an "openai:" spec; None for OPENAI_API_KEY. Raises
    InvalidInput for what is no spec, MissingExtra if its package is not installed, ModelUnavailable if the model cannot
    be loaded. The default model and those of services are loaded or asked at their first text only.
    """
    if isinstance(spec, str):
        return _from_string(spec, key_env)
    if _is_embedder(spec):
        return spec  # type: ignore[return-value]  # a structural check that the type checker cannot follow
    if callable(spec):
        from vecdb.embedding.adapters import CallableEmbedder

        return CallableEmbedder(spec)
    raise InvalidInput(f"a {type(spec).__name__} is no embedding model; choose {_CHOICES}")


def spec_of(embedder: Embedder) -> str | None:
    """The string that makes this embedder again; None if there is none, as for callables and objects of the user's."""
    inner = getattr(embedder, "embedder", embedder)  # look into a CachedEmbedder
    return inner.spec if isinstance(inner, FromSpec) else None


def loads_offline(spec: str) -> bool:
    """Whether loading spec reaches no network and opens no path that spec names.

    A spec that came out of a database file is somebody else's word: following an "openai:" one would send the user's
    texts and API key to the host that it names. Load such a spec without asking only if this is true.
    """
    return spec in ("default", DEFAULT_MODEL)


def _from_string(spec: str, key_env: str | None) -> Embedder:
    """Each kind is imported when it is asked for: `import vecdb` passes through this module and stays light."""
    if loads_offline(spec):
        from vecdb.embedding.minilm import MiniLM

        return MiniLM()
    kind, _, rest = spec.partition(":")
    if rest and kind == "sentence-transformers":
        from vecdb.embedding.adapters import SentenceTransformersEmbedder

        return SentenceTransformersEmbedder(rest)
    if rest and kind == "model2vec":
        from vecdb.embedding.adapters import Model2VecEmbedder

        return Model2VecEmbedder(rest)
    if rest and kind == "openai":
        from vecdb.embedding.openai import API_KEY_VARIABLE, OpenAIEmbedder

        model, _, url = rest.rpartition("@")  # the last one: names of models may contain an @
        return OpenAIEmbedder(model, url, key_env=key_env or API_KEY_VARIABLE)
    raise InvalidInput(f"unknown embedding model {spec!r}; choose {_CHOICES}")


def _is_embedder(given: object) -> bool:
    """Looks without touching: a `dimension` that is a property may ask the model, and that may be far away."""
    missing = object()
    wanted = ("name", "dimension", "embed_documents", "embed_query")
    return all(getattr_static(given, attribute, missing) is not missing for attribute in wanted)
