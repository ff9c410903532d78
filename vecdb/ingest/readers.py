"""Files that are one document each: text, Markdown, source code, HTML, Word, PDF. Foreign parsers are imported when
needed.
"""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from vecdb.errors import MissingExtra
from vecdb.ingest.documents import Document, Unreadable
from vecdb.ingest.kinds import Kind

_HEADING = re.compile(r"^#[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_RST_TITLE = re.compile(r"(?:^([=\-~^\"'#*+])\1{2,}\n)?^(\S[^\n]*)\n([=\-~^\"'#*+])\3{2,}$", re.MULTILINE)
_FRONT_MATTER_TITLE = re.compile(r"\A---\n(?:.*\n)*?title:[ \t]*[\"']?(.+?)[\"']?[ \t]*\n(?:.*\n)*?---", re.IGNORECASE)
_HYPHEN_AT_LINE_END = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")
_MARKS = (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")


def decode(data: bytes) -> str:
    """Bytes of a text file as text with bare newlines: by its byte order mark, else UTF-8, else Windows-1252.

    Windows-1252 is the last resort since nearly every byte means something there: old Western text comes out right,
    other old encodings come out wrong but never stop a job. Raises Unreadable for binary data, which shows by NUL
    bytes.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(encoding, errors="replace")
            break
    else:
        if b"\0" in data[:65536]:
            raise Unreadable("binary data, not text")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_document(data: bytes, kind: Kind) -> Document:
    """The document in a file's bytes. Raises Unreadable with the reason, MissingExtra if the parser is not
    installed.
    """
    if kind.reader == "pdf":
        return _storable(_read_pdf(data))
    if kind.reader in ("html", "docx"):
        return _storable(_read_with_markitdown(data, kind))
    text = decode(data)
    if kind.reader == "markdown":
        return Document(text, _first(_FRONT_MATTER_TITLE, text, 1) or _first(_HEADING, text, 1))
    if kind.name == "rst":
        return Document(text, _first(_RST_TITLE, text, 2))
    return Document(text)


def _storable(document: Document) -> Document:
    """The document without the half characters and NULs that parsers leave behind; every offset stays."""
    text = document.text.replace("\0", " ").encode("utf-8", errors="replace").decode()
    title = document.title and document.title.replace("\0", " ").encode("utf-8", errors="replace").decode()
    return replace(document, text=text, title=title)


def _first(pattern: re.Pattern[str], text: str, group: int) -> str | None:
    found = pattern.search(text[:20_000])
    return found.group(group).strip() if found else None


def _read_pdf(data: bytes) -> Document:
    """Text page by page, with words that were cut at a line's end joined again."""
    try:
        import pypdf
    except ImportError as error:
        raise MissingExtra.of("pypdf", extra="files", what="reading PDF files") from error
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("the PDF is locked with a password; save it without one")
        pages = [_HYPHEN_AT_LINE_END.sub("", page.extract_text()).strip() for page in reader.pages]
        title = reader.metadata.title if reader.metadata else None
    except pypdf.errors.DependencyError as error:
        raise Unreadable(f"the PDF is encrypted, and opening it needs another package: {error}") from error
    except (pypdf.errors.PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        # A damaged file makes the parser stumble anywhere, so errors of its code are the file's fault here.
        raise Unreadable(f"not a readable PDF ({type(error).__name__}: {error})") from error
    if not any(pages):
        raise Unreadable(f"no text in {len(pages)} pages; a scan needs text recognition (OCR) first")
    offsets, position = [], 0
    for page in pages:
        offsets.append(position)
        position += len(page) + 2
    return Document("\n\n".join(pages), (title or "").strip() or None, tuple(offsets))


def _read_with_markitdown(data: bytes, kind: Kind) -> Document:
    """HTML and Word as Markdown. The converters are called directly: MarkItDown() itself first loads all the other
    formats.
    """
    try:
        from markitdown import StreamInfo
        from markitdown.converters import DocxConverter, HtmlConverter
    except ImportError as error:
        raise MissingExtra.of("markitdown", extra="files", what=f"reading {kind.name} files") from error
    charset = None if kind.reader == "docx" else _html_charset(data)
    converter: Any = DocxConverter if kind.reader == "docx" else HtmlConverter
    try:
        result = converter().convert(io.BytesIO(data), StreamInfo(extension=f".{kind.name}", charset=charset))
    except Exception as error:  # the parsers under markitdown raise anything on a damaged file
        raise Unreadable(f"not a readable {kind.name} file ({type(error).__name__}: {error})") from error
    text = result.markdown.replace("\r\n", "\n").strip()
    title = (result.title or "").strip() or _first(_HEADING, text, 1)
    return Document(text, title)


def _html_charset(data: bytes) -> str | None:
    """UTF-8 if the bytes are; otherwise None, and the parser looks for the page's own declaration."""
    try:
        data.decode()
    except UnicodeDecodeError:
        declared = re.search(rb"charset=[\"']?([\w-]+)", data[:4096])
        return declared.group(1).decode() if declared else "cp1252"
    return "utf-8"


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """A file's bytes. Raises Unreadable if there are more than max_bytes, or the file cannot be opened."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise Unreadable(f"{size / 1e6:,.0f} MB; documents over {max_bytes / 1e6:,.0f} MB are not read")
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
