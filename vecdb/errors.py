"""Every error that vecdb raises on purpose.

    VecdbError
    ├── InvalidInput (ValueError)      an argument, record, vector, filter or query that cannot be used
    │   ├── InvalidRecord              a record of a batch; `.position` says which one
    │   │   └── DuplicateId            an id twice in one batch, or `add` of an id that exists
    │   ├── InvalidVector              NaN, infinity, a zero vector under cosine, not an array of numbers
    │   │   └── DimensionMismatch      the right kind of vector with the wrong length
    │   ├── InvalidFilter              unknown operator, wrong operand, malformed tree
    │   ├── InvalidQuery               k < 1, no query at all, bad query syntax
    │   └── ModelMismatch              vectors or queries of another embedding model
    ├── NotFound (KeyError)
    │   ├── CollectionNotFound
    │   ├── RecordNotFound
    │   └── QueryNotFound              no query of this name is saved with the collection
    ├── ConfigMismatch                 a collection opened with settings other than those it was made with
    ├── ModelUnavailable               an embedding or reranking model cannot be loaded or reached
    │   └── NoModel                    the collection has none that it could load by itself; waiting does not bring one
    ├── MissingExtra (ImportError)     an optional package is not installed; says the install line
    ├── RerankStopped                  a reranker ran out of time or was cancelled; the search itself goes on
    ├── StorageError
    │   ├── NotAVecdbFile
    │   ├── NewerFile                  written by a later version of vecdb
    │   ├── DatabaseBusy               another process holds the write lock
    │   ├── ReadOnly                   file, folder or handle cannot be written
    │   ├── DiskFull
    │   └── DatabaseClosed
    ├── CorruptIndex                   a derived index file is damaged (callers fall back to exact search)
    ├── RequestTimeout                 the service did not answer in time
    └── ServiceError                   the service failed, or answered something that is not vecdb's

A message says what was given, what was wanted and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class VecdbError(Exception):
    """The root: `except vecdb.VecdbError` catches all of them."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__  # KeyError would print a repr


class InvalidInput(VecdbError, ValueError):
    """position is the bad record's (or query's) place in its batch, from 0; None when no single one is at fault.

    path: where in a nested argument the mistake is, "prefetch[1].where.year"; None where there is no more to say.
    """

    def __init__(self, message: str, *, position: int | None = None, path: str | None = None) -> None:
        super().__init__(message)
        self.position = position
        self.path = path

    @staticmethod
    @contextmanager
    def under(path: str) -> Iterator[None]:
        """What is raised within is at, or somewhere below, this place; its message says so once it is inside a list."""
        try:
            yield
        except InvalidInput as error:
            inner = error.path
            error.path = path if not inner else path + inner if inner.startswith("[") else f"{path}.{inner}"
            if "[" in error.path:
                message = str(error).removeprefix(f"{inner}: ")
                error.args = (f"{error.path}: {message}",)
            raise


class InvalidRecord(InvalidInput):
    pass


class DuplicateId(InvalidRecord):
    pass


class InvalidVector(InvalidInput):
    pass


class DimensionMismatch(InvalidVector):
    pass


class InvalidFilter(InvalidInput):
    pass


class InvalidQuery(InvalidInput):
    pass


class ModelMismatch(InvalidInput):
    pass


class NotFound(VecdbError, KeyError):
    pass


class CollectionNotFound(NotFound):
    pass


class RecordNotFound(NotFound):
    pass


class QueryNotFound(NotFound):
    pass


class ConfigMismatch(VecdbError):
    pass


class ModelUnavailable(VecdbError):
    pass


class NoModel(ModelUnavailable):
    pass


class MissingExtra(VecdbError, ImportError):
    """An optional dependency is absent. MissingExtra.of("onnxruntime", extra="embed", what="the default model")."""

    @classmethod
    def of(cls, package: str, *, extra: str, what: str) -> MissingExtra:
        return cls(f"{what} needs the package {package}, which is not installed; run: pip install 'vecdb[{extra}]'")


class RerankStopped(VecdbError):
    pass


class StorageError(VecdbError):
    pass


class NotAVecdbFile(StorageError):
    pass


class NewerFile(StorageError):
    pass


class DatabaseBusy(StorageError):
    pass


class ReadOnly(StorageError):
    pass


class DiskFull(StorageError):
    pass


class DatabaseClosed(StorageError):
    pass


class CorruptIndex(VecdbError):
    pass


class RequestTimeout(VecdbError):
    pass


class ServiceError(VecdbError):
    pass
