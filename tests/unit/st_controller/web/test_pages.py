import pytest

LOGIN = {"username": "root", "password": "correct horse battery"}


def test_a_stranger_is_sent_to_sign_in(app_client):
    reply = app_client.get("/", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/login")


def test_the_first_visit_asks_for_the_setup_token(app_client):
    assert 'name="token"' in app_client.get("/login").text


def test_later_visits_do_not(app_client, admin_headers):
    assert 'name="token"' not in app_client.get("/login").text


def test_who_is_signed_in_sees_the_dashboard(app_client, admin_headers):
    app_client.post("/v1/auth/login", json=LOGIN)
    page = app_client.get("/", follow_redirects=False)
    assert page.status_code == 200
    assert "root" in page.text
    assert app_client.get("/login", follow_redirects=False).headers["location"] == "/"


@pytest.mark.parametrize("path", ["/login", "/"])
def test_pages_run_only_our_own_files(app_client, admin_headers, path):
    app_client.post("/v1/auth/login", json=LOGIN)
    if path == "/login":
        app_client.cookies.clear()
    page = app_client.get(path)
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "style=" not in page.text
    assert "<script>" not in page.text
    assert "http://" not in page.text.replace("http://testserver", "")


@pytest.mark.parametrize("name", ["style.css", "dashboard.js", "login.js", "icon.svg"])
def test_files_are_kept_by_the_browser_until_they_change(app_client, name):
    first = app_client.get(f"/static/{name}")
    assert first.status_code == 200
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
