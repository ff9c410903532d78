from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import vecdb

if (
    shutil.which("nvidia-smi") is None
):  # Triton asks when it is first imported, by whichever test: its kernels then run without a GPU
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile(
    "ci", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("ci")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "library.vecdb"


@pytest.fixture
def db(path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(path, background=False) as database:
        yield database


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
