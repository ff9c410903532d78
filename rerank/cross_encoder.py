"""A cross-encoder: query and document are read together, and a classification head gives their relevance."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidQuery, ModelUnavailable
from vecdb.rerank.base import Context, Reranked, Task, TextReranker, by_score
from vecdb.rerank.listwise.reranker import at_least
from vecdb.rerank.models.loading import best_device, load_classifier


class CrossEncoder(TextReranker):
    """model: a sequence classifier of transformers by its name or folder, such as "cross-encoder/ms-marco-MiniLM-L6-v2", or a
    (model, tokenizer) pair. A model of one label gives its score; of two, how far "relevant" (the second) is ahead.

    max_tokens: of query and document together; the document is cut. batch: pairs of like length that are read at once.
    """

    def __init__(self, model: Any = None, *, max_tokens: int = 512, batch: int = 32) -> None:
        at_least(8, max_tokens=max_tokens)
        at_least(1, batch=batch)
        if model is not None and not isinstance(model, str) and not (isinstance(model, tuple) and len(model) == 2):
            raise InvalidQuery(f"model is a {type(model).__name__}; give a name, a folder, or (model, tokenizer)")
        self.max_tokens, self.batch = max_tokens, batch
        self._given = model
        self._loaded: tuple[Any, Any] | None = None if isinstance(model, str) else model
        self._lock = Lock()

    def rerank_texts(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        pairs = [(task.query, candidate.text or "") for task in tasks for candidate in task.candidates]
        scores, tokens = self.scores(pairs, context)
        answers, start = [], 0
        for task in tasks:
            end = start + len(task.candidates)
            counters = {
                "calls": end - start,
                "forward_passes": end - start,
                "prompt_tokens": int(tokens[start:end].sum()),
                "decoded_tokens": 0,
                "documents": end - start,
            }
            answers.append(Reranked(by_score(scores[start:end].tolist(), task.k), counters))
            start = end
        return answers

    def scores(
        self, pairs: Sequence[tuple[str, str]], context: Context
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(len(pairs),) scores, and how many tokens each pair has."""
        model, tokenizer = self._load()
        import torch

        scores = np.zeros(len(pairs))
        limit = min(self.max_tokens, getattr(model.config, "max_position_embeddings", self.max_tokens))
        read = tokenizer(
            [query for query, _ in pairs], [text for _, text in pairs], truncation="longest_first", max_length=limit
        )
        lengths = np.array([len(ids) for ids in read["input_ids"]], dtype=np.int64)
        order = np.argsort(lengths, kind="stable").tolist()
        for start in range(0, len(order), self.batch):
            context.limit.check()
            rows = order[start : start + self.batch]
            padded = tokenizer.pad(
                {name: [values[row] for row in rows] for name, values in read.items()}, return_tensors="pt"
            )
            with torch.inference_mode():
                logits = model(**padded.to(model.device)).logits.double().cpu().numpy()
            scores[rows] = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return scores, lengths

    def _load(self) -> tuple[Any, Any]:
        with self._lock:
            if self._loaded is None:
                if self._given is None:
                    raise ModelUnavailable(
                        "no cross-encoder comes with vecdb; give one by its name or folder, such as "
                        "{'kind': 'cross-encoder', 'model': 'cross-encoder/ms-marco-MiniLM-L6-v2'}"
                    )
                model, tokenizer = load_classifier(str(self._given))
                self._loaded = model.to(best_device()), tokenizer
            return self._loaded
