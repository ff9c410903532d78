"""A program that writes until it is killed, and what its database must hold afterwards.

Run as `python crash_child.py FILE SEED`. It says on stdout what it is about to do and what has been acknowledged, a line each:

    ready               kernels are loaded, the file is not open yet
    acked N             operations 0 … N-1 have returned
    merging, merged     the background thread begins and ends a merge
    saving, saved       it begins and ends writing a segment file

Operation n depends on nothing but seed and n, so the state after any number of operations can be computed here as well.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb import durable, upkeep

DIMENSION = 16
BATCH = 40
COLLECTION = "load"
PAUSE_S = 0.005  # without it the load outruns the merges, and nearly every kill would hit the same long one

State = dict[str, tuple[int, int]]  # id -> (what its vector and text are made from)


def merge_eagerly() -> None:
    """Make the background merge run all the time, on as few records as a test has."""
    upkeep.INDEX_FROM, upkeep._LEAST_TAIL = 300, 120
    upkeep._QUIET_S, upkeep._PATIENCE_S = 0.05, 0.2


# -- what is written -------------------------------------------------------------------------------------------------------


def operation(seed: int, step: int) -> tuple[str, list[str], int]:
    """(verb, ids, version) of one step: two of three add a batch; others upsert half of an older one, or delete some."""
    draw = random.Random(f"{seed}/{step}")
    older = draw.randrange(step) if step else 0
    if step % 6 == 4:
        return "upsert", [f"b{older}-{i}" for i in range(0, BATCH, 2)], step
    if step % 6 == 5:
        return "delete", [f"b{older}-{i}" for i in range(0, BATCH, draw.choice((1, 3)))], step
    return "add", [f"b{step}-{i}" for i in range(BATCH)], step


def state_after(seed: int, steps: int) -> State:
    state: State = {}
    for step in range(steps):
        verb, ids, version = operation(seed, step)
        for position, id in enumerate(ids):
            if verb == "delete":
                state.pop(id, None)
            else:
                state[id] = (version, position)
    return state


def vectors_of(version: int) -> np.ndarray:
    """(BATCH, DIMENSION) unit vectors."""
    vectors = np.random.default_rng(version).standard_normal((BATCH, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def text_of(version: int, position: int) -> str:
    return f"some words that all share and word{version}x{position} alone"


def perform(collection: vecdb.Collection, verb: str, ids: list[str], version: int) -> None:
    if verb == "delete":
        collection.delete(ids)
        return
    write = collection.add if verb == "add" else collection.upsert
    write(
        ids=ids,
        vectors=vectors_of(version)[: len(ids)],
        texts=[text_of(version, i) for i in range(len(ids))],
        metadata=[{"version": version, "position": i} for i in range(len(ids))],
    )


# -- the program -----------------------------------------------------------------------------------------------------------


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")  # one system call: either the whole line is in the pipe or nothing of it


def _announced(before: str, work: Callable[..., Any], after: str) -> Callable[..., Any]:
    def announced(*arguments: Any, **options: Any) -> Any:
        say(before)
        result = work(*arguments, **options)
        say(after)
        return result

    return announced


def main(path: str, seed: int) -> None:
    from vecdb.index import kernels

    merge_eagerly()
    upkeep.Indexing._merge = _announced("merging", upkeep.Indexing._merge, "merged")  # type: ignore[method-assign]
    durable.write_file = _announced("saving", durable.write_file, "saved")
    kernels.warm()
    say("ready")
    collection = vecdb.open(path).collection(COLLECTION, dimension=DIMENSION)
    for step in range(1_000_000):
        perform(collection, *operation(seed, step))
        say(f"acked {step + 1}")
        time.sleep(PAUSE_S)


# -- the one who kills it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """What the program had said when it died."""

    acked: int
    merges: int
    during: str  # "opening", "loading", "merging" or "saving a segment"


def kill_at_random(path: Path, seed: int, *, longest_s: float) -> Kill:
    """Run the program on path, kill -9 it at a random moment, and say when that was.

    Saving a segment takes a hundredth of the time, so one kill of three waits for that and strikes within 20 ms of it.
    """
    draw = random.Random(seed)
    program = [sys.executable, __file__, str(path), str(seed)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        lines = [child.stdout.readline()]
        if seed % 3 == 2:
            wanted = draw.randint(1, 2)
            while lines[-1] and lines.count(b"saving\n") < wanted:
                lines.append(child.stdout.readline())
            time.sleep(draw.uniform(0, 0.02))
        else:
            time.sleep(draw.uniform(0, longest_s))
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
        complaints = child.stderr.read().decode()
    assert lines[0] == b"ready\n", complaints
    assert not complaints
    return _when(b"".join(lines).decode().splitlines())


def _when(lines: list[str]) -> Kill:
    acked = max((int(line.split()[1]) for line in lines if line.startswith("acked")), default=0)
    merges, ended = lines.count("merging"), lines.count("merged")
    during = "loading" if acked else "opening"
    if merges > ended:
        during = "saving a segment" if lines.count("saving") > lines.count("saved") else "merging"
    return Kill(acked, ended, during)


def verify(path: Path, seed: int, acked: int) -> Iterator[str]:
    """Everything that is wrong with the database after a kill, in words."""
    with vecdb.open(path, background=False) as db:
        if COLLECTION not in db:
            if acked:
                yield "the collection is gone"
            return
        collection = db.collection(COLLECTION, create=False)
        states = [
            state_after(seed, acked),
            state_after(seed, acked + 1),
        ]  # the last one may be kept without being acked
        stored = {record.id: record for record in all_records(collection)}
        versions = {id: (record.metadata["version"], record.metadata["position"]) for id, record in stored.items()}
        if versions not in states:
            yield f"{len(stored)} records are stored, which is neither the state after {acked} operations nor after the next"
        for id, (version, position) in versions.items():
            if stored[id].text != text_of(version, position):
                yield f"{id} has another text"
            if not np.allclose(stored[id].vector, vectors_of(version)[position], atol=1e-6):
                yield f"{id} has another vector"
        yield from db.check()
        yield from wrong_answers(collection, stored)
        if stored:
            collection.optimize()
            yield from db.check()
            yield from wrong_answers(collection, stored)
            yield from strays(db)


def all_records(collection: vecdb.Collection) -> Iterator[vecdb.Record]:
    cursor = None
    while True:
        page = collection.scan(limit=10_000, cursor=cursor, vectors=True)
        yield from page
        cursor = page.cursor
        if cursor is None:
            return


def wrong_answers(collection: vecdb.Collection, stored: dict[str, vecdb.Record], samples: int = 20) -> Iterator[str]:
    """Where searches differ from a scan by NumPy over what is stored. The graph may miss a few neighbours, never itself."""
    if not stored:
        return
    ids = list(stored)
    vectors = np.stack([stored[id].vector for id in ids])
    chosen = random.Random(len(ids)).sample(range(len(ids)), min(samples, len(ids)))
    queries = vectors[chosen]
    best = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]
    truth = [{ids[i] for i in line} for line in best]
    found = [set(hits.ids) for hits in collection.search(queries, k=10)]
    exact = [set(hits.ids) for hits in collection.search(queries, k=10, exact=True)]
    if exact != truth:
        yield "exact search differs from a scan of what is stored"
    if any(ids[i] not in answer or len(answer) != min(10, len(ids)) for i, answer in zip(chosen, found)):
        yield "a record does not find itself, or too few come back"
    agreement = np.mean([len(a & b) / len(b) for a, b in zip(found, truth)])
    if agreement < 0.97:
        yield f"search agrees with a scan in {agreement:.3f} of the places"
    for i in chosen[:5]:
        word = stored[ids[i]].text.split()[-2]
        if collection.search(word, mode="text", k=5).ids != [ids[i]]:
            yield f"{ids[i]} is not found by its word"


def strays(db: vecdb.Database) -> Iterator[str]:
    assert db.index_folder is not None
    files = sorted(p.name for p in db.index_folder.iterdir() if p.name != "merge.lock")
    if len(files) != 1 or not files[0].endswith(".seg"):
        yield f"the index folder holds {files} instead of one segment"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
