"""Which kinds of file can be read, and how one tells them apart: by name, never by looking into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

Reader = Literal["text", "markdown", "code", "html", "docx", "pdf", "rows"]


@dataclass(frozen=True, slots=True)
class Kind:
    """name: what the metadata says ("pdf", "csv", …). reader: how it is read. language: of source code."""

    name: str
    reader: Reader
    language: str | None = None

    @property
    def is_rows(self) -> bool:
        """True if each row becomes a record of its own."""
        return self.reader == "rows"

    @property
    def is_parsed_apart(self) -> bool:
        """True if a large foreign parser reads it: slow, and able to crash or hang, so it gets a process of its own."""
        return self.reader in ("html", "docx", "pdf")


_LANGUAGES = {
    "python": "py pyi", "javascript": "js mjs cjs jsx", "typescript": "ts tsx", "java": "java", "c": "c h",
    "cpp": "cc cpp cxx hh hpp hxx cu", "c_sharp": "cs", "rust": "rs", "go": "go", "ruby": "rb", "php": "php",
    "swift": "swift", "kotlin": "kt kts", "scala": "scala", "bash": "sh bash zsh", "sql": "sql", "r": "r",
    "julia": "jl", "lua": "lua", "perl": "pl pm", "haskell": "hs", "ocaml": "ml mli", "elixir": "ex exs",
    "erlang": "erl", "clojure": "clj", "dart": "dart", "zig": "zig", "nim": "nim", "css": "css scss less",
    "toml": "toml", "yaml": "yaml yml", "xml": "xml", "ini": "ini cfg conf", "proto": "proto", "hcl": "tf hcl",
    "cmake": "cmake", "vue": "vue", "svelte": "svelte", "graphql": "graphql",
}  # fmt: skip


def _table() -> dict[str, Kind]:
    table: dict[str, Kind] = {}

    def put(endings: str, kind: Kind) -> None:
        table.update((f".{ending}", kind) for ending in endings.split())

    put("txt text log tex org adoc asciidoc srt vtt", Kind("text", "text"))
    put("rst", Kind("rst", "text"))
    put("md markdown mdx qmd", Kind("markdown", "markdown"))
    put("html htm xhtml", Kind("html", "html"))
    put("docx", Kind("docx", "docx"))
    put("pdf", Kind("pdf", "pdf"))
    for name, endings in {"csv": "csv", "tsv": "tsv tab", "jsonl": "jsonl ndjson"}.items():
        put(endings, Kind(name, "rows"))
        put(" ".join(f"{ending}.gz" for ending in endings.split()), Kind(name, "rows"))
    put("json", Kind("json", "rows"))
    put("parquet", Kind("parquet", "rows"))
    for language, endings in _LANGUAGES.items():
        put(endings, Kind("code", "code", language))
    return table


_BY_ENDING = _table()
_TEXTS = ["readme", "license", "licence", "copying", "authors", "news", "changelog", "todo", "install", "notice"]
_BY_NAME = {name: Kind("text", "text") for name in _TEXTS}
_BY_NAME |= {"makefile": Kind("code", "code", "make"), "dockerfile": Kind("code", "code", "dockerfile")}
PLAIN_TEXT = Kind("text", "text")


def kind_of(path: PurePath) -> Kind | None:
    """The kind that a file's name tells; None if the name tells nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    for ending in ("".join(suffixes), suffixes[-1] if suffixes else ""):
        if ending in _BY_ENDING:
            return _BY_ENDING[ending]
    return _BY_NAME.get(path.name.lower()) if not suffixes else None
