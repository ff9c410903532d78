"""kill -9 at any moment: what was acknowledged is there, what was not is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_child import BATCH, kill_at_random, operation, state_after, verify


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_load_loses_nothing_that_was_acknowledged(path: Path, seed: int) -> None:
    kill = kill_at_random(path, seed, longest_s=2.0)
    assert list(verify(path, seed, kill.acked)) == [], kill


def test_the_verification_notices_a_lost_batch_and_half_a_batch(path: Path) -> None:
    from crash_child import COLLECTION, DIMENSION, perform

    import vecdb

    with vecdb.open(path, background=False) as db:
        collection = db.collection(COLLECTION, dimension=DIMENSION)
        for step in range(4):
            perform(collection, *operation(1, step))
        assert len(collection) == len(state_after(1, 4)) == 4 * BATCH
    assert list(verify(path, 1, 4)) == []
    assert list(verify(path, 1, 3)) == []  # kept, though the answer did not arrive any more
    assert list(verify(path, 1, 5)) != []
    with vecdb.open(path, background=False) as db:
        db.collection(COLLECTION).delete(["b3-0"])
    assert list(verify(path, 1, 4)) != []
