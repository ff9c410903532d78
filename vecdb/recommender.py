"""Recommending items to users by what they took before: GRank (Sun et al., WWW 2026) for those who have ids.

    recommender = Recommender.fit(histories)                      # users' item ids, oldest first; extra [learned]
    recommender.recommend(history, k=10)                          # exact search of all items, then the ranker; NumPy
    recommender.save("films.safetensors")

With a collection, filters and everything else that a search has come in between:

    recommender.write(films)                                      # an item's vector becomes the vector of its record
    recommender.search(films, history, k=10, where={"year": {"$gte": 1990}})

The model is in `vecdb.index.grank`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from vecdb.durable import write_file
from vecdb.errors import InvalidInput, MissingExtra, ModelUnavailable, StorageError
from vecdb.index.grank.config import GRankConfig, Recipe
from vecdb.index.grank.histories import Histories, Items
from vecdb.index.grank.learning import Epoch, learn
from vecdb.index.grank.network import Network
from vecdb.index.grank.search import GRank
from vecdb.rerank.base import Candidate, OneByOne, Ranked, Reranked
from vecdb.types import Hits, Vector

if TYPE_CHECKING:
    from vecdb.collection import Collection

__all__ = ["Epoch", "GRankConfig", "Recipe", "Recommendation", "Recommender"]

CANDIDATES: Final = 500
_FORMAT = 1
_IDS = "ids"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """rank, from 1. score: of the ranker, or the cosine of user and item for a model without one; they order the items of one
    user. generated: the item's rank by the generator alone.
    """

    rank: int
    id: str
    score: float
    generated: int


class Recommender:
    """A trained model and the ids of its items. Safe to use from several threads; made by `fit` or `load`."""

    def __init__(self, ids: Sequence[str], network: Network, *, device: str = "cpu") -> None:
        """device: where all items are searched, as for `vecdb.open`."""
        if len(ids) != network.items:
            raise InvalidInput(f"there are {len(ids)} ids for a network of {network.items} items; give one for each")
        self._ids = list(ids)
        self._numbers = {id: number for number, id in enumerate(self._ids, start=1)}
        self._model = GRank(network, device=device)

    def __repr__(self) -> str:
        return f"<Recommender {len(self._ids):,} x {self.dimension} {self.name}>"

    @classmethod
    def fit(
        cls,
        histories: Mapping[str, Sequence[str]] | Iterable[Sequence[str]],
        *,
        config: GRankConfig | None = None,
        recipe: Recipe | None = None,
        progress: Callable[[Epoch], None] | None = None,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Recommender:
        """Learns from what users took: the ids of each one's items, oldest first (by user, or without users' names).

        Every item of the histories can be recommended, and no other: a vector is learned from who took an item. PyTorch
        trains, on a GPU if it has one. checkpoint: a file that holds the state after each epoch; training goes on from it if it
        is there, and ends where it would have ended without a break. device: as for `load`.

        Raises MissingExtra without PyTorch (and safetensors, for a checkpoint), InvalidInput for histories that are none, and for
        a checkpoint of other histories or settings.
        """
        config, recipe = config or GRankConfig(), recipe or Recipe()
        ids, numbered = _numbered(histories)
        about = {"config": asdict(config), "recipe": asdict(recipe), "histories": _digest(ids, numbered)}
        path = None if checkpoint is None else Path(checkpoint)
        saved = None
        if path is not None and path.exists():
            found, saved = _read(path, "grank-training")
            if found != about:
                raise InvalidInput(
                    f"{path} is the checkpoint of a training with other histories or settings; give the same ones, or "
                    "another file"
                )
        try:
            network = learn(
                numbered,
                len(ids),
                config,
                recipe,
                progress=progress,
                saved=saved,
                save=None if path is None else lambda state: _write(path, "grank-training", about, state),
                threads=threads,
            )
        except ValueError as error:
            if saved is None or isinstance(error, InvalidInput):
                raise
            raise InvalidInput(f"training cannot go on from {path}: {error}") from error
        return cls(ids, network, device=device)

    def save(self, path: str | Path) -> None:
        """As one file of safetensors. Raises MissingExtra without safetensors, StorageError if it cannot be written."""
        arrays: dict[str, NDArray[Any]] = dict(self._model.network.weights)
        arrays[_IDS] = np.frombuffer(orjson.dumps(self._ids), np.uint8)
        _write(Path(path), "grank", {"config": asdict(self.config)}, arrays)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> Recommender:
        """What `save` wrote; no PyTorch is needed. device: where all items are searched: "auto", "cpu", "cuda:0", …

        Raises ModelUnavailable for a file that is not there or holds something else, MissingExtra without safetensors.
        """
        about, arrays = _read(Path(path), "grank")
        try:
            network = Network.of(GRankConfig(**about["config"]), arrays)
            return cls(orjson.loads(arrays[_IDS].tobytes()), network, device=device)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnavailable(f"{path} holds no recommender that this version can read: {error}") from error

    @property
    def config(self) -> GRankConfig:
        return self._model.network.config

    @property
    def dimension(self) -> int:
        return self.config.dimension

    @property
    def ids(self) -> Sequence[str]:
        """Of all items that can be recommended."""
        return tuple(self._ids)

    @property
    def name(self) -> str:
        """The model's identity: vectors of differently trained models do not compare."""
        digest = hashlib.blake2b(digest_size=4)
        for array in self._model.network.weights.values():
            digest.update(array.astype("<f4").tobytes())
        return f"grank:{digest.hexdigest()}"

    @property
    def vectors(self) -> Vector:
        """(N, D) float32 at unit length: of each item, in the order of `ids`."""
        return self._model.network.vectors[1:]

    def user_vector(self, history: Sequence[str]) -> Vector:
        """(D,) at unit length; its cosines with `vectors` order the items for this user. Unknown ids are passed over."""
        vector: Vector = self._model.users([self._known(history, "history")])[0]
        return vector

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        exclude: Iterable[str] = (),
        repeat: bool = False,
        allowed: Iterable[str] | None = None,
        candidates: int = CANDIDATES,
    ) -> list[Recommendation]:
        """The k items that this user is likeliest to take next, likeliest first; fewer if there are fewer.

        history: the ids of the user's items, oldest first. Ids that are not known (newer than the training) are passed over; a
        user without any gets what first items usually are. repeat: also items of the history. exclude: not these. allowed: only
        these. candidates: how many items the generator finds, by exact search, for the ranker to order. Raises InvalidInput.
        """
        return self.recommend_many(
            [history], k, exclude=[exclude], repeat=repeat, allowed=allowed, candidates=candidates
        )[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude: Sequence[Iterable[str]] | None = None,
        repeat: bool = False,
        allowed: Iterable[str] | None = None,
        candidates: int = CANDIDATES,
    ) -> list[list[Recommendation]]:
        """`recommend` for many users at once. exclude: for each of them."""
        for name, value in (("k", k), ("candidates", candidates)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInput(f"{name} is {value!r}; it must be a whole number, at least 1")
        if isinstance(histories, str):
            raise InvalidInput(f"histories is {histories!r}; give a list of ids for each user")
        if exclude is not None and len(exclude) != len(histories):
            raise InvalidInput(f"exclude has {len(exclude)} entries for {len(histories)} histories; give one for each")
        known = [self._known(history, f"histories[{i}]") for i, history in enumerate(histories)]
        excluded = [self._known(ids, f"exclude[{i}]") for i, ids in enumerate(exclude or [()] * len(known))]
        if not repeat:
            excluded = [np.concatenate([ids, history]) for ids, history in zip(excluded, known)]
        mask = None
        if allowed is not None:
            mask = np.zeros(len(self._ids), np.bool_)
            mask[self._known(allowed, "allowed") - 1] = True
        found = self._model.recommend(known, k, candidates=candidates, excluded=excluded, allowed=mask)
        return [
            [
                Recommendation(rank, self._ids[item - 1], score, place + 1)
                for rank, (item, score, place) in enumerate(
                    zip(one.items.tolist(), one.scores.tolist(), one.generated.tolist()), start=1
                )
            ]
            for one in found
        ]

    # -- with a collection

    def write(self, collection: Collection) -> int:
        """Makes each item's vector the vector of the record with its id; returns how many. Records that are not there are added
        with nothing else; those that are there keep text and metadata.

        The collection must have the metric "cosine" and no vectors of another model: ModelMismatch, DimensionMismatch.
        """
        if collection.metric != "cosine":
            raise InvalidInput(
                f"collection {collection.name!r} has the metric {collection.metric}; items are compared by cosine"
            )
        there = {record.id for record in collection.get(self._ids) if record is not None}
        name = self.name
        for is_there, change in ((True, collection.update), (False, collection.add)):
            rows = [row for row, id in enumerate(self._ids) if (id in there) == is_there]
            if rows:
                change(ids=[self._ids[row] for row in rows], vectors=self.vectors[rows], model=name)
        return len(self._ids)

    def search(
        self,
        collection: Collection,
        history: Sequence[str],
        k: int = 10,
        *,
        exclude: Iterable[str] = (),
        repeat: bool = False,
        candidates: int = CANDIDATES,
        **options: Any,
    ) -> Hits:
        """`recommend` among the records of a collection that `write` has filled: `Collection.search` for the user's vector, with
        its options (where=, select=, boosts=, …), and the ranker as its reranker.

        Candidates are found as the collection finds any (its index; exact=True for all), so deleted records never come.
        """
        left_out = {*exclude, *(() if repeat else history)}
        hits: Hits = collection.search(
            self.user_vector(history),
            k=k,
            candidates=max(k, candidates) + len(left_out),
            model=self.name,
            rerank=self.ranker(history, exclude=left_out),
            **options,
        )
        return hits

    def ranker(self, history: Sequence[str], *, exclude: Iterable[str] = ()) -> OneByOne:
        """What `search(…, rerank=)` takes to order candidates for this user by the ranker (in the order given, for a model
        without one). Records that are excluded, or are none of its items, are left out.
        """
        return _Ranker(self, self._known(history, "history"), frozenset(exclude))

    def _known(self, ids: Iterable[str], path: str) -> Items:
        """(n,): the numbers of those ids that are known."""
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise InvalidInput(f"{path} is {ids!r}; give a list of ids")
        return np.array([self._numbers[id] for id in ids if id in self._numbers], np.int64)


class _Ranker(OneByOne):
    drops = True

    def __init__(self, recommender: Recommender, history: Items, excluded: frozenset[str]) -> None:
        super().__init__(self)
        self._recommender = recommender
        self._history = history
        self._excluded = excluded

    def rerank(self, query: str, candidates: Sequence[Candidate], k: int) -> Reranked:
        numbers, model = self._recommender._numbers, self._recommender._model
        places = [p for p, c in enumerate(candidates) if c.id in numbers and c.id not in self._excluded]
        items = np.array([numbers[candidates[place].id] for place in places], np.int64)
        given = np.array([candidates[place].score for place in places], np.float32)
        found = model.ordered(self._history, items, given)
        order = [places[place] for place in found.generated[:k].tolist()]
        ranked = tuple(Ranked(place, score) for place, score in zip(order, found.scores.tolist()))
        return Reranked(ranked, {"scored": len(places)})


def _numbered(histories: Mapping[str, Sequence[str]] | Iterable[Sequence[str]]) -> tuple[list[str], Histories]:
    """The ids in the order in which they are met, and the histories as numbers from 1."""
    if isinstance(histories, str) or not isinstance(histories, Iterable):
        raise InvalidInput(f"histories is {histories!r}; give a list of item ids for each user")
    numbers: dict[str, int] = {}
    numbered = []
    for place, history in enumerate(histories.values() if isinstance(histories, Mapping) else histories):
        if isinstance(history, str) or not isinstance(history, Sequence):
            raise InvalidInput(f"histories[{place}] is {history!r}; give a list of item ids, oldest first")
        for id in history:
            if not isinstance(id, str):
                raise InvalidInput(f"histories[{place}] has the item {id!r}; ids are strings")
        numbered.append([numbers.setdefault(id, len(numbers) + 1) for id in history])
    return list(numbers), Histories.of(numbered)


def _digest(ids: Sequence[str], histories: Histories) -> str:
    digest = hashlib.blake2b(orjson.dumps(ids), digest_size=8)
    for array in (histories.items, histories.bounds):
        digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtra.of("safetensors", extra="learned", what="a recommender's file") from error
    return safetensors


def _write(path: Path, kind: str, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    said = {"kind": kind, "format": _FORMAT, "about": about}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data: bytes = _safetensors().numpy.save(whole, metadata={"vecdb": orjson.dumps(said).decode()})
    try:
        write_file(path, [data])
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error}); give a file in a folder that exists") from error


def _read(path: Path, kind: str) -> tuple[Any, dict[str, NDArray[Any]]]:
    """What a file says of itself, and its arrays. Raises ModelUnavailable."""
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            said = orjson.loads((file.metadata() or {})["vecdb"])
            if (said["kind"], said["format"]) != (kind, _FORMAT):
                raise ModelUnavailable(
                    f"{path} holds {said['kind']!r} of format {said['format']}; wanted {kind!r} of format {_FORMAT}"
                )
            return said["about"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ModelUnavailable(f"{path} cannot be read as a recommender: {error!r}") from error
