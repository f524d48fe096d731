"""The dashboard's pages: shells that the browser fills from the public API."""

from hashlib import sha256
from importlib import resources
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, select_autoescape

from st_controller.api.dependencies import PlatformDep, browser_caller, public
from st_controller.errors import NotFound
from st_controller.platform import Platform
from st_controller.services.caller import Caller
from st_controller.services.setup import is_set_up
from st_shared import __version__

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    "style.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "login.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_FILES = {
    name: resources.files("st_controller.web").joinpath("static", name).read_bytes()
    for name in _MEDIA_TYPES
}
_ETAGS = {name: f'"{sha256(body).hexdigest()[:20]}"' for name, body in _FILES.items()}

_pages = Environment(
    loader=PackageLoader("st_controller.web", "templates"), autoescape=select_autoescape()
)


def _person(request: Request, platform: PlatformDep) -> Caller | None:
    return browser_caller(request, platform)


Person = Annotated[Caller | None, Depends(_person)]


@router.get("/", dependencies=[public()])
def dashboard(platform: PlatformDep, person: Person) -> Response:
    """Jobs, workers and samples, live; who is not signed in is sent to do so."""
    if person is None:
        return RedirectResponse("/login", status_code=303)
    return _page("dashboard.html", platform, username=person.username)


@router.get("/login", dependencies=[public()])
def login(platform: PlatformDep, person: Person) -> Response:
    """Sign in; on the first start, make the first admin."""
    if person is not None:
        return RedirectResponse("/", status_code=303)
    with platform.db.read() as session:
        needs_setup = not is_set_up(session)
    return _page("login.html", platform, needs_setup=needs_setup)


@router.get("/static/{name}", dependencies=[public()])
async def static(request: Request, name: str) -> Response:
    """Style, scripts and icon, all from this package."""
    if name not in _FILES:
        raise NotFound(f"there is no file {name!r}")
    headers = {"ETag": _ETAGS[name], "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == _ETAGS[name]:
        return Response(status_code=304, headers=headers)
    return Response(_FILES[name], media_type=_MEDIA_TYPES[name], headers=headers)


def _page(template: str, platform: Platform, **values: object) -> HTMLResponse:
    html = _pages.get_template(template).render(version=__version__, **values)
    return HTMLResponse(html, headers={"Content-Security-Policy": _policy(platform)})


def _policy(platform: Platform) -> str:
    """Only our own files; pictures also from the bucket to which signed URLs lead."""
    settings = platform.settings
    pictures = "'self'"
    if settings.object_store:
        pictures += f" {settings.object_store_endpoint or 'https:'}"
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src {pictures}",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )
