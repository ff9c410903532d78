"""What a collection is: its name, its number, its frozen settings, and the model that embeds for it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import apsw
import orjson

from vecdb import embedding
from vecdb.config import CollectionConfig
from vecdb.embedding.base import CachedEmbedder, Embedder
from vecdb.errors import CollectionNotFound, ModelMismatch, ModelUnavailable, NoModel
from vecdb.index.base import IndexConfig
from vecdb.kept import Kept
from vecdb.rerank.base import TokenEncoder
from vecdb.storage import Store
from vecdb.tokenizers import stemmer_version


class Definition:
    """Settings as the file has them. Dimension and model may be settled later, by the first vectors; index by tuning."""

    def __init__(self, name: str, number: int, config: CollectionConfig, embedder: Embedder | None = None) -> None:
        self.name = name
        self.number = number
        self.config = config
        self.kept = Kept(number)
        self._saved = ""  # the text that config was last read from
        self._embedder = None if embedder is None else CachedEmbedder(embedder)
        self._token_encoder: TokenEncoder | None = None
        self._lock = threading.Lock()

    @classmethod
    def saved(cls, db: apsw.Connection, name: str) -> Definition | None:
        found = db.execute("SELECT id, config FROM collections WHERE name = ?", (name,)).fetchone()
        return None if found is None else cls(name, found[0], CollectionConfig.from_json(orjson.loads(found[1])))

    def refresh(self, db: apsw.Connection) -> None:
        """Learn what another process or handle has settled. Raises CollectionNotFound once the collection was dropped."""
        found = db.execute("SELECT config FROM collections WHERE id = ?", (self.number,)).get
        if found is None:
            raise CollectionNotFound(
                f"collection {self.name!r} was dropped; create it again with db.collection({self.name!r})"
            )
        if found != self._saved:
            self.config, self._saved = CollectionConfig.from_json(orjson.loads(found)), found

    def settled(self, store: Store) -> CollectionConfig:
        """The settings, read again as long as there is no dimension: others may have settled it."""
        if self.config.dimension is None:
            with store.read() as db:
                self.refresh(db)
        return self.config

    def settle(self, db: apsw.Connection, dimension: int, model: str | None, *, is_first: bool) -> CollectionConfig:
        """The configuration with its dimension and model, saved; the caller takes it over once the transaction is kept.

        The first vectors (is_first) may name the model of a collection that has none; later ones must be that model's.
        """
        config = self.config
        if model is not None and config.model is None:
            if not is_first:
                raise ModelMismatch(
                    f"collection {self.name!r} holds vectors of an unnamed model, which may not be {model!r}; leave model= out "
                    "if it is, or make a new collection"
                )
            config = replace(config, model=model)
        if config.dimension is None:
            config = replace(config, dimension=dimension)  # which says so if it does not suit the storage codec
        if config is not self.config:
            self._save(db, config)
        return config

    def settle_stemmer(self, db: apsw.Connection) -> bool:
        """Whether the word index in the file holds the stems of another version than ours, which from now on are the saved ones.

        Raises MissingExtra without the stemmer.
        """
        if not self.config.text.is_snowball or self.config.stemmer == stemmer_version():
            return False
        self.config = replace(self.config, stemmer=stemmer_version())
        self._saved = ""  # read it again: this transaction may not be kept
        self._save(db, self.config)
        return True

    def _save(self, db: apsw.Connection, config: CollectionConfig) -> None:
        saved = orjson.dumps(config.as_json()).decode()
        db.execute("UPDATE collections SET config = ? WHERE id = ?", (saved, self.number))

    def keep_index(self, db: apsw.Connection, index: IndexConfig) -> CollectionConfig:
        """Save how the index is to be built from now on; as for `settle`, returns the configuration."""
        config = replace(self.config, index=index)
        if config != self.config:
            self._save(db, config)
        return config

    def keep_storage(self, db: apsw.Connection, storage: str) -> CollectionConfig:
        """Save which storage codec is wanted from now on; as for `settle`, returns the configuration."""
        config = replace(self.config, storage=storage)
        if config != self.config:
            self._save(db, config)
        return config

    @property
    def embeds(self) -> bool:
        """Whether texts are embedded here (the model may still turn out to be unavailable)."""
        return self._embedder is not None or self.config.embed is not None

    def use(self, embedder: Embedder) -> None:
        """Embed with this model from now on. Raises ModelMismatch if the stored vectors are another one's."""
        self.check_model(embedder.name)
        if self.config.dimension not in (None, embedder.dimension):
            raise ModelMismatch(
                f"model {embedder.name!r} makes vectors of {embedder.dimension} numbers, collection {self.name!r} holds "
                f"{self.config.dimension}; open it with the model it was made with"
            )
        self._embedder = CachedEmbedder(embedder)

    def embedder(self) -> CachedEmbedder:
        """The model, loaded on first use. Raises ModelUnavailable if the collection has none at hand."""
        with self._lock:
            if self._embedder is None:
                self._embedder = CachedEmbedder(self._load())
            return self._embedder

    def use_tokens(self, encoder: TokenEncoder) -> None:
        """Encode tokens with this from now on. Raises ModelMismatch if the stored ones are another's, or there are none."""
        tokens = self.config.tokens
        if tokens is None or encoder.name != tokens.encoder:
            stored = "no token vectors" if tokens is None else f"token vectors of {tokens.encoder!r}"
            raise ModelMismatch(
                f"collection {self.name!r} holds {stored}, not of {encoder.name!r}; leave tokens out, or make a new collection"
            )
        self._token_encoder = encoder

    def token_encoder(self) -> TokenEncoder | None:
        """The encoder of the stored token vectors, loaded on first use; None if there are none. Raises ModelUnavailable."""
        tokens = self.config.tokens
        if tokens is None or self._token_encoder is not None:
            return self._token_encoder
        from vecdb.embedding.late import load_token_encoder, loads_tokens_offline

        if not loads_tokens_offline(tokens.encoder):
            raise ModelUnavailable(
                f"the tokens of collection {self.name!r} are encoded by {tokens.encoder!r}, which may reach the network; say "
                f"that you want that: db.collection({self.name!r}, tokens=…)"
            )
        embedder = self.embedder().embedder if self.embeds else None  # one model for both, where it is the same
        with self._lock:
            if self._token_encoder is None:
                self._token_encoder = load_token_encoder(tokens.encoder, model=embedder)
            return self._token_encoder

    def check_model(self, model: str | None) -> None:
        """Raise ModelMismatch if model is named and is not the one whose vectors are stored."""
        if model is not None and self.config.model is not None and model != self.config.model:
            raise ModelMismatch(
                f"vectors of model {model!r} do not fit collection {self.name!r}, which holds vectors of {self.config.model!r} "
                "(distances between models mean nothing, even if the dimensions agree); embed with that model, or make a new "
                "collection"
            )

    def _load(self) -> Embedder:
        if self.config.embed is not None and not embedding.loads_offline(self.config.embed):
            raise ModelUnavailable(
                f"collection {self.name!r} was embedded by {self.config.embed!r}, which may send texts over the network; "
                f"say that you want that: db.collection({self.name!r}, embed={self.config.embed!r})"
            )
        if self.config.embed is not None:
            embedder: Embedder = embedding.load_embedder(self.config.embed)
            self.check_model(embedder.name)
            return embedder
        if self.config.model is not None:
            raise NoModel(
                f"collection {self.name!r} was embedded with {self.config.model!r}, an object of the program that made it; "
                f"open it with db.collection({self.name!r}, embed=…), or give vectors"
            )
        raise NoModel(
            f"collection {self.name!r} has no embedding model; give vectors, search with mode='text', "
            "or make it with embed='default'"
        )


def differences(given: dict[str, Any], saved: CollectionConfig) -> list[str]:
    """What a caller asked for that the saved settings are not, in words. given holds only what the caller said."""
    return [
        f"{name} is {getattr(saved, name)!r}, not {value!r}"
        for name, value in given.items()
        if getattr(saved, name) != value
    ]
