"""Learned blocking: which pairs of records of two tables may be the same, few of them and hardly one missing.

from vecdb import blocking
a, b = blocking.read_table("a.csv"), blocking.read_table("b.csv")
blocker = blocking.train_blocker(a, b, blocking.read_pairs("train.csv"), recall=0.95)
for left, right, similarity in blocker.block(a, b): ...

tables.py    records from files, and as texts            words.py      texts by their letters, weighted
encoders.py  texts to vectors                            codes.py      views of a record as one unit vector; nearest ones
hashing.py   the head, and what it is trained for        training.py   training on mined triplets (PyTorch)
rule.py      k and distance for the recall wanted        pseudo.py     matches without labels
learn.py     all of it, from pairs to a blocker          blocker.py    what was learned: candidates, save, load
tuned.py     the encoder trained as well (PyTorch)
"""

from vecdb.blocking.blocker import Blocker, Candidates
from vecdb.blocking.encoders import Encoder, Frozen
from vecdb.blocking.hashing import HashConfig, Head
from vecdb.blocking.learn import read_pairs, train_blocker
from vecdb.blocking.rule import Calibration, Rule
from vecdb.blocking.tables import Table, read_table, table_of

__all__ = [
    "Blocker",
    "Calibration",
    "Candidates",
    "Encoder",
    "Frozen",
    "HashConfig",
    "Head",
    "Rule",
    "Table",
    "read_pairs",
    "read_table",
    "table_of",
    "train_blocker",
]
