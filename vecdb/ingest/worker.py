"""Reads documents in a process of its own: `python -m vecdb.ingest.worker`, one JSON line in, one JSON line out.

PDF, Word and HTML parsers are large and meet hostile files: one may crash the interpreter, eat the memory or never
come back. In here it takes only this process along, and the parent knows which file it was. A process started by
name, rather than by `multiprocessing`, because that would run the user's own script again in each child.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from vecdb.errors import VecdbError
from vecdb.ingest.documents import Unreadable
from vecdb.ingest.kinds import Kind
from vecdb.ingest.readers import read_bytes, read_document

_MEMORY_BYTES = 4 * 2**30  # address space; a 20 kB zip bomb would otherwise push the whole machine into its swap


def main() -> None:
    """Answer requests until standard input ends, which is also how a killed parent shows."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a parser prints must not stand among the answers
    _bound_memory()
    for line in requests:
        _send(answers, _answer(orjson.loads(line)))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    kind = Kind(*request["kind"])
    try:
        document = read_document(read_bytes(Path(request["path"]), request["max_bytes"]), kind)
    except (Unreadable, VecdbError) as error:
        return {"reason": str(error)}
    except MemoryError:
        return {"reason": f"needs more than {_MEMORY_BYTES // 2**30} GiB of memory to be read"}
    except RecursionError:
        return {"reason": "nested too deeply to be read"}
    return {"text": document.text, "title": document.title, "pages": document.pages}


def _send(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(orjson.dumps(answer) + b"\n")
    answers.flush()


def _bound_memory() -> None:
    with contextlib.suppress(
        ImportError, ValueError, OSError
    ):  # Windows has no such bound; a lower one may stand already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


if __name__ == "__main__":
    main()
