"""`python -m bench learned`: partitions that are learned, beside those that are not.

partitions.py  the ways to cut a space into bins, and to rank bins for a query
study.py       recall against the share of rows in the likeliest bins; queries per second
show.py        tables and the picture
run.py         the command line
"""

from bench.learned.run import main

__all__ = ["main"]
