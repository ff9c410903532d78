"""A recommender that searches its items on a device gives the answers of one that does not; through the interpreter here."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from vecdb.errors import InvalidInput
from vecdb.index.device_scan import DeviceScan
from vecdb.index.grank import GRank, GRankConfig, Network, search
from vecdb.index.grank.forward import initial
from vecdb.index.grank.network import shapes

DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
ITEMS = 90


@pytest.fixture(scope="module")
def network() -> Network:
    config = GRankConfig(dimension=16, layers=1, short=5, long=8)
    return Network.of(config, initial(shapes(config, ITEMS), 2))


def test_a_device_finds_what_the_cpu_finds(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, ITEMS + 1, size=size) for size in (0, 4, 20)]
    allowed = rng.random(ITEMS) < 0.7
    here = GRank(network)
    monkeypatch.setattr(search, "scanner_on", lambda device: partial(DeviceScan, device=DEVICE))
    there = GRank(network, device="cuda:0")
    assert isinstance(there._scan, DeviceScan)
    for mask in (None, allowed):
        wanted = here.recommend(histories, 6, candidates=20, excluded=histories, allowed=mask)
        found = there.recommend(histories, 6, candidates=20, excluded=histories, allowed=mask)
        for one, other in zip(wanted, found):
            assert one.items.tolist() == other.items.tolist()
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


@pytest.mark.skipif(DEVICE != "cpu", reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(network: Network) -> None:
    with pytest.raises(InvalidInput, match="this machine has 0 CUDA devices"):
        GRank(network, device="cuda:0")
    GRank(network, device="auto")
