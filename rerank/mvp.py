"""MVP: passages as sets of views, ordered by anchors that see all of them. No generation, and no influence of the given order.

Scores depend on the set of candidates: those of different searches do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from vecdb.errors import InvalidQuery, ModelUnavailable
from vecdb.rerank.base import Context, Ranked, Reranked, Task, TextReranker, by_score
from vecdb.rerank.listwise.reranker import at_least
from vecdb.rerank.models.loading import best_device, needed


class Mvp(TextReranker):
    """model: the folder of a trained `models.multiview.MultiView`, or one. max_tokens: of query, passage and views together.

    batch: passages of like length that are read at once. The detail of each hit has its score by each view.
    """

    def __init__(self, model: Any = None, *, max_tokens: int = 256, batch: int = 16) -> None:
        at_least(16, max_tokens=max_tokens)
        at_least(1, batch=batch)
        if model is not None and not isinstance(model, str) and not callable(getattr(model, "view_scores", None)):
            raise InvalidQuery(f"model is a {type(model).__name__}; give the folder of a trained MultiView, or one")
        self.max_tokens, self.batch = max_tokens, batch
        self._given = model
        self._loaded: Any = None if isinstance(model, str) else model
        self._lock = Lock()

    def rerank_texts(self, tasks: Sequence[Task], context: Context) -> list[Reranked]:
        network = self._load()
        import torch

        ids = [
            own
            for task in tasks
            for own in network.ids(task.query, [c.text or "" for c in task.candidates], self.max_tokens)
        ]
        read: list[Any] = [None] * len(ids)
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        with torch.inference_mode():
            for start in range(0, len(order), self.batch):
                context.limit.check()
                rows = order[start : start + self.batch]
                for row, vectors in zip(rows, network.relevance([ids[row] for row in rows])):
                    read[row] = vectors
            answers, start = [], 0
            for task in tasks:
                end = start + len(task.candidates)
                answers.append(self._ranked(task, network, read[start:end], ids[start:end]))
                start = end
        return answers

    @staticmethod
    def _ranked(task: Task, network: Any, read: Sequence[Any], ids: Sequence[Sequence[int]]) -> Reranked:
        import torch

        views = network.view_scores(torch.stack(list(read))).double().cpu().numpy()
        ranked = by_score(views.mean(1).tolist(), task.k)
        counters = {
            "calls": len(read),
            "forward_passes": len(read) + 1,  # the anchors' one step
            "prompt_tokens": sum(network.views + len(own) for own in ids),
            "decoded_tokens": 0,
            "documents": len(read),
        }
        told = tuple(Ranked(r.position, r.score, {"views": views[r.position].tolist()}) for r in ranked)
        return Reranked(told, counters)

    def _load(self) -> Any:
        with self._lock:
            if self._loaded is None:
                needed("torch", "reranking by views")
                needed("transformers", "reranking by views")
                from vecdb.rerank.models.multiview import MultiView

                if self._given is None:
                    raise ModelUnavailable(
                        "no model of views comes with vecdb; train one (vecdb.rerank.training.mvp) and give its folder: "
                        "{'kind': 'mvp', 'model': FOLDER}"
                    )
                try:
                    self._loaded = MultiView.load(self._given).to(best_device())
                except (OSError, ValueError, KeyError, RuntimeError) as error:
                    raise ModelUnavailable(
                        f"{self._given!r} holds no model of views: {error}; it must be a folder that MultiView.save wrote"
                    ) from error
            return self._loaded
