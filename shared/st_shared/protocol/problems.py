"""Problem documents (RFC 9457): every error of the API in one shape."""

from pydantic import Field

from st_shared.protocol.message import Resource

MEDIA_TYPE = "application/problem+json"


class FieldProblem(Resource):
    """One wrong field of a request."""

    field: str
    message: str


class Problem(Resource):
    """An error with a stable ``code`` for programs and a ``hint`` for people."""

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str
    hint: str | None = None
    errors: list[FieldProblem] = Field(default_factory=list)
    acked_seq: int | None = None
    """Only with ``sequence_gap``: the last journal line that the controller holds."""
