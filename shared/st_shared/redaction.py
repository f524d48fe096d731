"""Takes secrets out of text before anybody stores or shows it."""

import re
from collections.abc import Mapping
from typing import Any

NAMES_VARIABLE = "ST_SECRET_NAMES"
"""Environment variable with the names of those that hold secrets, separated by commas."""
SHORTEST = 8
"""Characters of the shortest text that counts as a secret."""


class Redactor:
    """Knows secrets by name; replaces each by ``[secret NAME]``, also line by line and in JSON."""

    def __init__(self, values: Mapping[str, str]) -> None:
        names: dict[str, str] = {}
        for name, value in values.items():
            for text in (value, *_lines(value)):
                for form in (text, _escaped(text)):
                    names.setdefault(form, name)
        # The longest first, so that a secret that holds another goes whole.
        forms = sorted(names, key=len, reverse=True)
        self._names = names
        self._pattern = re.compile("|".join(map(re.escape, forms))) if forms else None
        self.longest = max(map(len, forms), default=0)

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[secret {self._names[found.group()]}]", text)

    def json(self, value: Any) -> Any:
        """The JSON value without secrets, keys of objects included."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self.json(item) for key, item in value.items()}
        return value

    def __bool__(self) -> bool:
        """Whether it knows any secret."""
        return self._pattern is not None


def from_environment(environment: Mapping[str, str]) -> Redactor:
    """What a process that was given secrets needs to keep them out of what it writes."""
    names = filter(None, environment.get(NAMES_VARIABLE, "").split(","))
    return Redactor({name: environment[name] for name in names if name in environment})


def _lines(value: str) -> list[str]:
    """Lines of a secret of many, such as a PEM key: what prints it cuts it there."""
    lines = [line.strip() for line in value.splitlines()]
    return [line for line in [value.strip(), *lines] if len(line) >= SHORTEST]


def _escaped(text: str) -> str:
    """The text as it stands between the quotes of JSON."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
