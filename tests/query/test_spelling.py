from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from naive_text import alignment_distance

from vecdb.query.spelling import distances, near_terms

terms = st.text(st.sampled_from("abcé東"), min_size=1, max_size=9)


@given(terms, st.lists(terms, max_size=12))
def test_distances_equal_the_table_worked_out_cell_by_cell(word: str, candidates: list[str]) -> None:
    wanted = [alignment_distance(word, candidate) for candidate in candidates]
    np.testing.assert_array_equal(distances(word, candidates), wanted)


def near(term: str, known: dict[str, int]) -> list[tuple[str, int]]:
    return near_terms(term, known, lambda word: known[word])


def test_the_nearest_and_among_them_the_most_frequent_come_first() -> None:
    known = {"vaccine": 3, "vaccin": 9, "vacuum": 50, "machine": 7, "vaccinee": 1}
    assert near("vacine", known) == [("vaccine", 1)]
    assert near("vaccinne", known) == [("vaccine", 1), ("vaccinee", 1)]
    assert near("vacccinnee", known) == [("vaccinee", 2)]


def test_short_words_numbers_and_first_letters_are_let_alone() -> None:
    known = {"cat": 5, "cats": 5, "xj1205": 5, "retriever": 5, "bold": 5}
    assert near("cut", known) == []
    assert near("xj1204", known) == []
    assert near("fold", known) == []
    assert near("retreiver", known) == [("retriever", 1)]
    assert near("catz", known) == [("cat", 1), ("cats", 1)] or near("catz", known) == [("cats", 1), ("cat", 1)]


def test_terms_that_no_record_has_any_more_are_not_offered() -> None:
    assert near("hosue", {"house": 0}) == []
    assert near("hosue", {}) == []


def test_no_more_than_five_are_offered() -> None:
    assert len(near("paste", {f"past{letter}": 1 for letter in "abcdfghijk"})) == 5
