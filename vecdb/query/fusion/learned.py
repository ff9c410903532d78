"""What `python -m bench retrieval --learn` learned from 8 judged collections:

scifact, dbpedia-50, cosqa, cranfield, cacm, locomo, xquad, time.
"""

from vecdb.query.fusion.adaptive import Lean

LEAN = Lean(
    bias=-0.0878072,
    slopes=(
        0.763031,  # tendency
        0.0331259,  # agreement
        0.28686,  # text_first
        -0.129327,  # vector_first
    ),
    means=(
        0.0347015,  # tendency
        0.0347015,  # agreement
        1.70008,  # text_first
        1.59082,  # vector_first
    ),
    deviations=(
        0.0356493,  # tendency
        0.143717,  # agreement
        0.279769,  # text_first
        0.221594,  # vector_first
    ),
)
