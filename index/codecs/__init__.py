"""Codecs: how bytes stand for vectors.

    parsing    parse("pca:192+float8", dimension, metric): the grammar of a codec's text
    codec      Codec: reducers and a format as one thing; fit, encode, decode, distances, to_bytes
    base       the Protocols of reducers and formats, and the arithmetic that makes bytes independent of the batch
    floats, float8, levels (int8, int4), products (PQ, OPQ, grouped), rabitq, linear (PCA, random, truncation): one family each
    turning    the random turn of rabitq, without a matrix
    table      CodeTable: codes that are scanned, the re-check on exact vectors, learning how many to re-check
    kernels    all that is compiled; compiled: when it comes in

Importing this loads no compiler.
"""

from vecdb.index.codecs.codec import Codec
from vecdb.index.codecs.parsing import parse
from vecdb.index.codecs.table import CodeTable, learn_oversampling

__all__ = ["Codec", "CodeTable", "learn_oversampling", "parse"]
