"""Errors that users can fix, what they may have meant, and the stop that they asked for."""

import difflib
import re
from collections.abc import Iterable, Sequence

MOST_NAMED = 6  # of many, in a sentence
# likeness of names from which on one is suggested, and how far below the best
NEAR, SPREAD = 0.66, 0.12
# letters; longer texts are no slips of the keyboard, and comparing them takes long
LONGEST = 80


class BadInput(ValueError):
    """One sentence: what was expected, what was found, where, and what to do (exit code 2)."""


class CannotWrite(BadInput):
    """The place for results takes none: other cases would fare no better."""


class Stopped(Exception):
    """A long run was asked to stop and has saved its state (exit code 130)."""


def first_of(names: Sequence[object], most: int = MOST_NAMED, separator: str = ", ") -> str:
    """The first names of many, for a sentence: "a, b, …"."""
    return separator.join([*map(str, names[:most]), *(["…"] if len(names) > most else [])])


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """A sentence on the names that somebody may have meant ("Did you mean 't1'?"); '' where none is near."""
    near = nearest(name, known)[:most]
    return f"Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that are near to one, the nearest first: spelt almost like it, or made of the same words."""
    ranked = [(_likeness(name[:LONGEST], one), one) for one in dict.fromkeys(known)]
    best = max((likeness for likeness, _ in ranked), default=0.0)
    near = [pair for pair in ranked if pair[0] >= max(NEAR, best - SPREAD)]
    return [one for _, one in sorted(near, key=lambda pair: (-pair[0], len(pair[1]), pair[1]))]


def _likeness(name: str, other: str) -> float:
    """1 for the same letters and digits, in either case; else how alike names, or the words in them, are spelt."""
    ours, theirs = (re.findall(r"[^\W_]+", one.casefold()) for one in (name, other))
    if not ours or not theirs:
        return 0.0
    if "".join(ours) == "".join(theirs):
        return 1.0
    spelt = _ratio("".join(ours), "".join(theirs))
    found = sum(max(_ratio(word, one) for one in theirs) for word in ours) / len(ours)
    return max(spelt, 0.8 * found + 0.2 * spelt)


def _ratio(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other, autojunk=False).ratio()
