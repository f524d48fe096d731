"""Ports for servers that are started by number, and again on the same one."""

import os
import random
import socket

_SIDE_BY_SIDE = 8
_OURS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SIDE_BY_SIDE
_RANGE = range(16_000, 32_000)[_OURS::_SIDE_BY_SIDE]
"""Below the ports that systems give to outgoing connections: else one of these may take the port
before its server does, or while that is down, and one to a closed port may even reach itself.
Tests that run side by side have ports of their own."""


def free_port() -> int:
    """A port of the loopback on which nobody listens now."""
    for port in random.SystemRandom().sample(_RANGE, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port in {_RANGE}")
