"""The examples in docs/ run, and print what the comments behind them say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["queries.md", "groups.md", "blocking.md"])
def test_the_examples_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, object] = {}
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL))
    promised = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
    exec(re.sub(r"^( *)print\((.*)\)  # .*$", r"\1print('>', \2)", code, flags=re.MULTILINE), scope)
    scope["db"].close()  # type: ignore[attr-defined]
    printed = [line[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("> ")]
    assert promised
    assert printed == promised
