"""E2Rank (Liu et al. 2025): the best candidates' texts go into the query, and one vector of it ranks them all.

The listwise query (instruction, the first `feedback` candidates, the query) is embedded by one forward pass, and every
candidate, read or not, is scored by the cosine of its stored vector with it: pseudo-relevance feedback by a model that reads.
Nothing is encoded but that query. It is for models trained so; see `training.e2rank`. A model that was not can rank worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from vecdb.errors import InvalidQuery, ModelUnavailable
from vecdb.rerank.base import Context, Need, Reranked, Task, TextReranker, by_score
from vecdb.rerank.listwise.reranker import at_least
from vecdb.rerank.models.encoder import EmbedderAsEncoder, ListwiseEncoder, TextEncoder, unit
from vecdb.rerank.models.loading import best_device, load_encoder
from vecdb.types import Vector

_WITHOUT_VECTOR = -2.0  # below any cosine


class E2Rank(TextReranker):
    """model: an encoder of transformers by its name or folder, whose vectors the collection stores (a trained E2Rank model, for
    one), or an object with `encode_listwise`; None for the collection's own embedding model. feedback: how many candidates the
    query shows. A candidate without a stored vector comes last.
    """

    needs: frozenset[Need] = frozenset({"embedding"})

    def __init__(self, model: str | ListwiseEncoder | None = None, *, feedback: int = 20) -> None:
        at_least(1, feedback=feedback)
        if model is not None and not isinstance(model, str) and not callable(getattr(model, "encode_listwise", None)):
            raise InvalidQuery(f"model is a {type(model).__name__}; give a name, or an object with encode_listwise")
        self.feedback = feedback
        self._given = model
        self._loaded: ListwiseEncoder | None = None if isinstance(model, str) else model
        self._lock = Lock()

    def rerank_texts(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        encoder = self._encoder(context)
        context.limit.check()
        passages = [[c.text or "" for c in task.candidates[: self.feedback]] for task in tasks]
        vectors, tokens = encoder.encode_listwise([task.query for task in tasks], passages)
        return [self._ranked(task, vector, read) for task, vector, read in zip(tasks, vectors, tokens)]

    def _encoder(self, context: Context) -> ListwiseEncoder:
        if self._given is None:
            if context.embed is None:
                raise ModelUnavailable(
                    "e2rank has no model: the collection has no embedding model of its own; give model= the encoder that made "
                    "its vectors"
                )
            return EmbedderAsEncoder(context.embed)
        with self._lock:
            if self._loaded is None:
                model, tokenizer = load_encoder(str(self._given))
                self._loaded = TextEncoder(model.to(best_device()), tokenizer)
            return self._loaded

    def _ranked(self, task: Task, query: Vector, tokens: int) -> Reranked:
        stored = [c.embedding for c in task.candidates]
        wrong = next((len(v) for v in stored if v is not None and len(v) != len(query)), None)
        if wrong is not None:
            raise InvalidQuery(
                f"the reranking model gives {len(query)} numbers and the stored vectors have {wrong}; e2rank needs the model "
                "that made them"
            )
        scores = np.array([_WITHOUT_VECTOR if v is None else float(unit(v) @ query) for v in stored])
        counters: dict[str, Any] = {
            "calls": 1,
            "forward_passes": 1,
            "decoded_tokens": 0,
            "documents": min(self.feedback, len(stored)),
            "scored": len(stored),
        }
        if tokens:  # 0: the encoder does not know
            counters["prompt_tokens"] = tokens
        return Reranked(by_score(scores.tolist(), task.k), counters)
