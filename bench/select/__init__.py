"""`python -m bench select`: hits chosen as a set (top k, MMR, coverage, k-center, DPP), judged by labelled sub-topics.

sets.py      questions whose relevant records carry labels of sub-topics; no label comes from a vector
measures.py  S-recall, alpha-nDCG, precision
run.py       tuning on one half of the questions, figures on the other, latency; the command line
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    from bench.select.run import main as run

    return run(arguments)
