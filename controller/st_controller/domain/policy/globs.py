"""Globs of rules: what they match, and what two of them have in common. Letter case is ignored."""

import re
from fnmatch import fnmatchcase
from functools import lru_cache

_REMEMBERED = 16_384
"""Answers that are remembered: people ask for the same again and again."""
_WILD = re.compile(r"[*?\[]")


@lru_cache(maxsize=_REMEMBERED)
def matches(glob: str, value: str) -> bool:
    """Whether the glob matches the whole value."""
    return fnmatchcase(value.lower(), glob.lower())


@lru_cache(maxsize=_REMEMBERED)
def covers(wide: str, narrow: str) -> bool:
    """Whether every name that ``narrow`` matches is surely one that ``wide`` matches.

    False where it cannot be told: where ``wide`` has ``?`` or ``[...]`` and ``narrow`` has
    wildcards, too.
    """
    if _WILD.search(narrow) and re.search(r"[?\[]", wide):
        return wide.lower() == narrow.lower()
    # With `*` alone in `wide`, what it takes for the wildcards of `narrow` it takes for any text; a
    # class counts as any letter, so that the letters in it are not taken for what must be there.
    return matches(wide, "".join(_letters(narrow)) if _WILD.search(narrow) else narrow)


@lru_cache(maxsize=_REMEMBERED)
def may_meet(one: str, other: str) -> bool:
    """Whether some name may match both globs; a class such as ``[ab]`` is taken for any letter."""
    first, second = _letters(one), _letters(other)
    reached = {0}
    # Places in `second` that are reachable after each letter of `first`, as two automata in step.
    reached = _past_stars(second, reached)
    for letter in first:
        if letter == "*":
            reached = set(range(min(reached), len(second) + 1)) if reached else reached
        else:
            reached = _past_stars(second, _step(second, reached, letter))
    return len(second) in reached


def _letters(glob: str) -> list[str]:
    return list(re.sub(r"\[!?\]?[^\]]*\]", "?", glob.lower()))


def _step(letters: list[str], places: set[int], letter: str) -> set[int]:
    after = set()
    for place in places:
        if place == len(letters):
            continue
        theirs = letters[place]
        if theirs == "*":
            after.add(place)
        elif "?" in {theirs, letter} or theirs == letter:
            after.add(place + 1)
    return after


def _past_stars(letters: list[str], places: set[int]) -> set[int]:
    after = set(places)
    for place in sorted(places):
        here = place
        while here < len(letters) and letters[here] == "*":
            here += 1
            after.add(here)
    return after
