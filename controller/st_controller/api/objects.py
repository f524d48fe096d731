"""``/v1/objects``: bytes of the folder store, by signed URL; with S3 nobody comes here."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from st_controller.api.dependencies import PlatformDep, signed_url
from st_controller.errors import InvalidRequest, NotFound, NotPermitted
from st_controller.platform import Platform
from st_shared.media import content_type_of
from st_shared.objectstore import (
    DigestMismatchError,
    GrantError,
    InvalidKeyError,
    LocalStore,
    ObjectMissingError,
    SignedGrant,
    UploadMissingError,
)

router = APIRouter(prefix="/v1/objects", tags=["objects"])

Signature = Annotated[None, signed_url()]


@router.put("/{key:path}", status_code=204)
async def store(platform: PlatformDep, _: Signature, request: Request, key: str) -> Response:
    """Store exactly the bytes that the URL was signed for: an object, or a part of one."""
    objects, grant = _granted(platform, request, key)
    try:
        await objects.receive(grant, request.stream())
    except UploadMissingError:
        raise NotFound("this upload is over", hint="ask for a new link") from None
    except GrantError as error:
        raise NotPermitted(str(error), code="bad_signature", hint="ask for a new link") from None
    except DigestMismatchError as error:
        raise InvalidRequest.of(
            "body", str(error), code="checksum", hint="send the file again"
        ) from None
    except InvalidKeyError as error:
        raise InvalidRequest.of(
            "key", str(error), code="bad_key", hint="use another path"
        ) from None
    return Response(status_code=204)


@router.get("/{key:path}", response_class=FileResponse)
def read(platform: PlatformDep, _: Signature, request: Request, key: str) -> FileResponse:
    """The bytes of an object; ranges are served."""
    objects, _grant = _granted(platform, request, key)
    try:
        return FileResponse(
            objects.path(key),
            media_type=content_type_of(key) or "application/octet-stream",
            headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "private, immutable"},
        )
    except ObjectMissingError:
        raise NotFound("this object is gone") from None


def _granted(platform: Platform, request: Request, key: str) -> tuple[LocalStore, SignedGrant]:
    objects = platform.objects
    if not isinstance(objects, LocalStore):
        raise NotFound("objects are kept in S3; use the URL that the API gave")
    try:
        now = platform.db.clock()
        return objects, objects.verify(request.method, key, request.query_params, now)
    except (GrantError, InvalidKeyError) as error:
        raise NotPermitted(str(error), code="bad_signature", hint="ask for a new link") from None
