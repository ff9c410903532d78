"""Product quantisation: parts of a vector, each one of 256 centroids (Jégou, Douze & Schmid 2011); and its two relatives.

OPQ turns the vectors first, so that parts are alike and independent (Ge et al. 2013, the non-parametric solution). Grouped by
magnitude, vectors of different lengths have codebooks of their own (MGQE with norm in place of popularity): groups hold about
the same sum of norms. On unit vectors, where norms say nothing, that can gain nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidInput
from vecdb.index.base import Metric, Vectors
from vecdb.index.codecs.base import Arrays, Codes, Plain, saturated
from vecdb.index.codecs.compiled import kernels, over_rows
from vecdb.index.codecs.linear import Linear, random_turn

CENTROIDS = 256
_ROUNDS = 20  # of Lloyd's; later ones change the error by less than a thousandth
_TURNS, _ROUNDS_A_TURN = 12, 2  # of OPQ
_SAMPLE = 64 * CENTROIDS
_OPQ_SAMPLE = 32 * CENTROIDS
_FINEST = 2**16 - 1  # of whole numbers in a table
FARTHEST = 1e18  # as simd.FARTHEST, which is not imported before it is needed
Books = NDArray[np.float32]  # (M, S, K): centroid k of part m is [m, :, k]
# (N, M * S), books -> sums (M, K, S) float64 and counts (M, K) of the vectors of each centroid
Means = Callable[[Vectors, Books], tuple[NDArray[np.float64], NDArray[np.int64]]]


class ProductQuantiser(Plain):
    """A byte for each of `parts` parts; a dimension that they do not divide is padded with zeros."""

    name: ClassVar[str] = "pq"

    def __init__(self, size: int, parts: int) -> None:
        if parts > size:
            raise InvalidInput(f"{self.name}:{parts} makes more parts than the {size} numbers there are; ask for fewer")
        self.size, self.parts, self.width = size, parts, parts
        self._books: Books = np.zeros((0, 0, 0), np.float32)  # until it is fitted

    @property
    def text(self) -> str:
        return f"{self.name}:{self.parts}"

    def fit(self, sample: Vectors, seed: int) -> Self:
        return self.with_arrays({"books": fit_books(part_of(sample), self.parts, seed)})

    def arrays(self) -> Arrays:
        return {"books": self._books}

    def with_arrays(self, arrays: Arrays) -> Self:
        made = type(self)(self.size, self.parts)
        made._books = np.ascontiguousarray(arrays["books"], np.float32)
        return made

    def encode(self, values: Vectors) -> Codes:
        return nearest_centroids(values, self._books)

    def decode(self, codes: Codes) -> Vectors:
        return centroids_of(codes, self._books)[:, : self.size]

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        """Tables are rounded to sixteen bits, so that sums are of whole numbers: the same with and without SIMD, and off by less
        than a thousandth of what the codes lost.
        """
        out = np.empty((len(queries), len(codes)), np.float32)
        given = scan_tables(queries, self._books)
        over_rows(kernels().products_by_tables, len(codes), *given, codes, out)
        return out


class GroupedQuantiser(Plain):
    """A byte for the group and one for each part. Groups are ranges of norm, with codebooks of their own."""

    name: ClassVar[str] = "mpq"

    def __init__(self, size: int, parts: int, groups: int = 4) -> None:
        if parts > size:
            raise InvalidInput(f"{self.name}:{parts} makes more parts than the {size} numbers there are; ask for fewer")
        self.size, self.parts, self.groups = size, parts, groups
        self.width = parts + 1
        self._books = np.zeros((0, 0, 0, 0), np.float32)  # until it is fitted
        self._bounds: Vectors = np.zeros(groups - 1, np.float32)  # of norms: group g lies below bounds[g]

    @property
    def text(self) -> str:
        return f"{self.name}:{self.parts}" + (f",{self.groups}" if self.groups != 4 else "")

    def fit(self, sample: Vectors, seed: int) -> Self:
        norms = _norms(sample)
        ordered = np.sort(norms)
        shares = np.cumsum(ordered, dtype=np.float64)
        cuts = np.searchsorted(shares, shares[-1] * np.arange(1, self.groups) / self.groups)
        bounds = ordered[np.minimum(cuts, len(ordered) - 1)]
        made = self.with_arrays({"books": self._books, "bounds": bounds})
        groups = made._groups_of(sample)
        books = []
        for group in range(self.groups):
            members = sample[groups == group]
            books.append(fit_books(part_of(members if len(members) else sample), self.parts, seed + group))
        return self.with_arrays({"books": np.stack(books), "bounds": bounds})

    def arrays(self) -> Arrays:
        return {"books": self._books, "bounds": self._bounds}

    def with_arrays(self, arrays: Arrays) -> Self:
        made = type(self)(self.size, self.parts, self.groups)
        made._books, made._bounds = (np.ascontiguousarray(arrays[name], np.float32) for name in ("books", "bounds"))
        return made

    def _groups_of(self, values: Vectors) -> NDArray[np.int64]:
        groups: NDArray[np.int64] = np.searchsorted(self._bounds, _norms(values), side="right")
        return groups

    def encode(self, values: Vectors) -> Codes:
        codes = np.empty((len(values), self.width), np.uint8)
        codes[:, 0] = self._groups_of(values)
        for group in range(self.groups):
            members = np.flatnonzero(codes[:, 0] == group)
            if len(members):
                codes[members, 1:] = nearest_centroids(values[members], self._books[group])
        return codes

    def decode(self, codes: Codes) -> Vectors:
        values = np.empty((len(codes), self.size), np.float32)
        for group in range(self.groups):
            members = codes[:, 0] == group
            values[members] = centroids_of(codes[members, 1:], self._books[group])[:, : self.size]
        return values

    def products(self, queries: Vectors, codes: Codes) -> Vectors:
        out = np.empty((len(queries), len(codes)), np.float32)
        tables = np.stack([tables_of(queries, books) for books in self._books], axis=1)
        over_rows(kernels().products_by_group, len(codes), tables, codes, out)
        return out


class Opq(Linear):
    """The turn that suits product quantisation into so many parts."""

    name: ClassVar[str] = "opq"

    def __init__(self, size_in: int, parts: int) -> None:
        super().__init__(size_in, size_in)
        self.parts = parts

    @property
    def text(self) -> str:
        return f"{self.name}:{self.parts}"

    def _like(self) -> Self:
        return type(self)(self.size_in, self.parts)

    def fit(self, sample: Vectors, metric: Metric, seed: int) -> Self:
        """By turns: codebooks for the turned sample, then the turn that brings the sample nearest to its centroids."""
        sample = np.ascontiguousarray(part_of(sample, _OPQ_SAMPLE), np.float32)
        turn = random_turn(self.size_in, self.size_in, seed).astype(np.float32)
        books: Books | None = None
        for _ in range(_TURNS):
            turned = np.ascontiguousarray(sample @ turn)
            books = fit_books(turned, self.parts, seed, rounds=_ROUNDS_A_TURN, start=books)
            quantised = centroids_of(nearest_centroids(turned, books), books)[:, : self.size_in]
            left, _, right = np.linalg.svd(sample.T.astype(np.float64) @ quantised.astype(np.float64))
            turn = (left @ right).astype(np.float32)
        return self._fitted(turn)


def fit_books(
    sample: Vectors,
    parts: int,
    seed: int,
    *,
    rounds: int = _ROUNDS,
    start: Books | None = None,
    means: Means | None = None,
) -> Books:
    """Centroids for each part of a sample, by Lloyd's algorithm; an empty one takes a place beside the fullest. means: what adds
    up the vectors of each centroid, where that is not to be the CPU.
    """
    sample = np.ascontiguousarray(sample, np.float32)
    size = -(-sample.shape[1] // parts)
    padded = _padded(sample, parts * size)
    random = np.random.default_rng([seed, parts])
    if start is None:
        chosen = random.choice(len(padded), CENTROIDS, replace=len(padded) < CENTROIDS)
        books = np.ascontiguousarray(padded[chosen].reshape(CENTROIDS, parts, size).transpose(1, 2, 0))
    else:
        books = start.copy()
    books = np.clip(books, -FARTHEST, FARTHEST)
    for _ in range(rounds):
        sums, counts = (means or _means)(padded, books)
        for part in range(parts):
            books[part] = _moved(books[part], sums[part], counts[part])
    return books


def _means(padded: Vectors, books: Books) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(M, K, S) and (M, K): the sum of the vectors of each centroid, and how many they are."""
    parts, size, _ = books.shape
    codes = nearest_centroids(padded, books)
    sums, counts = np.zeros((parts, CENTROIDS, size)), np.zeros((parts, CENTROIDS), np.int64)
    for part in range(parts):
        kernels().add_to_centroids(padded, part, codes, sums[part], counts[part])
    return sums, counts


def _moved(book: Vectors, sums: NDArray[np.float64], counts: NDArray[np.int64]) -> Vectors:
    """Centroids (S, K) of one part at the means of their vectors."""
    made = book.copy()
    used = counts > 0
    made[:, used] = (sums[used] / counts[used, None]).T
    fullest = counts.copy()
    for empty in np.flatnonzero(~used):
        full = int(np.argmax(fullest))
        if fullest[full] < 2:
            break
        made[:, empty] = made[:, full] * np.float32(1 + 2**-10)
        made[:, full] *= np.float32(1 - 2**-10)
        fullest[full] //= 2
    return np.clip(made, -FARTHEST, FARTHEST)


def nearest_centroids(values: Vectors, books: Books) -> Codes:
    """(N, M)."""
    parts, size, _ = books.shape
    codes = np.empty((len(values), parts), np.uint8)
    halves = (np.einsum("msk,msk->mk", books, books, dtype=np.float64) / 2).astype(np.float32)
    padded = _padded(values, parts * size)
    over_rows(kernels().encode_products, len(values), padded, books, halves, codes)
    return codes


def centroids_of(codes: Codes, books: Books) -> Vectors:
    """(N, M * S): the vectors that codes stand for."""
    parts, size, _ = books.shape
    by_code = books.transpose(0, 2, 1)
    return np.concatenate([by_code[m][codes[:, m]] for m in range(parts)], axis=1).reshape(len(codes), parts * size)


def tables_of(queries: Vectors, books: Books) -> NDArray[np.float32]:
    """(B, M, K): the product of each part of a query with each centroid."""
    parts, size, _ = books.shape
    cut = _padded(queries, parts * size).reshape(len(queries), parts, size)
    return np.ascontiguousarray(np.einsum("bms,msk->bmk", cut, books))


def scan_tables(queries: Vectors, books: Books) -> tuple[NDArray[Any], ...]:
    """What `kernels.products_by_tables` is given: whole tables, and the same ones cut into bytes."""
    compiled = kernels()
    parts, size, count = books.shape
    chunks = -(-parts // 16)
    starts = np.array([max(min(16 * c, parts - 16), 0) for c in range(chunks)])
    tables = np.empty((len(queries), parts, count), np.uint16)
    origins, units = np.empty(len(queries)), np.empty(len(queries))
    most = min(_FINEST, (2**31 - 1) // parts)  # sums are int32
    compiled.whole_tables(_padded(queries, parts * size), books, most, tables, origins, units)
    planes = np.zeros((len(queries), chunks, 16, 2, count), np.uint8)
    compiled.planes_of(tables, starts, planes)
    return tables, starts, planes, origins, units


def _padded(values: Vectors, width: int) -> Vectors:
    if values.shape[1] == width:
        return np.ascontiguousarray(values)
    padded = np.zeros((len(values), width), np.float32)
    padded[:, : values.shape[1]] = values
    return padded


def part_of(sample: Vectors, count: int = _SAMPLE) -> Vectors:
    """An even part of the sample, of at most so many vectors."""
    return sample if len(sample) <= count else sample[np.linspace(0, len(sample) - 1, count).astype(np.int64)]


def _norms(values: Vectors) -> Vectors:
    return saturated(np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64)))
