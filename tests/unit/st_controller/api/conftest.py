import pytest

PASSWORD = "correct horse battery"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def browser(app_client, admin_headers):
    """A client that is signed in as the admin ``root`` by cookie, like a browser."""
    body = {"username": "root", "password": PASSWORD}
    reply = app_client.post("/v1/auth/login", json=body, headers=SAME_SITE)
    assert reply.status_code == 200, reply.text
    return app_client


@pytest.fixture
def new_key(app_client, admin_headers):
    """Makes API keys of the admin: ``new_key(scopes=[...])`` gives the whole answer."""

    def make(headers=admin_headers, **body):
        return app_client.post("/v1/api-keys", json={"name": "k", **body}, headers=headers)

    return make


@pytest.fixture
def platform_db(app_client):
    """The database of the application under test."""
    return app_client.app.state.platform.db
