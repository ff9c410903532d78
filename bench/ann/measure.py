"""One set in all peers: building, then rounds of searching in which the peers take turns.

Every peer has processes of its own: one that builds and saves the index with all processors; one that reads it and searches
on one core with every thread pool limited to one; and one that searches with all processors. A first round goes through each
peer's whole ladder of settings; the later ones measure those that may be the fastest at some recall. Recall is counted once
for each setting and mode. Each round has another order, so that a noisy moment of the machine hits all alike.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ann.figures import RECALLS, Point, at_recall, worth_measuring
from bench.ann.peers import PEERS
from bench.data import CACHE
from bench.machine import commit, version_of
from bench.turns import Child, ChildFailed
from bench.vectors import VectorSet, load_set

MODES = {
    "batch": "one batch call, one thread",
    "one": "one call a query, one thread",
    "all": "one batch call, all threads",
}

_OWN = "vecdb"
_SURVEY_S = 60.0  # of a peer's first round; what would come after that is slower still


@dataclass(frozen=True)
class Plan:
    """How much is measured. all_threads: whether the mode "all" is. keep: take and leave other libraries' indexes in CACHE."""

    peers: tuple[str, ...]
    queries: int
    rounds: int
    quick: bool
    all_threads: bool
    keep: bool


@dataclass
class Measured:
    """What is known of one peer so far. chosen: of the survey, what the rounds measure. recall: for each mode and point of
    chosen; qps: the same, one value a round.
    """

    name: str
    folder: Path
    built: dict[str, Any] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)
    survey: list[Point] = field(default_factory=list)
    chosen: list[Point] = field(default_factory=list)
    recall: dict[str, list[float]] = field(default_factory=dict)
    qps: dict[str, list[list[float]]] = field(default_factory=dict)
    overhead: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Comparison:
    """One set, phase after phase."""

    def __init__(self, name: str, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.set: VectorSet = load_set(name).first_queries(plan.queries)
        self._checksums = self.set.checksums()
        self.peers = [Measured(peer, self._folder_of(peer, folder)) for peer in plan.peers]
        self._modes = tuple(MODES) if plan.all_threads else ("batch", "one")

    def measure(self) -> list[Measured]:
        say(f"{self.set!r}, {len(self.set.queries):,} queries")
        for peer in self.peers:
            with self._failing(peer):
                self._build(peer)
        with ExitStack() as stack:
            alone = {peer.name: child for peer in self.peers for child in self._loaded(peer, stack, single=True)}
            together = {peer.name: child for peer in self._sound() for child in self._loaded(peer, stack, single=False)}
            for peer in self._shuffled(0):
                with self._failing(peer):
                    self._survey(peer, alone[peer.name])
            for number in range(1, self.plan.rounds + 1):
                say(f"{self.set.name}: round {number} of {self.plan.rounds}")
                for peer in self._shuffled(number):
                    with self._failing(peer):
                        self._turn(peer, alone[peer.name], together.get(peer.name))
            for peer in self._sound():
                with self._failing(peer):
                    peer.overhead = alone[peer.name].tell("overhead", setting=peer.chosen[0]["setting"])
        return self.peers

    def lines(self, described: dict[str, Any]) -> list[dict[str, Any]]:
        """One JSON-able line for each peer."""
        base = self.set.base
        of_set = {
            "name": self.set.name,
            "metric": self.set.metric,
            "rows": len(base),
            "dimension": base.shape[1],
            "queries": len(self.set.queries),
            "checksums": self._checksums,
        }
        plan = {"rounds": self.plan.rounds, "quick": self.plan.quick, "k": 10}
        return [
            {**described, "set": of_set, "plan": plan, **_line(peer, len(base), self._modes)} for peer in self.peers
        ]

    def _folder_of(self, peer: str, folder: Path) -> Path:
        kept = self.plan.keep and peer != _OWN
        return (CACHE / "ann" if kept else folder) / self.set.name / peer

    def _build(self, peer: Measured) -> None:
        known = self._kept(peer)
        if known is not None:
            peer.built = known
            return
        with self._child(peer, single=False) as child:
            peer.built = child.tell("build")
        said = peer.built
        say(f"built {peer.name} in {said['build_s']:.1f} s with {said['threads']} threads, {said['disk_mb']:.0f} MB")
        if self.plan.keep and peer.name != _OWN:
            note = {**said, "base": self._checksums["base"], "version": _version(peer.name), "commit": commit()}
            (peer.folder.parent / f"{peer.name}.json").write_text(json.dumps(note))

    def _kept(self, peer: Measured) -> dict[str, Any] | None:
        """What the build of an earlier run said, if its index is of these vectors and of this version."""
        note = peer.folder.parent / f"{peer.name}.json"
        if not (self.plan.keep and peer.name != _OWN and note.exists() and peer.folder.exists()):
            return None
        known: dict[str, Any] = json.loads(note.read_text())
        same = known.get("base") == self._checksums["base"] and known["version"] == _version(peer.name)
        return known if same else None

    def _loaded(self, peer: Measured, stack: ExitStack, *, single: bool) -> Iterator[Child]:
        """The peer's searching process, ready; nothing if it failed or this mode is not measured."""
        if peer.failures or not (single or self.plan.all_threads):
            return
        with self._failing(peer):
            child = stack.enter_context(self._child(peer, single=single))
            loaded = child.tell("load")
            if single:
                peer.loaded = loaded
            yield child

    def _child(self, peer: Measured, *, single: bool) -> Child:
        child = Child(peer.name, peer.folder, single=single, worker="bench.ann.worker")
        try:
            child.tell(
                "start",
                set=self.set.name,
                queries=self.plan.queries,
                threads=1 if single else None,
                least_s=0.01 if self.plan.quick else 0.1,
            )
        except ChildFailed:
            child.__exit__(None, None, None)
            raise
        return child

    def _survey(self, peer: Measured, child: Child) -> None:
        peer.survey = child.tell("survey", budget_s=_SURVEY_S / 4 if self.plan.quick else _SURVEY_S)["points"]
        peer.chosen = worth_measuring(peer.survey, quick=self.plan.quick)
        peer.qps = {mode: [[] for _ in peer.chosen] for mode in self._modes}
        best = peer.survey[-1]["recall"]
        say(f"{self.set.name}: {peer.name} has {len(peer.survey)} settings, recall up to {best:.4f}")

    def _turn(self, peer: Measured, alone: Child, together: Child | None) -> None:
        settings = [point["setting"] for point in peer.chosen]
        for mode in self._modes:
            child = together if mode == "all" else alone
            if child is None:
                continue
            first = mode not in peer.recall
            answer = child.tell("turn", settings=settings, mode="one" if mode == "one" else "batch", with_recall=first)
            for values, point in zip(peer.qps[mode], answer["points"]):
                values.append(point["qps"])
            if first:
                peer.recall[mode] = [point["recall"] for point in answer["points"]]

    def _shuffled(self, number: int) -> list[Measured]:
        order = self._sound()
        random.Random(number).shuffle(order)
        return order

    def _sound(self) -> list[Measured]:
        return [peer for peer in self.peers if not peer.failures]

    @contextmanager
    def _failing(self, peer: Measured) -> Iterator[None]:
        """A peer that fails is out of the rest of this set, and the report says why."""
        try:
            yield
        except ChildFailed as error:
            say(str(error))
            peer.failures.append(str(error))


def forget(folder: Path) -> None:
    """The saved indexes of one set are not wanted any more."""
    shutil.rmtree(folder, ignore_errors=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _line(peer: Measured, rows: int, modes: Sequence[str]) -> dict[str, Any]:
    measured = {mode: _points(peer, mode) for mode in modes if mode in peer.recall}
    line: dict[str, Any] = {
        "peer": peer.name,
        "version": _version(peer.name),
        "note": PEERS[peer.name].note,
        "failures": peer.failures,
        "built": peer.built,
        "loaded": peer.loaded,
        "survey": peer.survey,
        "modes": measured,
        "at_recall": {mode: {str(r): at_recall(points, r) for r in RECALLS} for mode, points in measured.items()},
    }
    if peer.loaded:
        line["bytes_per_vector"] = peer.loaded["memory_mb"] * 1e6 / rows
    if peer.overhead:
        line["overhead"] = {**peer.overhead, "call_us": peer.overhead["alone_us"] - peer.overhead["in_batch_us"]}
    return line


def _points(peer: Measured, mode: str) -> list[Point]:
    return [
        {
            "setting": point["setting"],
            "recall": recall,
            "qps": statistics.median(values),
            "best_qps": max(values),
            "rounds": values,
        }
        for point, recall, values in zip(peer.chosen, peer.recall[mode], peer.qps[mode])
    ]


def _version(peer: str) -> str | None:
    return version_of(PEERS[peer].distribution)
