"""`python -m bench lid`: what the order of insertion and the intrinsic dimension of the data do to an HNSW graph.

Elliott & Clark 2024, "The Impacts of Data, Ordering, and Intrinsic Dimensionality on Recall in HNSW", asked again: does the
order of insertion matter, by local intrinsic dimensionality (LID) or cluster by cluster, at EQUAL NUMBERS OF DISTANCES? And
does it still where nodes enter a graph in batches that choose their links at once, as vecdb's do?

orders.py    the orders
engines.py   three ways of inserting: in batches, one at a time, hnswlib's
study.py     builds and sweeps: the lines of results
curves.py    recall at a number of distances, from sweeps; pure functions
show.py      tables and a picture
run.py       the command line
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from bench.lid.run import main as run

    return run(arguments)
