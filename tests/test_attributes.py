from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from filter_strategies import NEAR_MISSES, PATHS, filters, metadata, records_and_filter, spread
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from naive_filters import count_values, matches

from vecdb.attributes import Attributes
from vecdb.errors import InvalidRecord
from vecdb.filters import parse
from vecdb.matching import compare_floats, compare_ints
from vecdb.metadata import decode, encode, normalised

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
OPERATORS = {
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


def found(attributes: Attributes, where: dict[str, Any]) -> list[int]:
    mask = attributes.mask(parse(where))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(attributes),)
    return np.flatnonzero(mask).tolist()


def expected(records: list[dict[str, Any]], where: dict[str, Any]) -> list[int]:
    return [slot for slot, record in enumerate(records) if matches(where, normalised(record))]


def tagged_facets(attributes: Attributes, path: str, limit: int, allowed: Any = None) -> list[tuple[str, Any, int]]:
    names = {type(None): "null", bool: "bool", int: "number", float: "number", datetime: "date", str: "text"}
    return [(names[type(value)], value, count) for value, count in attributes.facets(path, allowed, limit)]


@settings(relaxed, max_examples=400)
@given(records_and_filter)
def test_masks_equal_the_plain_evaluator(case: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    records, where = case
    attributes = Attributes.empty().appended(records)
    for each in spread(where):
        assert found(attributes, each) == expected(records, each), each


@settings(relaxed)
@given(records_and_filter)
def test_decoded_metadata_matches_as_the_original_does(case: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    records, where = case
    decoded = [decode(encode(record)) for record in records]
    assert found(Attributes.empty().appended(decoded), where) == expected(records, where)


@pytest.mark.parametrize("operand", NEAR_MISSES, ids=repr)
def test_near_misses_are_told_apart_by_every_operator(operand: Any) -> None:
    records = (
        [{"x": value} for value in NEAR_MISSES] + [{"x": [value]} for value in NEAR_MISSES] + [{"y": 1}, {"x": []}]
    )
    attributes = Attributes.empty().appended(records)
    conditions: list[Any] = [operand, [operand], {"$ne": operand}, {"$in": [operand, "zz"]}, {"$contains": operand}]
    if operand is not None and not isinstance(operand, bool):
        conditions += [{name: operand} for name in OPERATORS]
    if isinstance(operand, str):
        conditions.append({"$prefix": operand})
    for condition in conditions:
        assert found(attributes, {"x": condition}) == expected(records, {"x": condition}), condition


numbers = st.sampled_from([value for value in NEAR_MISSES if type(value) in (int, float)]) | (
    st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)


@settings(relaxed)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.floats(allow_nan=False)), numbers)
def test_numbers_compare_exactly(ints: list[int], floats: list[float], operand: float) -> None:
    near = int(operand)
    ints += [number for number in (near - 1, near, near + 1) if -(2**63) <= number < 2**63]
    floats += [float(near), np.nextafter(float(near), 0).item()]
    for name, compare in OPERATORS.items():
        assert compare_ints(np.array(ints), name, operand).tolist() == [compare(value, operand) for value in ints]  # type: ignore[arg-type]
        assert compare_floats(np.array(floats), name, operand).tolist() == [compare(value, operand) for value in floats]  # type: ignore[arg-type]


def test_a_record_without_the_key_satisfies_the_negations_only() -> None:
    attributes = Attributes.empty().appended([{}, {"x": None}, {"x": 1}])
    assert found(attributes, {"x": {"$ne": 1}}) == [0, 1]
    assert found(attributes, {"x": {"$nin": [1]}}) == [0, 1]
    assert found(attributes, {"x": {"$not": {"$gt": 0}}}) == [0, 1]
    assert found(attributes, {"x": None}) == [1]
    assert found(attributes, {"x": {"$exists": False}}) == [0]
    assert found(attributes, {"y": {"$exists": False}}) == [0, 1, 2]
    assert found(attributes, {}) == [0, 1, 2]
    assert found(attributes, {"x": {"$in": []}}) == []


def test_paths_walk_objects_lists_of_objects_and_dotted_keys() -> None:
    records = [
        {"author": {"name": "ann"}},
        {"author.name": "ann"},
        {"author": [{"name": "bob"}, {"name": "ann"}, 3]},
        {"author": [[{"name": "ann"}]]},
        {"author": {"name": ["ann", "bob"]}},
        {"author": "ann"},
    ]
    attributes = Attributes.empty().appended(records)
    assert found(attributes, {"author.name": "ann"}) == [0, 1, 2, 4]
    assert found(attributes, {"author.name": {"$contains": "an"}}) == [0, 1, 2]
    assert found(attributes, {"author.name": {"$contains": "ann"}}) == [0, 1, 2, 4]
    assert found(attributes, {"author.name": ["ann", "bob"]}) == [4]
    assert found(attributes, {"author": {"$exists": True}}) == [0, 2, 3, 4, 5]
    assert found(attributes, {"author": 3}) == [2]


def test_entries_as_many_as_rows_need_not_be_one_a_row() -> None:
    records = [{"x": ["a", "b"]}, {}, {"x": ["a"]}]  # three entries on three rows, none on the middle one
    at_once = Attributes.empty().appended(records)
    one_by_one = Attributes.empty().appended(records[:1]).appended(records[1:2]).appended(records[2:])
    for attributes in (at_once, one_by_one):
        assert found(attributes, {"x": "a"}) == [0, 2]
        assert found(attributes, {"x": "b"}) == [0]
        assert attributes.facets("x") == [("a", 2), ("b", 1)]


def test_no_list_is_mistaken_for_another_by_its_text() -> None:
    lists: list[Any] = [
        ["a;tb"],
        ["a", "b"],
        ["a;", "b"],
        ["a", ";b"],
        ["a;b"],
        ["t1:a"],
        [["a"], "b"],
        ["a", ["b"]],
        [["a", "b"]],
    ]
    lists += [[], [[]], [[], []], ["[]"], [""], ["", ""], [1], ["1"], [True], [None], ["None"], [1, 1], [11], ["1;n1"]]
    attributes = Attributes.empty().appended([{"x": value} for value in lists])
    for slot, value in enumerate(lists):
        assert found(attributes, {"x": value}) == [slot]


def test_system_fields_are_filtered_like_others() -> None:
    attributes = Attributes.empty().appended([{"$parent": "d1", "$seq": 0}, {"$parent": "d2", "$seq": 1, "x": 1}])
    assert found(attributes, {"$parent": "d2"}) == [1]
    assert found(attributes, {"$seq": {"$lt": 1}, "x": {"$ne": 1}}) == [0]


def test_appending_takes_what_encode_takes() -> None:
    record = {"n": np.int64(3), "t": (1, np.str_("a")), "d": {"$date": "2024-05-01"}, "naive": datetime(2024, 5, 1)}
    attributes = Attributes.empty().appended([record])
    for where in ({"n": 3}, {"t": [1, "a"]}, {"d": date(2024, 5, 1)}, {"naive": datetime(2024, 5, 1, tzinfo=UTC)}):
        assert found(attributes, where) == [0]


@settings(relaxed)
@given(st.lists(metadata, max_size=8), st.integers(1, 4), st.data())
def test_facets_equal_the_plain_count(records: list[dict[str, Any]], limit: int, data: st.DataObject) -> None:
    attributes = Attributes.empty().appended(records)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(records), max_size=len(records))), np.bool_)
    kept = [normalised(record) for record, is_allowed in zip(records, allowed) if is_allowed]
    everything = [normalised(record) for record in records]
    for path in PATHS:
        assert tagged_facets(attributes, path, limit, allowed) == count_values(kept, path)[:limit]
        assert tagged_facets(attributes, path, 1000) == count_values(everything, path)


def test_facets_count_records_and_not_entries() -> None:
    records = [{"x": ["a", "a", "b"]}, {"x": [{"y": 1}, {"y": [1, 1]}]}, {"x": "a"}]
    attributes = Attributes.empty().appended(records)
    assert attributes.facets("x") == [("a", 2), ("b", 1)]
    assert attributes.facets("x.y") == [(1, 1)]


def test_facets_of_unknown_paths_and_limits_below_one_are_empty() -> None:
    attributes = Attributes.empty().appended([{"x": 1}])
    assert attributes.facets("y", np.ones(1, np.bool_), 10) == []
    assert attributes.facets("x", np.ones(1, np.bool_), 0) == []
    assert attributes.facets("x", np.zeros(1, np.bool_), 10) == []


class Snapshots(RuleBasedStateMachine):
    """Random histories of one line of snapshots, forks included, beside plain lists of dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[Attributes, list[dict[str, Any]]]] = [(Attributes.empty(), [])]

    def _base(self, data: st.DataObject) -> tuple[Attributes, list[dict[str, Any]]]:
        """Mostly the newest snapshot, at times an older one."""
        return self.history[-1 if data.draw(st.integers(0, 4)) else data.draw(st.integers(0, len(self.history) - 1))]

    @rule(batch=st.lists(metadata, max_size=4), data=st.data())
    def append(self, batch: list[dict[str, Any]], data: st.DataObject) -> None:
        attributes, records = self._base(data)
        self.history.append((attributes.appended(batch), records + batch))

    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        attributes, records = self._base(data)
        slots = data.draw(st.lists(st.integers(0, len(records) - 1), max_size=4)) if records else []
        batch = data.draw(st.lists(metadata, min_size=len(slots), max_size=len(slots)))
        changed = list(records)
        for slot, record in zip(slots, batch):
            changed[slot] = record
        self.history.append((attributes.replaced(np.array(slots, np.int64), batch), changed))

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        attributes, records = self._base(data)
        kept = [slot for slot in range(len(records)) if data.draw(st.booleans())]
        self.history.append((attributes.compacted(np.array(kept, np.int64)), [records[slot] for slot in kept]))

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        attributes, _ = self._base(data)
        with pytest.raises(InvalidRecord, match="of type object"):
            attributes.appended([{"a": 1}, {"a": object()}])

    @rule(where=filters, path=st.sampled_from(PATHS))
    def compare_all(self, where: dict[str, Any], path: str) -> None:
        for attributes, records in self.history:
            for each in spread(where):
                assert found(attributes, each) == expected(records, each), each
            plain = [normalised(record) for record in records]
            assert tagged_facets(attributes, path, 3) == count_values(plain, path)[:3]

    @invariant()
    def lengths_agree(self) -> None:
        assert [len(attributes) for attributes, _ in self.history] == [len(records) for _, records in self.history]


def test_every_snapshot_of_any_history_keeps_its_own_answers() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Snapshots, settings=settings(relaxed, max_examples=120, stateful_step_count=12)
    )


def test_replaced_rows_are_swept_out() -> None:
    records = [{"x": f"text {slot}", "n": slot} for slot in range(100)]
    attributes = once = Attributes.empty().appended(records)
    for turn in range(60):
        batch = [{"x": f"turn {turn} {slot}", "n": turn} for slot in range(100)]
        attributes = attributes.replaced(np.arange(100), batch)
        assert found(attributes, {"n": turn, "x": {"$prefix": f"turn {turn} "}}) == list(range(100))
    assert found(once, {"x": {"$prefix": "text"}}) == list(range(100))
    assert attributes.nbytes < 20 * once.nbytes
    fresh = attributes.compacted(np.arange(100))
    assert fresh.nbytes < 2 * once.nbytes


def test_appending_after_replacing_finds_both() -> None:
    attributes = Attributes.empty().appended([{"n": 0}, {"n": 1}]).replaced(np.array([0]), [{"n": 10}])
    for number in range(2, 40):
        attributes = attributes.appended([{"n": number}])
    assert found(attributes, {"n": {"$gte": 10}}) == [0, *range(10, 40)]
    assert found(attributes, {"n": 0}) == []
    assert attributes.facets("n", limit=1) == [(10, 2)]


def test_compacting_puts_replaced_records_back_in_order() -> None:
    moved = Attributes.empty().appended([{"n": 0}, {"n": 1}, {"n": 2}]).replaced(np.array([0]), [{"n": 10}])
    compacted = moved.compacted(np.array([0, 1, 2]))
    longer = compacted.appended([{"n": 3}])
    for attributes in (moved, compacted):
        assert found(attributes, {"n": {"$gte": 2}}) == [0, 2]
    assert found(longer, {"n": {"$gte": 2}}) == [0, 2, 3]


def test_a_broken_append_leaves_the_snapshot_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = Attributes.empty().appended([{"a": 1, "b": 1}])
    from vecdb.columns import Column

    extend = Column.extend

    def failing(self: Column, lane: int, rows: Any, values: Any) -> None:
        if "text" in values:
            raise MemoryError
        extend(self, lane, rows, values)

    monkeypatch.setattr(Column, "extend", failing)
    with pytest.raises(MemoryError):
        attributes.appended([{"a": 2, "b": "text"}])
    monkeypatch.undo()
    after = attributes.appended([{"b": 3}])
    assert found(attributes, {"a": {"$exists": True}}) == [0]
    assert found(after, {"a": {"$exists": True}}) == [0]
    assert found(after, {"b": 3}) == [1]


def test_ten_thousand_distinct_keys_are_columns_of_their_own() -> None:
    attributes = Attributes.empty()
    for start in range(0, 10_000, 10):
        attributes = attributes.appended([{f"k{number}": number} for number in range(start, start + 10)])
    assert found(attributes, {"k5000": {"$gte": 1}}) == [5000]
    assert found(attributes, {"k5001": 5000}) == []
    half = attributes.compacted(np.arange(0, 10_000, 2))
    assert found(half, {"k5000": 5000}) == [2500]
    assert found(half, {"k5001": {"$exists": True}}) == []
    assert repr(half) == "<Attributes 5,000 slots, 5,000 paths>"


def test_masks_belong_to_the_caller() -> None:
    attributes = Attributes.empty().appended([{"x": 1}] * 3)
    for where in ({}, {"x": 1}, {"y": 1}, {"x": {"$ne": 1}}):
        first = attributes.mask(parse(where))
        kept = first.copy()
        first[:] = ~first
        assert np.array_equal(attributes.mask(parse(where)), kept)


def test_readers_see_whole_snapshots_while_a_writer_makes_new_ones() -> None:
    published = [Attributes.empty()]
    done = threading.Event()
    problems: list[str] = []
    everything = parse({"n": {"$gte": 0}, "s": {"$prefix": "row"}, "tags": {"$contains": "t"}, "k": {"$exists": True}})

    def read() -> None:
        while not done.is_set():
            attributes = published[-1]
            count = int(attributes.mask(everything).sum())
            total = sum(amount for _, amount in attributes.facets("parity", limit=5))
            if count != len(attributes) or total != len(attributes):
                problems.append(f"{count} and {total} of {len(attributes)}")

    def record(number: int) -> dict[str, Any]:
        return {
            "n": number,
            "s": f"row {number}",
            "tags": ["t", number],
            "k": {f"key{number}": 1},
            "parity": number % 2,
        }

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(150):
            newest = published[-1].appended([record(20 * turn + offset) for offset in range(20)])
            published.append(newest)
            published.append(newest.replaced(np.arange(0, len(newest), 7), [record(turn)] * -(-len(newest) // 7)))
            if turn % 50 == 49:
                published.append(published[-1].compacted(np.arange(0, len(newest), 2)))
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert problems == []
