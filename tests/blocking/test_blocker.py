"""From pairs to candidates, through a file, and from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from blocking.products import encoder, shops
from typer.testing import CliRunner
from word_embedder import WordEmbedder

import vecdb
from vecdb.blocking import Blocker, Frozen, HashConfig, train_blocker
from vecdb.cli import app

torch = pytest.importorskip("torch")
QUICK = HashConfig(dimension=8, epochs=4, rate=3e-3)


@pytest.fixture(scope="module")
def trained() -> Blocker:
    a, b, pairs = shops()
    return train_blocker(a, b, pairs[:80], recall=0.9, encoder=encoder(), config=QUICK)


def test_candidates_have_the_matches_that_nobody_told_about(trained: Blocker) -> None:
    a, b, pairs = shops()
    found = trained.block(a, b, encoder=encoder())
    assert trained.fields == ("name",)  # the only one that both shops have
    assert found.completeness(pairs[80:]) >= 0.9
    assert found.ratio == len(found) / (len(a) * len(b)) < 0.05
    assert len(set(zip(found.left, found.right))) == len(found)
    assert trained.calibration is not None
    assert len(found) == trained.calibration.candidates
    more = trained.block(a, b, encoder=encoder(), k=len(b))
    assert len(more) >= len(found)
    new_a, new_b, new_pairs = shops(seed=5)  # other shops
    assert trained.block(new_a, new_b, encoder=encoder()).completeness(new_pairs) >= 0.85


def test_a_blocker_is_the_same_after_a_file(trained: Blocker, tmp_path: Path) -> None:
    a, b, _ = shops()
    path = tmp_path / "shop.npz"
    trained.save(path)
    loaded = Blocker.load(path)
    assert repr(loaded) == repr(trained)
    assert loaded.calibration == trained.calibration
    first, second = trained.block(a, b, encoder=encoder()), loaded.block(a, b, encoder=encoder())
    assert list(first) == list(second)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(vecdb.StorageError):
        Blocker.load(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(vecdb.StorageError, match="no blocker"):
        Blocker.load(path)
    with pytest.raises(vecdb.NotFound):
        Blocker.load(tmp_path / "absent.npz")


def test_a_blocker_refuses_what_it_was_not_made_for(trained: Blocker) -> None:
    a, b, pairs = shops()
    with pytest.raises(vecdb.ModelMismatch, match="words-64"):
        trained.block(a, b, encoder=Frozen(WordEmbedder("others")))
    with pytest.raises(vecdb.ModelUnavailable):
        trained.block(a, b)
    with pytest.raises(vecdb.InvalidInput, match="k is 0"):
        trained.block(a, b, encoder=encoder(), k=0)
    with pytest.raises(vecdb.InvalidInput, match="none of"):
        train_blocker(a, b, pairs, fields=["weight"], encoder=encoder())
    with pytest.raises(vecdb.InvalidInput, match="too few"):
        train_blocker(a, b, pairs[:5], encoder=encoder())
    with pytest.raises(vecdb.InvalidInput, match="not in table b") as refused:
        train_blocker(a, b, [*pairs, ("a1", "nobody")], encoder=encoder())
    assert refused.value.position == len(pairs)


def test_without_pairs_near_duplicates_teach_and_nothing_is_promised() -> None:
    a, b, pairs = shops()
    blocker = train_blocker(a, b, recall=0.9, encoder=encoder(), config=QUICK)
    assert blocker.calibration is not None
    assert not blocker.calibration.is_supervised
    assert blocker.block(a, b, encoder=encoder(), k=3).completeness(pairs) > 0.7


def test_vectors_are_kept_in_a_folder_and_only_saved_time_depends_on_it(tmp_path: Path) -> None:
    model = WordEmbedder()
    kept = Frozen(model, tmp_path / "cache")
    first = kept.encode(["x y", "z", "x y"])
    assert model.calls == 2
    np.testing.assert_array_equal(kept.encode(["x y", "z", "x y"]), first)
    assert model.calls == 2
    kept.encode(["z", "x y"])
    assert model.calls == 4
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"damaged")
    np.testing.assert_array_equal(kept.encode(["x y", "z", "x y"]), first)


def test_the_command_learns_writes_candidates_and_uses_what_it_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.embedding.load_embedder", lambda spec: WordEmbedder(spec, 64))
    monkeypatch.chdir(tmp_path)
    a, b, pairs = shops(60)
    for name, table in (("a.csv", a), ("b.csv", b)):
        with open(name, "w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(("id", *table.fields))
            lines.writerows((id, *row) for id, row in zip(table.ids, table.values))
    Path("pairs.csv").write_text("a,b,label\n" + "".join(f"{x},{y},1\n" for x, y in pairs) + "a1,b2,0\n")
    run = CliRunner()
    arguments = ["block", "a.csv", "b.csv", "--pairs", "pairs.csv", "--recall", "0.9", "--confidence", "0.5"]
    done = run.invoke(app, [*arguments, "--out", "found.csv", "--save", "shop.npz", "--cache", "kept"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    rows = list(csv.DictReader(Path("found.csv").read_text().splitlines()))
    assert len(rows) == summary["candidates"] > 45
    assert summary["possible"] == len(a) * len(b)
    assert summary["held_out_found"] <= summary["held_out"]
    again = run.invoke(app, ["block", "a.csv", "b.csv", "--blocker", "shop.npz"])
    assert again.exit_code == 0, again.output
    found = [json.loads(line) for line in again.stdout.splitlines()]
    assert [(line["a"], line["b"]) for line in found] == [(row["a"], row["b"]) for row in rows]
    unled = run.invoke(app, ["block", "a.csv", "b.csv", "--out", "unled.csv"])
    assert unled.exit_code == 0, unled.output
    assert "assured_recall" not in json.loads(unled.stdout)
    assert "no promise" in unled.stderr
    assert run.invoke(app, ["block", "a.csv", "b.csv", "--blocker", "shop.npz", "--encoder"]).exit_code == 2
    wrong = run.invoke(app, ["block", "a.csv", "absent.csv"])
    assert isinstance(wrong.exception, vecdb.NotFound)
