"""What `python -m bench retrieval --learn` learned from 16 judged pairs of lists, and weakened ones:

scifact, nfcorpus-bow, dbpedia-50, cosqa, cranfield, cisi, cacm, npl, time, locomo, xquad, msmarco-dl19,
msmarco-dl21, hotpot-musique, msmarco-dl19 (tas-b + bm25), msmarco-dl21 (splade-pp + bm25).
"""

from vecdb.query.fusion.adaptive import Lean

# for a collection whose usual queries are known
LEAN = Lean(
    bias=-0.255722,
    slopes=(
        -0.310437,  # flatness
        0.0666941,  # text_in_vector
        -0.100796,  # vector_in_text
        -0.243859,  # usual_flatness
        0.910327,  # usual_text_in_vector
        -1.26203,  # usual_vector_in_text
    ),
    means=(
        0.473366,  # flatness
        0.505766,  # text_in_vector
        0.479168,  # vector_in_text
        0.460539,  # usual_flatness
        0.515243,  # usual_text_in_vector
        0.48576,  # usual_vector_in_text
    ),
    deviations=(
        0.22391,  # flatness
        0.402999,  # text_in_vector
        0.404559,  # vector_in_text
        0.144857,  # usual_flatness
        0.181822,  # usual_text_in_vector
        0.186125,  # usual_vector_in_text
    ),
)

# for any other
UNFITTED = Lean(
    bias=-0.198002,
    slopes=(
        -0.650944,  # flatness
        0.0469898,  # text_in_vector
        -0.273516,  # vector_in_text
        0,  # usual_flatness
        0,  # usual_text_in_vector
        0,  # usual_vector_in_text
    ),
    means=(
        0.473366,  # flatness
        0.505766,  # text_in_vector
        0.479168,  # vector_in_text
        0,  # usual_flatness
        0,  # usual_text_in_vector
        0,  # usual_vector_in_text
    ),
    deviations=(
        0.22391,  # flatness
        0.402999,  # text_in_vector
        0.404559,  # vector_in_text
        0,  # usual_flatness
        0,  # usual_text_in_vector
        0,  # usual_vector_in_text
    ),
)
