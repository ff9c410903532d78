"""Embedding models: the default one that works offline, adapters for others, and what is done with any of them."""

from vecdb.embedding.base import CachedEmbedder, Embedder, EmbedFunction, Progress, embed_in_batches, embed_queries
from vecdb.embedding.loading import EmbedSpec, load_embedder, loads_offline, spec_of

__all__ = [
    "CachedEmbedder",
    "EmbedFunction",
    "EmbedSpec",
    "Embedder",
    "Progress",
    "embed_in_batches",
    "embed_queries",
    "load_embedder",
    "loads_offline",
    "spec_of",
]
