"""`python -m bench ann`: vecdb's graph index and the C++ libraries beside it, on the same vectors, at equal recall.

vectors.py (of bench)   the sets and their exact neighbours
peers/                  one file a library, with the settings that it is measured at
worker.py               the child process with one library in it
measure.py              builds, and the rounds in which the libraries take turns
figures.py              from measured points to "queries per second at a recall of 0.95"
report.py, plot.py      tables and a picture
run.py                  the command line
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from bench.ann.run import main as run  # child processes import this package for `worker` and `peers` alone

    return run(arguments)
