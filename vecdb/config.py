"""What a collection is made with. Frozen at creation, saved in the file, read again when it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any

from vecdb.errors import InvalidInput
from vecdb.function_words import ENGLISH
from vecdb.index.base import CodesConfig, HnswConfig, IndexConfig, NeuralLshConfig, index_config
from vecdb.rerank.tokens import CODECS, TokenCodec
from vecdb.types import Metric

Synonyms = Mapping[str, "Sequence[str] | Mapping[str, float] | str"]
SYNONYM_WEIGHT = 0.5  # of an expansion that has none of its own: it says less than the word that was asked for

# Languages whose words Snowball stems (package PyStemmer, extra [text]).
SNOWBALL = (
    "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "esperanto", "estonian", "finnish", "french", "german",
    "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian", "persian", "polish",
    "portuguese", "romanian", "russian", "serbian", "spanish", "swedish", "tamil", "turkish", "yiddish",
)  # fmt: skip
LANGUAGES = ("english", "none", "cjk", *SNOWBALL)
TEXT_FIELD = "text"  # the record's text; any other field is a key of its metadata
_METRICS = ("cosine", "l2", "ip")
_MOST_FIELDS = 64
_LARGEST_DIMENSION = 65_536


@dataclass(frozen=True, slots=True)
class TextConfig:
    """How text is cut into terms for word search, and how terms score.

    language: "english" stems with Porter's algorithm; "none" takes words as they are; "german", "french" and thirty others stem
    with Snowball and need the extra [text] wherever texts are written or searched; "cjk" takes trigrams of characters (a query
    then needs three of them). cjk=True, with any other language: runs of Chinese, Japanese and Korean characters are cut into
    overlapping pairs, so that a query of one or two characters finds them, and words beside them are stemmed as ever.
    fold_accents: é finds e and the other way round.

    fields: what is searched, and how much one occurrence of a term counts in it: {"title": 2.0, "text": 1.0}. "text" is the
    record's text and must be there; other names are metadata keys (dots go into nested ones) that hold a text or a list of texts.
    The score is BM25F with one saturation (Robertson, Zaragoza & Taylor 2004): weighted counts are added up first; the length is
    that of all fields together, unweighted, as in FTS5's bm25(). k1, b: of BM25 (Robertson & Zaragoza 2009).

    synonyms: term or phrase -> what a query that has it also looks for: {"car": ["automobile"], "nyc": {"new york": 0.8}}, with
    weights (0.5 where none is given). One way only; a search may give others.

    stop_words: words that a plain query does not look for unless it has no others; they are indexed all the same, so that phrases
    and syntax="query" find them. None: the function words of English where that is the language, else none; (): none.
    """

    language: str = "english"
    fold_accents: bool = True
    cjk: bool = False
    fields: Mapping[str, float] = field(default_factory=lambda: {TEXT_FIELD: 1.0})
    k1: float = 1.2
    b: float = 0.75
    synonyms: Synonyms = field(default_factory=dict)
    stop_words: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise InvalidInput(f"text language is {self.language!r}; it must be one of {', '.join(LANGUAGES)}")
        if self.cjk and self.language == "cjk":
            raise InvalidInput(
                "language 'cjk' takes trigrams and cjk=True pairs; for pairs name the language of the other words, such as "
                "TextConfig('english', cjk=True)"
            )
        if not _is_number(self.k1) or not 0 <= self.k1 <= 100:
            raise InvalidInput(f"k1 is {self.k1!r}; it must lie between 0 (counts do not matter) and 100; usual is 1.2")
        if not _is_number(self.b) or not 0 <= self.b <= 1:
            raise InvalidInput(f"b is {self.b!r}; it must lie between 0 (lengths do not matter) and 1; usual is 0.75")
        object.__setattr__(self, "k1", float(self.k1))
        object.__setattr__(self, "b", float(self.b))
        object.__setattr__(self, "fields", _checked_fields(self.fields))
        object.__setattr__(self, "synonyms", checked_synonyms(self.synonyms))
        object.__setattr__(self, "stop_words", _checked_stop_words(self.stop_words))

    @property
    def unasked(self) -> Set[str]:
        """The stop words, in lower case."""
        if self.stop_words is None:
            return ENGLISH if self.language == "english" else frozenset()
        return frozenset(word.casefold() for word in self.stop_words)

    @property
    def is_snowball(self) -> bool:
        return self.language in SNOWBALL

    @property
    def keys(self) -> tuple[str, ...]:
        """The metadata keys that are searched, in the order of their fields."""
        return tuple(name for name in self.fields if name != TEXT_FIELD)

    @property
    def tokenizer(self) -> list[str]:
        """FTS5's tokenizer and its arguments: one of SQLite's own if that is enough, else the one of `tokenizers`."""
        if self.cjk or self.is_snowball:
            return ["vecdb", self.language, str(int(self.fold_accents)), str(int(self.cjk))]
        if self.language == "cjk":
            return ["trigram", "case_sensitive", "0", "remove_diacritics", str(int(self.fold_accents))]
        base = ["unicode61", "remove_diacritics", "2" if self.fold_accents else "0"]
        return ["porter", *base] if self.language == "english" else base

    @property
    def rank(self) -> str | None:
        """The expression that FTS5 orders by; None if that is its own default."""
        weights = ", ".join(repr(weight) for weight in self.fields.values())
        if (self.k1, self.b) != (1.2, 0.75):  # fixed in FTS5's own
            return f"vecdb_bm25({self.k1!r}, {self.b!r}, {weights})"
        return None if all(weight == 1.0 for weight in self.fields.values()) else f"bm25({weights})"


def checked_synonyms(given: Synonyms, error: type[InvalidInput] = InvalidInput) -> dict[str, dict[str, float]]:
    """Each text's expansions with their weights. Raises error."""
    if not isinstance(given, Mapping):
        raise error(f"synonyms is a {type(given).__name__}; give a mapping such as {{'car': ['automobile']}}")
    checked: dict[str, dict[str, float]] = {}
    for text, expansions in given.items():
        if isinstance(expansions, str):
            expansions = [expansions]
        if not isinstance(expansions, Mapping):
            try:
                expansions = dict.fromkeys(expansions, SYNONYM_WEIGHT)
            except TypeError as wrong:
                raise error(
                    f"the synonyms of {text!r} are {expansions!r}; give texts: {{'car': ['automobile']}}, or with weights: "
                    "{'car': {'automobile': 0.8}}"
                ) from wrong
        for word, weight in ((text, 1.0), *expansions.items()):
            if not isinstance(word, str) or not _is_number(weight) or not 0 < weight <= 1:
                raise error(
                    f"the synonym {word!r} of {text!r} has the weight {weight!r}; give texts, with weights above 0 and at most 1"
                )
        checked[text] = {word: float(weight) for word, weight in expansions.items()}
    return checked


def _checked_stop_words(words: Sequence[str] | None) -> tuple[str, ...] | None:
    if words is None:
        return None
    if isinstance(words, str) or not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise InvalidInput(f"stop_words is {words!r}; give a list of words such as ['der', 'die', 'das'], [] for none")
    return tuple(words)


def _checked_fields(fields: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(fields, Mapping) or TEXT_FIELD not in fields or len(fields) > _MOST_FIELDS:
        raise InvalidInput(
            f"fields is {fields!r}; give at most {_MOST_FIELDS} names with weights, among them 'text': "
            "{'title': 2.0, 'text': 1.0}"
        )
    for name, weight in fields.items():
        if not isinstance(name, str) or not name or name.startswith("$"):
            raise InvalidInput(f"{name!r} is no field; give 'text' or a metadata key, such as 'title' or 'book.title'")
        if not _is_number(weight) or not 0 < weight <= 1000:
            raise InvalidInput(f"the weight of field {name!r} is {weight!r}; it must be above 0 and at most 1,000")
    return {name: float(weight) for name, weight in fields.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """Vectors of the tokens of each text, kept for late interaction (rerank="maxsim").

    encoder: "default" (offline, comes with pip) or "colbert:NAME". codec: "int8" (a byte a number and four a token), "float16" or
    "float32". dimension: of a token's vector; the encoder tells it.
    """

    encoder: str = "default"
    codec: TokenCodec = "int8"
    dimension: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, str) or not self.encoder:
            raise InvalidInput(f"encoder of tokens is {self.encoder!r}; name one, such as 'default'")
        if self.codec not in CODECS:
            raise InvalidInput(f"codec of tokens is {self.codec!r}; it must be one of {', '.join(CODECS)}")
        if self.dimension is not None and not 1 <= self.dimension <= 65_536:
            raise InvalidInput(f"dimension of tokens is {self.dimension}; it must lie between 1 and 65,536")


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """dimension is None until the first vector tells it. model: identity of the embedding model whose vectors these are.

    embed: the text that makes the embedder again (None: vectors are given, or the embedder was an object of the caller's).
    storage: the codec that the file keeps vectors with; another one than "float32" comes once there are enough vectors to fit it.
    stemmer: package and version whose stems the word index in the file holds; another version's writer makes that index anew.
    tokens: how token vectors are made; None: there are none.
    """

    dimension: int | None = None
    metric: Metric = "cosine"
    model: str | None = None
    embed: str | None = None
    text: TextConfig = field(default_factory=TextConfig)
    index: IndexConfig = field(default_factory=HnswConfig)
    stemmer: str | None = None
    tokens: TokenConfig | None = None
    storage: str = "float32"

    def __post_init__(self) -> None:
        if self.metric not in _METRICS:
            raise InvalidInput(f"metric is {self.metric!r}; it must be one of {', '.join(_METRICS)}")
        if self.dimension is not None and not 1 <= self.dimension <= _LARGEST_DIMENSION:
            raise InvalidInput(f"dimension is {self.dimension}; it must lie between 1 and 65,536")
        if isinstance(self.index, CodesConfig) and self.dimension is not None:
            from vecdb.index.codecs import parse

            parse(self.index.codec, self.dimension, self.metric)
        if self.storage != "float32":
            from vecdb.index.codecs import parse

            parse(self.storage, self.dimension or _LARGEST_DIMENSION, self.metric)

    def as_json(self) -> dict[str, Any]:
        saved = asdict(self)
        if isinstance(self.index, NeuralLshConfig):
            saved["index"]["kind"] = "neural_lsh"
        elif isinstance(self.index, CodesConfig):
            saved["index"]["kind"] = "codes"
        return saved

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> CollectionConfig:
        text, index = TextConfig(**saved.pop("text")), index_config(saved.pop("index"))
        tokens = saved.pop("tokens", None)
        return cls(text=text, index=index, tokens=None if tokens is None else TokenConfig(**tokens), **saved)
