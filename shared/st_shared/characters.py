"""Characters that JSON and YAML can carry but databases and UTF-8 cannot."""

import re
from collections.abc import Iterator

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def check_text(text: str) -> str:
    """Give ``text`` back when every database can hold it.

    Raises:
        ValueError: it holds a NUL character or half of a surrogate pair.
    """
    found = _UNSTORABLE.search(text)
    if found:
        raise ValueError(
            f"holds the character U+{ord(found[0]):04X}, which cannot be stored; leave it out"
        )
    return text


def storable(text: str) -> str:
    """The text, with U+FFFD in the place of each character that ``check_text`` refuses."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def unstorable_texts(document: object) -> Iterator[tuple[str, str]]:
    """The dotted path of each text within a document that ``check_text`` refuses, and why."""
    for place, value in leaves(document):
        if isinstance(value, str):
            try:
                check_text(value)
            except ValueError as error:
                yield place, str(error)


def leaves(document: object) -> Iterator[tuple[str, object]]:
    """All within mappings and lists that is neither, keys too, each with its dotted path.

    However deep the document is, and although YAML lets a part contain itself, this ends: every
    part is looked at once.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", document)]
    while waiting:
        place, value = waiting.pop()
        if not isinstance(value, dict | list):
            yield place, value
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += _parts(place, value)


def _parts(place: str, value: dict[object, object] | list[object]) -> Iterator[tuple[str, object]]:
    before = f"{place}." if place else ""
    if isinstance(value, list):
        yield from ((f"{before}{index}", item) for index, item in enumerate(value))
        return
    for key, item in value.items():
        shown = str(key).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        yield f"{before}{shown}", item
        yield f"{before}{shown}", key
