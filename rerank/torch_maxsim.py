"""MaxSim in PyTorch, on any device: the twin of the compiled kernels, and the way to a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import MissingExtra, ModelUnavailable
from vecdb.rerank.tokens import Tokens
from vecdb.types import Vector


def maxsim(query: Vector, tokens: Tokens, ends: NDArray[np.int64], *, device: str = "cpu") -> NDArray[np.float64]:
    """(n,) scores; document i has the tokens ends[i] … ends[i + 1], and scores -inf without any. Sums are float32.

    Raises MissingExtra without PyTorch, ModelUnavailable for a device that is not there.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", extra="rerank", what="maxsim on a device") from error
    try:
        queries = torch.from_numpy(np.ascontiguousarray(query, dtype=np.float32)).to(device)
        documents = _padded(tokens.dense(), ends).to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelUnavailable(f"PyTorch cannot compute on {device!r}: {error}; leave device out") from error
    lengths = torch.from_numpy(np.diff(ends)).to(device)
    similarities = documents @ queries.T  # (n, T, Q)
    beyond = torch.arange(documents.shape[1], device=device)[None, :] >= lengths[:, None]
    # A mask that multiplies would make padding 0, which beats similarities that are truly negative.
    similarities = similarities.masked_fill(beyond[:, :, None], -torch.inf)
    scores = similarities.amax(dim=1).sum(dim=1)
    scores = torch.where(lengths > 0, scores, torch.full_like(scores, -torch.inf))
    return np.asarray(scores.cpu().numpy(), dtype=np.float64)


def _padded(vectors: Vector, ends: NDArray[np.int64]) -> Any:
    """(n, longest, D), at least one token wide."""
    import torch

    counts = np.diff(ends)
    out = np.zeros((len(counts), max(1, int(counts.max(initial=0))), vectors.shape[1]), np.float32)
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(int(ends[0]), int(ends[-1])) - np.repeat(ends[:-1], counts)
    out[rows, columns] = vectors[int(ends[0]) : int(ends[-1])]
    return torch.from_numpy(out)
