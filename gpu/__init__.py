"""Operations on a GPU, in Triton: tensors in, tensors out. The extra [gpu] is imported when a module below is, and not before.

topk       exact search of a `Corpus`: maxima (the product and its epilogue), select (the steps after it), coding (of queries)
maxsim     late interaction over `Documents`
links      links of a graph, all at once
codecs     bytes for vectors: codec_kernels on a GPU; kmeans
reference  each in plain PyTorch
launch     which device there is
"""
