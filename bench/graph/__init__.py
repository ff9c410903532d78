"""`python -m bench graph`: what links do for answers, and how good and fast the graph algorithms under them are.

multihop.py    questions that need several passages: all of them among ten, with and without the graph, and with a wrong one
powerwalk.py   personalised PageRank on the k-NN graph of real embeddings, against exact vectors
nodes.py       FastRP: hidden edges of a graph of ratings
run.py         the command line
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from bench.graph.run import main as run

    return run(arguments)
