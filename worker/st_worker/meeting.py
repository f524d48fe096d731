"""How the members of a gang find one another before their processes start."""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
    controller: Controller, claim: ClaimReply, environment: Mapping[str, str], held: ExitStack
) -> Rendezvous | None:
    """Wait until every member has all that it needs; none: the attempt has no other.

    The first member offers a port of this host, which is kept from others until ``held`` closes.
    """
    gang = claim.gang
    if gang is None:
        return None
    host = port = None
    if gang.node == 0:
        host = environment.get(ADDRESS) or own_address(controller.url)
        port = held.enter_context(kept_port())
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


@contextmanager
def kept_port() -> Iterator[int]:
    """A TCP port that nobody else is given as long as the block lasts.

    Whoever wants to listen on it can, where it allows that addresses are used again, as servers do:
    that of the trainer begins to minutes later, when all members have what they need.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("", 0))
        yield int(keeper.getsockname()[1])


def network_environment(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Which network interface collectives use: the one that leads to the controller.

    Without, they take what the host's name resolves to, which is often a loopback.
    """
    own = environment.get(ADDRESS) or own_address(url)
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == own for each in addresses):
            return {variable: environment.get(variable, name) for variable in _INTERFACES}
    return {}
