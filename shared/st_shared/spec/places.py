"""Where in a document a mistake stands, as its writer would find it."""

from collections.abc import Mapping, Sequence

Part = int | str
"""A key, or a place in a list."""


class FieldError(ValueError):
    """One field is wrong beside others; raised by validators that look at a whole section."""

    def __init__(self, message: str, *path: Part) -> None:
        super().__init__(message)
        self.path = path
        """Of the field, from the section on."""


def place_in(document: object, location: Sequence[Part], *, is_missing: bool = False) -> str:
    """The dotted path of a location of pydantic's.

    Left out is what the document does not have: names of variants that a value might be, and the
    mark of a key. Of a field that ``is_missing`` the last part is kept all the same.
    """
    found: list[Part] = []
    here = document
    for number, part in enumerate(location, start=1):
        inside = _inside(here, part)
        if inside is not None:
            found.append(part)
            (here,) = inside
        elif is_missing and number == len(location):
            found.append(part)
    return ".".join(map(str, found))


def _inside(value: object, part: Part) -> tuple[object] | None:
    if isinstance(value, Mapping) and part in value:
        return (value[part],)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return (value[part],)
    return None
