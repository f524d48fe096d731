"""Calls of the worker protocol: typed, repeated while a later try may help, never logged."""

import asyncio
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import NoReturn, TypeVar

import httpx
import structlog
from pydantic import BaseModel

from st_shared import __version__
from st_shared.protocol import endpoints
from st_shared.protocol.endpoints import Answer, Endpoint
from st_shared.protocol.worker import (
    LARGEST_BATCH,
    ArtifactOffer,
    ArtifactsStored,
    ArtifactTickets,
    ClaimBatch,
    ClaimReply,
    DrainWish,
    EventAck,
    EventBatch,
    Finish,
    FinishBatch,
    FinishRequest,
    GarbageReport,
    Heartbeat,
    HeartbeatReply,
    Meeting,
    MeetingPlace,
    PartsWanted,
    PartTickets,
    RefusedAttempt,
    RegisterReply,
    RegisterRequest,
    SecretsReply,
    SecretsWanted,
)
from st_worker.answers import error_of, problem_error, read, said, strange
from st_worker.credential import Secrets
from st_worker.errors import (
    Refused,
    RequestRefused,
    StrangeAnswer,
    TemporaryTrouble,
    WorkerError,
)
from st_worker.settings import AgentSettings
from st_worker.together import NotAnswered, Together

log = structlog.get_logger(__name__)

Told = TypeVar("Told")

FOREVER = float("inf")
"""Patience of calls whose loss would lose work."""

KEPT_SECONDS = 60.0
"""How long a connection without calls is kept: over many heartbeats, and less long than controllers
and proxies keep theirs."""
PACKED_BYTES = 2048
"""Bodies of so many bytes are compressed."""


class Controller:
    """The controller as a worker sees it; ``secrets`` has its credential, or a join token."""

    def __init__(
        self,
        url: str,
        settings: AgentSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        self.secrets = Secrets()
        self._settings = settings
        self._http = new_client(url, settings, transport)
        self._claims = Together(self._claim_all, self._claim, LARGEST_BATCH)
        self._finishes = Together(self._finish_all, self._finish, LARGEST_BATCH)

    async def close(self) -> None:
        """Let go of the sockets."""
        await self._claims.close()
        await self._finishes.close()
        await self._http.aclose()

    async def register(self, request: RegisterRequest, *, is_first: bool = False) -> RegisterReply:
        """Say who this worker is; waits for a controller that does not answer yet.

        Raises:
            StrangeAnswer: somebody else answers, and it ``is_first``: the address may be wrong.
        """
        bears = not is_first
        return await self._call(endpoints.REGISTER, request, FOREVER, bears_strangers=bears)

    async def new_credential(self) -> str:
        """A new credential; the present one is in force until that is used."""
        return (await self._call(endpoints.CREDENTIAL, None, 0)).credential

    async def report_garbage(self, report: GarbageReport) -> None:
        """Say what came of an order to collect garbage; ordered again where that is lost."""
        await self._call(endpoints.GARBAGE, report, 0)

    async def drain(self, wish: DrainWish) -> None:
        """Ask that this worker is offered nothing new."""
        await self._call(endpoints.DRAIN, wish, self._settings.report_seconds)

    async def leave(self) -> None:
        """Sign off for good; the credential is void afterwards."""
        await self._call(endpoints.LEAVE, None, self._settings.report_seconds)

    async def heartbeat(self, beat: Heartbeat, interval: float | None = None) -> HeartbeatReply:
        """Be alive; one try, since the next beat comes soon.

        It waits for an answer no longer than ``interval``, the seconds between two beats, so that
        a connection that died without a word costs one beat and not the leases.
        """
        longest = self._settings.joint_timeout_seconds
        return await self._call(endpoints.HEARTBEAT, beat, 0, max(longest, interval or 0.0))

    async def claim(self, attempt_id: str) -> ClaimReply:
        """Take what was offered; asking again gives the same lease."""
        return await self._claims.do(attempt_id)

    async def meet(self, attempt_id: str, meeting: Meeting) -> MeetingPlace:
        """Say that this member of a gang is ready; where all meet, once all are."""
        return await self._call(endpoints.MEET, meeting, FOREVER, attempt_id=attempt_id)

    async def secrets_of(self, attempt_id: str, wanted: SecretsWanted) -> SecretsReply:
        """The secrets that the job of an attempt names."""
        return await self._call(endpoints.SECRETS, wanted, FOREVER, attempt_id=attempt_id)

    async def send_events(self, attempt_id: str, batch: EventBatch) -> EventAck:
        """Deliver journal lines and the attempt's state."""
        return await self._call(endpoints.EVENTS, batch, FOREVER, attempt_id=attempt_id)

    async def offer_artifacts(self, attempt_id: str, offer: ArtifactOffer) -> ArtifactTickets:
        """Announce files; a ticket for each comes back."""
        return await self._call(endpoints.ARTIFACTS, offer, FOREVER, attempt_id=attempt_id)

    async def artifact_parts(self, attempt_id: str, wanted: PartsWanted) -> PartTickets:
        """Ask for parts of an announced file; a ticket for each comes back."""
        return await self._call(endpoints.ARTIFACT_PARTS, wanted, FOREVER, attempt_id=attempt_id)

    async def complete_artifacts(self, attempt_id: str, stored: ArtifactsStored) -> None:
        """Say that the files were PUT; asked again and again while the controller reads them."""
        silence = self._settings.verify_timeout_seconds
        await self._call(
            endpoints.ARTIFACTS_STORED, stored, FOREVER, silence, attempt_id=attempt_id
        )

    async def finish(self, attempt_id: str, request: FinishRequest) -> None:
        """End the attempt and give the lease back."""
        await self._finishes.do(Finish(attempt_id=attempt_id, **request.model_dump()))

    @asynccontextmanager
    async def stream(self, last_id: str | None) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of the event stream, from after ``last_id`` on."""
        shown = self.secrets.current
        headers = _bearer(shown) | {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        timeout = httpx.Timeout(
            self._settings.call_timeout_seconds, read=self._settings.stream_silence_seconds
        )
        try:
            async with self._http.stream(
                endpoints.STREAM.method, endpoints.STREAM.url(), headers=headers, timeout=timeout
            ) as reply:
                if not reply.is_success:
                    await reply.aread()
                    self._refuse(reply, shown)
                if not reply.headers.get("content-type", "").startswith("text/event-stream"):
                    raise strange(reply, "with something that is no stream")
                self.secrets.proven(shown)
                yield reply.aiter_lines()
        except httpx.RequestError as error:
            raise TemporaryTrouble(f"the stream broke: {said(error)}") from error

    async def _claim(self, attempt_id: str, patience: float | None = None) -> ClaimReply:
        if patience is None:
            patience = self._settings.claim_patience_seconds
        one_try = self._one_try(patience)
        return await self._call(endpoints.CLAIM, None, patience, one_try, attempt_id=attempt_id)

    async def _claim_all(
        self, attempt_ids: Sequence[str]
    ) -> list[ClaimReply | WorkerError | NotAnswered]:
        """One try; those for which the answer had no room are asked for alone."""
        if len(attempt_ids) == 1:
            return [await _told(self._claim(attempt_ids[0], 0))]
        batch = ClaimBatch(attempt_ids=list(attempt_ids))
        reply = await self._call(endpoints.CLAIMS, batch, 0, self._one_try(0))
        found: dict[str, ClaimReply | WorkerError | NotAnswered] = {
            claim.attempt_id: claim for claim in reply.claims
        }
        found |= _errors(reply.refused)
        return [found.get(attempt_id) or NotAnswered() for attempt_id in attempt_ids]

    async def _finish(self, request: Finish, patience: float = FOREVER) -> None:
        alone = FinishRequest(**request.model_dump(exclude={"attempt_id"}))
        one_try, attempt_id = self._one_try(patience), request.attempt_id
        await self._call(endpoints.FINISH, alone, patience, one_try, attempt_id=attempt_id)

    def _one_try(self, patience: float) -> float | None:
        """Of a call for all that wait: others wait for it, and each goes on alone if it fails."""
        return None if patience else self._settings.joint_timeout_seconds

    async def _finish_all(self, requests: Sequence[Finish]) -> list[WorkerError | None]:
        """One try."""
        if len(requests) == 1:
            return [await _told(self._finish(requests[0], 0))]
        batch = FinishBatch(finishes=list(requests))
        reply = await self._call(endpoints.FINISHES, batch, 0, self._one_try(0))
        refused = _errors(reply.refused)
        return [refused.get(request.attempt_id) for request in requests]

    async def _call(
        self,
        endpoint: Endpoint[Answer],
        body: BaseModel | None,
        patience: float,
        one_try: float | None = None,
        *,
        bears_strangers: bool = True,
        **parts: str,
    ) -> Answer:
        """The answer; what a later try may better is tried for ``patience`` seconds.

        ``one_try``: the longest silence in one, seconds, where it is not the usual. ``parts`` are
        filled in in the path. Unless it ``bears_strangers``, a strange answer ends it at once.
        """
        begun = time.monotonic()
        pauses = self._settings.pauses()
        path = endpoint.url(**parts)
        while True:
            try:
                return await self._call_once(endpoint, path, body, one_try)
            except TemporaryTrouble as trouble:
                pause = next(pauses)
                is_strange = isinstance(trouble, StrangeAnswer) and not bears_strangers
                if is_strange or time.monotonic() - begun + pause > patience:
                    raise
                log.warning("call.again", call=path, in_seconds=round(pause, 1), why=str(trouble))
            await asyncio.sleep(pause)

    async def _call_once(
        self, endpoint: Endpoint[Answer], path: str, body: BaseModel | None, one_try: float | None
    ) -> Answer:
        content = body.model_dump_json().encode() if body is not None else b""
        shown = self.secrets.current
        headers = _bearer(shown) | {"Content-Type": "application/json"}
        if len(content) >= PACKED_BYTES:
            content = gzip.compress(content, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        try:
            reply = await self._http.request(
                endpoint.method,
                path,
                content=content,
                headers=headers,
                timeout=httpx.USE_CLIENT_DEFAULT if one_try is None else one_try,
            )
        except httpx.RequestError as error:
            raise TemporaryTrouble(f"no answer from {self.url}: {said(error)}") from error
        if not reply.is_success:
            self._refuse(reply, shown)
        answer = read(endpoint, reply)
        self.secrets.proven(shown)
        return answer

    def _refuse(self, reply: httpx.Response, shown: str) -> NoReturn:
        """Raise what an answer means; who is refused tries the other secret, where there is one."""
        error = problem_error(reply)
        if isinstance(error, Refused | RequestRefused):
            if reply.status_code != 401:
                self.secrets.proven(shown)
            elif self.secrets.may_try_again(shown):
                raise TemporaryTrouble("the credential changed while the call was on its way")
        raise error


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def new_client(
    url: str, settings: AgentSettings, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """A client for ``url`` that sends no credential of its own accord."""
    return httpx.AsyncClient(
        base_url=url,
        transport=transport,
        verify=trust(),
        timeout=httpx.Timeout(settings.call_timeout_seconds),
        limits=httpx.Limits(
            max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEPT_SECONDS
        ),
        headers={"User-Agent": f"st-worker/{__version__}"},
    )


async def _told(call: Awaitable[Told]) -> Told | WorkerError:
    """The answer, or the error that the controller answered with."""
    try:
        return await call
    except (Refused, RequestRefused) as error:
        return error


def _errors(refused: Sequence[RefusedAttempt]) -> dict[str, WorkerError]:
    return {each.attempt_id: error_of(each.problem.status, each.problem) for each in refused}


@cache
def trust() -> ssl.SSLContext:
    """One context for all clients: each costs megabytes."""
    return httpx.create_ssl_context()
