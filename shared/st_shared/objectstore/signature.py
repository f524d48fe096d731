"""Signed URLs of the local store: what a grant says, and how it is proved.

``/v1/objects/{key}?method=PUT&size=..&sha256=..&expires=..&sig=..``, where ``sig`` is the
HMAC-SHA256 (RFC 2104) over method, key, size, sha256 and expires, one a line; for a part of an
upload, ``upload`` and ``part`` come too.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast
from urllib.parse import urlencode

from st_shared.objectstore.key import check_key

Method = Literal["GET", "PUT"]

OBJECTS_PATH = "/v1/objects/"
"""Where the controller serves the objects of a local store."""


class GrantError(PermissionError):
    """A signed URL that grants nothing."""


class GrantExpiredError(GrantError):
    """The URL was good once; ask for a new one."""


class BadSignatureError(GrantError):
    """The URL was not made by this store, was made for another request, or was altered."""


@dataclass(frozen=True)
class SignedGrant:
    """What the holder of a signed URL may do."""

    method: Method
    key: str
    size: int | None
    """Bytes that the body must have; none for a download."""
    sha256: str | None
    """Digest that the body must have; none for a download."""
    expires: datetime
    upload: str | None = None
    """Id of the upload that a part is for; none for a whole object."""
    part: int | None = None
    """Number of the part, from 1."""


def signed_url(grant: SignedGrant, sign_key: bytes) -> str:
    """The relative URL that proves ``grant``."""
    fields: dict[str, str] = {"method": grant.method}
    if grant.method == "PUT":
        fields |= {"size": str(grant.size), "sha256": str(grant.sha256)}
        if grant.upload is not None:
            fields |= {"upload": grant.upload, "part": str(grant.part)}
    fields["expires"] = str(int(grant.expires.timestamp()))
    fields["sig"] = _signature(sign_key, grant.key, fields)
    return f"{OBJECTS_PATH}{grant.key}?{urlencode(fields)}"


def verify_grant(
    sign_key: bytes, method: str, key: str, params: Mapping[str, str], now: datetime
) -> SignedGrant:
    """The grant that ``params`` prove for this request; HEAD needs the grant of a GET.

    Raises:
        BadSignatureError: a parameter is missing, altered, or meant for another method or key.
        GrantExpiredError: it proves a grant whose time is over.
    """
    wanted = "GET" if method == "HEAD" else method
    if params.get("method") != wanted or wanted not in {"GET", "PUT"}:
        raise BadSignatureError(f"this URL does not allow {method}")
    expected = _signature(sign_key, check_key(key), params)
    given = params.get("sig", "").encode("utf-8", "replace")
    if not hmac.compare_digest(given, expected.encode()):
        raise BadSignatureError("the signature of this URL is not valid")
    expires = datetime.fromtimestamp(int(params["expires"]), UTC)
    if now >= expires:
        raise GrantExpiredError(f"this URL expired at {expires:%Y-%m-%d %H:%M:%S} UTC")
    upload = wanted == "PUT"
    return SignedGrant(
        method=cast(Method, wanted),
        key=key,
        size=int(params["size"]) if upload else None,
        sha256=params["sha256"] if upload else None,
        expires=expires,
        upload=params.get("upload") if upload else None,
        part=int(params["part"]) if upload and "part" in params else None,
    )


def _signature(sign_key: bytes, key: str, params: Mapping[str, str]) -> str:
    parts = [params.get(name, "") for name in ("size", "sha256", "expires")]
    if "upload" in params or "part" in params:
        parts += [params.get("upload", ""), params.get("part", "")]
    message = "\n".join((params.get("method", ""), key, *parts)).encode()
    return hmac.new(sign_key, message, hashlib.sha256).hexdigest()
