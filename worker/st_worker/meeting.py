"""How the members of a gang find one another before their processes start."""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from st_shared.protocol.worker import ClaimReply, Meeting
from st_worker.client import Controller

ADDRESS = "ST_WORKER_ADDRESS"
"""Variable that names this host as other workers reach it; else what leads to the controller."""

_POLL_SECONDS = 0.25
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass(frozen=True)
class Rendezvous:
    """Where the processes of a gang meet, and which part of it this is."""

    host: str
    port: int
    node: int
    nodes: int

    @property
    def address(self) -> str:
        """``host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


async def meet(
    controller: Controller, claim: ClaimReply, environment: Mapping[str, str]
) -> Rendezvous | None:
    """Wait until every member has all that it needs; none: the attempt has no other.

    The first member offers a port of this host that is free now.
    """
    gang = claim.gang
    if gang is None:
        return None
    host = port = None
    if gang.node == 0:
        host = environment.get(ADDRESS) or own_address(controller.url)
        port = free_port()
    meeting = Meeting(epoch=claim.epoch, host=host, port=port)
    while True:
        place = await controller.meet(claim.attempt_id, meeting)
        if place.host is not None and place.port is not None:
            return Rendezvous(place.host, place.port, gang.node, gang.nodes)
        await asyncio.sleep(_POLL_SECONDS)


def own_address(url: str) -> str:
    """The address of this host on the way to ``url``; nothing is sent."""
    parts = urlsplit(url)
    target = (parts.hostname or "localhost", parts.port or 443)
    family, kind, protocol, _, address = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def network_environment(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Which network interface collectives use: the one that leads to the controller.

    Without, they take what the host's name resolves to, which is often a loopback.
    """
    own = environment.get(ADDRESS) or own_address(url)
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == own for each in addresses):
            return {variable: environment.get(variable, name) for variable in _INTERFACES}
    return {}
