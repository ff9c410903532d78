"""The libraries that are measured, by the name one gives to --peers. Their packages are imported in child processes only."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from bench.ann.peers.base import Metric, Peer


@dataclass(frozen=True)
class Entry:
    """module.maker(metric, dimension, threads, *variant) makes the peer; distribution is what pip installs."""

    module: str
    maker: str
    distribution: str
    variant: tuple[object, ...] = ()
    note: str = ""


PEERS = {
    "vecdb": Entry("vecdb", "Vecdb", "vecdb"),
    "hnswlib": Entry("hnswlib", "Hnswlib", "hnswlib"),
    "faiss-hnsw": Entry("faiss", "FaissHnsw", "faiss-cpu"),
    "faiss-hnsw-sq8": Entry("faiss", "FaissHnswSq8", "faiss-cpu"),
    "faiss-ivfpq": Entry("faiss", "FaissIvfPq", "faiss-cpu"),
    "usearch": Entry("usearch", "Usearch", "usearch", ("f32",)),
    "usearch-bf16": Entry("usearch", "Usearch", "usearch", ("bf16",)),
    "usearch-i8": Entry("usearch", "Usearch", "usearch", ("i8",), note="no re-check on full precision"),
    "symphonyqg": Entry("rabitq", "SymphonyQG", "rabitqlib", (0,)),
    "symphonyqg-8bit": Entry("rabitq", "SymphonyQG", "rabitqlib", (8,)),
    "rabitq-hnsw": Entry("rabitq", "RabitqHnsw", "rabitqlib", note="5-bit codes, no re-check on full precision"),
    "glass": Entry(
        "glass", "Glass", "pyglass-portable", note="this wheel has AVX2 kernels; built natively it is faster"
    ),
    "svs": Entry("svs", "Svs", "scalable-vs", note="vectors as float16"),
    "scann": Entry("scann", "Scann", "scann"),
    "voyager": Entry("voyager", "Voyager", "voyager"),
    "pynndescent": Entry("pynndescent", "Pynndescent", "pynndescent"),
}


def make_peer(name: str, metric: Metric, dimension: int, threads: int) -> Peer:
    """The peer of this name. Imports its package."""
    entry = PEERS[name]
    maker = getattr(import_module(f"bench.ann.peers.{entry.module}"), entry.maker)
    peer: Peer = maker(metric, dimension, threads, *entry.variant)
    return peer
