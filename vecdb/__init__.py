"""vecdb: a retrieval database in one file. See `vecdb.open`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vecdb.collection import Collection
from vecdb.config import CollectionConfig, TextConfig, TokenConfig
from vecdb.database import Database, open
from vecdb.errors import (
    CollectionNotFound,
    ConfigMismatch,
    CorruptIndex,
    DatabaseBusy,
    DatabaseClosed,
    DimensionMismatch,
    DiskFull,
    DuplicateId,
    InvalidFilter,
    InvalidInput,
    InvalidQuery,
    InvalidRecord,
    InvalidVector,
    MissingExtra,
    ModelMismatch,
    ModelUnavailable,
    NewerFile,
    NoModel,
    NotAVecdbFile,
    NotFound,
    QueryNotFound,
    ReadOnly,
    RecordNotFound,
    RequestTimeout,
    RerankStopped,
    ServiceError,
    StorageError,
    VecdbError,
)
from vecdb.index.base import CodesConfig, HnswConfig, NeuralLshConfig
from vecdb.query.graph_options import GraphOptions
from vecdb.query.request import SearchPlan
from vecdb.query.snippets import SnippetOptions
from vecdb.types import (
    Answer,
    CollectionStats,
    Context,
    GroupHit,
    GroupHits,
    GroupMatch,
    Hit,
    Hits,
    Link,
    Page,
    Passage,
    Plan,
    Record,
    TraceStep,
    WhyNot,
    WriteResult,
)

if TYPE_CHECKING:
    from vecdb.aio import AsyncCollection, AsyncDatabase, open_async
    from vecdb.client import connect, connect_async
    from vecdb.rag import answer

__version__ = "0.1.0"

# Loaded when first used: not every program is a client, a server or asynchronous.
_LATER = {
    "open_async": "vecdb.aio",
    "AsyncDatabase": "vecdb.aio",
    "AsyncCollection": "vecdb.aio",
    "connect": "vecdb.client",
    "connect_async": "vecdb.client",
    "answer": "vecdb.rag",
}

__all__ = [
    "Answer",
    "AsyncCollection",
    "AsyncDatabase",
    "CodesConfig",
    "Collection",
    "CollectionConfig",
    "CollectionNotFound",
    "CollectionStats",
    "ConfigMismatch",
    "Context",
    "CorruptIndex",
    "Database",
    "DatabaseBusy",
    "DatabaseClosed",
    "DimensionMismatch",
    "DiskFull",
    "DuplicateId",
    "GraphOptions",
    "GroupHit",
    "GroupHits",
    "GroupMatch",
    "Hit",
    "Hits",
    "HnswConfig",
    "InvalidFilter",
    "InvalidInput",
    "InvalidQuery",
    "InvalidRecord",
    "InvalidVector",
    "Link",
    "MissingExtra",
    "ModelMismatch",
    "ModelUnavailable",
    "NeuralLshConfig",
    "NewerFile",
    "NoModel",
    "NotAVecdbFile",
    "NotFound",
    "Page",
    "Passage",
    "Plan",
    "QueryNotFound",
    "ReadOnly",
    "Record",
    "RecordNotFound",
    "RequestTimeout",
    "RerankStopped",
    "SearchPlan",
    "ServiceError",
    "SnippetOptions",
    "StorageError",
    "TextConfig",
    "TokenConfig",
    "TraceStep",
    "VecdbError",
    "WhyNot",
    "WriteResult",
    "answer",
    "connect",
    "connect_async",
    "open",
    "open_async",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'vecdb' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
