"""Checks of the way to the controller: address, TLS, clock, event stream, credential, storage."""

import ssl
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import httpx
from pydantic import ValidationError

from st_shared.clock import Clock, utc_now
from st_shared.protocol import probe
from st_shared.protocol.sse import EventReader
from st_worker.answers import said
from st_worker.client import trust
from st_worker.credential import Credential
from st_worker.doctor.check import Finding, fail, ok, warn

SECONDS = 10.0
"""The longest silence of any answer."""
SKEW_WARN, SKEW_FAIL = 2.0, 60.0
"""Seconds between the clocks; signed addresses and certificates bear little more."""
EXPIRY_DAYS = 14
STREAM_TRIES = 3

# Of OpenSSL's X509_V_ERR_*.
_EXPIRED, _NOT_YET = 10, 9
_NAME = {62, 64}


def new_http(url: str, trusted: ssl.SSLContext | None = None) -> httpx.Client:
    """A client with the trust, unless another is given, and the proxies of an agent."""
    return httpx.Client(base_url=url, verify=trusted or trust(), timeout=SECONDS)


def reach(http: httpx.Client) -> Iterator[Finding]:
    """Whether the controller answers at all; everything else needs this to be ok."""
    url = str(http.base_url).rstrip("/")
    try:
        with http.stream("GET", "/healthz") as reply:
            tls = list(_tls(reply))  # while the connection is open
            reply.read()
    except httpx.RequestError as error:
        yield _unreached(url, error)
        return
    yield from tls
    if reply.is_redirect:
        to = urljoin(url, reply.headers.get("location", "")).removesuffix("/healthz")
        yield fail(
            "reach", f"{url} sends on to {to}", f"join with that address: st-worker join {to}"
        )
    elif not _is_ours(reply):
        yield fail(
            "reach",
            f"what answers at {url} is no controller ({reply.status_code} {reply.reason_phrase})",
            "check address and path, and whether a proxy or a portal answers in its stead",
        )
    else:
        yield ok("reach", f"{url} answers")


def _is_ours(reply: httpx.Response) -> bool:
    try:
        return reply.is_success and reply.json() == {"status": "ok"}
    except ValueError:
        return False


def _unreached(url: str, error: httpx.RequestError) -> Finding:
    parts = urlsplit(url)
    if certificate := _of_certificate(error):
        return _wrong_certificate(parts.hostname or url, certificate)
    if isinstance(error, httpx.ConnectTimeout | httpx.ReadTimeout):
        mend = "open the way in the firewalls between; is the port right?"
        return fail("reach", f"{url} did not answer within {SECONDS:g} s", mend)
    if "ssl" in said(error).lower():
        mend = "use http:// for a controller without TLS, and https:// for one with it"
        return fail("tls", f"{url}: {said(error)}", mend)
    mend = "is the name right, the controller running (`st-controller serve`), and the port open?"
    return fail("reach", f"{url} cannot be reached: {said(error)}", mend)


def _of_certificate(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The refusal of a certificate behind an error of the client."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _wrong_certificate(host: str, error: ssl.SSLCertVerificationError) -> Finding:
    if error.verify_code == _EXPIRED:
        return fail("tls", f"the certificate of {host} has expired", "renew it on the controller")
    if error.verify_code == _NOT_YET:
        mend = "set this host's clock: `timedatectl set-ntp true`"
        return fail("tls", f"the certificate of {host} is not valid yet", mend)
    if error.verify_code in _NAME:
        mend = f"use a name that it names, or issue one for {host}"
        return fail("tls", f"the certificate is not one for {host}", mend)
    return fail(
        "tls",
        f"the certificate of {host} is not trusted: {error.verify_message}",
        "set SSL_CERT_FILE to the bundle of the authority that issued it",
    )


def _tls(reply: httpx.Response, clock: Clock = utc_now) -> Iterator[Finding]:
    """How long the certificate lasts; a warning for plain HTTP beyond this machine."""
    if reply.url.scheme != "https":
        if reply.url.host not in {"localhost", "127.0.0.1", "::1"}:
            mend = "put the controller behind TLS and join with https://"
            yield warn("tls", "plain HTTP: whoever listens on the way gets the credential", mend)
        return
    connection = reply.extensions["network_stream"].get_extra_info("ssl_object")
    ends = ssl.cert_time_to_seconds(connection.getpeercert()["notAfter"])
    days = (ends - clock().timestamp()) / 86_400
    if days < EXPIRY_DAYS:
        yield warn("tls", f"the certificate expires in {days:.0f} days", "renew it soon")
    else:
        yield ok("tls", f"{connection.version()}, the certificate lasts {days:.0f} more days")


def stream(
    http: httpx.Client, clock: Clock = utc_now, now: Callable[[], float] = time.monotonic
) -> Iterator[Finding]:
    """Whether events come as they are sent, and how far the clocks are apart.

    What keeps streams back does so each time; a host that is busy for a moment does not.
    """
    for _ in range(STREAM_TRIES):
        found = list(_streamed(http, clock, now))
        if all(finding.level != "fail" for finding in found if finding.check == "stream"):
            break
    yield from found


def _streamed(http: httpx.Client, clock: Clock, now: Callable[[], float]) -> Iterator[Finding]:
    arrivals, skews, reader = [], [], EventReader()
    try:
        with http.stream("GET", probe.STREAM_PATH) as reply:
            if not reply.is_success:
                mend = "install the same st-fleet version on controller and worker"
                yield fail("stream", f"the controller refused it: {reply.status_code}", mend)
                return
            date = reply.headers.get("date")
            for line in reply.iter_lines():
                event = reader.feed(line)
                if event is not None:
                    arrivals.append(now())
                    tick = probe.Tick.model_validate_json(event.data)
                    skews.append((clock() - tick.at).total_seconds())
    except httpx.RequestError as error:
        yield fail("stream", f"it broke after {len(arrivals)} events: {said(error)}", _UNBUFFER)
        return
    except ValidationError:
        yield fail("stream", "its events were altered on the way", _UNBUFFER)
        return
    yield from _flow(arrivals)
    # What was kept back looks old: the event that waited least tells most.
    yield from _clock(min(skews, key=abs) if skews else _by_date(date, clock))


_UNBUFFER = (
    "let proxies pass responses on at once: nginx `proxy_buffering off;`, no compression of "
    "text/event-stream, idle timeout of 60 s or more"
)


def _flow(arrivals: list[float]) -> Iterator[Finding]:
    if len(arrivals) < probe.TICKS:
        yield fail("stream", f"{len(arrivals)} of {probe.TICKS} events came", _UNBUFFER)
        return
    spread, sent = arrivals[-1] - arrivals[0], (probe.TICKS - 1) * probe.TICK_SECONDS
    if spread < sent / 2:
        said = f"events sent over {sent:g} s came within {spread:.2f} s: something keeps them back"
        yield fail("stream", said, _UNBUFFER)
    else:
        yield ok("stream", "events come as they are sent")


def _by_date(date: str | None, clock: Clock) -> float | None:
    return (clock() - parsedate_to_datetime(date)).total_seconds() if date else None


def _clock(skew: float | None) -> Iterator[Finding]:
    mend = "synchronise both clocks: `timedatectl set-ntp true`, or chrony"
    if skew is None:
        yield warn("clock", "the controller did not tell its time", "see the check of the stream")
        return
    said = f"this host is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the controller"
    if abs(skew) >= SKEW_FAIL:
        yield fail("clock", said, mend)
    elif abs(skew) >= SKEW_WARN:
        yield warn("clock", said, mend)
    else:
        yield ok("clock", said)


def storage(http: httpx.Client, credential: Credential | None) -> Iterator[Finding]:
    """Whether the credential is in force, and the object store takes and gives files."""
    if credential is None:
        said = "this host has not joined yet: credential and storage were not checked"
        yield warn("credential", said, "run it again after `st-worker join`")
        return
    headers = {"Authorization": f"Bearer {credential.secret}"}
    try:
        reply = http.post(probe.UPLOAD_PATH, headers=headers)
    except httpx.RequestError as error:
        yield fail("credential", f"no answer: {said_of(error)}", "run it again")
        return
    if reply.status_code in {401, 403}:
        mend = "an operator makes a token with `st join-token create`; join again with it"
        yield fail("credential", "the controller does not take it any more", mend)
        return
    if not reply.is_success:
        mend = "look at the controller's log; does its object store answer?"
        yield fail("storage", f"no upload was granted: {reply.status_code}", mend)
        return
    yield ok("credential", f"{credential.worker_id} is known")
    yield from _moved(http, probe.ProbeTicket.model_validate_json(reply.content))


def _moved(http: httpx.Client, ticket: probe.ProbeTicket) -> Iterator[Finding]:
    """Store the known content and fetch it again, without a credential."""
    host = urlsplit(urljoin(str(http.base_url), ticket.url)).netloc
    mend = (
        f"let this host reach {host}; is the endpoint that the controller signs for a public one?"
    )
    try:
        stored = http.put(ticket.url, content=probe.PROBE_CONTENT, headers=ticket.headers)
        fetched = http.get(ticket.download_url) if stored.is_success else stored
    except httpx.RequestError as error:
        yield fail("storage", f"the object store at {host}: {said_of(error)}", mend)
        return
    if not stored.is_success:
        yield fail("storage", f"{host} refused an upload: {stored.status_code}", mend)
    elif fetched.content != probe.PROBE_CONTENT:
        yield fail("storage", f"{host} did not give back what was stored", mend)
    else:
        yield ok("storage", f"{host} takes and gives files")


def said_of(error: Exception) -> str:
    """What an error says; of a refused certificate, why."""
    certificate = _of_certificate(error)
    return certificate.verify_message if certificate else said(error)
