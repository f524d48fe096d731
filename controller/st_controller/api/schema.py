"""The description of this API (OpenAPI 3.1)."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from st_controller.api.dependencies import public

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json", dependencies=[public()])
def openapi(request: Request) -> JSONResponse:
    """All routes with what they take and give."""
    described: dict[str, Any] = request.app.openapi()
    return JSONResponse(described)
