"""Codecs on the device against the CPU's: the same bytes, but for what the docstring of gpu/codecs.py tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vecdb.errors import InvalidInput, InvalidVector
from vecdb.gpu import kmeans
from vecdb.gpu.launch import OutOfDeviceMemory
from vecdb.index import device_codecs, staging
from vecdb.index.codecs import parse
from vecdb.index.device_codecs import DeviceCodec

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DIM = 24


def sample(rng: np.random.Generator, count: int = 300) -> Any:
    """Vectors of many lengths, some zero."""
    vectors = rng.normal(size=(count, DIM)).astype(np.float32) @ rng.normal(size=(DIM, DIM)).astype(np.float32)
    vectors *= np.float32(10.0) ** rng.integers(-3, 4, size=(count, 1)).astype(np.float32)
    vectors[5] = 0
    return vectors


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize(
    "text",
    [
        *("float32", "float16", "float8", "float8:e5m2", "float8:dimension", "int8", "int8:symmetric", "int4", "pca:9"),
        *("pca:9,whiten+float8", "truncate:7+int8", "random:11+float8", "rotate+int8", "rabitq:4"),
    ],
)
def test_bytes_and_numbers_are_those_of_the_cpu(text: str, metric: Any, rng: np.random.Generator) -> None:
    vectors = sample(rng)
    codec = parse(text, DIM, metric).fit(vectors)
    on_device = DeviceCodec(codec, device=DEVICE)
    codes, wanted = on_device.encode(vectors), codec.encode(vectors)
    assert codes.dtype == np.uint8
    if metric == "cosine" and "+" in text:  # lengths are sums of float64 numbers
        assert (codes != wanted).mean() < 1e-3
    else:
        assert (codes == wanted).all()
    np.testing.assert_allclose(on_device.decode(wanted), codec.decode(wanted), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("text", ["float8:dimension", "int8", "pca:9+int8", "pca:9,whiten+float8", "pca:9,randomised"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_what_is_fitted_on_the_device_is_what_the_cpu_fits(text: str, metric: Any, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(300, DIM)).astype(np.float32) * np.arange(1, DIM + 1, dtype=np.float32)
    codec = parse(text, DIM, metric)
    fitted, wanted = DeviceCodec(codec, device=DEVICE).fit(vectors), codec.fit(vectors)
    assert fitted.text == wanted.text
    error = np.linalg.norm(fitted.decode(fitted.encode(vectors)) - wanted.decode(wanted.encode(vectors)))
    assert error < 1e-3 * np.linalg.norm(vectors)


@pytest.mark.parametrize("size", [DIM, DIM - 1])
def test_product_codes_are_those_of_the_cpu(size: int, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(600, size)).astype(np.float32)
    codec = parse("pq:6", size, "l2").fit(vectors)
    codes, wanted = DeviceCodec(codec, device=DEVICE).encode(vectors), codec.encode(vectors)
    assert (codes == wanted).all()
    decoded = DeviceCodec(codec, device=DEVICE).decode(wanted)
    np.testing.assert_array_equal(decoded, codec.decode(wanted))
    fitted = DeviceCodec(parse("pq:6", size, "l2"), device=DEVICE).fit(vectors)
    ours, theirs = (float(np.square(c.decode(c.encode(vectors)) - vectors).sum()) for c in (fitted, codec))
    assert ours == pytest.approx(theirs, rel=0.01)


def test_blocks_shrink_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vectors, sizes = sample(rng), []
    codec = parse("int8", DIM, "l2").fit(vectors)
    on_device = DeviceCodec(codec, device=DEVICE)
    encode = on_device.encoding()

    def cramped(block: torch.Tensor) -> torch.Tensor:
        sizes.append(len(block))
        if len(block) > most or len(sizes) == fails_at:
            raise torch.cuda.OutOfMemoryError("no room")
        return encode(block)

    monkeypatch.setattr(on_device, "encoding", lambda: cramped)
    monkeypatch.setattr(device_codecs, "_ROWS_AT_ONCE", 256)
    monkeypatch.setattr(device_codecs, "_LEAST_AT_ONCE", 64)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    most, fails_at = 100, 0
    assert (on_device.encode(vectors) == codec.encode(vectors)).all()
    assert sizes == [256, 64, 64, 64, 64, 44]
    most, fails_at = 10, 0
    with pytest.raises(OutOfDeviceMemory, match="64 vectors"):
        on_device.encode(vectors)
    sizes.clear()
    most, fails_at = 256, 2  # while the first block is on its way back
    assert (on_device.encode(vectors) == codec.encode(vectors)).all()
    assert sizes == [256, 44, 44]


@pytest.mark.parametrize("text", ["float8", "pca:9", "pca:9+int8"])
def test_many_blocks_make_what_one_makes(text: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vectors = sample(rng, 1001)
    vectors.flags.writeable = False  # as a memory map is
    codec = parse(text, DIM, "l2").fit(vectors)
    on_device = DeviceCodec(codec, device=DEVICE)
    monkeypatch.setattr(device_codecs, "_LEAST_AT_ONCE", 1)
    monkeypatch.setattr(device_codecs, "_BYTES_AT_ONCE", 70 * 4 * DIM)
    monkeypatch.setattr(staging, "_BYTES_A_TASK", 2048)
    codes = on_device.encode(vectors)
    assert (codes == codec.encode(vectors)).all()
    assert (on_device.decoding() is None) == (text == "pca:9")
    np.testing.assert_array_equal(on_device.decode(codes[::-1]), codec.decode(codes)[::-1])


def test_what_cannot_be_coded_is_refused(rng: np.random.Generator) -> None:
    codec = DeviceCodec(parse("int8", DIM, "l2"), device=DEVICE)
    with pytest.raises(InvalidInput, match="not fitted"):
        codec.encode(sample(rng))
    with pytest.raises(InvalidInput, match="not fitted"):
        codec.decode(np.zeros((1, DIM), np.uint8))
    with pytest.raises(InvalidInput, match="no vector"):
        codec.fit(np.zeros((0, DIM), np.float32))
    bad = sample(rng)
    bad[3, 3] = np.nan
    with pytest.raises(InvalidVector, match="NaN"):
        codec.fit(bad)
    fitted = DeviceCodec(codec.fit(sample(rng)), device=DEVICE)
    for wrong in (np.nan, np.inf, -np.inf):
        bad[3, 3] = wrong
        with pytest.raises(InvalidVector, match="vector 3 contains NaN") as refused:
            fitted.encode(bad)
        assert refused.value.position == 3
    with pytest.raises(InvalidInput, match="rows of"):
        fitted.decode(np.zeros((1, 3), np.uint8))
    assert fitted.encode(np.zeros((0, DIM), np.float32)).shape == (0, DIM)


def slow_kmeans(vectors: Any, centroids: Any, rounds: int) -> Any:
    """Lloyd's algorithm, written out."""
    for _ in range(rounds):
        assigned = [int(np.argmin([((v - c) ** 2).sum() for c in centroids])) for v in vectors]
        for k in range(len(centroids)):
            members = [v for v, a in zip(vectors, assigned) if a == k]
            if members:
                centroids[k] = np.mean(members, axis=0)
    return centroids


def test_clusters_are_those_of_the_algorithm_written_out(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(90, 3)) + 6 * rng.integers(0, 2, size=(90, 3))
    start = vectors[:7].copy()
    put = [torch.tensor(x, dtype=torch.float32, device=DEVICE) for x in (vectors, start)]
    found = kmeans.kmeans(put[0], 7, start=put[1], rounds=5)
    np.testing.assert_allclose(found.centroids.cpu().numpy(), slow_kmeans(vectors, start, 5), rtol=1e-4, atol=1e-5)
    again = kmeans.kmeans(put[0], 7, seed=3)
    assert (again.centroids == kmeans.kmeans(put[0], 7, seed=3).centroids).all()
    assert (again.assigned == kmeans.nearest(put[0], again.centroids)).all()


def test_a_cluster_without_vectors_goes_beside_the_fullest() -> None:
    vectors = torch.tensor([[0.0], [0.1], [5.0], [5.1], [5.2]], device=DEVICE)
    found = kmeans.kmeans(vectors, 3, start=torch.tensor([[0.0], [5.0], [99.0]], device=DEVICE))
    assert sorted(torch.bincount(found.assigned, minlength=3).tolist())[0] >= 1
    with pytest.raises(InvalidInput, match="6 clusters"):
        kmeans.kmeans(vectors, 6)
