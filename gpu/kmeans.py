"""k-means on a device (Lloyd 1982): the same centroids in every run, since every sum is taken in one order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vecdb.errors import InvalidInput

if TYPE_CHECKING:
    import torch

_SCORES = 1 << 27  # float32 numbers of a block of vectors with all centroids: 512 MiB


class Clusters(NamedTuple):
    """centroids (K, D) float32, and for each vector the number of its nearest (N,) int64."""

    centroids: torch.Tensor
    assigned: torch.Tensor


def kmeans(
    vectors: torch.Tensor, count: int, *, rounds: int = 20, seed: int = 0, start: torch.Tensor | None = None
) -> Clusters:
    """`count` clusters of vectors (N, D) float32, which stay where they are. It begins with vectors that the seed draws, or with
    start (K, D), and ends after so many rounds, or when a round changes nothing. A cluster that loses all its vectors takes
    a place beside the fullest.

    Raises InvalidInput if there are fewer vectors than clusters, or no round.
    """
    import torch

    if not 1 <= count <= len(vectors) or rounds < 1:
        raise InvalidInput(
            f"{count} clusters of {len(vectors)} vectors in {rounds} rounds; give 1 to N clusters and a round"
        )
    if start is None:
        drawn = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:count]
        start = vectors[drawn.to(vectors.device)]
    centroids, assigned = start.float(), nearest(vectors, start.float())
    for _ in range(rounds):
        centroids = moved(centroids, *sums_of(vectors, assigned, count))
        before, assigned = assigned, nearest(vectors, centroids)
        if bool((before == assigned).all()):
            break
    return Clusters(centroids, assigned)


def nearest(vectors: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """(N,) int64: the nearest of centroids (K, D) to each of vectors (N, D), the first of equals."""
    import torch

    halves = (centroids.double() ** 2).sum(1).float() / 2
    at_once = max(1, _SCORES // len(centroids))
    parts = [(halves - part @ centroids.T).argmin(1) for part in vectors.split(at_once)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=vectors.device)


def sums_of(vectors: torch.Tensor, assigned: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(K, D) float64 and (K,) int64: the sum of the vectors of each cluster, and how many they are."""
    import torch

    counts = torch.bincount(assigned, minlength=count)
    order = assigned.sort(stable=True).indices
    sums = torch.segment_reduce(vectors[order].double(), "sum", lengths=counts, axis=0, unsafe=True)
    return sums, counts


def moved(centroids: torch.Tensor, sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Centroids at the means of their vectors; one without takes a place beside the fullest, and half of what that has."""
    made = centroids.clone()
    used = counts > 0
    made[used] = (sums[used] / counts[used, None]).float()
    sizes = counts.tolist()
    for empty in (~used).nonzero()[:, 0].tolist():
        full = max(range(len(sizes)), key=sizes.__getitem__)
        if sizes[full] < 2:
            break
        made[empty] = made[full] * (1 + 2**-10)
        made[full] *= 1 - 2**-10
        sizes[full] //= 2
    return made
