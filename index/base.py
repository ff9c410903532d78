"""What every vector index can do. An index sees arrays and positions; it knows no SQL, no ids and no files.

A position is a vector's place in the array that the index was built from: 0 … N-1, in the order of insertion. Positions
never move, except by `compact`, which says what became of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput

Metric = Literal["cosine", "l2", "ip"]
Order = Literal["random", "given", "lid_desc", "lid_asc"]
Vectors = NDArray[np.float32]
Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]

METRICS: tuple[Metric, ...] = ("cosine", "l2", "ip")
ORDERS: tuple[Order, ...] = ("random", "given", "lid_desc", "lid_asc")


class Neighbours(NamedTuple):
    """The answer to a batch of B queries, nearest first, equal distances by position.

    positions: (B, k) int64, -1 where fewer than k vectors were allowed. distances: (B, k) float32, +inf there; cosine is
    1 - cos (never below 0), l2 is the squared Euclidean distance, ip is the negated dot product. work: (B,) int64,
    distances computed. estimated_recall: (B,) float32, the share of the true k nearest that is likely among these, where a
    target recall was asked for, else None. way: how it was found: "scan" of all allowed vectors, "walk" through the graph, or
    "filtered walk" that reports the allowed only.
    """

    positions: Positions
    distances: Vectors
    work: NDArray[np.int64]
    estimated_recall: NDArray[np.float32] | None = None
    way: str = "scan"

    def with_recall(self, recall: float) -> Neighbours:
        """The same, with this as the estimated recall of every query."""
        return self._replace(estimated_recall=np.full(len(self.work), recall, np.float32))


@dataclass(frozen=True, slots=True)
class HnswConfig:
    """Settings that an HNSW graph is built with; they are saved beside it.

    M: links a node chooses on each level, 2M at most on the base level (Malkov & Yashunin 2016, section 4.1).
    ef_construction: beam width while building. ef: default beam width of a search, raised to k where k is larger.
    seed: of the level draw and of the insertion order. order: "random" inserts in a shuffled order, "given" as they come,
    "lid_desc" and "lid_asc" by local intrinsic dimensionality, told by lid_k neighbours, hardest or easiest first: each
    batch within itself, measured in the index before it or in the batch, whichever is larger (ordering.py).
    """

    M: int = 16
    ef_construction: int = 200
    ef: int = 64
    seed: int = 0
    order: Order = "random"
    lid_k: int = 100  # the estimate varies with 1 / lid_k; only the orders by LID read it

    def __post_init__(self) -> None:
        if not 2 <= self.M <= 128:
            raise InvalidInput(f"M is {self.M}; it must lie between 2 and 128")
        if self.ef_construction < self.M:
            raise InvalidInput(f"ef_construction is {self.ef_construction}; it must be at least M = {self.M}")
        if self.ef < 1:
            raise InvalidInput(f"ef is {self.ef}; it must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise InvalidInput(f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")
        if self.order not in ORDERS:
            raise InvalidInput(f"order is {self.order!r}; it must be one of {', '.join(ORDERS)}")
        if self.lid_k < 2:
            raise InvalidInput(f"lid_k is {self.lid_k}; a local dimension is told by at least two neighbours")

    @property
    def text(self) -> str:
        """In a few words: what searches go by."""
        return f"hnsw M={self.M}"

    def builds_as(self, other: IndexConfig) -> bool:
        """Whether other leads to the same graph; ef is of the search only."""
        return isinstance(other, HnswConfig) and replace(other, ef=self.ef) == self


@dataclass(frozen=True, slots=True)
class NeuralLshConfig:
    """Settings that a learned partition is built with; they are saved beside it.

    bins: parts of the space; 0: as many as leave about 256 vectors a bin, between 16 and 1,024. hidden, layers: width and number
    of the network's hidden layers. soft_k: neighbours whose bins a vector is to tell (the paper's released code: 50). graph_k:
    of the graph that is cut (there: 10). epochs: passes over the vectors. probes: bins that a search looks into unless it says
    otherwise. seed: of all that is drawn.
    """

    bins: int = 0
    hidden: int = 256
    layers: int = 2
    soft_k: int = 50
    graph_k: int = 10
    epochs: int = 12
    probes: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("bins", 0, 65_536),
            ("hidden", 1, 4_096),
            ("layers", 0, 8),
            ("soft_k", 1, 1_000),
            ("graph_k", 1, 100),
            ("epochs", 1, 1_000),
            ("probes", 1, 65_536),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidInput(f"{name} is {value}; it must lie between {least} and {most:,}")
        if self.bins == 1:
            raise InvalidInput("bins is 1; a partition has at least two, or 0 for a number that suits the vectors")
        if not 0 <= self.seed < 2**63:
            raise InvalidInput(f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")

    @property
    def text(self) -> str:
        return f"neural_lsh bins={self.bins or 'auto'}"

    def builds_as(self, other: IndexConfig) -> bool:
        """Whether other leads to the same bins; probes is of the search only."""
        return isinstance(other, NeuralLshConfig) and replace(other, probes=self.probes) == self

    def bins_for(self, count: int) -> int:
        """How many bins so many vectors get: never more than there are vectors, and at least one."""
        wanted = self.bins or min(max(count // 256, 16), 1_024)
        return max(1, min(wanted, count))


@dataclass(frozen=True, slots=True)
class CodesConfig:
    """Settings of a scan of codes: no graph, every code is looked at, and the best are measured again on the vectors.

    codec: what the scan reads, such as "rabitq:4", "pq:48" or "pca:192+int8" (vecdb.index.codecs). oversampling: so many times k
    are measured again, by hand; 0: as many as a search for `recall` of the ten nearest was seen to need. seed: of the codec.
    """

    codec: str = "rabitq:4"
    oversampling: float = 0.0
    recall: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        from vecdb.index.codecs import parse

        parse(self.codec, 65_536)  # what depends on the dimension is looked at once there is one
        if self.oversampling != 0 and not 1 <= self.oversampling <= 10_000:
            raise InvalidInput(
                f"oversampling is {self.oversampling}; it must lie between 1 and 10,000, or be 0 to be learnt"
            )
        if not 0 < self.recall <= 1:
            raise InvalidInput(f"recall is {self.recall}; it must lie above 0 and be at most 1")
        if not 0 <= self.seed < 2**63:
            raise InvalidInput(f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")

    @property
    def text(self) -> str:
        return f"codes {self.codec}"

    def builds_as(self, other: IndexConfig) -> bool:
        """Whether other leads to the same codes; oversampling and recall are of the search only."""
        return (
            isinstance(other, CodesConfig)
            and replace(other, oversampling=self.oversampling, recall=self.recall) == self
        )


IndexConfig = HnswConfig | NeuralLshConfig | CodesConfig


def index_config(given: Mapping[str, Any]) -> IndexConfig:
    """The settings that a mapping describes: "kind" ("hnsw", also where there is none, "neural_lsh" or "codes") and any of its
    fields.

    Raises InvalidInput.
    """
    kind = given.get("kind", "hnsw")
    known: dict[str, type[IndexConfig]] = {
        "hnsw": HnswConfig,
        "neural_lsh": NeuralLshConfig,
        "codes": CodesConfig,
    }
    if kind not in known:
        raise InvalidInput(f"the index kind is {kind!r}; it must be one of {', '.join(known)}")
    settings = {name: value for name, value in given.items() if name != "kind"}
    unknown = settings.keys() - {field.name for field in fields(known[kind])}
    if unknown:
        raise InvalidInput(f"{', '.join(sorted(unknown))} is no setting of a {kind} index")
    return known[kind](**settings)


class VectorIndex(Protocol):
    """Vectors are (N, D) float32, finite and C-contiguous; unit length under cosine (the caller sees to that).

    Searches may run in several threads at once. `add`, `remove` and `compact` want the index for themselves: to change one
    that others are searching, change a `copy` and hand that out. Arrays that an index was given are never written to.
    """

    kind: str
    metric: Metric
    dimension: int

    def __len__(self) -> int:
        """How many positions there are, removed ones included."""

    @property
    def live(self) -> Mask:
        """(N,) bool, read-only: True where the position has not been removed."""

    def add(self, vectors: Vectors, *, threads: int | None = None) -> None:
        """Append vectors; their positions continue from len(self). threads=None takes all processors, here and below."""

    def remove(self, positions: Positions, *, threads: int | None = None) -> None:
        """Forget these positions: no search returns them again. Removing one twice does nothing more."""

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allowed: Mask | None = None,
        ef: int | None = None,
        target_recall: float | None = None,
        threads: int | None = 1,
    ) -> Neighbours:
        """The k nearest of the allowed positions (mask of length len(self)) for each of (B, D) queries.

        If at least k allowed positions exist, k come back. In place of ef, target_recall (between 0 and 1) lets each query
        end as soon as its recall is likely that much; the answer then says what it is likely to be.
        """

    def forecast(
        self, k: int, *, matching: int | None = None, ef: int | None = None, target_recall: float | None = None
    ) -> tuple[str, int]:
        """The way that such a search would take, and about how many distances it would compute, without doing it. matching: how
        many positions are allowed; None where no mask is given.
        """

    def refresh(self, *, threads: int | None = None) -> None:
        """Learn anew what was learned from the vectors, where so many have come or gone that it may no longer fit."""

    def compact(self) -> Positions:
        """Drop removed positions; returns the old positions of those kept, ascending: new position i was kept[i]."""

    def copy(self) -> VectorIndex:
        """An independent index with the same content; cheap, because the vectors are shared."""

    def check(self) -> list[str]:
        """Every broken invariant in words; empty if the index is sound."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The index as named C-contiguous arrays, "vectors" among them; with `settings()` enough for `open_index`."""

    def settings(self) -> dict[str, Any]:
        """JSON-able settings that go with `arrays()`, kind included."""
