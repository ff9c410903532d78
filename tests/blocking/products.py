"""Two small shops: what matches has one model number, written otherwise on either side, among others that differ in it alone."""

from __future__ import annotations

import numpy as np
from word_embedder import WordEmbedder

from vecdb.blocking import Frozen, Table, table_of

KINDS = ("camera", "printer", "speaker", "turntable", "freezer")
MAKERS = ("sonor", "canox", "bosé", "linksy")


def shops(count: int = 100, seed: int = 0, *, alone: int = 10) -> tuple[Table, Table, list[tuple[str, str]]]:
    """count products that both have, and alone that only one of them has, on either side."""
    random = np.random.default_rng(seed)
    a, b, pairs = [], [], []
    for number in range(count + 2 * alone):
        kind, maker = KINDS[number % len(KINDS)], MAKERS[number % len(MAKERS)]
        letters, digits = "".join(random.choice(list("abcdefgh"), 3)), str(int(random.integers(1000, 9999)))
        series = "".join(random.choice(list("aeioumnst"), 4))
        junk = " ".join(random.choice(["black", "new", "free", "shipping", "zoom", "compact"], 2))
        if number < count + alone:
            a.append({"id": f"a{number}", "name": f"{maker} {kind} {series} {letters}-{digits}", "price": str(number)})
        if number < count or number >= count + alone:
            b.append({"id": f"b{number}", "name": f"{kind} {series} {letters}{digits} {junk}", "maker": maker.upper()})
        if number < count:
            pairs.append((f"a{number}", f"b{number}"))
    random.shuffle(b)  # type: ignore[arg-type]
    return table_of(a), table_of(b), pairs


def encoder() -> Frozen:
    return Frozen(WordEmbedder("words-64", 64))
