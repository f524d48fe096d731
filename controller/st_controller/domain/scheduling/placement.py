"""Whether slots and labels of a worker satisfy a request."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from st_controller.domain.scheduling.model import Shape, SlotKind


def accelerator_matches(pattern: str, accelerator: str) -> bool:
    """Whether any of the globs joined by ``|`` matches the name, letter case ignored."""
    name = accelerator.lower()
    return any(fnmatchcase(name, glob.strip().lower()) for glob in pattern.split("|"))


def kind_suits(kind: SlotKind, shape: Shape) -> bool:
    """Whether a slot has what the shape asks of each, and may be one of as many as it asks for."""
    if kind.memory_gb < shape.min_memory_gb or (kind.is_part and shape.slots > 1):
        return False
    return accelerator_matches(shape.accelerator, kind.accelerator)


def labels_match(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether every wanted label is present with a value that its glob matches."""
    return all(key in labels and fnmatchcase(labels[key], glob) for key, glob in wanted.items())
