"""What was, or would be, different."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

Verb = Literal["create", "change", "remove"]


@dataclass(frozen=True)
class Change:
    """One thing that was made, changed or removed."""

    verb: Verb
    what: str
    """Such as ``team`` or ``quota``."""
    name: str
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Before and after, of a change."""

    @property
    def words(self) -> str:
        """A line for people."""
        sign = {"create": "+", "change": "~", "remove": "-"}[self.verb]
        told = ", ".join(f"{key}: {old} -> {new}" for key, (old, new) in self.fields.items())
        return f"{sign} {self.what} {self.name}" + (f" ({told})" if told else "")


def differences(standing: BaseModel, wanted: BaseModel, *names: str) -> dict[str, tuple[Any, Any]]:
    """The fields of these names that differ, before and after."""
    return {
        name: (getattr(standing, name), getattr(wanted, name))
        for name in names
        if getattr(standing, name) != getattr(wanted, name)
    }
