"""Defence against requests that other web sites make a browser send (CSRF)."""

from urllib.parse import urlsplit

from fastapi import Request

from st_controller.errors import NotPermitted


def refuse_other_sites(request: Request, public_url: str | None, *, strict: bool = True) -> None:
    """Refuse what a page of another site sent.

    Browsers say where a request comes from in ``Sec-Fetch-Site`` (Fetch Metadata) or, without
    TLS, in ``Origin``. ``strict`` also refuses what says neither: it carries a cookie, and only
    browsers keep those. Without it, programs that are no browsers pass.

    Raises:
        NotPermitted: it comes from elsewhere, or does not say.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        same = site == "same-origin"
    elif origin is not None:
        same = urlsplit(origin).netloc in _own_hosts(request, public_url)
    else:
        same = not strict
    if not same:
        raise NotPermitted(
            "this request did not come from a page of this controller",
            code="cross_site",
            hint="programs sign in with an API key, not with a browser's cookie",
        )


def _own_hosts(request: Request, public_url: str | None) -> set[str]:
    hosts = {request.headers.get("host", "")}
    if public_url:
        hosts.add(urlsplit(public_url).netloc)
    return hosts - {""}
