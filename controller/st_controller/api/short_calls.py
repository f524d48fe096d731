"""What is read of a call that is answered in front of the framework: docs/decisions/0015."""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.types import Receive, Scope

from st_controller.auth import secrets


class Route(NamedTuple):
    """What the log and the figures call such a request."""

    path: str


def headers_of_json(scope: Scope, most_bytes: int) -> Mapping[bytes, bytes] | None:
    """Headers of a request with a JSON body of at most ``most_bytes`` that is not compressed.

    One that is said to be empty needs no type. None: it is not that, or has a header twice, and
    others decide which of them counts.
    """
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if headers.setdefault(name, value) is not value:
            return None
    length = headers.get(b"content-length", b"")
    if (
        b"content-encoding" in headers
        or not length.isdigit()
        or (length != b"0" and headers.get(b"content-type") != b"application/json")
        or int(length) > most_bytes
    ):
        return None
    return headers


def digest_of_bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """Hash of the secret in the ``Authorization`` header."""
    scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
    return secrets.digest(secret.decode("latin-1").strip()) if scheme.lower() == b"bearer" else None


async def whole_body(receive: Receive) -> bytes | None:
    """The body; none: whoever sends it has gone, and nobody is there to be answered."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body
