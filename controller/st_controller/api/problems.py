"""Every error as a problem document (RFC 9457), none with what only the log should know."""

from collections.abc import Sequence
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from st_controller.api.unreadable_body import unreadable
from st_controller.errors import InvalidRequest, NotSignedIn, Refusal, TooMany, Unavailable
from st_controller.store.database import DatabaseAwayError
from st_shared.objectstore import StoreUnreachableError
from st_shared.protocol.problems import MEDIA_TYPE, FieldProblem, Problem
from st_shared.spec.reading import MOST_PROBLEMS, field_of

log = structlog.get_logger(__name__)

_CODES = {
    400: ("bad_request", "The request was refused"),
    404: ("no_such_route", "There is nothing at this address"),
    405: ("method_not_allowed", "This address does not take this method"),
    413: ("body_too_large", "The body is too large"),
}
_SHOWN = 200
"""Characters of a path."""


def install(app: FastAPI) -> None:
    """Answer refusals, invalid requests and framework errors with problem documents."""
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(DatabaseAwayError, away)
    app.add_exception_handler(StoreUnreachableError, _store_away)


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The response that says ``problem``."""
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def internal_error(request_id: str) -> Response:
    """The answer to a request that failed for a reason of ours; the log knows the rest."""
    return problem_response(
        Problem(
            title="Something went wrong here",
            status=500,
            detail=f"the controller failed to answer; its log says why under request {request_id}",
            code="internal_error",
            hint="try again; if it stays, tell an admin the request's number",
        )
    )


async def refused(_request: Request, error: Exception) -> Response:
    """The answer to a ``Refusal``."""
    refusal = cast(Refusal, error)
    headers = {}
    if isinstance(refusal, NotSignedIn):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(refusal, TooMany):
        headers["Retry-After"] = "60"
    return problem_response(refusal.problem(), headers)


async def away(request: Request, error: Exception) -> Response:
    """The database does not answer, or a lock was waited for in vain: later it may go well."""
    log.error("the database gave up", path=request.url.path, exc_info=error)
    refusal = Unavailable("the database does not answer just now")
    return problem_response(refusal.problem(), {"Retry-After": "1"})


async def _store_away(request: Request, error: Exception) -> Response:
    """The object store does not answer, or refuses the controller: later it may go well."""
    log.error("the object store gave up", path=request.url.path, exc_info=error)
    refusal = Unavailable("the object store does not answer just now")
    return problem_response(refusal.problem(), {"Retry-After": "5"})


async def _invalid(_request: Request, error: Exception) -> Response:
    invalid = cast(RequestValidationError, error)
    found = field_problems(invalid.errors()[:MOST_PROBLEMS], invalid.body)
    return problem_response(InvalidRequest(_detail(found), errors=found).problem())


def _detail(found: Sequence[FieldProblem]) -> str:
    return "; ".join(f"{item.field}: {item.message}" for item in found[:3])


async def _framework(request: Request, error: Exception) -> Response:
    raised = cast(HTTPException, error)
    if isinstance(raised.__cause__, ValueError | RecursionError):
        found = unreadable(await request.body(), raised.__cause__)
        return problem_response(InvalidRequest(_detail([found]), errors=[found]).problem())
    code, title = _CODES.get(raised.status_code, ("refused", "The request was refused"))
    problem = Problem(title=title, status=raised.status_code, detail=raised.detail, code=code)
    if problem.code == "no_such_route":
        said = f"there is nothing at {request.url.path[:_SHOWN]} of this controller"
        hint = "commands take the controller's address without a path; /openapi.json has the rest"
        problem = problem.model_copy(update={"detail": said, "hint": hint})
    return problem_response(problem, dict(raised.headers or {}))


def field_problems(errors: Sequence[Any], body: object) -> list[FieldProblem]:
    """What pydantic found in a request, without the values: they may be secret."""
    return [_field_problem(error, body) for error in errors]


def _field_problem(error: Any, body: object) -> FieldProblem:
    if error["type"] == "json_invalid":  # its place is a number of characters, not a field
        said = _message(error["ctx"]["error"])
        return FieldProblem(
            field="body", message=f"no JSON at character {error['loc'][-1]}: {said}"
        )
    return FieldProblem(field=_field(error, body), message=_message(error["msg"]))


def _field(error: Any, body: object) -> str:
    """``("body", "training", "steps")`` as ``training.steps``; parameters without their kind."""
    kind, *inner = error["loc"]
    if kind != "body":
        return ".".join(map(str, inner)) or str(kind)
    return field_of({**error, "loc": tuple(inner)}, body) or "body"


def _message(said: str) -> str:
    text = said.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
