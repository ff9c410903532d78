"""Prompts of the listwise methods, and how passages are made to fit: one list of passages, four questions about it.

Passages are data: whatever in them looks like one of our identifiers ([7], [B]) is rewritten with round brackets, so that no
passage can pass for another or vote for itself, and each stands on one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from vecdb.errors import InvalidQuery
from vecdb.language_model import Prompt
from vecdb.rerank.models.base import ChatModel

LETTERS = ascii_uppercase
MOST_LETTERS = len(LETTERS)
OPENING = "["  # of a written order: the model's reply is begun for it, so that the next token is an identifier
LEAST_PASSAGE_TOKENS = 12  # shorter remains of a passage tell a model nothing

_IDENTIFIER = re.compile(r"\[\s*(\d+|[A-Za-z])\s*\]")


def numbers(count: int) -> list[str]:
    return [str(place + 1) for place in range(count)]


def letters(count: int) -> list[str]:
    return list(LETTERS[:count])


def clean(text: str) -> str:
    """The passage on one line, without anything that could be taken for an identifier."""
    return _IDENTIFIER.sub(r"(\1)", " ".join(text.split()))


def listed(labels: Sequence[str], passages: Sequence[str]) -> str:
    return "\n".join(f"[{label}] {passage}" for label, passage in zip(labels, passages, strict=True))


_RANKER = "You are a careful search assistant. You order passages by how well they answer a query."


def permutation(query: str, labels: Sequence[str], passages: Sequence[str], top: int | None = None) -> Prompt:
    """Asks for all identifiers (or the best few), best first. FIRST and generated orders share it."""
    example = " > ".join(f"[{label}]" for label in reversed(labels[:3]))
    wanted = "all identifiers" if top is None or top >= len(labels) else f"the identifiers of the best {top}"
    return Prompt(
        _RANKER,
        f"Here are {len(passages)} passages, each behind an identifier in square brackets. "
        f"Order them by their relevance to the query: {query}\n\n{listed(labels, passages)}\n\n"
        f"Query: {query}\nList {wanted} in descending order of relevance, the most relevant first, in the form "
        f"{example}. Write the identifiers only, without any explanation.",
    )


_SCORER = """You judge how useful documents are for a query. Judge usefulness first and likeness of topic second. Read what \
the query is after, look at each document, compare the documents with one another, and then score each from 0 to 10:
9-10 answers the query fully; 7-8 answers most of it; 5-6 holds a part of the answer; 3-4 is about the topic without \
answering; 1-2 touches the topic; 0 has nothing to do with it."""


def group(query: str, labels: Sequence[str], passages: Sequence[str]) -> Prompt:
    """Asks for a short reasoning and a JSON object of scores."""
    example = ", ".join(f'"[{label}]": {score}' for label, score in zip(labels, (7, 2, 0)))
    return Prompt(
        _SCORER,
        f"Query: {query}\n\nThe {len(passages)} documents:\n{listed(labels, passages)}\n\n"
        "First compare the documents in a few sentences between <reason> and </reason>. Then give one whole number for "
        f"every document as JSON between <answer> and </answer>, like <answer>{{{example}}}</answer>",
    )


GRADES = ["0", "1", "2", "3", "4"]

_GRADER = """You grade how much a document helps to answer a query. Being about the same topic is not enough. The grades: \
4 answers the query, or nearly so; 3 holds an important part of the answer; 2 holds something that the answer needs; 1 is about \
the topic without helping; 0 has nothing to do with it."""


def grade(query: str, passages: Sequence[str]) -> Prompt:
    """Asks for the grade of the one passage that there is."""
    return Prompt(
        _GRADER,
        f"Query: {query}\n\nThe document:\n{passages[0]}\n\nHow much does the document help to answer the query? "
        f"Write its grade only, from 0 to 4, in square brackets, in the form [{GRADES[2]}]",
    )


_PICKER = (
    "You choose the document that answers a query best. First think about it between <think> and </think>, then give your "
    "choice between <answer> and </answer>."
)


def pick(query: str, labels: Sequence[str], passages: Sequence[str], reasoning: bool = True) -> Prompt:
    """Asks for the label of the best document, after reasoning (Rank-R1) or at once."""
    system = _PICKER if reasoning else "You choose the document that answers a query best."
    form = (
        f"<think>your reasoning</think><answer>[{labels[-1]}]</answer>"
        if reasoning
        else f"<answer>[{labels[-1]}]</answer>"
    )
    return Prompt(
        system,
        f"Query: {query}\n\nThe documents:\n{listed(labels, passages)}\n\nWhich document is the most relevant to the query? "
        f"Answer with its label only, in square brackets, in the form {form}",
    )


def closed(reply: str) -> bool:
    """Whether a reply to `group` or `pick` is complete."""
    return "</answer>" in reply


@dataclass(frozen=True, slots=True)
class Fitted:
    """passages: cleaned and cut. cut_to: the tokens that each may have at most, None if none had to be cut."""

    passages: list[str]
    cut_to: int | None


class DoesNotFit(InvalidQuery):
    """So many passages cannot be read at once, however short they are cut."""


def fit(
    model: ChatModel,
    texts: Sequence[str],
    frame: Callable[[Sequence[str]], Prompt],
    *,
    reply: int,
    most: int | None = None,
) -> Fitted:
    """The passages cut so that the prompt that frame makes of them and a reply of so many tokens fit the model's context.

    most: tokens that a passage may have in any case. All are cut to one length, the largest that fits, so that long passages
    give way to short ones. Raises DoesNotFit if less than LEAST_PASSAGE_TOKENS would be left of each.
    """
    passages = [clean(text) for text in texts]
    lengths = model.lengths(passages)
    frame_prompt = frame([""] * len(passages))
    overhead = sum(model.lengths([frame_prompt.system, frame_prompt.user])) + _TEMPLATE_TOKENS + len(passages)
    longest = max(lengths, default=0)
    room = equal_cut(lengths, model.context - reply - overhead)
    limit = min(longest, room, longest if most is None else most)
    if room < min(longest, LEAST_PASSAGE_TOKENS):
        raise DoesNotFit(
            f"{len(passages)} passages, their prompt and a reply of {reply} tokens do not fit the model's context of "
            f"{model.context} tokens; show fewer at a time (window=, group_size=, set_size=)"
        )
    if limit >= longest:
        return Fitted(passages, None)
    cut = [text if size <= limit else model.cut(text, limit) for text, size in zip(passages, lengths)]
    return Fitted(cut, limit)


_TEMPLATE_TOKENS = 32  # what a chat template adds around two turns: role names and marks


def equal_cut(lengths: Sequence[int], room: int) -> int:
    """The largest L with sum(min(length, L)) <= room; the longest length if everything fits, negative if nothing does."""
    if sum(lengths) <= room:
        return max(lengths, default=0)
    left, remaining = room, len(lengths)
    for length in sorted(lengths):
        if length * remaining > left:
            return left // remaining
        left -= length
        remaining -= 1
    raise AssertionError("unreachable: the lengths do not all fit")
