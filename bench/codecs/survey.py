"""The eight methods of Zhang et al. (VLDB 2024) that compress vectors after the fact, at equal budgets, all bytes counted.

Scalar quantisation, PQ and PQ by magnitude are vecdb's codecs. SVD, SVD by magnitude, pruning, deduplication and tensor train
work on the whole matrix; here they are written as the survey describes them, for this table only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.codecs.study import K, Task
from vecdb.index.codecs import parse
from vecdb.index.exact import exact_search
from vecdb.storage_plan import agreement

Vectors = NDArray[np.float32]
BUDGETS = (2, 4, 8, 16, 32)
_SAMPLE = 20_000
_DEDUP_ROWS, _DEDUP_COLUMNS, _ALIKE, _CLOSE = 1_000, 16, 0.7, 0.01


def compare(task: Task) -> Iterator[dict[str, Any]]:
    """A line for each method and budget: the recall of exact search over what the method gives back, and its true bytes."""
    for budget in BUDGETS:
        for name, method in METHODS.items():
            made = method(task, budget)
            if made is None:
                continue
            vectors, size = made
            if task.metric == "cosine":
                vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
            found = exact_search(vectors.astype(np.float32), task.queries, K, task.metric).positions
            yield {
                "part": "survey",
                "data": task.name,
                "codec": name,
                "budget": budget,
                "true_bytes": size / len(vectors),
                "ratio": task.documents.nbytes / size,
                "recall": agreement(found, task.true),
            }


def _by_codec(task: Task, text: str) -> tuple[Vectors, int]:
    sample = task.documents[:: max(1, len(task.documents) // _SAMPLE)]
    codec = parse(text, task.documents.shape[1], task.metric).fit(sample)
    codes = codec.encode(task.documents)
    return codec.decode(codes), codes.nbytes + codec.overhead


def scalar(task: Task, budget: int) -> tuple[Vectors, int] | None:
    text = {2: "float16", 4: "int8", 8: "int4"}.get(budget)
    return None if text is None else _by_codec(task, text)


def pq(task: Task, budget: int) -> tuple[Vectors, int] | None:
    return None if budget < 4 else _by_codec(task, f"pq:{4 * task.documents.shape[1] // budget}")


def opq(task: Task, budget: int) -> tuple[Vectors, int] | None:
    return None if budget < 4 else _by_codec(task, f"opq:{4 * task.documents.shape[1] // budget}")


def grouped_pq(task: Task, budget: int) -> tuple[Vectors, int] | None:
    return None if budget < 4 else _by_codec(task, f"mpq:{4 * task.documents.shape[1] // budget - 1}")


def svd(task: Task, budget: int) -> tuple[Vectors, int]:
    rows, columns = task.documents.shape
    rank = max(1, int(rows * columns / budget / (rows + columns)))
    return _low_rank(task.documents, rank)


def _low_rank(vectors: Vectors, rank: int) -> tuple[Vectors, int]:
    wide = vectors.astype(np.float64)
    _, directions = np.linalg.eigh(wide.T @ wide)
    kept = directions[:, ::-1][:, :rank]
    return ((wide @ kept) @ kept.T).astype(np.float32), 4 * rank * (len(vectors) + vectors.shape[1])


def grouped_svd(task: Task, budget: int) -> tuple[Vectors, int]:
    """Four groups of equal total norm, longer vectors with more dimensions: ranks fall by the square root, as for mixed ones."""
    norms = np.linalg.norm(task.documents, axis=1)
    order = np.argsort(-norms, kind="stable")
    shares = np.cumsum(norms[order])
    groups = np.split(order, np.searchsorted(shares, shares[-1] * np.arange(1, 4) / 4))
    columns = task.documents.shape[1]
    weights = np.array([(i + 1) ** -0.5 for i in range(4)])
    counts = np.array([len(group) for group in groups])
    unit = task.documents.size / budget / float(weights @ (counts + columns))
    vectors, size = np.empty_like(task.documents), 4 * len(task.documents)  # a position for each row
    for group, weight in zip(groups, weights):
        rank = min(columns, max(1, int(unit * weight)))
        vectors[group], used = _low_rank(task.documents[group], rank)
        size += used
    return vectors, size


def pruning(task: Task, budget: int) -> tuple[Vectors, int]:
    """The largest numbers of the whole matrix, as rows of (column, number) pairs: twice four bytes each, and a start a row."""
    count, columns = task.documents.shape
    kept = max(1, int(count * (columns / budget - 1) / 2))
    sizes = np.abs(task.documents)
    least = np.partition(sizes.ravel(), sizes.size - kept)[sizes.size - kept]
    return np.where(sizes >= least, task.documents, 0).astype(np.float32), 8 * kept + 4 * count


def deduplication(task: Task, budget: int) -> tuple[Vectors, int] | None:
    """Whatever it saves, whatever the budget. Blocks of 1,000 rows x 16 columns; one that agrees with an earlier one in 70 % of
    its numbers, to 0.01, is replaced by it. Rows are ordered by their first principal coordinate, so that like stands beside
    like; the order is kept, four bytes a row.
    """
    if budget != BUDGETS[0]:
        return None
    vectors = task.documents
    wide = vectors.astype(np.float64)
    order = np.argsort(wide @ np.linalg.eigh(wide.T @ wide)[1][:, -1], kind="stable")
    made, unique, blocks = np.empty_like(vectors), list[Vectors](), 0
    for left in range(0, vectors.shape[1], _DEDUP_COLUMNS):
        for top in range(0, len(order), _DEDUP_ROWS):
            place = np.ix_(order[top : top + _DEDUP_ROWS], range(left, min(left + _DEDUP_COLUMNS, vectors.shape[1])))
            block, blocks = vectors[place], blocks + 1
            like = next(
                (u for u in unique if u.shape == block.shape and np.mean(np.abs(u - block) <= _CLOSE) >= _ALIKE), None
            )
            if like is None:
                unique.append(block)
                like = block
            made[place] = like
    return made, sum(block.nbytes for block in unique) + 4 * blocks + 4 * len(order)


def tensor_train(task: Task, budget: int) -> tuple[Vectors, int]:
    """Two cores and a middle one: rows split into two digits, columns one; ranks fitted to the budget by truncated SVDs."""
    count, columns = task.documents.shape
    first = int(np.ceil(np.sqrt(count)))
    second = -(-count // first)
    padded = np.zeros((first * second, columns), np.float32)
    padded[:count] = task.documents
    room = task.documents.size / budget
    # With both ranks r: first * r + r * second * r + r * columns numbers.
    rank = int((-(first + columns) + np.sqrt((first + columns) ** 2 + 4 * second * room)) / (2 * second))
    rank = max(1, min(rank, columns, first))
    left, values, right = np.linalg.svd(padded.reshape(first, second * columns), full_matrices=False)
    rest = (values[:rank, None] * right[:rank]).reshape(rank * second, columns)
    inner, values, outer = np.linalg.svd(rest, full_matrices=False)
    second_rank = min(rank, len(values))
    middle = (inner[:, :second_rank] * values[:second_rank]) @ outer[:second_rank]
    made = (left[:, :rank] @ middle.reshape(rank, second * columns)).reshape(first * second, columns)[:count]
    size = 4 * (first * rank + rank * second * second_rank + second_rank * columns)
    return made.astype(np.float32), size


METHODS: dict[str, Callable[[Task, int], tuple[Vectors, int] | None]] = {
    "scalar": scalar,
    "pq": pq,
    "opq": opq,
    "pq by magnitude": grouped_pq,
    "svd": svd,
    "svd by magnitude": grouped_svd,
    "pruning": pruning,
    "deduplication": deduplication,
    "tensor train": tensor_train,
}
