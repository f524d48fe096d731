"""Addresses of servers that a glob can tell apart. Pure."""

import re

_SERVER = re.compile(
    r"https?://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])(:[1-9][0-9]*)?(/[a-z0-9_.~-]+)*",
    re.IGNORECASE | re.ASCII,
)


def is_plain(server: str) -> bool:
    """Whether no other way to write this address leads to the same server."""
    if _SERVER.fullmatch(server) is None:
        return False
    usual = ":443" if server.lower().startswith("https:") else ":80"
    _, _, host, *folders = server.split("/")
    return not host.endswith(usual) and not {".", ".."} & set(folders)
