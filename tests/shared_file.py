"""Several processes on one file: programs that write and read it for a while, and what they must agree on.

Run as `python shared_file.py FILE write|read NUMBER SECONDS WRITERS eager|usual`. Each says "ready", waits for a line on
stdin, works, and prints one JSON object with what it did. `run` starts them all and compares.

Each writer's operations carry a number, which every one of its transactions puts into the metadata of its marker record: from
a marker, a reader knows which commits it has seen.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from crash_child import merge_eagerly

import vecdb
from vecdb import upkeep

COLLECTION = "shared"
DIMENSION = 24
BATCH = 15
WRITE_PAUSE_S, READ_PAUSE_S = 0.02, 0.01
_CHECK_EVERY = 5  # polls; the others only look for commits


def vectors(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def prepare(path: Path, writers: int, records: int) -> None:
    """Make the collection with a marker for each writer and some records, indexed."""
    with vecdb.open(path, background=False) as db:
        shared = db.collection(COLLECTION, dimension=DIMENSION)
        shared.add([_marker(number, -1) for number in range(writers)])
        ids = [f"old-{i}" for i in range(records)]
        shared.add(ids=ids, vectors=vectors(1, records), texts=["an old one"] * records)
        shared.optimize()


def _marker(number: int, step: int) -> dict[str, Any]:
    return {"id": f"marker-{number}", "vector": np.ones(DIMENSION), "metadata": {"marker": number, "step": step}}


# -- the programs ----------------------------------------------------------------------------------------------------------


@dataclass
class Written:
    """What a writer did. kept: id -> the step that wrote it last. acked: when each step had returned, by time.time()."""

    kept: dict[str, int] = field(default_factory=dict)
    acked: list[float] = field(default_factory=list)
    busy: int = 0
    merges: int = 0


@dataclass
class Seen:
    """What a reader saw. first_seen[w][n]: when a poll that saw step n of writer w had returned (-1 for before the start)."""

    first_seen: list[list[float]]
    polls: list[tuple[float, list[int]]] = field(default_factory=list)  # when it began, newest step seen of each writer
    poll_ms: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    merges: int = 0


def write(shared: vecdb.Collection, number: int, seconds: float) -> Written:
    draw = random.Random(number)
    done = Written()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        step = len(done.acked)
        mine = sorted(done.kept)
        chosen = draw.sample(mine, BATCH) if len(mine) > 4 * BATCH else []
        try:
            if step % 5 == 4 and chosen:
                shared.delete(chosen)
                for id in chosen:
                    del done.kept[id]
                chosen = []
            if step % 5 != 3 or not chosen:
                chosen = [f"w{number}-{step}-{i}" for i in range(BATCH)]
            records = [
                {
                    "id": id,
                    "vector": v,
                    "text": f"step{step} of w{number}",
                    "metadata": {"writer": number, "step": step},
                }
                for id, v in zip(chosen, vectors(step * 2 + number, BATCH))
            ]
            shared.upsert([*records, _marker(number, step)])
        except vecdb.DatabaseBusy:
            done.busy += 1
            continue
        done.acked.append(time.time())
        done.kept.update(dict.fromkeys(chosen, step))
        time.sleep(WRITE_PAUSE_S)
    return done


def read(shared: vecdb.Collection, writers: int, seconds: float) -> Seen:
    seen = Seen([[] for _ in range(writers)])
    end = time.monotonic() + seconds
    queries = vectors(7, 64)
    turn = 0
    while time.monotonic() < end:
        began = time.time()
        hits = shared.search(np.ones(DIMENSION), k=writers, where={"marker": {"$gte": 0}})
        returned = time.time()
        steps = {hit.metadata["marker"]: hit.metadata["step"] for hit in hits}
        if len(steps) != writers:
            seen.wrong.append(f"only the markers of {sorted(steps)} were found")
            continue
        seen.polls.append((began, [steps[w] for w in range(writers)]))
        seen.poll_ms.append((returned - began) * 1e3)
        for writer in range(writers):
            fresh = steps[writer] + 1 - len(seen.first_seen[writer])
            seen.first_seen[writer] += [returned] * fresh
        if turn % _CHECK_EVERY == 0:
            seen.wrong += _inconsistent(shared, queries[turn % len(queries)], steps, turn)
        turn += 1
        time.sleep(READ_PAUSE_S)
    return seen


def _inconsistent(shared: vecdb.Collection, query: np.ndarray, steps: dict[int, int], turn: int) -> list[str]:
    """Answers that no committed state can give."""
    wrong = []
    hits = shared.search(query, k=10)
    if len(hits) != 10 or len(set(hits.ids)) != 10 or any(a.score < b.score for a, b in zip(hits, list(hits)[1:])):
        wrong.append(f"a search came back with {len(hits)} hits, or not in order")
    writer = turn % len(steps)
    count = shared.count({"writer": writer, "step": steps[writer]})
    if count > BATCH:
        wrong.append(f"step {steps[writer]} of writer {writer} has {count} records")
    found = shared.search(f"step{steps[writer]}", mode="text", k=3)
    if any(hit.metadata["step"] != steps[writer] for hit in found):
        wrong.append("a record was found by words that are not its own")
    return wrong


def main(path: str, role: str, number: int, seconds: float, writers: int, merging: str) -> None:
    from vecdb.index import kernels

    if merging == "eager":
        merge_eagerly()
    merges = 0
    merge = upkeep.Indexing._merge

    def counted(*arguments: Any) -> None:
        nonlocal merges
        merge(*arguments)
        merges += 1

    upkeep.Indexing._merge = counted  # type: ignore[method-assign]
    kernels.warm()
    with vecdb.open(path) as db:
        shared = db.collection(COLLECTION, create=False)
        shared.warm()  # how long loading takes is another question
        print("ready", flush=True)
        sys.stdin.readline()
        did = write(shared, number, seconds) if role == "write" else read(shared, writers, seconds)
        did.merges = merges
    print(json.dumps(vars(did)))


# -- the one who starts them -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """lag_ms: from a writer's acknowledgement to the return of the first poll that saw it, of every commit and reader."""

    lag_ms: np.ndarray
    poll_ms: np.ndarray
    commits: int
    records: int
    busy: int
    merges: list[int]  # of each process
    wrong: list[str]


def run(path: Path, *, writers: int, readers: int, seconds: float, records: int = 400, eager: bool = True) -> Outcome:
    """Let them work on a new file for so long. eager: merge after a hundred rows instead of thousands."""
    prepare(path, writers, records)
    roles = [("write", n) for n in range(writers)] + [("read", n) for n in range(readers)]
    children = [
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                str(path),
                role,
                str(number),
                str(seconds),
                str(writers),
                "eager" if eager else "usual",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for role, number in roles
    ]
    wrong = []
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    reports: list[dict[str, Any]] = []
    for (role, number), child in zip(roles, children):
        said, complaints = child.communicate(timeout=seconds + 120)
        if complaints or child.returncode:
            wrong.append(f"{role} {number} ended with {child.returncode}: {complaints}")
        reports.append(json.loads(said) if said else {})
    if any(not report for report in reports):
        return Outcome(np.zeros(0), np.zeros(0), 0, 0, 0, [], wrong)
    wrote = [Written(**report) for report in reports[:writers]]
    saw = [Seen(**report) for report in reports[writers:]]
    for reader in saw:
        wrong += reader.wrong + _stale(reader, wrote)
    wrong += _not_as_written(path, wrote)
    lags = [
        (seen - acked) * 1e3
        for reader in saw
        for writer, first_seen in zip(wrote, reader.first_seen)
        for acked, seen in zip(writer.acked, first_seen)
    ]
    return Outcome(
        lag_ms=np.maximum(lags, 0.0),
        poll_ms=np.array([ms for reader in saw for ms in reader.poll_ms]),
        commits=sum(len(writer.acked) for writer in wrote),
        records=sum(len(writer.kept) for writer in wrote),
        busy=sum(writer.busy for writer in wrote),
        merges=[report["merges"] for report in reports],
        wrong=wrong,
    )


def _stale(reader: Seen, wrote: list[Written]) -> list[str]:
    """Polls that began after a step was acknowledged and did not see it."""
    wrong = []
    for began, steps in reader.polls:
        for number, (writer, step) in enumerate(zip(wrote, steps)):
            if step + 1 < len(writer.acked) and writer.acked[step + 1] < began:
                late = (began - writer.acked[step + 1]) * 1e3
                wrong.append(
                    f"a reader missed step {step + 1} of writer {number}, {late:.1f} ms after it was acknowledged"
                )
    return wrong


def _not_as_written(path: Path, wrote: list[Written]) -> list[str]:
    wrong = []
    with vecdb.open(path, background=False) as db:
        shared = db.collection(COLLECTION)
        stored: dict[str, int] = {}
        cursor = None
        while True:
            page = shared.scan(where={"writer": {"$exists": True}}, limit=5_000, cursor=cursor)
            stored.update({record.id: record.metadata["step"] for record in page})
            cursor = page.cursor
            if cursor is None:
                break
        expected = {id: step for writer in wrote for id, step in writer.kept.items()}
        if stored != expected:
            lost, extra = expected.keys() - stored.keys(), stored.keys() - expected.keys()
            wrong.append(
                f"{len(lost)} acknowledged records are lost, {len(extra)} deleted ones are back, or steps differ"
            )
        wrong += db.check()
        shared.optimize()
        wrong += db.check()
        queries = vectors(3, 30)
        pairs = zip(shared.search(queries, k=10, ef=400), shared.search(queries, k=10, exact=True))
        agreement = np.mean([len(set(found.ids) & set(exact.ids)) / 10 for found, exact in pairs])
        if agreement < 0.95:
            wrong.append(f"the index and exact search agree in {agreement:.3f} of the places")
    return wrong


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
