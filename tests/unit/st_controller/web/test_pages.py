import re
from pathlib import Path

import pytest

from st_controller import web
from st_controller.store.schema import User

STATIC = Path(web.__file__).parent / "static"
PAGES = {
    "/": "dashboard.js",
    "/queue": "queue.js",
    "/arrays": "arrays.js",
    "/approvals": "approvals.js",
    "/workers": "workers_page.js",
    "/quotas": "quotas.js",
    "/people": "people.js",
    "/account": "account.js",
    "/arrays/arr_1": "array.js",
    "/jobs/job_1": "job_page.js",
}
"""Each page of those who are signed in, and its script."""

LOGIN = {"username": "root", "password": "correct horse battery"}


@pytest.fixture
def signed_in(app_client, admin_headers):
    app_client.post("/v1/auth/login", json=LOGIN)
    return app_client


def imports_of(script):
    return set(re.findall(r'from "\./([^"]+)"', (STATIC / script).read_text()))


def everything_run_by(script):
    """A script and all that it imports."""
    found, fresh = set(), {script}
    while fresh:
        found |= fresh
        fresh = {other for name in fresh for other in imports_of(name)} - found
    return found


@pytest.mark.parametrize("path", PAGES)
def test_a_stranger_is_sent_to_sign_in(app_client, path):
    reply = app_client.get(path, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/login")


def test_the_first_visit_asks_for_the_setup_token(app_client):
    assert 'name="token"' in app_client.get("/login").text


def test_later_visits_do_not(app_client, admin_headers):
    assert 'name="token"' not in app_client.get("/login").text


@pytest.mark.parametrize(("path", "script"), PAGES.items())
def test_who_is_signed_in_sees_the_pages(signed_in, path, script):
    page = signed_in.get(path, follow_redirects=False)
    assert page.status_code == 200
    assert "root" in page.text
    assert f'src="/static/{script}"' in page.text
    assert page.text.count('aria-current="page"') == 1


def test_who_is_signed_in_need_not_do_so_again(signed_in):
    assert signed_in.get("/login", follow_redirects=False).headers["location"] == "/"


@pytest.mark.parametrize("kind", ["arrays", "jobs"])
def test_an_id_cannot_become_markup(signed_in, kind):
    page = signed_in.get(f'/{kind}/"><script>alert(1)')
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert signed_in.get(f"/{kind}/{'a' * 41}").status_code == 422


@pytest.mark.parametrize(("role", "sees_it"), [("viewer", False), ("researcher", True)])
def test_the_way_to_the_queue_is_shown_to_those_who_may_see_it(signed_in, role, sees_it):
    with signed_in.app.state.platform.db.write() as tx:
        tx.session.query(User).update({"role": role})
    page = signed_in.get("/").text
    assert ('href="/queue"' in page) is sees_it
    assert 'href="/quotas"' in page
    assert 'href="/people"' not in page


@pytest.mark.parametrize(("path", "script"), PAGES.items())
def test_a_page_has_every_element_that_its_scripts_ask_for(signed_in, path, script):
    page = signed_in.get(path).text
    run = everything_run_by(script)
    asked = {
        name
        for each in run
        for name in re.findall(r'byId\("([^"]+)"\)', (STATIC / each).read_text())
    }
    assert asked
    assert {name for name in asked if f'id="{name}"' not in page} == set()


def test_every_script_is_run_by_some_page():
    run = set().union(*map(everything_run_by, [*PAGES.values(), "login.js", "reset.js"]))
    assert run == {file.name for file in STATIC.glob("*.js")}


@pytest.mark.parametrize("path", ["/login", *PAGES])
def test_pages_run_only_our_own_files(app_client, admin_headers, path):
    app_client.post("/v1/auth/login", json=LOGIN)
    if path == "/login":
        app_client.cookies.clear()
    page = app_client.get(path)
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "media-src 'self'" in policy
    assert "unsafe" not in policy
    assert "style=" not in page.text
    assert "<script>" not in page.text
    assert "http://" not in page.text.replace("http://testserver", "")


@pytest.mark.parametrize("name", sorted(file.name for file in STATIC.iterdir()))
def test_files_are_kept_by_the_browser_until_they_change(app_client, name):
    first = app_client.get(f"/static/{name}")
    assert first.status_code == 200
    kind = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert first.headers["content-type"].startswith(kind[Path(name).suffix])
    again = app_client.get(f"/static/{name}", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("name", ["..%2Fpages.py", "pages.py", "none.js"])
def test_nothing_else_is_served(app_client, name):
    assert app_client.get(f"/static/{name}").status_code == 404


def test_pictures_may_come_from_the_bucket(settings):
    from types import SimpleNamespace

    from st_controller.web.pages import _policy

    bucket = settings.model_copy(
        update={"object_store": "s3://b", "object_store_endpoint": "https://s3.example"}
    )
    policy = _policy(SimpleNamespace(settings=bucket))
    assert "img-src 'self' https://s3.example" in policy
