"""HTTP with the controller: every failure becomes a ``ClientError``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from st_client.errors import (
    BadInputError,
    ClientError,
    ConflictError,
    ForbiddenError,
    MissingError,
    UnreachableError,
)
from st_shared import __version__
from st_shared.protocol.problems import Problem

Model = TypeVar("Model", bound=BaseModel)

TIMEOUT = httpx.Timeout(30.0, connect=5.0)

_ERRORS: dict[int, type[ClientError]] = {
    400: BadInputError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: MissingError,
    409: ConflictError,
    412: ConflictError,
    413: BadInputError,
    415: BadInputError,
    422: BadInputError,
    502: UnreachableError,
    503: UnreachableError,
    504: UnreachableError,
}

_REPEATS = 3
"""How often a request that may be repeated is tried when its answer gets lost."""


class Connection:
    """Requests to one controller; to be closed, or used in a ``with`` statement."""

    def __init__(
        self, url: str, api_key: str | None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = check_url(url)
        headers = {"User-Agent": f"st/{__version__}", "Origin": self.url}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=TIMEOUT, transport=transport
        )
        # Signed URLs may lead to a bucket elsewhere, which must never see the API key.
        self._plain = httpx.Client(
            base_url=self.url, timeout=TIMEOUT, transport=transport, follow_redirects=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the sockets."""
        self._http.close()
        self._plain.close()

    def get(self, path: str, answer: type[Model], **params: Any) -> Model:
        """GET below ``/v1``; parameters that are none are left out."""
        given = {name: value for name, value in params.items() if value is not None}
        return self._parse(self._send("GET", path, params=given, repeat=True), answer)

    def post(
        self,
        path: str,
        answer: type[Model],
        body: BaseModel | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Model:
        """POST below ``/v1``; with an idempotency key it is repeated when the answer gets lost."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        payload = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
        reply = self._send(
            "POST", path, json=payload, headers=headers, repeat=bool(idempotency_key)
        )
        return self._parse(reply, answer)

    def patch(self, path: str, answer: type[Model], body: Mapping[str, Any]) -> Model:
        """PATCH below ``/v1``; saying the same twice is harmless, so it is repeated."""
        return self._parse(self._send("PATCH", path, json=body, repeat=True), answer)

    def put(self, path: str, answer: type[Model], body: Mapping[str, Any]) -> Model:
        """Put the JSON in ``body``; read the answer as ``answer``."""
        return self._parse(self._send("PUT", path, repeat=True, json=dict(body)), answer)

    def put_silent(self, path: str) -> None:
        """PUT below ``/v1`` where neither body nor answer is expected."""
        self._send("PUT", path, repeat=True)

    def delete(self, path: str) -> None:
        """Delete what stands at ``path``."""
        self._send("DELETE", path, repeat=True)

    def post_silent(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """POST below ``/v1`` where no answer is expected."""
        given = {} if body is None else {"json": dict(body)}
        self._send("POST", path, repeat=False, **given)

    @contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str], **params: str | None
    ) -> Iterator[httpx.Response]:
        """An open answer below ``/v1``, read as it comes, with a minute between its pieces."""
        timeout = httpx.Timeout(60.0, connect=5.0)
        with (
            self._translated(),
            self._http.stream(
                "GET",
                f"/v1/{path}",
                headers=dict(headers),
                params={name: value for name, value in params.items() if value is not None},
                timeout=timeout,
            ) as reply,
        ):
            self._check(reply)
            yield reply

    @contextmanager
    def signed_get(self, url: str) -> Iterator[httpx.Response]:
        """An open answer of a signed URL, without our credentials."""
        with self._translated(url), self._plain.stream("GET", url) as reply:
            self._check(reply)
            yield reply

    def signed_put(self, url: str, body: Iterator[bytes], headers: Mapping[str, str]) -> None:
        """PUT to a signed URL, without our credentials."""
        with self._translated(url):
            self._check(self._plain.put(url, content=body, headers=dict(headers)))

    def _send(self, method: str, path: str, *, repeat: bool, **options: Any) -> httpx.Response:
        with self._translated():
            for _ in range(_REPEATS - 1 if repeat else 0):
                try:
                    return self._check(self._http.request(method, f"/v1/{path}", **options))
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    continue
            return self._check(self._http.request(method, f"/v1/{path}", **options))

    @contextmanager
    def _translated(self, url: str = "") -> Iterator[None]:
        try:
            yield
        except httpx.RequestError as error:
            elsewhere = url.partition("?")[0] if urlsplit(url).netloc else ""
            raise unreachable(elsewhere or self.url, error) from error

    def _check(self, reply: httpx.Response) -> httpx.Response:
        if reply.is_success:
            return reply
        reply.read()
        raise problem_error(reply)

    def _parse(self, reply: httpx.Response, answer: type[Model]) -> Model:
        try:
            return answer.model_validate_json(reply.content)
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            place = ".".join(map(str, wrong["loc"])) or "the body"
            raise ClientError(
                f"{reply.request.method} {reply.request.url} gave an answer of another shape",
                detail=f"{place}: {wrong['msg']}",
                hint=f"is {self.url} an st controller, of a version that fits st {__version__}?",
                code="unexpected_answer",
            ) from None


def check_url(url: str) -> str:
    """``scheme://host[:port]`` of a controller, without a closing slash, or ``BadInputError``."""
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise BadInputError(
            f"{url!r} is not the address of a controller",
            hint="write it as http://HOST:PORT or https://HOST",
            code="bad_url",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def unreachable(url: str, error: Exception) -> UnreachableError:
    """The sentence for a controller that does not answer."""
    return UnreachableError(
        f"no answer from {url}",
        detail=str(error) or type(error).__name__,
        hint="start the controller with `st-controller serve`, or name another one with "
        "`st login URL` or ST_URL",
        code="unreachable",
    )


def problem_error(reply: httpx.Response) -> ClientError:
    """The error that an answer of 400 or more means."""
    kind = _ERRORS.get(reply.status_code, ClientError)
    try:
        problem = Problem.model_validate_json(reply.content)
    except ValidationError:
        where = reply.request.url.copy_with(query=None)
        return kind(
            f"{reply.request.method} {where} was answered {reply.status_code}",
            detail=reply.reason_phrase,
            hint=_hint(reply.status_code),
            code=f"http_{reply.status_code}",
        )
    return kind(
        problem.title,
        detail=problem.detail,
        hint=problem.hint or _hint(reply.status_code),
        code=problem.code,
        fields=[(item.field, item.message) for item in problem.errors],
    )


def _hint(status: int) -> str | None:
    if status == 401:
        return "sign in with `st login URL`"
    if status >= 500:
        return "look at the controller's log; the request may be tried again"
    return None
