"""A blocker: what was learned about two tables, and the candidates that it gives for these or others like them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from vecdb import durable
from vecdb.blocking.codes import Codes, Views, codes_of, view_names, views_of
from vecdb.blocking.encoders import Encoder
from vecdb.blocking.hashing import Head
from vecdb.blocking.rule import Calibration, Rule, candidates_by
from vecdb.blocking.tables import Table
from vecdb.blocking.words import Lexicon
from vecdb.embedding.base import Progress
from vecdb.errors import InvalidInput, ModelMismatch, NotFound, StorageError
from vecdb.kept import packed, unpacked

_FORMAT = 1

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs that may be the same: ids of table a and of table b, and the inner product of their codes (1: the same).

    Iterated, it gives (id in a, id in b, similarity). possible: how many pairs there are in all.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    similarities: NDArray[np.float32]
    possible: int

    def __len__(self) -> int:
        return len(self.left)

    def __iter__(self) -> Any:
        return zip(self.left, self.right, self.similarities.tolist())

    @property
    def ratio(self) -> float:
        """Candidates out of all pairs."""
        return len(self) / max(1, self.possible)

    def completeness(self, pairs: Iterable[tuple[str, str]]) -> float:
        """Which share of these pairs is among the candidates (pair completeness, recall)."""
        known, wanted = set(zip(self.left, self.right)), list(pairs)
        return sum(pair in known for pair in wanted) / max(1, len(wanted))


@dataclass(frozen=True, slots=True)
class Blocker:
    """fields: that are compared; weights of the views (`vecdb.blocking.codes.view_names`), head of the encoder's vectors.

    lexicons: how rare pieces of words are, for each sparse view. encoder: the name of the one whose vectors the head was made
    for. layers: weights of an encoder that was trained, by their names in the network; None if it is as it was. course: what
    training watched, see `training.Learned`.
    """

    fields: tuple[str, ...]
    encoder: str
    head: Head
    weights: NDArray[np.float32]
    lexicons: tuple[Lexicon, ...]
    rule: Rule
    calibration: Calibration | None = None
    course: tuple[float, ...] = ()
    layers: dict[str, NDArray[np.float32]] | None = None

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(view_names(self.fields), self.weights))
        return f"<Blocker k={self.rule.k} from {self.rule.side}, {shares}>"

    def codes(self, views: Views) -> Codes:
        return codes_of(views, self.head(views.meaning), self.weights)

    def views(self, tables: Sequence[Table], encoder: Encoder, progress: Progress | None = None) -> list[Views]:
        """Raises ModelMismatch for another encoder, InvalidInput for a table that has none of the fields."""
        if encoder.name != self.encoder:
            raise ModelMismatch(
                f"this blocker was made with encoder {self.encoder!r}, not {encoder.name!r}; give that one"
            )
        vectors = encoded(tables, self.fields, encoder, progress)
        return [views_of(table, own, self.fields, self.lexicons) for table, own in zip(tables, vectors)]

    def block(
        self,
        a: Table,
        b: Table,
        *,
        encoder: Encoder | None = None,
        k: int | None = None,
        progress: Progress | None = None,
    ) -> Candidates:
        """The candidate pairs of two tables. encoder: None for the one that the blocker was made with, if it is offline.

        k: instead of the rule's. Raises ModelMismatch for another encoder, InvalidInput if the tables have none of the fields.
        """
        if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
            raise InvalidInput(f"k is {k!r}; it must be a whole number of at least 1")
        chosen = encoder or encoder_of(self)
        codes = [self.codes(views) for views in self.views((a, b), chosen, progress)]
        rule = self.rule if k is None else replace(self.rule, k=k)
        left, right, similarities = candidates_by(rule, *codes)
        ids = tuple(a.ids[i] for i in left.tolist()), tuple(b.ids[i] for i in right.tolist())
        return Candidates(*ids, similarities, len(a) * len(b))

    def save(self, path: str | Path) -> None:
        """Into one file of flat arrays (NumPy's .npz). Raises StorageError if it cannot be written."""
        path = Path(path)
        try:
            durable.write_file(path, [packed(self.arrays())])
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}; choose another place") from error

    @classmethod
    def load(cls, path: str | Path) -> Blocker:
        """Raises NotFound, StorageError for a file that is damaged or no blocker's."""
        path = Path(path)
        try:
            return cls.of_arrays(unpacked(path.read_bytes(), str(path)))
        except FileNotFoundError as error:
            raise NotFound(f"there is no blocker {path}; train one first") from error
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved."""
        settings = {
            "format": _FORMAT,
            "fields": self.fields,
            "encoder": self.encoder,
            "rule": asdict(self.rule),
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "course": [None if value == np.inf else value for value in self.course],
            "texts": [lexicon.texts for lexicon in self.lexicons],
        }
        written = np.frombuffer(orjson.dumps(settings), np.uint8)
        layers = {f"layer:{name}": array for name, array in (self.layers or {}).items()}
        pieces = {
            f"{name}:{view}": array
            for view, lexicon in enumerate(self.lexicons)
            for name, array in (("buckets", lexicon.buckets), ("counts", lexicon.counts))
        }
        return {"settings": written, "head": self.head.matrix, "weights": self.weights, **pieces, **layers}

    @classmethod
    def of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Blocker:
        """Raises StorageError."""
        try:
            settings = orjson.loads(arrays["settings"].tobytes())
            if settings["format"] != _FORMAT:
                raise StorageError(
                    f"the blocker has format {settings['format']}, known is {_FORMAT}; use a newer vecdb"
                )
            layers = {name.removeprefix("layer:"): array for name, array in arrays.items() if name.startswith("layer:")}
            given = settings["calibration"]
            blocker = cls(
                tuple(settings["fields"]),
                settings["encoder"],
                Head(np.ascontiguousarray(arrays["head"], dtype=np.float32)),
                arrays["weights"].astype(np.float32),
                tuple(
                    Lexicon(arrays[f"buckets:{view}"], arrays[f"counts:{view}"], texts)
                    for view, texts in enumerate(settings["texts"])
                ),
                Rule(**settings["rule"]),
                None if given is None else Calibration(**given),
                tuple(np.inf if value is None else value for value in settings["course"]),
                layers or None,
            )
        except (KeyError, TypeError, ValueError, orjson.JSONDecodeError) as error:
            raise StorageError(f"this is no blocker ({error}); train one anew") from error
        if blocker.head.matrix.ndim != 2 or blocker.weights.shape != (1 + len(blocker.lexicons),):
            raise StorageError("the arrays of the blocker do not fit each other; train it anew")
        return blocker


def encoder_of(blocker: Blocker, folder: Path | None = None) -> Encoder:
    """The encoder that a blocker was made with. Raises ModelUnavailable if it is none that loads offline."""
    from vecdb.blocking.encoders import offline_encoder

    return offline_encoder(blocker.encoder, blocker.layers, folder)


def encoded(
    tables: Sequence[Table], fields: Sequence[str], encoder: Encoder, progress: Progress | None = None
) -> list[NDArray[np.float32]]:
    """The encoder's vectors of each table's texts. Raises InvalidInput for a table without any of the fields."""
    for table in tables:
        if not set(fields) & set(table.fields):
            raise InvalidInput(
                f"a table has the fields {', '.join(table.fields)} and none of {', '.join(fields)}; name fields that both have"
            )
    texts = [table.texts(fields) for table in tables]
    vectors = encoder.encode([text for part in texts for text in part], progress)
    return np.split(vectors, np.cumsum([len(part) for part in texts])[:-1])
