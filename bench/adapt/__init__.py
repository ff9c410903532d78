"""`python -m bench adapt`: what `Collection.adapt` does to real judged queries, which it never sees.

run.py        the command line, and each judged collection before and after
time.py       how long it takes on 50,000 documents
finetune.py   not a measurement: trains the whole encoder on the same triples

Tried and left out, on the same collections: real queries without judgements, towards the fused list of both stages (fitted to one
half of them, measured on the other): beyond chance by vector on 2 of 7 collections (cranfield +0.010, scifact +0.011), by both
lists on 1, and down on cosqa, where words are the worse guide; and a gate has nothing to see that by. Words out of order as
pseudo-queries: harm on most. Whitening by the documents' covariance: up to +0.03, but harm on dbpedia-50 and time. A weaker pull
towards the identity gains more where it gains, a stronger one lets the control pass.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from bench.adapt.run import main as run

    return run(arguments)
