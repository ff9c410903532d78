"""`python -m bench retrieval`: what joining two lists gains and what it harms, on every judged collection of the shared data.

Each way of joining is given the very same lists: exact search by vector (the offline model) and BM25 by words, made by vecdb.
What is learned is learned on the other collections only, and never on one of the same family.

sets.py         the collections, their vectors and lists, kept in the cache
candidates.py   BM25 and dense lists of other systems over MS MARCO (DL19, DL21)
weakened.py     the same with one list made worse, to learn from
peers.py        bm25s, and vstash itself
measure.py      ways of joining, nDCG@10 and recall@100
study.py        what is learned and compared: the lines of results
answers.py      whether a search says that it found nothing
latency.py      what a hybrid query costs
show.py         tables and a picture
run.py          the command line
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from bench.retrieval.run import main as run

    return run(arguments)
