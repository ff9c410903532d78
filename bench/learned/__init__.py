"""`python -m bench learned`: partitions that are learned, beside those that are not.

partitions.py  the ways to cut a space into bins, and to rank bins for a query
study.py       recall against the share of rows in the likeliest bins; queries per second
show.py        tables and the picture
run.py         the command line

`python -m bench learned blocking`: which pairs of records may be the same (the files blocking*.py, minhash.py and er_sets.py).
`python -m bench learned groups`: which groups of vectors are near all of a query's (the files group_*.py).
"""

from bench.learned.run import main

__all__ = ["main"]
