"""What is loaded and what is asked: texts, their vectors, metadata made from the text, and questions.

The first rows of a corpus are never loaded: they are the questions. Half of them tune, the other half measure.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import ROOT

Vectors = NDArray[np.float32]

CORPORA = ("debian-90k", "synthetic")
CACHE = ROOT / "bench" / "cache"

_DEBIAN_QUESTIONS = 2_000
_SYNTHETIC_QUESTIONS = 200
_SYNTHETIC_RECORDS = 5_000
_SYNTHETIC_DIMENSION = 64
_SYNTHETIC_WORDS = 3_000

# Words that say nothing about a text: no one searches for them.
_EMPTY_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        about after all also and any are based because been but can contains does each for from has have how into its may
        more most not one only other our package packages provides set some such than that the their them then there these
        they this those used uses using was were what when which while who will with you your
        """,
    )
)


@dataclass(frozen=True)
class Records:
    """What is loaded. ids: "r0", "r1", …: the number is the record's row in vectors (N, D), which have unit length."""

    ids: list[str]
    texts: list[str]
    vectors: Vectors
    metadata: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the texts in UTF-8 and of the vectors as float32."""
        return sum(len(text.encode()) for text in self.texts) + 4 * self.vectors.size

    def batches(self, size: int) -> Iterator[Records]:
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Records(self.ids[part], self.texts[part], self.vectors[part], self.metadata[part])


@dataclass(frozen=True)
class Questions:
    """What is asked. short: 2 to 5 words of a text; long: the whole text. tenth and thousandth: what the filters ask for."""

    vectors: Vectors
    short: list[str]
    long: list[str]
    tenth: list[int]
    thousandth: list[int]

    def __len__(self) -> int:
        return len(self.long)

    def save(self, folder: Path) -> None:
        np.save(folder / "questions.npy", self.vectors)
        columns = {"short": self.short, "long": self.long, "tenth": self.tenth, "thousandth": self.thousandth}
        (folder / "questions.json").write_text(json.dumps(columns))

    @classmethod
    def saved(cls, folder: Path) -> Questions:
        columns = json.loads((folder / "questions.json").read_text())
        return cls(np.load(folder / "questions.npy"), **columns)


@dataclass(frozen=True)
class Corpus:
    """A named set of texts with their vectors (mapped from a file, perhaps). asked: how many rows at the front are questions."""

    name: str
    checksum: str
    model: str
    texts: list[str]
    vectors: Vectors
    asked: int

    def records(self, rows: int | None = None) -> Records:
        """The rows behind the questions, or the first so many of them."""
        part = slice(self.asked, None if rows is None else self.asked + rows)
        texts = self.texts[part]
        ids = [f"r{row}" for row in range(len(texts))]
        return Records(ids, texts, _unit(self.vectors[part]), [metadata_of(text) for text in texts])

    def questions(self) -> Questions:
        texts = self.texts[: self.asked]
        rng = np.random.default_rng(0)
        return Questions(
            vectors=_unit(self.vectors[: self.asked]),
            short=[_short(text, rng) for text in texts],
            long=texts,
            # Another value for each question: one that is asked again and again would be answered from caches.
            tenth=[row % 10 for row in range(len(texts))],
            thousandth=[int(value) for value in rng.integers(1000, size=len(texts))],
        )


def metadata_of(text: str) -> dict[str, Any]:
    """Metadata that depends on the text alone. A filter on tenth admits 10 % of the records, one on thousandth 0.1 %."""
    number = zlib.crc32(text.encode())
    return {
        "section": text.split(maxsplit=1)[0],
        "length": len(text),
        "words": len(text.split()),
        "tenth": number // 1000 % 10,
        "thousandth": number % 1000,
    }


def load_corpus(name: str) -> Corpus:
    """One of CORPORA. debian-90k is embedded on first use, with a progress bar, and its vectors are kept in CACHE."""
    if name == "synthetic":
        return _synthetic()
    texts, checksum = _read_texts(name)
    model, vectors = embedded(name, checksum, texts)
    return Corpus(name, checksum, model, texts, vectors, _DEBIAN_QUESTIONS)


def load_texts(name: str) -> tuple[list[str], list[str], str]:
    """The texts to load of one of CORPORA, its short questions, and its checksum: all that needs no vectors."""
    if name == "synthetic":
        corpus = _synthetic()
        return corpus.texts[corpus.asked :], corpus.questions().short, corpus.checksum
    texts, checksum = _read_texts(name)
    rng = np.random.default_rng(0)
    return texts[_DEBIAN_QUESTIONS:], [_short(text, rng) for text in texts[:_DEBIAN_QUESTIONS]], checksum


def _read_texts(name: str) -> tuple[list[str], str]:
    path = data_folder() / "text" / name / "corpus.jsonl.gz"
    if not path.exists():
        raise SystemExit(
            f"there is no {path}; set VECDB_DATA to the folder of data sets, or measure made-up texts with --data synthetic"
        )
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [str(json.loads(line)["text"]) for line in lines], checksum


def data_folder() -> Path:
    return Path(os.environ.get("VECDB_DATA") or ROOT.parent / "shared" / "data")


def embedded(name: str, checksum: str, texts: list[str]) -> tuple[str, Vectors]:
    """The default model's name, and its (N, D) vectors, mapped from the cache."""
    from vecdb.embedding.base import DEFAULT_MODEL

    path = CACHE / f"{name}-{DEFAULT_MODEL}-{checksum[:12]}.npy"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            np.save(file, embed(texts))
        unfinished.rename(path)
    vectors: Vectors = np.load(path, mmap_mode="r")
    if len(vectors) != len(texts):
        raise SystemExit(
            f"{path} holds {len(vectors):,} vectors for {len(texts):,} texts; delete it to embed them anew"
        )
    return DEFAULT_MODEL, vectors


def embed(texts: Sequence[str], name: str = "") -> Vectors:
    """(N, D) by the default model, with a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from vecdb.embedding import load_embedder
    from vecdb.embedding.base import embed_in_batches

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"embedding {name}".rstrip(), total=len(texts))
        return embed_in_batches(
            load_embedder("default"), texts, progress=lambda done, _: progress.update(task, completed=done)
        )


def _unit(vectors: Vectors) -> Vectors:
    """A copy at unit length, made in place: what the peak memory of a load is measured against."""
    unit: Vectors = np.array(vectors, dtype=np.float32)
    unit /= np.sqrt(np.einsum("nd,nd->n", unit, unit))[:, None]
    return unit


def _short(text: str, rng: np.random.Generator) -> str:
    """2 to 5 words that carry meaning, in the order of the text: what one would type to find it."""
    words = list(dict.fromkeys(re.findall(r"\w{3,}", text)))
    telling = [word for word in words if word.lower() not in _EMPTY_WORDS] or words or [text]
    count = min(int(rng.integers(2, 6)), len(telling))
    chosen = np.sort(rng.choice(len(telling), size=count, replace=False))
    return " ".join(telling[i] for i in chosen)


def _synthetic() -> Corpus:
    """Made-up texts of Zipf-distributed words; a text's vector is the sum of its words', which each have a random one."""
    rng = np.random.default_rng(0)
    words = np.array([_made_up_word(rng) for _ in range(_SYNTHETIC_WORDS)])
    directions = rng.standard_normal((len(words), _SYNTHETIC_DIMENSION)).astype(np.float32)
    frequency = 1.0 / np.arange(10, len(words) + 10)
    frequency /= frequency.sum()
    texts, vectors = [], []
    lengths = rng.integers(6, 30, size=_SYNTHETIC_QUESTIONS + _SYNTHETIC_RECORDS)
    drawn = rng.choice(len(words), size=int(lengths.sum()), p=frequency)
    for chosen in np.split(drawn, np.cumsum(lengths)[:-1]):
        texts.append(" ".join(words[chosen]))
        vectors.append(directions[chosen].sum(axis=0))
    return Corpus("synthetic", "seed 0", "sums of random words", texts, np.stack(vectors), _SYNTHETIC_QUESTIONS)


def _made_up_word(rng: np.random.Generator) -> str:
    return "".join(
        rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeiou")) for _ in range(int(rng.integers(2, 5)))
    )
