"""The graph bench: that its smallest run works, and that its truth is one. Nothing about its findings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not beside the tests: it is not part of the package", allow_module_level=True)


@pytest.fixture(autouse=True)
def _bench_is_importable() -> Iterator[None]:
    sys.path.append(str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def test_the_truth_of_many_sources_is_that_of_each() -> None:
    from bench.graph.powerwalk import exact_vectors
    from vecdb.index.adjacency import Adjacency, power_iteration

    rng = np.random.default_rng(0)
    graph = Adjacency.of(50, rng.integers(0, 48, 200), rng.integers(0, 50, 200), rng.random(200) + 0.1)
    together = exact_vectors(graph, np.array([3, 20, 49]))
    for place, source in enumerate((3, 20, 49)):
        assert np.abs(together[:, place] - power_iteration(graph, np.eye(50)[source])).max() < 1e-8


def test_names_are_found_in_titles_and_texts() -> None:
    from bench.graph.multihop import names_in

    found = names_in("Inception (film)\nThe film by Christopher Nolan was shot in the United States of America.")
    assert found[0] == "Inception"
    assert {"Christopher Nolan", "United States of America"} <= set(found)


def test_the_smallest_run_writes_its_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "graph", "--parts", "powerwalk", "--data", "synthetic", "--rows", "600"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    errors = {(line["walks"], line["setting"]): line["l1"] for line in lines if line.get("what") == "error"}
    assert errors[100, "T = 2"] < errors[100, "fingerprints alone"]
    assert all(line["difference"] == 0 for line in lines if line.get("what") == "batch")
