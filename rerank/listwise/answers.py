"""What models write, read leniently: a permutation out of identifiers, scores out of JSON, a pick out of tags.

None means that there was nothing usable; nothing here raises on anything that a model may write.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

_BRACKETED = re.compile(r"\[\s*([^\[\]\s]+?)\s*\]")
_PICKED = re.compile(r"<think>(.*?)</think>\s*<answer>(.*?)</answer>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL)
_OBJECT = re.compile(r"\{[^{}]*\}?")
_PAIR = re.compile(r"[\"']?\[?([A-Za-z]|\d+)\]?[\"']?\s*:\s*[\"']?(-?\d+(?:\.\d+)?)")


def named(text: str, labels: Sequence[str]) -> list[int]:
    """Places of the labels that the text names in brackets, in its order, each once."""
    place = {label: i for i, label in enumerate(labels)}
    found = dict.fromkeys(place[name] for name in _BRACKETED.findall(text) if name in place)
    return list(found)


def permutation(text: str, labels: Sequence[str]) -> list[int] | None:
    """All places, best first: what the text names, then what it left out, as it was. None if it names nothing.

    Without a bracketed label bare ones count (models drop brackets), numbers as whole words only.
    """
    found = named(text, labels)
    if not found:
        place = {label: i for i, label in enumerate(labels)}
        words = re.findall(r"\d+|\b[A-Z]\b", text)
        found = list(dict.fromkeys(place[word] for word in words if word in place))
    if not found:
        return None
    seen = set(found)
    return found + [i for i in range(len(labels)) if i not in seen]


def scores(text: str, labels: Sequence[str], top: float = 10.0) -> list[float] | None:
    """A score from 0 to top for each label, out of the last JSON object; None unless every label has exactly one.

    A stray bracket around a label, a missing brace at the end and single quotes are let pass. A label scored twice with
    different numbers is no answer: which one was meant cannot be known.
    """
    answers = _ANSWER.findall(text)
    objects = _OBJECT.findall(answers[-1] if answers else text)
    if not objects:
        return None
    pairs = _pairs(objects[-1])
    given: dict[str, float] = {}
    for name, value in pairs:
        if name in given and given[name] != value:
            return None
        given[name] = value
    if any(label not in given for label in labels):
        return None
    return [min(top, max(0.0, given[label])) for label in labels]


def _pairs(written: str) -> list[tuple[str, float]]:
    try:
        loaded = json.loads(written, object_pairs_hook=list)
        pairs = [(str(name).strip("[] "), float(value)) for name, value in loaded]
    except (ValueError, TypeError, RecursionError):
        pairs = [(name, float(value)) for name, value in _PAIR.findall(written)]
    return [(name, value) for name, value in pairs if math.isfinite(value)]


def pick(text: str, labels: Sequence[str]) -> int | None:
    """The place of the label in the (last) answer tag, or the only label that a reply without tags names."""
    answers = _ANSWER.findall(text)
    body = (answers[-1] if answers else text).strip()
    if body in labels:
        return list(labels).index(body)
    found = named(body, labels)
    if answers:
        return found[0] if found else None
    return found[0] if len(found) == 1 else None


def strict_pick(text: str, labels: Sequence[str]) -> int | None:
    """The form that Rank-R1 rewards: think and answer tags, and nothing but one bracketed label in the latter."""
    match = _PICKED.search(text)
    if match is None:
        return None
    answer = match.group(2).strip()
    exact = {f"[{label}]": place for place, label in enumerate(labels)}
    return exact.get(answer)


def reasoning(text: str) -> str | None:
    """What stands in the first think or reason tag (closed or cut off)."""
    match = re.search(r"<(think|reason)>(.*?)(?:</\1>|<answer>|$)", text, re.DOTALL)
    return match.group(2).strip() if match and match.group(2).strip() else None
