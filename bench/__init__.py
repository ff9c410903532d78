"""Measurements: `python -m bench db | ann | start | churn | robustness`, run from the repository root. Not part of the package.

A figure comes with its machine, commit, data set, settings and recall: every command ends by writing JSON lines.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# `python -m bench` puts the repository first on the path, and there `vecdb/` lacks the folders that the package map adds
# (index/, server/, …). Behind everything else, the installed vecdb is the one that is imported and measured.
if sys.path and Path(sys.path[0] or ".").resolve() == ROOT:
    sys.path.append(sys.path.pop(0))
