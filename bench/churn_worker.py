"""A child process with one index in it whose vectors come and go: `python -m bench.churn_worker SYSTEM FOLDER`.

Each public method of Worker is an order of the parent, which is `bench.churn_index`. Vectors are rows of the set `minilm`;
whoever enters the index gets a label that nobody had before, so that no system can confuse a newcomer with a predecessor.
Seconds are of processor time, of all threads: a machine that has other work as well changes them little.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.ann.peers.base import EF_CONSTRUCTION, M
from bench.machine import peak_memory_mb
from bench.worker import serve

if TYPE_CHECKING:
    from bench.vectors import VectorSet

Labels = NDArray[np.int64]
Vectors = NDArray[np.float32]

K = 10
EF = 64  # vecdb's default; the others are set to it
DELETED, UPSERTED = 0.5, 0.3  # of the size at the start, each round

_BATCH = 2_000
_TIE = 1e-6  # two rows this close in cosine are equally near


class System(Protocol):
    """An index over unit vectors, by cosine, on one thread: M = 16, ef_construction = 200, ef = EF."""

    def add(self, vectors: Vectors, labels: Labels) -> None:
        """Labels are larger than any before, ascending."""

    def remove(self, labels: Labels) -> None:
        """Labels are in the index, ascending."""

    def search(self, queries: Vectors, k: int) -> tuple[Labels, float | None]:
        """(B, k) labels, -1 where there is none, and the mean number of distances for a query, if it is known."""

    def close(self) -> None: ...


class Vecdb:
    """HnswIndex. Removed positions are dropped when they are half of all."""

    def __init__(self, dimension: int, size: int, folder: Path) -> None:
        from vecdb.index.base import HnswConfig
        from vecdb.index.hnsw import HnswIndex

        self._index = HnswIndex(dimension, "cosine", HnswConfig(M=M, ef_construction=EF_CONSTRUCTION, ef=EF))
        self._labels = np.empty(0, np.int64)  # of each position, ascending

    def add(self, vectors: Vectors, labels: Labels) -> None:
        self._index.add(vectors, threads=1)
        self._labels = np.concatenate([self._labels, labels])

    def remove(self, labels: Labels) -> None:
        self._index.remove(np.searchsorted(self._labels, labels), threads=1)
        if 2 * np.count_nonzero(self._index.live) <= len(self._index):
            self._labels = self._labels[self._index.compact()]

    def search(self, queries: Vectors, k: int) -> tuple[Labels, float | None]:
        found = self._index.search(queries, k)
        labels = np.where(found.positions < 0, -1, self._labels[found.positions])
        return labels, float(found.work.mean())

    def close(self) -> None:
        """Nothing is open."""


class Hnswlib:
    """Deleted nodes are marked, and newcomers take their places (replace_deleted)."""

    def __init__(self, dimension: int, size: int, folder: Path) -> None:
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=dimension)
        self._index.init_index(
            max_elements=size, M=M, ef_construction=EF_CONSTRUCTION, random_seed=0, allow_replace_deleted=True
        )
        self._index.set_ef(EF)

    def add(self, vectors: Vectors, labels: Labels) -> None:
        self._index.add_items(vectors, labels, num_threads=1, replace_deleted=True)

    def remove(self, labels: Labels) -> None:
        for label in labels.tolist():
            self._index.mark_deleted(label)

    def search(self, queries: Vectors, k: int) -> tuple[Labels, float | None]:
        try:
            found = self._index.knn_query(queries, k, num_threads=1)[0]
        except RuntimeError:  # it refuses the whole batch when one query meets fewer than k
            found = np.stack([self._one(query, k) for query in queries])
        return found.astype(np.int64), None

    def close(self) -> None:
        """Nothing is open."""

    def _one(self, query: Vectors, k: int) -> Labels:
        for fewer in range(k, 0, -1):
            with suppress(RuntimeError):
                found = self._index.knn_query(query, fewer, num_threads=1)[0][0].astype(np.int64)
                return np.pad(found, (0, k - fewer), constant_values=-1)
        return np.full(k, -1)


class Chroma:
    """The embedded client, with a folder for its files."""

    def __init__(self, dimension: int, size: int, folder: Path) -> None:
        import chromadb
        from chromadb.config import Settings

        self._client: Any = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
        graph = {"space": "cosine", "max_neighbors": M, "ef_construction": EF_CONSTRUCTION, "ef_search": EF}
        configuration: Any = {"hnsw": {**graph, "num_threads": 1}}
        self._records = self._client.create_collection("records", configuration=configuration, embedding_function=None)

    def add(self, vectors: Vectors, labels: Labels) -> None:
        for part in self._parts(len(labels)):
            self._records.add(ids=_names(labels[part]), embeddings=vectors[part])

    def remove(self, labels: Labels) -> None:
        for part in self._parts(len(labels)):
            self._records.delete(ids=_names(labels[part]))

    def search(self, queries: Vectors, k: int) -> tuple[Labels, float | None]:
        found = self._records.query(query_embeddings=queries, n_results=k, include=[])["ids"]
        return np.array([[int(id) for id in ids] + [-1] * (k - len(ids)) for ids in found], np.int64), None

    def close(self) -> None:
        self._client.close()

    def _parts(self, count: int) -> list[slice]:
        step = self._client.get_max_batch_size()
        return [slice(start, start + step) for start in range(0, count, step)]


SYSTEMS: dict[str, type[System]] = {"vecdb": Vecdb, "hnswlib": Hnswlib, "chroma": Chroma}


class Population:
    """Who is in the index: rows (size,) of the pool, under labels (size,) ascending. Draws are the same for all systems."""

    def __init__(self, pool_size: int, size: int, seed: int = 0) -> None:
        self.size = size
        self.pool_size = pool_size
        self.rows: NDArray[np.int64] = np.empty(0, np.int64)
        self.labels: Labels = np.empty(0, np.int64)
        self._next_label = 0
        self._rng = np.random.default_rng(seed)

    def leave(self, share: float) -> Labels:
        """So large a share of `size` leaves, drawn at random -> their labels, ascending."""
        gone = np.zeros(len(self.rows), np.bool_)
        gone[self._rng.permutation(len(self.rows))[: int(share * self.size)]] = True
        leaving = self.labels[gone]
        self.rows, self.labels = self.rows[~gone], self.labels[~gone]
        return leaving

    def enter(self) -> tuple[NDArray[np.int64], Labels]:
        """Rows that are not in the index enter until there are `size` again -> these rows and their labels."""
        count = self.size - len(self.rows)
        free = np.ones(self.pool_size, np.bool_)
        free[self.rows] = False
        entering = self._rng.choice(np.flatnonzero(free), size=count, replace=False)
        labels = np.arange(self._next_label, self._next_label + count)
        self._next_label += count
        self.rows, self.labels = np.concatenate([self.rows, entering]), np.concatenate([self.labels, labels])
        return entering, labels


class Worker:
    """name: of the system. folder: for its files, if it has any."""

    def __init__(self, name: str, folder: Path) -> None:
        self._make = SYSTEMS[name]
        self._folder = folder
        self._made = 0
        self._pool: Vectors
        self._queries: Vectors
        self._population: Population
        self._system: System
        self._memory_before = 0.0

    def start(self, rows: int, questions: int) -> dict[str, Any]:
        """Build over the first rows. A small build before that loads or compiles what must be."""
        from bench.vectors import load_set

        whole = load_set("minilm")
        self._pool, self._queries = whole.base, whole.queries[:questions].copy()
        self._population = Population(len(self._pool), rows)
        tried = self._new_system(1_000)
        tried.add(self._pool[:1_000].copy(), np.arange(1_000))
        tried.search(self._queries, K)
        tried.close()
        del tried
        self._memory_before = private_mb()
        self._system = self._new_system(rows)
        entering, labels = self._population.enter()
        begun = time.process_time()
        self._system.add(self._pool[entering], labels)
        return {"build_s": time.process_time() - begun}

    def round(self) -> dict[str, Any]:
        """Half leave and as many enter; then some are replaced by others. Seconds of each."""
        people, system = self._population, self._system
        took = {"removed_s": 0.0, "added_s": 0.0}
        for share in (DELETED, UPSERTED):
            leaving = people.leave(share)
            begun = time.process_time()
            system.remove(leaving)
            removed = time.process_time()
            rows, labels = people.enter()
            vectors = self._pool[rows]
            adding = time.process_time()
            system.add(vectors, labels)
            took["removed_s"] += removed - begun
            took["added_s"] += time.process_time() - adding
        return took

    def measure(self) -> dict[str, Any]:
        """The index as it is now. memory_mb: by how much it made this process grow."""
        memory_mb = private_mb() - self._memory_before
        return {**self._quality(self._system), "memory_mb": memory_mb}

    def fresh(self) -> dict[str, Any]:
        """A new index over the same vectors."""
        before = private_mb()
        fresh = self._new_system(self._population.size)
        begun = time.process_time()
        fresh.add(self._pool[self._population.rows], self._population.labels)
        build_s = time.process_time() - begun
        memory_mb = private_mb() - before
        quality = self._quality(fresh)
        fresh.close()
        return {**quality, "memory_mb": memory_mb, "build_s": build_s}

    def _quality(self, system: System) -> dict[str, Any]:
        live = self._live()
        found, work = system.search(live.queries, K)
        return {
            "self_recall": self_recall(system, live.base, self._population.labels),
            "recall": live.recall(np.where(found < 0, -1, np.searchsorted(self._population.labels, found))),
            "work": work,
        }

    def _live(self) -> VectorSet:
        from bench.vectors import VectorSet, exact_neighbours

        base = self._pool[self._population.rows]
        truth, distances = exact_neighbours(base, self._queries, "cosine")
        return VectorSet("live", "cosine", base, self._queries, truth, distances)

    def _new_system(self, size: int) -> System:
        self._made += 1
        return self._make(self._pool.shape[1], size, self._folder / str(self._made))


def self_recall(system: System, vectors: Vectors, labels: Labels) -> float:
    """Share of the vectors (N, D) under labels (N,), ascending, whose nearest is themselves, or another just as near."""
    found = 0
    for start in range(0, len(vectors), _BATCH):
        part = vectors[start : start + _BATCH]
        nearest = system.search(part, 1)[0][:, 0]
        place = np.minimum(np.searchsorted(labels, nearest), len(labels) - 1)
        is_live = labels[place] == nearest
        cosines = np.einsum("bd,bd->b", part, vectors[place], dtype=np.float64)
        found += int(np.count_nonzero(is_live & (cosines >= 1 - _TIE)))
    return found / len(vectors)


def private_mb() -> float:
    """What this process has in memory that belongs to no file, after freed blocks went back to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library: what it holds back is counted
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6
    return peak_memory_mb()


def _names(labels: Labels) -> list[str]:
    return [str(label) for label in labels.tolist()]


if __name__ == "__main__":
    serve(Worker(sys.argv[1], Path(sys.argv[2])))
