"""The `vecdb` command. Data goes to standard output as one JSON object a line, talk to standard error.

Exit codes: 0 done, 1 an error of ours (one line), 2 wrong usage, 130 stopped by Ctrl-C. Nothing heavy is imported
before a command runs, so that `vecdb --help` and shell completion answer at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from vecdb.cli import blocking, collections, demo, evaluating, ingesting, queries, records, searching, service

__all__ = ["main"]

# Help as plain text: rich's would cost a tenth of a second at each completion, and tear the examples apart.
app = typer.Typer(
    name="vecdb", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True
)
for module in (ingesting, searching, queries, records, collections, evaluating, blocking, service, demo):
    module.add_to(app)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    """Search by meaning, by words and by filter, in one file.

    \b
    Start with:  vecdb ingest notes/ --db library.vecdb --collection notes
                 vecdb search "what did we decide about prices" --db library.vecdb --plain

    Commands print one JSON object a line; --plain prints for eyes. --db may be left out when VECDB_DB is set.
    """


def main() -> None:
    """Run the command line and exit."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments  # wherever it stands: people add it at the end of the line that failed
    try:
        sys.exit(app([argument for argument in arguments if argument != "--debug"]))
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _leave_quietly()
    except Exception as error:  # the outermost edge: a person sees one line, and the rest on request
        if debug:
            raise
        print(f"error: {_in_words(error)}", file=sys.stderr)
        sys.exit(1)


def _in_words(error: Exception) -> str:
    """An error as one line. One that is not ours is a fault of ours, and says its kind and how to see more."""
    from vecdb.errors import VecdbError

    if isinstance(error, VecdbError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)"


def _leave_quietly() -> None:
    """The reader of our output has gone (`vecdb … | head`). Python would complain while it flushes at exit: flush to
    nowhere.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
