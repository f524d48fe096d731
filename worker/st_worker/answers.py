"""What answers mean: the controller's own, and those of whoever answers in its stead."""

from typing import cast

import httpx
from pydantic import BaseModel, ValidationError

from st_shared.protocol.endpoints import Answer, Endpoint
from st_shared.protocol.problems import Problem
from st_worker.errors import (
    OfferGone,
    Refused,
    RequestRefused,
    SequenceGap,
    StaleLease,
    StrangeAnswer,
    TemporaryTrouble,
    WorkerError,
)

_BY_CODE: dict[str, type[RequestRefused]] = {
    "stale_lease": StaleLease,
    "offer_gone": OfferGone,
    "sequence_gap": SequenceGap,
}
LATER = {408, 425, 429}
"""Statuses below 500 that a later try may better."""


def problem_error(reply: httpx.Response) -> WorkerError:
    """The error that an answer of 300 or more means.

    What the controller refuses it says in a problem document. Anything else comes from a proxy, a
    portal or an ingress that misses its backend, and no training is ended for their sake.
    """
    problem = _problem_in(reply)
    if problem is None and reply.status_code < 500 and reply.status_code not in LATER:
        return strange(reply, f"{reply.status_code} {reply.reason_phrase}")
    return error_of(reply.status_code, problem or problem_of(reply))


def error_of(status: int, problem: Problem) -> WorkerError:
    """The error that a problem of the controller means."""
    if status >= 500 or status in LATER:
        return TemporaryTrouble(f"{problem.detail} ({problem.status} {problem.code})")
    if status in {401, 403} or problem.code == "retired":
        return Refused(problem)
    return _BY_CODE.get(problem.code, RequestRefused)(problem)


def problem_of(reply: httpx.Response) -> Problem:
    """The problem document of an answer, or one that says what little is known."""
    if problem := _problem_in(reply):
        return problem
    text = f"{_where(reply)} was answered {reply.status_code} {reply.reason_phrase}"
    status = max(400, reply.status_code)
    return Problem(title="", status=status, detail=text, code=f"http_{reply.status_code}")


def _problem_in(reply: httpx.Response) -> Problem | None:
    """What the controller says; none: it was not the controller that answered."""
    try:
        return Problem.model_validate_json(reply.content)
    except ValidationError:
        return None


def strange(reply: httpx.Response, what: str) -> StrangeAnswer:
    """The error that ``what`` somebody else answered means."""
    return StrangeAnswer(
        f"{_where(reply)} was answered {what}, and not by the controller: look at the address, "
        "and at proxies on the way"
    )


def _where(reply: httpx.Response) -> str:
    return f"{reply.request.method} {reply.request.url.path}"


def said(error: Exception) -> str:
    """What an exception says, or its name when it says nothing."""
    return str(error) or type(error).__name__


def read(endpoint: Endpoint[Answer], reply: httpx.Response) -> Answer:
    """The answer; one of another shape, as proxies give, counts as none."""
    answer = cast("type[BaseModel] | None", endpoint.answer)
    if answer is None and reply.status_code != endpoint.status:
        raise strange(reply, f"{reply.status_code} {reply.reason_phrase}")
    try:
        return cast("Answer", answer and answer.model_validate_json(reply.content))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, wrong["loc"])) or "the body"
        raise StrangeAnswer(
            f"{reply.request.url.path} gave an answer of another shape: {place}: "
            f"{wrong['msg']}; do the versions of controller and worker fit?"
        ) from None
