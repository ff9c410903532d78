"""Graphs of hnswlib and faiss taken over: same answers, same labels, sound, and clear words where they cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_measures import not_finding_themselves, recall
from numpy.typing import NDArray

from vecdb.errors import CorruptIndex, DimensionMismatch, InvalidInput, InvalidVector, MissingExtra, StorageError
from vecdb.index import Imported, exact_search, from_faiss, from_hnswlib, open_index

Floats = NDArray[np.float32]
COUNT = 2000


@pytest.fixture(scope="module")
def hnswlib() -> Any:
    return pytest.importorskip("hnswlib")


@pytest.fixture(scope="module")
def faiss() -> Any:
    return pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def spread(real: Any) -> Floats:
    """Real vectors of lengths from 0.5 to 1.5, so that no two metrics order alike."""
    lengths = np.random.default_rng(0).uniform(0.5, 1.5, (COUNT, 1)).astype(np.float32)
    return np.ascontiguousarray(real.base[:COUNT] * lengths)


def hnswlib_index(hnswlib: Any, space: str, vectors: Floats, labels: Any = None, **options: Any) -> Any:
    index = hnswlib.Index(space, vectors.shape[1])
    index.init_index(len(vectors) + 100, M=12, ef_construction=100, random_seed=7, **options)
    if len(vectors):
        index.add_items(vectors, np.arange(len(vectors)) if labels is None else labels, num_threads=1)
    return index


def truth(vectors: Floats, queries: Floats, metric: Any) -> NDArray[np.int64]:
    if metric == "cosine":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return exact_search(vectors, queries, 10, metric).positions


def same(one: Imported, other: Imported) -> bool:
    ours, theirs = one.index.arrays(), other.index.arrays()
    return np.array_equal(one.labels, other.labels) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("space", ["l2", "ip", "cosine"])
def test_an_hnswlib_graph_answers_as_hnswlib_does(hnswlib: Any, real: Any, spread: Floats, space: Any) -> None:
    labels = np.random.default_rng(1).permutation(10 * COUNT)[:COUNT]
    source = hnswlib_index(hnswlib, space, spread, labels)
    taken = from_hnswlib(source)
    assert taken.index.metric == space
    assert taken.index.check() == []
    if space != "ip":  # where a longer vector may be nearer to one than itself
        assert not_finding_themselves(taken.index) == []
    assert sorted(taken.labels) == sorted(labels)
    place = {label: row for row, label in enumerate(labels.tolist())}
    stored = spread / np.linalg.norm(spread, axis=1, keepdims=True) if space == "cosine" else spread
    np.testing.assert_allclose(
        taken.index.vectors, stored[[place[label] for label in taken.labels.tolist()]], rtol=1e-5
    )
    true = labels[truth(spread, real.queries, space)]
    for ef in (10, 30, 100):
        source.set_ef(ef)
        theirs = recall(source.knn_query(real.queries, 10)[0].astype(np.int64), true)
        ours = recall(taken.labels[taken.index.search(real.queries, 10, ef=ef).positions], true)
        assert ours >= theirs - 0.01


def test_a_saved_hnswlib_file_gives_the_same_as_the_object(hnswlib: Any, spread: Floats, tmp_path: Path) -> None:
    source = hnswlib_index(hnswlib, "cosine", spread)
    path = tmp_path / "saved.bin"
    source.save_index(str(path))
    from_object, from_file = from_hnswlib(source), from_hnswlib(path, space="cosine", dimension=384)
    assert same(from_object, from_file)
    assert same(from_file, from_hnswlib(str(path), space="cosine"))


def test_deleted_elements_of_hnswlib_do_not_come_along(hnswlib: Any, real: Any, spread: Floats) -> None:
    source = hnswlib_index(hnswlib, "l2", spread)
    deleted = np.random.default_rng(2).permutation(COUNT)[:600]
    for label in deleted:
        source.mark_deleted(label)
    taken = from_hnswlib(source)
    assert len(taken.index) == COUNT - 600
    assert sorted(taken.labels) == sorted(set(range(COUNT)) - set(deleted.tolist()))
    assert taken.index.check() == []
    assert not_finding_themselves(taken.index) == []
    found = taken.labels[taken.index.search(real.queries, 10, ef=100).positions]
    allowed = np.ones(COUNT, np.bool_)
    allowed[deleted] = False
    assert recall(found, exact_search(spread, real.queries, 10, "l2", allowed).positions) >= 0.98
    for label in set(range(COUNT)) - set(deleted.tolist()):
        source.mark_deleted(label)
    assert len(from_hnswlib(source).index) == 0


def test_an_hnswlib_graph_with_replaced_and_updated_elements_is_sound(hnswlib: Any, real: Any, spread: Floats) -> None:
    source = hnswlib_index(hnswlib, "l2", spread, allow_replace_deleted=True)
    for label in range(0, 400, 2):
        source.mark_deleted(label)
    source.add_items(real.base[:150], np.arange(5000, 5150), num_threads=1, replace_deleted=True)
    source.add_items(real.base[200:300], np.arange(501, 601), num_threads=1)
    taken = from_hnswlib(source)
    assert taken.index.check() == []
    assert len(taken.index) == COUNT - 50
    rows = [taken.labels.tolist().index(label) for label in (5000, 5149, 501, 600)]
    np.testing.assert_array_equal(taken.index.vectors[rows], real.base[[0, 149, 200, 299]])


@pytest.mark.parametrize("kind", ["L2", "INNER_PRODUCT"])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_faiss_graph_answers_as_faiss_does(faiss: Any, real: Any, spread: Floats, kind: str, is_mapped: bool) -> None:
    inner = faiss.IndexHNSWFlat(384, 12, getattr(faiss, f"METRIC_{kind}"))
    inner.hnsw.efConstruction = 100
    labels = np.arange(COUNT)
    if is_mapped:
        labels = np.random.default_rng(1).permutation(10 * COUNT)[:COUNT]
        source = faiss.IndexIDMap(inner)
        source.add_with_ids(spread, labels)
    else:
        source = inner
        source.add(spread)
    taken = from_faiss(source)
    metric: Any = "l2" if kind == "L2" else "ip"
    assert taken.index.metric == metric
    assert taken.index.check() == []
    assert taken.labels.tolist() == labels.tolist()
    np.testing.assert_array_equal(taken.index.vectors, spread)
    true = labels[truth(spread, real.queries, metric)]
    for ef in (10, 30, 100):
        inner.hnsw.efSearch = ef
        theirs = recall(source.search(real.queries, 10)[1], true)
        ours = recall(taken.labels[taken.index.search(real.queries, 10, ef=ef).positions], true)
        assert ours >= theirs - 0.01  # measured within 0.003


def test_a_faiss_index_read_from_a_file_is_taken_over(faiss: Any, spread: Floats, tmp_path: Path) -> None:
    source = faiss.IndexIDMap2(faiss.IndexHNSWFlat(384, 8))
    source.add_with_ids(spread[:500], np.arange(500) * 3)
    faiss.write_index(source, str(tmp_path / "saved.faiss"))
    again = from_faiss(faiss.read_index(str(tmp_path / "saved.faiss")))
    assert again.labels.tolist() == list(range(0, 1500, 3))
    assert same(from_faiss(source), again)
    assert again.index.check() == []


def test_a_faiss_graph_of_unit_vectors_can_be_read_as_cosine(faiss: Any, real: Any, spread: Floats) -> None:
    source = faiss.IndexHNSWFlat(384, 12, faiss.METRIC_INNER_PRODUCT)
    source.add(real.base[:COUNT])
    taken = from_faiss(source, metric="cosine")
    assert taken.index.metric == "cosine"
    true = truth(real.base[:COUNT], real.queries, "cosine")
    assert recall(taken.index.search(real.queries, 10, ef=64).positions, true) >= 0.97
    unequal = faiss.IndexHNSWFlat(384, 12, faiss.METRIC_INNER_PRODUCT)
    unequal.add(spread[:50])
    with pytest.raises(InvalidVector, match="label 0 has length"):
        from_faiss(unequal, metric="cosine")


def test_what_was_taken_over_can_be_changed_and_saved(hnswlib: Any, real: Any, spread: Floats) -> None:
    index = from_hnswlib(hnswlib_index(hnswlib, "l2", spread)).index
    index.add(real.base[COUNT : COUNT + 300])
    index.remove(np.arange(0, 1000, 3))
    index.compact()
    index.settle()
    assert index.check() == []
    assert not_finding_themselves(index) == []
    again = open_index(index.settings(), index.arrays())
    np.testing.assert_array_equal(
        index.search(real.queries, 5).positions, again.search(real.queries, 5).positions
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_small_indexes_and_empty_ones(hnswlib: Any, faiss: Any, spread: Floats, count: int) -> None:
    vectors = np.ascontiguousarray(spread[:count, :7])
    of_faiss = faiss.IndexHNSWFlat(7, 5)
    if count:
        of_faiss.add(vectors)
    for taken in (from_hnswlib(hnswlib_index(hnswlib, "l2", vectors)), from_faiss(of_faiss)):
        assert (len(taken.index), len(taken.labels), taken.index.dimension) == (count, count, 7)
        assert taken.index.check() == []
        taken.index.add(spread[100:110, :7])
        assert taken.index.check() == []


def test_all_equal_vectors_become_reachable(hnswlib: Any, faiss: Any) -> None:
    vectors = np.ones((400, 5), np.float32)
    of_faiss = faiss.IndexHNSWFlat(5, 4)
    of_faiss.add(vectors)
    for taken in (from_hnswlib(hnswlib_index(hnswlib, "l2", vectors)), from_faiss(of_faiss)):
        assert taken.index.check() == []
        assert len(set(taken.index.search(vectors[:1], 50).positions[0].tolist())) == 50


def test_files_that_are_damaged_or_something_else_are_refused(hnswlib: Any, spread: Floats, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.bin", tmp_path / "bad.bin"
    hnswlib_index(hnswlib, "l2", spread[:300]).save_index(str(good))
    content = good.read_bytes()

    def refused(changed: bytes, match: str) -> None:
        bad.write_bytes(changed)
        with pytest.raises(CorruptIndex, match=match):
            from_hnswlib(bad, space="l2")

    refused(b"", "0 bytes, fewer than the header")
    refused(content[:50], "fewer than the header")
    refused(content[:5000], "cut short")
    refused(content[:-3], "in the links of element")
    refused(content + b"more", "behind its end")
    refused(np.random.default_rng(0).bytes(len(content)), "not an hnswlib index")
    links = bytearray(content)
    links[96 + 4 : 96 + 8] = (300).to_bytes(4, "little")
    refused(bytes(links), "links to number 300")
    links[96 : 96 + 2] = (25).to_bytes(2, "little")
    refused(bytes(links), "25 links and room for 24")
    vectors = bytearray(content)
    start = 96 + 4 + 4 * 24
    vectors[start : start + 4] = np.float32(np.nan).tobytes()
    bad.write_bytes(vectors)
    with pytest.raises(InvalidVector, match="label 0 has numbers that are not finite"):
        from_hnswlib(bad, space="l2")
    for cut in range(0, len(content), 997):  # wherever it ends: a typed error, never another
        bad.write_bytes(content[:cut])
        with pytest.raises(CorruptIndex):
            from_hnswlib(bad, space="l2")


def test_arguments_that_do_not_fit_the_hnswlib_index(hnswlib: Any, spread: Floats, tmp_path: Path) -> None:
    source = hnswlib_index(hnswlib, "l2", spread[:100])
    path = tmp_path / "saved.bin"
    source.save_index(str(path))
    with pytest.raises(InvalidInput, match="does not say its space"):
        from_hnswlib(path)
    with pytest.raises(InvalidInput, match="'euclid'"):
        from_hnswlib(path, space="euclid")
    with pytest.raises(DimensionMismatch, match="dimension is 100, .* vectors of 384"):
        from_hnswlib(path, space="l2", dimension=100)
    with pytest.raises(InvalidVector, match="not 1; was the index built for cosine"):
        from_hnswlib(path, space="cosine")
    with pytest.raises(InvalidInput, match="'ip', but the index has 'l2'"):
        from_hnswlib(source, space="ip")
    with pytest.raises(StorageError, match="cannot be read"):
        from_hnswlib(tmp_path / "absent.bin", space="l2")
    with pytest.raises(InvalidInput, match="ndarray is no hnswlib.Index"):
        from_hnswlib(spread)
    with pytest.raises(InvalidInput, match="not been initialised"):
        from_hnswlib(hnswlib.Index("l2", 4))


def test_other_kinds_of_faiss_index_are_refused_with_what_to_do(faiss: Any, spread: Floats) -> None:
    compressed = faiss.IndexHNSWPQ(384, 8, 8, 4)
    compressed.train(spread)
    compressed.add(spread)
    with pytest.raises(InvalidInput, match="IndexHNSWPQ cannot be taken over, .* original vectors"):
        from_faiss(compressed)
    with pytest.raises(InvalidInput, match="IndexHNSWSQ cannot"):
        from_faiss(faiss.IndexHNSWSQ(384, faiss.ScalarQuantizer.QT_8bit, 8))
    with pytest.raises(InvalidInput, match="IndexFlat.* cannot"):
        from_faiss(faiss.IndexIDMap(faiss.IndexFlatL2(8)))
    with pytest.raises(InvalidInput, match="metric number"):
        from_faiss(faiss.IndexHNSWFlat(8, 4, faiss.METRIC_L1))
    with pytest.raises(InvalidInput, match="str is no faiss index; .*read_index"):
        from_faiss("saved.faiss")
    with pytest.raises(InvalidInput, match="'ip', but the index has 'l2'"):
        from_faiss(faiss.IndexHNSWFlat(8, 4), metric="ip")


def test_without_the_package_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hnswlib", "faiss"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"vecdb\[hnswlib\]"):
        from_hnswlib(object())
    with pytest.raises(MissingExtra, match=r"vecdb\[faiss\]"):
        from_faiss(object())


def test_importing_the_index_package_loads_neither_compiler_nor_other_libraries() -> None:
    program = "import vecdb.index, sys; print([n for n in ('numba', 'faiss', 'hnswlib') if n in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
