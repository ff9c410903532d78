"""Losses and rewards that the rerankers' papers train with. Tensors in, tensors out; one slate a row.

An order is given as ranks: ranks[b, i] is the place of document i in the teacher's order of slate b, from 1; 0 for padding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def ranknet(scores: Tensor, ranks: Tensor, *, weighted: bool = False, scale: float = 1.0) -> Tensor:
    """Mean over slates of the mean over pairs of log(1 + exp(scale (s_worse - s_better))). (B, n), (B, n) -> ().

    weighted: each pair by 1 / (r_i + r_j), so that errors among the best count most (FIRST, equation 3). Ranks are of their row:
    numbering them over a flattened batch would weigh later slates less.
    """
    better = ranks.unsqueeze(2) < ranks.unsqueeze(1)  # (B, i, j): i is above j
    better &= (ranks > 0).unsqueeze(2) & (ranks > 0).unsqueeze(1)
    losses = functional.softplus(scale * (scores.unsqueeze(1) - scores.unsqueeze(2)))
    if weighted:
        losses = losses / (ranks.unsqueeze(2) + ranks.unsqueeze(1)).clamp(min=1)
    pairs = better.sum(dim=(1, 2))
    per_slate = (losses * better).sum(dim=(1, 2)) / pairs.clamp(min=1)
    return per_slate.sum() / (pairs > 0).sum().clamp(min=1)


def info_nce(queries: Tensor, documents: Tensor, ranks: Tensor, *, temperature: float = 0.03) -> Tensor:
    """Cross-entropy of the teacher's first among all documents of the batch. (B, D), (B, n, D), (B, n) -> (). Unit vectors.

    Padding is no negative, and neither are other documents that share the first rank in the query's own slate.
    """
    rows = torch.arange(len(queries), device=queries.device)
    first = torch.where(ranks > 0, ranks, ranks.max() + 1).argmin(dim=1)
    counts = (ranks > 0).repeat(len(queries), 1, 1)  # (B, slate, n)
    counts[rows, rows] &= ranks != ranks.gather(1, first.unsqueeze(1))
    counts[rows, rows, first] = True
    similar = torch.einsum("bd,snd->bsn", queries, documents) / temperature
    similar = similar.masked_fill(~counts, -torch.inf).flatten(1)
    return functional.cross_entropy(similar, rows * documents.shape[1] + first)


def e2rank(
    plain: Tensor,
    listwise: Tensor,
    documents: Tensor,
    ranks: Tensor,
    *,
    temperature: float = 0.03,
    scale: float = 10.0,
    share: float = 2.0,
) -> Tensor:
    """InfoNCE of the plain query + share x RankNet of the listwise query (E2Rank, section 3.3).

    plain, listwise (B, D); documents (B, n, D), encoded once for both; unit vectors. The positive is what the teacher has first.
    """
    cosines = torch.einsum("bd,bnd->bn", listwise, documents)
    return info_nce(plain, documents, ranks, temperature=temperature) + share * ranknet(cosines, ranks, scale=scale)


def listnet(scores: Tensor, ranks: Tensor, *, temperature: float = 0.8) -> Tensor:
    """Cross-entropy between softmax(1 / rank) and softmax(score), both at the temperature (MVP, section 3.4).

    Plain ListNet: the released code of MVP takes a softmax twice, which flattens its gradients.
    """
    real = ranks > 0
    gains = torch.where(real, 1.0 / ranks.clamp(min=1), torch.full_like(scores, -torch.inf))
    target = functional.softmax(gains / temperature, dim=1)
    logs = functional.log_softmax(scores.masked_fill(~real, -torch.inf) / temperature, dim=1)
    return -(target * logs.masked_fill(~real, 0.0)).sum(dim=1).mean()


def orthogonality(anchors: Tensor) -> Tensor:
    """|| A A^T - I ||_F^2 of anchors with rows of unit length. (m, d) -> ()"""
    rows = functional.normalize(anchors, dim=-1)
    return ((rows @ rows.T - torch.eye(len(rows), device=rows.device)) ** 2).sum()


def position_weights(marks: list[str], *, separators: float = 1.0) -> list[float]:
    """The importance of each token of a written order "3] > [1] > …" (full ranking, section 3.3): 1 + 1 / log2(p + 1) at list
    position p for the tokens of an identifier, `separators` for those between.

    marks: the text of each token. Positions come from the text, not from token ids, so any tokenizer will do: p rises with each
    ">". A token that holds both an end of an identifier and a separator counts as identifier.
    """
    weights, position = [], 1
    for mark in marks:
        if not any(letter.isalnum() or letter in "[]" for letter in mark):
            weights.append(separators)
        else:
            at = position + mark.split("[")[0].count(">") if "[" in mark else position
            weights.append(1.0 + 1.0 / torch.log2(torch.tensor(at + 1.0)).item())
        position += mark.count(">")
    return weights


def weighted_nll(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Sum of weight x -log P(label) over tokens with a weight, divided by how many these are. (B, T, V), (B, T), (B, T) -> ().

    logits[:, t] predict labels[:, t]. Weight 0 leaves a token out: the prompt, padding. With weights of 1 it is the plain loss.
    """
    losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(weights)
    return (losses * weights).sum() / (weights > 0).sum().clamp(min=1)


def advantages(rewards: Tensor) -> Tensor:
    """(G,) -> (G,): (r - mean) / std over a group of samples; zeros where all rewards are equal (GRPO)."""
    spread = rewards.std(unbiased=False)
    return torch.zeros_like(rewards) if spread < 1e-8 else (rewards - rewards.mean()) / spread


def grpo(
    new: Tensor,
    old: Tensor,
    reference: Tensor,
    mask: Tensor,
    advantage: Tensor,
    *,
    clip: float = 0.2,
    kl: float = 0.001,
) -> Tensor:
    """The clipped policy loss of one group with a penalty for leaving the reference model (Shao et al. 2024, equation 3).

    new, old, reference: (G, T) log-probabilities of the sampled tokens; mask: which of them are real; advantage: (G,).
    """
    ratio = (new - old).exp()
    gain = torch.minimum(ratio * advantage.unsqueeze(1), ratio.clamp(1 - clip, 1 + clip) * advantage.unsqueeze(1))
    away = (reference - new).exp() - (reference - new) - 1.0
    per_sample = ((gain - kl * away) * mask).sum(1) / mask.sum(1).clamp(min=1)
    return -per_sample.mean()
