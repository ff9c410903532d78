"""Neural LSH: an index whose partition of the space is learned (Dong, Indyk, Razenshteyn & Wagner, ICLR 2020).

partition.py   the k-NN graph cut into bins of about equal size, with few edges between bins
learning.py    a network learns to tell a vector's bin, and its neighbours' bins, from its numbers (PyTorch, only while building)
network.py     the network as flat arrays, and its forward pass in NumPy
bins.py        what each bin holds, as one-byte codes side by side, and the scan of the likeliest bins
calibration.py how sure of a query's bins a search must be to reach a recall
index.py       NeuralLshIndex: all that, as a VectorIndex
kernels.py     the compiled loops of partition.py and bins.py
"""

from vecdb.index.neural_lsh.index import NeuralLshIndex

__all__ = ["NeuralLshIndex"]
