"""Encoders of transformers that give one vector for a text: of whole texts, and of E2Rank's listwise queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from vecdb.errors import InvalidInput
from vecdb.rerank.listwise.prompts import clean, equal_cut, listed, numbers
from vecdb.rerank.models.tokenizing import shared
from vecdb.types import Vector

Pooling = Literal["mean", "last", "first", "query"]

_POOLING = "vecdb_pooling"  # where a model's config says how it was trained to be pooled
_TASK = "Rerank the documents by how well they answer the search query."


class ListwiseEncoder(Protocol):
    """What E2Rank needs of a model: vectors of plain queries, and of queries together with documents, in the space of the
    stored vectors.
    """

    def encode(self, texts: Sequence[str]) -> Vector:
        """(N, D) float32 of unit length."""

    def encode_listwise(self, queries: Sequence[str], passages: Sequence[Sequence[str]]) -> tuple[Vector, list[int]]:
        """(N, D) float32 of unit length, each by one forward pass, and how many tokens each read (0: unknown)."""


def listwise_text(query: str, passages: Sequence[str]) -> str:
    """The listwise query. The query stands at both ends: encoders cut a text's end, decoders weigh it most."""
    return f"{_TASK}\nSearch query: {query}\n{listed(numbers(len(passages)), passages)}\nSearch query: {query}"


class EmbedderAsEncoder:
    """A function from texts to vectors, such as the collection's own embedding model, as a ListwiseEncoder.

    words: how long a listwise query may be; passages are cut to one length that fits. 170 English words are about 256 tokens,
    where the default model cuts.
    """

    def __init__(self, embed: Callable[[Sequence[str]], Vector], *, words: int = 170) -> None:
        self._embed = embed
        self._words = words

    def encode(self, texts: Sequence[str]) -> Vector:
        return unit(np.asarray(self._embed(list(texts)), dtype=np.float32))

    def encode_listwise(self, queries: Sequence[str], passages: Sequence[Sequence[str]]) -> tuple[Vector, list[int]]:
        texts = []
        for query, own in zip(queries, passages):
            words = [clean(text).split() for text in own]
            room = self._words - len(listwise_text(query, [""] * len(own)).split())
            limit = max(1, equal_cut([len(text) for text in words], room))
            texts.append(listwise_text(query, [" ".join(text[:limit]) for text in words]))
        return self.encode(texts), [0] * len(texts)


class TextEncoder:
    """A transformers model and its tokenizer as an encoder of texts.

    pooling: None takes what the model was trained with here (its config says), else "last" for decoders and "mean" for others, as
    most embedding models have it. "query" is for encoders: a listwise query is then "[CLS] query [SEP] passage [SEP] …", and its
    vector the mean of the states up to the first separator. These have read the passages, but the many tokens of the passages
    have no vote of their own, which a mean over all would give them; a plain text's vector is its mean as ever.

    max_tokens: where texts are cut; None for what the model was made for. instruction: put before queries. A decoder's listwise
    query is one turn of its chat template with an empty thinking block, as the E2Rank models were trained.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        pooling: Pooling | None = None,
        max_tokens: int | None = None,
        instruction: str = "",
        batch: int = 8,
    ) -> None:
        if pooling not in (None, "mean", "last", "first", "query"):
            raise InvalidInput(f"pooling is {pooling!r}; it must be mean, last, first or query")
        self.model, self.tokenizer = model.eval(), shared(tokenizer)
        self._decodes = _is_decoder(model.config)
        trained: Pooling | None = getattr(model.config, _POOLING, None)
        self.pooling: Pooling = pooling or trained or ("last" if self._decodes else "mean")
        if self.pooling == "query" and (self._decodes or tokenizer.sep_token_id is None):
            raise InvalidInput("pooling over the query needs an encoder whose tokenizer has a separator; take another")
        self._instruction = instruction
        self._batch = batch
        known = getattr(model.config, "max_position_embeddings", None) or 512
        self.max_tokens = min(known, 4096) if max_tokens is None else min(max_tokens, known)

    def encode(self, texts: Sequence[str]) -> Vector:
        return self._vectors([self.ids(self._instruction + text) for text in texts])

    def encode_listwise(self, queries: Sequence[str], passages: Sequence[Sequence[str]]) -> tuple[Vector, list[int]]:
        ids = [self.listwise_ids(query, own) for query, own in zip(queries, passages)]
        return self._vectors(ids), [len(own) for own in ids]

    def listwise_ids(self, query: str, passages: Sequence[str]) -> list[int]:
        """The tokens of a listwise query, its passages cut to one length so that all have a part in it."""
        if self.pooling == "query":
            pieces = self.tokenizer(list(passages), add_special_tokens=False, verbose=False)["input_ids"]
            return self.joined(self.ids(query), pieces)
        cleaned = [clean(text) for text in passages]
        pieces = [self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in cleaned]
        room = self.max_tokens - len(self._chat_ids(listwise_text(query, [""] * len(passages))))
        limit = max(1, equal_cut([len(piece) for piece in pieces], room))
        cut = [
            text if len(piece) <= limit else self.tokenizer.decode(piece[:limit], skip_special_tokens=True)
            for text, piece in zip(cleaned, pieces)
        ]
        ids = self._chat_ids(listwise_text(query, cut))
        return ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]]

    def joined(self, query: list[int], pieces: Sequence[list[int]]) -> list[int]:
        """query, with its special tokens, and behind it the passages' tokens, without theirs: the form of pooling "query"."""
        separator = self.tokenizer.sep_token_id
        room = self.max_tokens - len(query) - len(pieces)
        limit = max(1, equal_cut([len(piece) for piece in pieces], room))
        ids = [*query, *(token for piece in pieces for token in (*piece[:limit], separator))]
        return ids[: self.max_tokens]

    def ids(self, text: str, max_tokens: int | None = None) -> list[int]:
        limit = max_tokens or self.max_tokens
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        if self.pooling == "last" and ids[-1:] != [self.tokenizer.eos_token_id]:
            ids = [*ids[: limit - 1], self.tokenizer.eos_token_id]
        return ids

    def batch_ids(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """`ids` of each text, an encoder's at once; max_tokens: where they are cut, None for where all texts are."""
        limit = max_tokens or self.max_tokens
        if self.pooling == "last":
            return [self.ids(text, limit) for text in texts]
        found: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        return found

    def told(self) -> None:
        """Makes the model's config say how it is pooled, for who loads it next."""
        setattr(self.model.config, _POOLING, self.pooling)

    def _chat_ids(self, text: str) -> list[int]:
        if not (self._decodes and getattr(self.tokenizer, "chat_template", None)):
            return list(self.tokenizer(text, verbose=False)["input_ids"])
        turn = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False, enable_thinking=False
        )
        return list(self.tokenizer(turn, add_special_tokens=False, verbose=False)["input_ids"])

    def _vectors(self, ids: Sequence[Sequence[int]]) -> Vector:
        import torch

        found: list[Any] = [None] * len(ids)
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            with torch.inference_mode():
                pooled = self.forward([ids[row] for row in rows]).float().cpu().numpy()
            for row, vector in zip(rows, pooled):
                found[row] = vector
        width = self.model.config.hidden_size
        return np.stack(found).astype(np.float32) if found else np.empty((0, width), np.float32)

    def forward(self, ids: Sequence[Sequence[int]]) -> Any:
        """(B, D) tensor of unit length, differentiable: what training uses, too."""
        import torch

        width = max(map(len, ids))
        pad = self.tokenizer.pad_token_id or 0
        tokens = torch.tensor([[*own, *[pad] * (width - len(own))] for own in ids], device=self.model.device)
        mask = torch.tensor([[1] * len(own) + [0] * (width - len(own)) for own in ids], device=self.model.device)
        states = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        if self.pooling in ("mean", "query"):
            if self.pooling == "query":
                ends = (tokens == self.tokenizer.sep_token_id).int().argmax(1, keepdim=True)
                mask = mask * (torch.arange(width, device=mask.device) <= ends)
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1)
        elif self.pooling == "first":
            pooled = states[:, 0]
        else:
            # Padding stands on the right, where a causal model's states of real tokens do not see it.
            pooled = states[torch.arange(len(ids)), mask.sum(1) - 1]
        return torch.nn.functional.normalize(pooled, dim=-1)


def _is_decoder(config: Any) -> bool:
    """Whether tokens see only what stands before them. Encoders have a masked-word head, which decoders have not."""
    from transformers.models.auto import modeling_auto

    kind = config.model_type
    return (
        kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def unit(vectors: Vector) -> Vector:
    """Rows at unit length; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0.0, 1.0, lengths), dtype=vectors.dtype)
