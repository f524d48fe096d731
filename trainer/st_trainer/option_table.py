"""The keys of a section as lines for people, read from its model."""

import json
from collections.abc import Iterator
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def option_lines(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """One line a key: dotted path, default, description; nested sections follow their key."""
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        inner = _section_in(field.annotation)
        if inner:
            many = "[]" if get_origin(field.annotation) is list else ""
            yield from option_lines(inner, f"{path}{many}.")
            continue
        yield f"{path} = {_shown(field)}  # {field.description or ''}".rstrip(" #")


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_in(inner) for inner in getattr(annotation, "__args__", ()))
    return next((inner for inner in found if inner), None)


def _shown(field: Any) -> str:
    if field.is_required():
        return "(required)"
    default = field.get_default(call_default_factory=True)
    return "" if default is PydanticUndefined else json.dumps(default, default=str)
