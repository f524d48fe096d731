"""Who asks: a person or a program with permissions, or a worker."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from st_controller.services.actor import Actor


@dataclass(frozen=True, kw_only=True)
class Caller(Actor):
    """A user, as far as this request's credential lets them be one.

    ``permissions`` are those of the role and the user's own, less what is denied to the user and
    what an API key's scopes take away.
    """

    via: Literal["session", "api_key"]
    credential_id: str
    """Id of the session or key."""
    expires_at: datetime | None = None
    """When the credential ends; none: never."""


@dataclass(frozen=True)
class WorkerCaller:
    """A worker that proved its credential."""

    worker_id: str
    name: str
    digest: str
    """Hash of the credential that it showed."""
    one_job: bool = False
