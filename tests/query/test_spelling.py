from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from naive_text import alignment_distance, nearest_terms

from vecdb.query.spelling import Speller, distances

terms = st.text(st.sampled_from("abcé東"), min_size=1, max_size=9)


@given(terms, st.lists(terms, max_size=12), st.integers(1, 10))
def test_distances_equal_the_table_worked_out_cell_by_cell(word: str, candidates: list[str], most: int) -> None:
    wanted = [min(alignment_distance(word, candidate), most + 1) for candidate in candidates]
    np.testing.assert_array_equal(distances(word, candidates, most), wanted)


def near(term: str, known: dict[str, int]) -> list[tuple[str, int]]:
    return Speller(known).near(term, lambda word: known[word])


long_terms = st.text(st.sampled_from("abé東ŧ1"), max_size=11)


@given(long_terms, st.dictionaries(long_terms, st.integers(0, 3), max_size=30), st.integers(0, 30))
def test_few_are_measured_and_the_answer_is_that_of_measuring_all(term: str, known: dict[str, int], first: int) -> None:
    """Also for a vocabulary that has grown since it was asked first."""
    growing = dict(list(known.items())[:first])
    speller = Speller(growing)
    assert speller.near(term, growing.__getitem__) == nearest_terms(term, growing)
    growing.update(known)
    assert speller.near(term, growing.__getitem__) == nearest_terms(term, growing)


@given(long_terms, st.data())
def test_no_change_of_a_term_hides_it(term: str, data: st.DataObject) -> None:
    """Terms made by one or two changes of a term: what signatures must let through."""
    changed = term
    for _ in range(data.draw(st.integers(1, 2))):
        place, letter = data.draw(st.integers(0, len(changed))), data.draw(st.sampled_from("abé東ŧ"))
        rest = changed[place:]
        changed = changed[:place] + data.draw(
            st.sampled_from([letter + rest, letter + rest[1:], rest[1:], rest[1:2] + rest[:1] + rest[2:]])
        )
    known = {changed: 1}
    assert near(term, known) == nearest_terms(term, known)


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
