"""The databases that are measured, by the name one gives to --systems. Their packages are imported in child processes only."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from bench.systems.base import System

# name -> (module, distribution whose version is reported)
SYSTEMS = {
    "vecdb": ("bench.systems.vecdb", "vecdb"),
    "chroma": ("bench.systems.chroma", "chromadb"),
    "lancedb": ("bench.systems.lancedb", "lancedb"),
    "qdrant": ("bench.systems.qdrant", "qdrant-client"),
    "sqlite-vec": ("bench.systems.sqlite_vec", "sqlite-vec"),
    "vstash": ("bench.systems.vstash", "vstash"),
}


def make_system(name: str, folder: Path) -> System:
    """The system of this name, its files in folder. Imports its package."""
    system: System = import_module(SYSTEMS[name][0]).make(folder)
    return system
