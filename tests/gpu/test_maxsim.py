"""Fused MaxSim against the sum of maxima written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vecdb.errors import DimensionMismatch, InvalidInput, InvalidVector
from vecdb.gpu import reference
from vecdb.gpu.maxsim import Documents, maxsim

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = [3, 0, 64, 65, 1, 130, 7]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1).to(
        DEVICE
    )


def starts_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def truth(queries: torch.Tensor, lengths: list[int], tokens: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    used = torch.cat([query[:length] for query, length in zip(queries, lengths)])
    return reference.maxsim(used, starts_of(lengths), tokens, starts)


@pytest.mark.parametrize(("codec", "tolerance"), [("float16", 2e-3), ("int8", 3e-2), ("float8", 6e-2)])
@pytest.mark.parametrize(("count", "most", "dim"), [(1, 5, 24), (6, 32, 128), (2, 150, 16)])
def test_every_document_gets_the_sum_of_maxima(codec: Any, tolerance: float, count: int, most: int, dim: int) -> None:
    tokens, starts = normal(sum(LENGTHS), dim), starts_of(LENGTHS)
    queries = normal(count, most, dim, seed=1)
    lengths = [most - i for i in range(count)]
    found = maxsim(queries, Documents(tokens, starts, codec=codec, device=DEVICE), lengths=torch.tensor(lengths))
    torch.testing.assert_close(
        found, truth(queries, lengths, tokens, starts), rtol=tolerance, atol=tolerance * most**0.5
    )


@pytest.mark.parametrize("codec", ["float16", "int8"])
@pytest.mark.parametrize("most", [7, 150])
def test_candidates_of_each_query_score_as_among_all(codec: Any, most: int) -> None:
    tokens, starts = normal(sum(LENGTHS), 32), starts_of(LENGTHS)
    queries = normal(2, most, 32, seed=1)
    documents = Documents(tokens, starts, codec=codec, device=DEVICE)
    candidates = torch.tensor([[5, 1, -1, 0], [2, 2, 6, -1]], device=DEVICE)
    found = maxsim(queries, documents, lengths=torch.tensor([most, 4]), candidates=candidates)
    of_all = maxsim(queries, documents, lengths=torch.tensor([most, 4]))
    wanted = of_all.gather(1, candidates.clamp(min=0)).masked_fill(candidates < 0, float("-inf"))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_negative_similarities_are_not_lost_to_padding() -> None:
    tokens = -torch.ones(3, 16, device=DEVICE)
    found = maxsim(torch.ones(1, 2, 16, device=DEVICE), Documents(tokens, starts_of([1, 2]), device=DEVICE))
    assert found.tolist() == [[-32.0, -32.0]]


def test_nothing_there_scores_nothing() -> None:
    documents = Documents(normal(0, 8), starts_of([0, 0]), device=DEVICE)
    assert maxsim(normal(1, 3, 8), documents).tolist() == [[0.0, 0.0]]
    assert maxsim(normal(0, 3, 8), documents).shape == (0, 2)
    some = Documents(normal(4, 8), starts_of([4]), device=DEVICE)
    assert maxsim(normal(2, 3, 8), some, lengths=torch.tensor([0, 0])).abs().max() == 0
    assert maxsim(normal(2, 3, 8), some, candidates=torch.empty(2, 0)).shape == (2, 0)


def test_arguments_that_cannot_be_are_refused() -> None:
    tokens = normal(4, 8)
    for starts in ([0, 3], [1, 4], [0, 3, 2, 4], []):
        with pytest.raises(InvalidInput, match="starts"):
            Documents(tokens, torch.tensor(starts), device=DEVICE)
    with pytest.raises(InvalidInput, match="codec"):
        Documents(tokens, starts_of([4]), codec="float4", device=DEVICE)  # type: ignore[arg-type]
    with pytest.raises(InvalidVector, match="shape"):
        Documents(tokens[0], starts_of([4]), device=DEVICE)
    with pytest.raises(InvalidVector, match="NaN"):
        Documents(tokens / 0, starts_of([4]), device=DEVICE)
    some = Documents(tokens, starts_of([4]), device=DEVICE)
    with pytest.raises(DimensionMismatch, match="9 numbers"):
        maxsim(normal(1, 2, 9), some)
    with pytest.raises(InvalidVector, match="shape"):
        maxsim(normal(2, 8), some)
    with pytest.raises(InvalidVector, match="NaN"):
        maxsim(normal(1, 2, 8) * float("inf"), some)
    with pytest.raises(InvalidInput, match="lengths"):
        maxsim(normal(1, 2, 8), some, lengths=torch.tensor([3]))
    for candidates in (torch.tensor([[1]]), torch.tensor([[-2]]), torch.tensor([0])):
        with pytest.raises(InvalidInput, match="candidates"):
            maxsim(normal(1, 2, 8), some, candidates=candidates)
