"""Which controllers a person has signed in to, kept in one private file.

``$ST_CONFIG_HOME/credentials.json``, else ``~/.config/st/credentials.json``, mode 0600. The
variables ``ST_URL`` and ``ST_API_KEY`` go before what the file says.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_client.errors import BadInputError, ForbiddenError


@dataclass(frozen=True)
class Credential:
    """Where a controller is, and the key that it knows us by."""

    url: str
    api_key: str
    username: str | None = None


class Credentials:
    """The file of a person's controllers; read anew by every method, replaced in one step."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self.path = _folder(environment) / "credentials.json"

    def current(self) -> Credential:
        """The controller to talk to, or ``ForbiddenError`` when nobody has signed in."""
        content = self._read()
        url = self._environment.get("ST_URL", "").rstrip("/") or str(content["current"] or "")
        api_key = self._environment.get("ST_API_KEY")
        if url and api_key:
            return Credential(url, api_key)
        found = self.find(url)
        if found is None:
            raise ForbiddenError(
                f"not signed in to {url or 'a controller'}",
                hint="sign in with `st login URL`, or set ST_URL and ST_API_KEY",
                code="not_signed_in",
            )
        return found

    def find(self, url: str) -> Credential | None:
        """What is stored for ``url``."""
        entry = self._read()["controllers"].get(url)
        return Credential(url, entry["api_key"], entry.get("username")) if entry else None

    def keep(self, credential: Credential) -> None:
        """Store ``credential`` and make its controller the current one."""
        content = self._read()
        entry = {"api_key": credential.api_key, "username": credential.username}
        content["controllers"][credential.url] = entry
        self._write({**content, "current": credential.url})

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"version": 1, "current": None, "controllers": {}}
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"cannot read {self.path}",
                detail=str(error),
                hint="remove the file and sign in again with `st login URL`",
            ) from None
        if not isinstance(content, dict) or not {"current", "controllers"} <= content.keys():
            raise BadInputError(
                f"{self.path} is not a credentials file",
                hint="remove the file and sign in again with `st login URL`",
            )
        return content

    def _write(self, content: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)


def _folder(environment: Mapping[str, str]) -> Path:
    if environment.get("ST_CONFIG_HOME"):
        return Path(environment["ST_CONFIG_HOME"])
    home = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME", "~")) / ".config"
    return Path(home).expanduser() / "st"
