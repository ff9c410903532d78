"""`python -m bench codecs`: what bytes cost in quality and in time.

study.py    nDCG@10 and recall@10 of every codec at 100, 75, 50 and 25 % of the dimensions, alone and re-checked; published int8
survey.py   the eight methods of Zhang et al. 2024 that work on given vectors, at equal bytes
grouping.py  when grouping by magnitude helps product quantisation
size.py     how large the file of 88,000 records is
peers.py    Faiss beside us: recall, encoding, scanning
show.py     tables and a picture
run.py      the command line
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from bench.codecs.run import main as run

    return run(arguments)
