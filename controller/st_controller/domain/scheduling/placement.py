"""Whether slots and labels of a worker satisfy a request."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from st_controller.domain.scheduling.model import Shape, SlotKind


def name_matches(pattern: str, name: str) -> bool:
    """Whether a name is as the pattern asks, letter case ignored.

    A pattern is globs joined by ``|``, of which one must match. The rules of an organisation may
    narrow what a job file asked for: they add such groups after ``&``, all of which must match, and
    those after ``&!`` must not.
    """
    name = name.lower()
    return all(_group_matches(group, name) for group in pattern.split("&"))


def _group_matches(group: str, name: str) -> bool:
    if group.startswith("!"):
        return not _group_matches(group[1:], name)
    return any(fnmatchcase(name, glob.strip().lower()) for glob in group.split("|"))


def kind_suits(kind: SlotKind, shape: Shape) -> bool:
    """Whether a slot has what the shape asks of each, and may be one of as many as it asks for."""
    if kind.memory_gb < shape.min_memory_gb or (kind.is_part and shape.slots > 1):
        return False
    return name_matches(shape.accelerator, kind.accelerator)


def labels_match(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether every wanted label is present with a value that its glob matches."""
    return all(key in labels and fnmatchcase(labels[key], glob) for key, glob in wanted.items())
