"""Search over groups of vectors: which group (a document, an image, a product) is near all of a set of query vectors?

After CANN, constrained approximate nearest neighbours (Aiger, Araujo & Lynen, ICCV 2023): a group's score is the mean over the
query vectors of a bounded kernel of the distance to the group's nearest vector, so each query vector counts once in each group,
and what is farther than the kernel's reach counts nothing.

kernel.py  the kernel, and how its reach is measured on the data
exact.py   all distances, by blocks: the oracle
probing.py the nearest of an index, until enough different groups have come up
grids.py   random grids of several widths: only what shares a cell with a query vector is measured
"""

from vecdb.index.groups.exact import Grouped, RankedGroups, Source, exact_groups
from vecdb.index.groups.grids import Grids, gridded_groups
from vecdb.index.groups.kernel import GroupKernel, measured_reach
from vecdb.index.groups.probing import nearest_by, probed_groups

__all__ = [
    "Grids",
    "GroupKernel",
    "Grouped",
    "RankedGroups",
    "Source",
    "exact_groups",
    "gridded_groups",
    "measured_reach",
    "nearest_by",
    "probed_groups",
]
