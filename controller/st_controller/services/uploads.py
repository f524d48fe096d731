"""Signed uploads, which workers and people are given."""

from st_controller.errors import InvalidRequest
from st_shared.objectstore import ObjectStore, ObjectTooLargeError, SignedUpload

UPLOAD_SECONDS = 6 * 3600
"""How long a signed upload may be begun."""


def sign_upload(objects: ObjectStore, key: str, *, size: int, sha256: str) -> SignedUpload:
    """Let whoever holds it store exactly these bytes under ``key``.

    Raises:
        InvalidRequest: the store does not take that many bytes at once.
    """
    try:
        return objects.sign_upload(key, size=size, sha256=sha256, expires_in=UPLOAD_SECONDS)
    except ObjectTooLargeError as error:
        raise InvalidRequest.of(
            "size", str(error), code="too_large", hint="send smaller files"
        ) from None
