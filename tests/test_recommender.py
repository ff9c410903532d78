"""Recommending by ids: answers, files, checkpoints, a collection between; and `python -m bench grank` on a small set."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import vecdb
from bench.grank import main
from bench.grank.study import measures
from vecdb.errors import InvalidInput, MissingExtra, ModelMismatch, ModelUnavailable, StorageError
from vecdb.recommender import GRankConfig, Recipe, Recommender

pytest.importorskip("torch")
pytest.importorskip("safetensors")

CONFIG = GRankConfig(dimension=16, layers=1, heads=2, short=6, long=8)
RECIPE = Recipe(epochs=20, windows=16, in_batch=10, sampled=20, candidates=10, places=3, rate=0.02, dropout=0.1)
ITEMS = 40


def chains() -> dict[str, list[str]]:
    """After f7 comes f8, and so on in a ring; each user begins somewhere."""
    rng = np.random.default_rng(0)
    starts = rng.integers(ITEMS, size=50)
    return {f"u{n}": [f"f{(start + step) % ITEMS}" for step in range(12)] for n, start in enumerate(starts.tolist())}


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return Recommender.fit(chains(), config=CONFIG, recipe=RECIPE, threads=1)


def test_what_comes_next_is_recommended_first(recommender: Recommender) -> None:
    histories = [[f"f{(start + step) % ITEMS}" for step in range(4)] for start in range(ITEMS)]
    found = recommender.recommend_many(histories, 1)
    right = [one[0].id == f"f{(start + 4) % ITEMS}" for start, one in enumerate(found)]
    assert np.mean(right) >= 0.9


def test_an_answer_says_rank_score_and_where_the_generator_had_it(recommender: Recommender) -> None:
    found = recommender.recommend(["f1", "f2"], 5, candidates=20)
    assert [one.rank for one in found] == [1, 2, 3, 4, 5]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(1 <= one.generated <= 20 for one in found)
    assert {one.id for one in found} <= set(recommender.ids)


def test_what_is_left_out_does_not_come_back(recommender: Recommender) -> None:
    history = ["f1", "f2", "f3"]
    every = {one.id for one in recommender.recommend(history, 100)}
    assert every == set(recommender.ids) - set(history)
    assert {one.id for one in recommender.recommend(history, 100, repeat=True)} == set(recommender.ids)
    assert {one.id for one in recommender.recommend(history, 100, exclude=["f9", "unknown"])} == every - {"f9"}
    few = recommender.recommend(history, 100, allowed=["f2", "f4", "f9", "unknown"])
    assert {one.id for one in few} == {"f4", "f9"}


def test_a_user_without_known_items_is_answered(recommender: Recommender) -> None:
    assert len(recommender.recommend([], 3)) == 3
    assert recommender.recommend(["newer than the training"], 3) == recommender.recommend([], 3)


def test_many_are_answered_as_each_alone(recommender: Recommender) -> None:
    histories = [["f1"], ["f5", "f9", "f10", "f11"], []]
    together = recommender.recommend_many(histories, 5, exclude=[["f2"], [], ["f3"]])
    for history, exclude, many in zip(histories, (["f2"], [], ["f3"]), together):
        alone = recommender.recommend(history, 5, exclude=exclude)
        assert [one.id for one in many] == [one.id for one in alone]
        np.testing.assert_allclose([one.score for one in many], [one.score for one in alone], atol=1e-4)


def test_a_file_holds_all_of_it(recommender: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "films.safetensors"
    recommender.save(path)
    again = Recommender.load(path)
    assert (again.ids, again.name, again.config) == (recommender.ids, recommender.name, recommender.config)
    assert again.recommend(["f1", "f2"], 7) == recommender.recommend(["f1", "f2"], 7)
    code = (
        "import sys; from vecdb.recommender import Recommender\n"
        f"assert Recommender.load({str(path)!r}).recommend(['f1', 'f2'], 1)[0].id == 'f3'\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_that_are_no_recommender_are_refused(recommender: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "films.safetensors"
    with pytest.raises(ModelUnavailable, match=r"films.safetensors cannot be read"):
        Recommender.load(path)
    recommender.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        Recommender.load(path)
    state = tmp_path / "state"
    Recommender.fit(chains(), config=CONFIG, recipe=Recipe(epochs=1), checkpoint=state, threads=1)
    with pytest.raises(ModelUnavailable, match="holds 'grank-training' of format 1; wanted 'grank'"):
        Recommender.load(state)
    with pytest.raises(StorageError, match="give a file in a folder that exists"):
        recommender.save(tmp_path / "nowhere" / "films")


def test_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Broken off after the second epoch, it ends as one that was not, and what it had done is not done again."""
    recipe = Recipe(epochs=4, windows=8, in_batch=10, sampled=20, candidates=10, places=2)
    fit = partial(Recommender.fit, config=CONFIG, recipe=recipe, threads=1)

    class Broken(Exception):
        pass

    def break_off(epoch: vecdb.recommender.Epoch) -> None:  # type: ignore[name-defined]
        if epoch.number == 2:
            raise Broken

    path, told = tmp_path / "state", []
    with pytest.raises(Broken):
        fit(chains(), progress=break_off, checkpoint=path)
    resumed = fit(chains(), progress=told.append, checkpoint=path)
    assert [epoch.number for epoch in told] == [3, 4]
    assert resumed.name == fit(chains()).name
    with pytest.raises(InvalidInput, match="checkpoint of a training with other histories or settings"):
        fit({**chains(), "more": ["f1", "f2"]}, checkpoint=path)


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ("f1", "histories is 'f1'"),
        (["f1"], r"histories\[0\] is 'f1'"),
        ([["f1", 2]], "has the item 2; ids are strings"),
        ([], "hold no items"),
        ([[], []], "hold no items"),
    ],
)
def test_histories_that_are_none_are_refused(histories: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Recommender.fit(histories)  # type: ignore[arg-type]


def test_questions_that_cannot_be_are_refused(recommender: Recommender) -> None:
    for given, message in (
        ({"k": 0}, "k is 0"),
        ({"candidates": True}, "candidates is True"),
        ({"exclude": "f1"}, r"exclude\[0\] is 'f1'"),
        ({"allowed": "f1"}, "allowed is 'f1'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            recommender.recommend(["f1"], **given)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"histories\[0\] is 'f1'"):
        recommender.recommend("f1")
    with pytest.raises(InvalidInput, match="exclude has 1 entries for 2 histories"):
        recommender.recommend_many([["f1"], ["f2"]], exclude=[[]])


def test_training_and_files_say_what_to_install(
    recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(MissingExtra, match=r"pip install 'vecdb\[learned\]'"):
        recommender.save(tmp_path / "x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'vecdb\[learned\]'"):
        Recommender.fit(chains())


# -- a collection in between


@pytest.fixture
def films(recommender: Recommender) -> vecdb.Collection:
    db = vecdb.open(":memory:")
    films = db.collection("films")
    films.add([{"id": f"f{n}", "text": f"film {n}", "metadata": {"even": n % 2 == 0}} for n in range(30)])
    assert recommender.write(films) == ITEMS
    return films


def test_a_collection_answers_as_the_recommender_does(recommender: Recommender, films: vecdb.Collection) -> None:
    for history in (["f1", "f2"], ["f30", "f31", "f32"], []):
        hits = recommender.search(films, history, k=8)
        alone = recommender.recommend(history, 8)
        assert [hit.id for hit in hits] == [one.id for one in alone]
        np.testing.assert_allclose([hit.score for hit in hits], [one.score for one in alone], atol=1e-4)
    repeated = recommender.search(films, ["f1", "f2"], k=100, repeat=True, exclude=["f7"])
    assert {hit.id for hit in repeated} == set(recommender.ids) - {"f7"}


def test_records_keep_what_they_had_and_filters_hold(recommender: Recommender, films: vecdb.Collection) -> None:
    assert len(films) == ITEMS
    record = films.get("f4", vectors=True)
    assert record is not None
    assert (record.text, record.metadata) == ("film 4", {"even": True})
    np.testing.assert_allclose(record.vector, recommender.vectors[recommender.ids.index("f4")], atol=1e-6)
    hits = recommender.search(films, ["f1", "f2"], k=5, where={"even": True})
    assert hits[0].id == "f4"
    assert all(hit.metadata["even"] for hit in hits)
    assert "rerank" in {step.stage for step in hits[0].trace}
    films.delete("f4")
    assert "f4" not in {hit.id for hit in recommender.search(films, ["f1", "f2"], k=50)}


def test_a_record_that_is_no_item_is_never_recommended(recommender: Recommender, films: vecdb.Collection) -> None:
    films.add(ids=["newcomer"], vectors=recommender.user_vector(["f1"])[None])
    assert "newcomer" not in {hit.id for hit in recommender.search(films, ["f1"], k=100)}


def test_a_model_without_a_ranker_keeps_the_order_of_vectors() -> None:
    plain = Recommender.fit(
        chains(), config=GRankConfig(dimension=8, layers=0, short=4, long=8, has_ranker=False), recipe=RECIPE, threads=1
    )
    films = vecdb.open(":memory:").collection("films")
    plain.write(films)
    alone = plain.recommend(["f1", "f2"], 6)
    assert [one.generated for one in alone] == [1, 2, 3, 4, 5, 6]
    assert [hit.id for hit in plain.search(films, ["f1", "f2"], k=6)] == [one.id for one in alone]


def test_another_training_is_another_model(recommender: Recommender, films: vecdb.Collection) -> None:
    other = Recommender.fit(chains(), config=CONFIG, recipe=Recipe(epochs=1, seed=5), threads=1)
    assert other.name != recommender.name
    with pytest.raises(ModelMismatch):
        other.write(films)
    with pytest.raises(ModelMismatch):
        other.search(films, ["f1"])
    with pytest.raises(InvalidInput, match="items are compared by cosine"):
        recommender.write(vecdb.open(":memory:").collection("other", metric="l2"))


# -- the measuring


def test_a_quick_run_measures_every_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.grank.ways.CACHE", tmp_path / "cache")
    assert main(["--quick", "--seeds", "2", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("grank-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ways = {line["way"]: line for line in lines if line["part"] == "way"}
    assert set(ways) == {"popularity", "item-kNN", "two-tower", "generator", "+ auxiliary", "+ ranker", "GRank"}
    assert ways["GRank"]["means"]["R@10"] > ways["popularity"]["means"]["R@10"]
    for line in ways.values():
        assert line["means"]["R@500"] <= line["means"]["generated R@500"]
    assert {line["part"] for line in lines} == {"way", "difference", "depth"}
    assert "GRank" in capsys.readouterr().out
    before = path.read_text()
    assert main(["--quick", "--seeds", "2", "--out", str(tmp_path)]) == 0  # from the cache
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("by_seed") for line in again] == [json.loads(x).get("by_seed") for x in before.splitlines()]


def test_measures_of_lists() -> None:
    found = measures([["a", "b"], ["c"], []], [["b", "a"], ["c"], []], ["b", "x", "y"])
    assert found["R@10"].tolist() == [1.0, 0.0, 0.0]
    assert found["nDCG@10"].tolist() == pytest.approx([1 / np.log2(3), 0.0, 0.0])
    assert found["generated nDCG@10"].tolist() == [1.0, 0.0, 0.0]
    long = [[str(n) for n in range(100)]]
    assert [measures(long, long, ["50"])[f"R@{cut}"][0] for cut in (10, 50, 500)] == [0.0, 0.0, 1.0]
