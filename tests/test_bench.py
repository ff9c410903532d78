"""The smallest run of the benchmarks: that they run, count right and write what they promise. It says nothing about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not beside the tests: it is not part of the package", allow_module_level=True)


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    out = tmp_path_factory.mktemp("bench")
    given = ("--systems", "vecdb,sqlite-vec", "--data", "synthetic", "--rows", "500", "--quick", "--markdown")
    run = run_bench("db", *given, "--out", str(out))
    assert run.returncode == 0, run.stderr
    assert "| vecdb " in run.stdout
    assert "| sqlite-vec " in run.stdout
    if find_spec("matplotlib") is not None:
        assert (out / "db.png").read_bytes().startswith(b"\x89PNG")
    (path,) = out.glob("db-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_where_and_with_what_it_was_measured(lines: list[dict]) -> None:
    assert [line["system"] for line in lines] == ["vecdb", "sqlite-vec"]
    for line in lines:
        assert line["failures"] == []
        assert line["data"]["rows"] == 500
        assert line["version"]
        assert line["commit"]
        assert line["machine"]["cores"] >= 1


def test_every_column_is_measured_at_the_wanted_recall(lines: list[dict]) -> None:
    for line in lines:
        assert list(line["columns"]) == [
            "vector",
            "filtered_10",
            "filtered_01",
            "text",
            "text_long",
            "hybrid",
            "hybrid_long",
        ]
        for column in ("vector", "filtered_10", "filtered_01"):
            assert (
                line["columns"][column]["recall"] >= 0.9
            )  # 0.95 on the tuning half; 100 other questions may be unlucky
        for measured in line["columns"].values():
            assert 0 < measured["p50_ms"] <= measured["p99_ms"]


def test_exact_search_has_recall_one_and_finds_what_was_just_loaded(lines: list[dict]) -> None:
    exact = lines[1]
    assert all(exact["columns"][c]["recall"] == 1.0 for c in ("vector", "filtered_10", "filtered_01"))
    assert all(line["load"]["seen_before_index"] == 1.0 for line in lines)


def test_both_rank_short_queries_by_the_same_bm25(lines: list[dict]) -> None:
    # Not 1: records with equal scores may come in any order, and the last places of a list are often equal.
    assert lines[0]["columns"]["text"]["same_as_fts5"] >= 0.9


def test_an_unknown_command_is_refused_with_the_list_of_commands() -> None:
    run = run_bench("speed")
    assert run.returncode == 2
    assert "churn" in run.stderr


def test_recall_counts_ties_but_neither_repeats_nor_records_that_the_filter_excludes() -> None:
    sys.path.append(str(ROOT))
    try:
        from bench.data import Questions, Records
        from bench.truth import exact_truth
    finally:
        sys.path.remove(str(ROOT))
    vectors = np.eye(16, dtype=np.float32)
    records = Records([], [], vectors, [{"tenth": row % 2} for row in range(16)])
    questions = Questions(vectors[:1], ["a"], ["a"], [0], [0])

    everywhere = exact_truth(records, questions)
    assert everywhere.recall(0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) == 1.0
    assert everywhere.recall(0, [0, 15, 14, 13, 12, 11, 10, 9, 8, 7]) == 1.0  # the other fifteen are equally far
    assert everywhere.recall(0, [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]) == 0.6

    even = exact_truth(records, questions, "tenth")
    assert even.recall(0, [0, 2, 4, 6, 8, 10, 12, 14]) == 1.0  # eight are all there are
    assert even.recall(0, [0, 2, 4, 6, 1, 3, 5, 7]) == 0.5


def test_the_text_bench_measures_loading_and_every_option(tmp_path: Path) -> None:
    pytest.importorskip("Stemmer")
    given = ("--parts", "speed", "--data", "synthetic", "--rows", "200", "--questions", "3")
    run = run_bench("text", *given, "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    (path,) = tmp_path.glob("text-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["setting"] for line in lines} >= {"english", "german", "english, pairs", "title and text"}
    for line in lines:
        assert line["data"]["rows"] == 200
        assert line["rows_per_s"] > 0
        assert list(line["p50_ms"]) == ["plain", "snippets", "synonyms", "fuzzy", "fuzzy, misspelt"]


def test_a_run_counts_as_whole_only_where_what_is_measured_is_as_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    from bench.command import options, run, several
    from bench.report import Cell, Table

    def given(*arguments: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        several(parser, "sets", ("a", "b", "c"), ("a", "b"))
        parser.add_argument("--quick", action="store_true")
        parser.add_argument("--fast", action="store_true")
        return options(parser, arguments, beside=("fast",))

    assert given().sets == ["a", "b"]
    assert all(given(*more).is_whole for more in ((), ("--sets", "a,b"), ("--fast", "--markdown", "--out", "x")))
    assert not any(given(*more).is_whole for more in (("--quick",), ("--sets", "b"), ("--sets", "a,b,c")))
    with pytest.raises(SystemExit):
        given("--sets", "a,z")
    assert "unknown sets: z; choose from a, b, c" in capsys.readouterr().err

    def tables(lines: list[dict]) -> list[Table]:
        return [Table(line["data"]["name"], ("way",), ((Cell(line["way"]),),)) for line in lines]

    measured = [{"data": {"name": name}, "way": f"way {name}"} for name in "ab"]
    where = ("--markdown", "--out", str(tmp_path))
    assert run(given(*where), "bench of lines", iter(measured), tables, file="lines") == 0
    shown = capsys.readouterr().out
    (path,) = tmp_path.glob("lines-*.jsonl")
    assert [line | each for line, each in zip(lines_of(path), measured)] == lines_of(path)
    assert {line["bench"] for line in lines_of(path)} == {"bench of lines"}
    never = (pytest.fail("measured again") for _ in range(1))
    assert run(given(*where, "--show", str(path)), "bench of lines", never, tables) == 0
    assert capsys.readouterr().out == shown
    assert "way b" in shown


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
