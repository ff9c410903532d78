"""`python -m bench grank`: what users take next, of the whole catalogue: GRank, its parts, and what is usual beside it.

data.py    MovieLens, each user's last film held out
ways.py    popularity, neighbours of items, and the trained models
study.py   recall and nDCG by user, over seeds; which part helps
show.py    tables
run.py     the command line
"""

from bench.grank.run import main

__all__ = ["main"]
