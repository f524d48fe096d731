"""Who asks: a person or a program with permissions, or a worker."""

from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address, ip_network
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
    addresses: tuple[str, ...] | None = None
    """Networks from which the credential may be used; none: from everywhere."""
    renewed_at: datetime | None = field(default=None, compare=False)
    """When the session's token came into force."""

    def may_come_from(self, address: str) -> bool:
        """Whether the credential may be used from this address."""
        if self.addresses is None:
            return True
        try:
            here = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(here, "ipv4_mapped", None)
        return any((mapped or here) in ip_network(network) for network in self.addresses)


@dataclass(frozen=True, slots=True)
class WorkerCaller:
    """A worker that proved its credential."""

    worker_id: str
    name: str
    digest: str
    """Hash of the credential that it showed."""
    one_job: bool = False
