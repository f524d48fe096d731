"""The dashboard's pages: shells that the browser fills from the public API."""

from hashlib import sha256
from importlib import resources
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, select_autoescape

from st_controller.api.dependencies import PlatformDep, browser_caller, public
from st_controller.errors import NotFound
from st_controller.platform import Platform
from st_controller.services.caller import Caller
from st_controller.services.setup import is_set_up
from st_shared import __version__
from st_shared.protocol.quotas import QuotaAction, QuotaKind

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {
    file.name: file.read_bytes()
    for file in resources.files("st_controller.web").joinpath("static").iterdir()
    if file.name.endswith(tuple(_MEDIA_TYPES))
}
_ETAGS = {name: f'"{sha256(body).hexdigest()[:20]}"' for name, body in _FILES.items()}

_TABS = {
    "Jobs": "/",
    "Arrays": "/arrays",
    "Queue": "/queue",
    "Approvals": "/approvals",
    "Workers": "/workers",
    "Quotas": "/quotas",
    "People": "/people",
}
_NEEDS = {
    "Queue": {"queue.view"},
    "Quotas": {"job.view.own"},
    "People": {"admin.users", "admin.levels", "team.view"},
}
"""Pages that are of no use to who holds none of these."""

_pages = Environment(
    loader=PackageLoader("st_controller.web", "templates"), autoescape=select_autoescape()
)


def _person(request: Request, platform: PlatformDep) -> Caller | None:
    return browser_caller(request, platform)


Person = Annotated[Caller | None, Depends(_person)]


@router.get("/", dependencies=[public()])
def dashboard(platform: PlatformDep, person: Person) -> Response:
    """Jobs, workers and samples, live; who is not signed in is sent to do so."""
    return _shell("dashboard.html", "Jobs", platform, person)


@router.get("/queue", dependencies=[public()])
def queue(platform: PlatformDep, person: Person) -> Response:
    """Who is served next: shares, limits, reservations, and the rules."""
    return _shell("queue.html", "Queue", platform, person)


@router.get("/workers", dependencies=[public()])
def workers(platform: PlatformDep, person: Person) -> Response:
    """The workers: what each is, why it takes no jobs, and what may be ordered of it."""
    return _shell("workers.html", "Workers", platform, person)


@router.get("/approvals", dependencies=[public()])
def approvals(platform: PlatformDep, person: Person) -> Response:
    """The jobs that wait for a person's word, and deciding on them."""
    return _shell("approvals.html", "Approvals", platform, person)


@router.get("/quotas", dependencies=[public()])
def quotas(platform: PlatformDep, person: Person) -> Response:
    """What may be used, is used and is left; setting limits, for whoever may."""
    kinds, actions = get_args(QuotaKind), get_args(QuotaAction)
    return _shell("quotas.html", "Quotas", platform, person, kinds=kinds, actions=actions)


@router.get("/people", dependencies=[public()])
def people(platform: PlatformDep, person: Person) -> Response:
    """Users, teams and roles, as far as each may see and change them."""
    return _shell("people.html", "People", platform, person)


@router.get("/arrays", dependencies=[public()])
def arrays(platform: PlatformDep, person: Person) -> Response:
    """The job arrays, newest first."""
    return _shell("arrays.html", "Arrays", platform, person)


@router.get("/arrays/{array_id}", dependencies=[public()])
def array(
    platform: PlatformDep, person: Person, array_id: Annotated[str, Path(max_length=40)]
) -> Response:
    """One job array; the browser is told whether it exists."""
    return _shell("array.html", "Arrays", platform, person, array_id=array_id)


@router.get("/jobs/{job_id}", dependencies=[public()])
def job(
    platform: PlatformDep, person: Person, job_id: Annotated[str, Path(max_length=40)]
) -> Response:
    """One job with its curves and its log; the browser is told whether it exists."""
    return _shell("job.html", "Jobs", platform, person, job_id=job_id)


@router.get("/login", dependencies=[public()])
def login(platform: PlatformDep, person: Person) -> Response:
    """Sign in; on the first start, make the first admin."""
    if person is not None:
        return RedirectResponse("/", status_code=303)
    with platform.db.read() as session:
        needs_setup = not is_set_up(session)
    return _page("login.html", platform, needs_setup=needs_setup)


@router.get("/reset", dependencies=[public()])
def reset(platform: PlatformDep) -> Response:
    """Choose a password with an admin's token."""
    return _page("reset.html", platform)


@router.get("/account", dependencies=[public()])
def account(platform: PlatformDep, person: Person) -> Response:
    """One's own password, second factor, browsers and keys."""
    return _shell("account.html", "Account", platform, person)


@router.get("/static/{name}", dependencies=[public()])
async def static(request: Request, name: str) -> Response:
    """Style, scripts and icon, all from this package."""
    if name not in _FILES:
        raise NotFound(f"there is no file {name!r}")
    headers = {"ETag": _ETAGS[name], "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == _ETAGS[name]:
        return Response(status_code=304, headers=headers)
    media_type = _MEDIA_TYPES[name[name.rindex(".") :]]
    return Response(_FILES[name], media_type=media_type, headers=headers)


def _shell(
    template: str, tab: str, platform: Platform, person: Caller | None, **values: object
) -> Response:
    """A page for those who are signed in; others are sent to do so."""
    if person is None:
        return RedirectResponse("/login", status_code=303)
    tabs = [
        (path, name)
        for name, path in _TABS.items()
        if name not in _NEEDS or person.permissions & _NEEDS[name]
    ]
    return _page(
        template,
        platform,
        username=person.username,
        place=f"{person.org}/{person.team}",
        role=person.role,
        tab=tab,
        tabs=tabs,
        **values,
    )


def _page(template: str, platform: Platform, **values: object) -> HTMLResponse:
    html = _pages.get_template(template).render(version=__version__, **values)
    return HTMLResponse(html, headers={"Content-Security-Policy": _policy(platform)})


def _policy(platform: Platform) -> str:
    """Only our own files; samples also from the bucket to which signed URLs lead."""
    settings = platform.settings
    samples = "'self'"
    if settings.object_store:
        samples += f" {settings.object_store_endpoint or 'https:'}"
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src {samples}",
            f"media-src {samples}",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )
