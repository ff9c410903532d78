from __future__ import annotations

import pytest
import torch

from bench.__main__ import main


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and the bench takes minutes")
def test_the_bench_says_that_it_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu"]) == 1
    assert "needs a GPU" in capsys.readouterr().out
