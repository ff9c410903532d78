"""`python -m bench COMMAND …`: each command is a module with `main(arguments) -> exit status`, imported when asked for."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "db": "vecdb and the databases beside it: load, size, opening, queries at equal recall",
    "ann": "the graph index and other libraries': recall against queries per second",
    "codecs": "how bytes stand for vectors: quality, re-check, speed, Faiss beside",
    "lid": "what the order of insertion and the dimension of the data do to a graph",
    "start": "import, first answer, reopening",
    "churn": "recall through rounds of deleting and upserting",
    "churn_index": "the same for the graph index alone, hnswlib and Chroma, against fresh builds",
    "text": "word search in ten languages, loading texts, what synonyms, corrections and snippets cost",
    "target_recall": "whether a search that is asked for a recall reaches it, and at what cost",
    "learned": "learned partitions beside k-means, hyperplanes and Faiss's IVF: recall against rows scanned",
    "landmarks": "photographs of the same place by SIFT descriptors: search_groups, pooling, votes, Chamfer; a picture",
    "million": "100,000 to 1,000,000 vectors: building, memory, opening, queries",
    "near": "the nearest vectors among what is near in a second space, beside filter first and vector first",
    "select": "hits chosen as a set: top k, MMR, coverage, k-center, DPP, judged by labelled sub-topics",
    "graph": "links: multi-hop questions, personalised PageRank, node embeddings",
    "rerank": "the second look: MaxSim kernels, orders of the same candidates, pruning, projection heads",
    "retrieval": "joining lists: dense, BM25, RRF, vstash's rule, adaptive on judged collections; a hybrid query's time",
    "adapt": "the query map that a collection learns from its own documents, on judged queries; how long learning takes",
    "grank": "what users take next: GRank, its parts and what is usual beside it, of a whole catalogue",
    "gpu": "operations on a GPU beside PyTorch and cuVS: exact search, MaxSim, links of a graph",
    "robustness": "kill -9, damaged files, several processes",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        listed = "\n".join(f"  {name:<13} {what}" for name, what in COMMANDS.items())
        print(f"usage: python -m bench COMMAND [options]\n\n{listed}", file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    status: int | None = import_module(f"bench.{arguments[0]}").main(arguments[1:])
    return status or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
