"""What a collection is made with. Frozen at creation, saved in the file, read again when it is opened."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vecdb.errors import InvalidInput
from vecdb.index.base import HnswConfig
from vecdb.types import Metric

Language = Literal["english", "none", "cjk"]
_LANGUAGES = ("english", "none", "cjk")
_METRICS = ("cosine", "l2", "ip")


@dataclass(frozen=True, slots=True)
class TextConfig:
    """How text is cut into terms for word search.

    language: "english" stems with Porter's algorithm, "none" takes words as they are, "cjk" takes trigrams of characters, for
    scripts without spaces (a query then needs three characters). fold_accents: é finds e and the other way round.
    """

    language: Language = "english"
    fold_accents: bool = True

    def __post_init__(self) -> None:
        if self.language not in _LANGUAGES:
            raise InvalidInput(f"text language is {self.language!r}; it must be one of {', '.join(_LANGUAGES)}")

    @property
    def tokenizer(self) -> list[str]:
        """FTS5's tokenizer and its arguments."""
        fold = "2" if self.fold_accents else "0"
        if self.language == "cjk":
            return ["trigram", "case_sensitive", "0", "remove_diacritics", "1" if self.fold_accents else "0"]
        base = ["unicode61", "remove_diacritics", fold]
        return ["porter", *base] if self.language == "english" else base


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """dimension is None until the first vector tells it. model: identity of the embedding model whose vectors these are.

    embed: the text that makes the embedder again (None: vectors are given, or the embedder was an object of the caller's).
    """

    dimension: int | None = None
    metric: Metric = "cosine"
    model: str | None = None
    embed: str | None = None
    text: TextConfig = field(default_factory=TextConfig)
    index: HnswConfig = field(default_factory=HnswConfig)

    def __post_init__(self) -> None:
        if self.metric not in _METRICS:
            raise InvalidInput(f"metric is {self.metric!r}; it must be one of {', '.join(_METRICS)}")
        if self.dimension is not None and not 1 <= self.dimension <= 65_536:
            raise InvalidInput(f"dimension is {self.dimension}; it must lie between 1 and 65,536")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> CollectionConfig:
        text, index = TextConfig(**saved.pop("text")), HnswConfig(**saved.pop("index"))
        return cls(text=text, index=index, **saved)
