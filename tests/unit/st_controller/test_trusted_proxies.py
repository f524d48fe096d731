"""Whose word counts for where a request comes from."""

import asyncio

import pytest
import uvicorn
from pydantic import ValidationError

from st_controller.serve import trusted_proxies
from st_controller.settings import Settings


def seen(settings, peer, forwarded) -> str:
    """The address that the application is told, behind the server's own middleware."""
    addresses = []

    async def app(scope, _receive, _send):
        addresses.append(scope["client"][0])

    config = uvicorn.Config(app, lifespan="off", log_config=None, **trusted_proxies(settings))
    config.load()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "client": (peer, 1),
        "headers": [(b"x-forwarded-for", forwarded.encode())],
        "scheme": "http",
    }
    asyncio.run(config.loaded_app(scope, None, None))
    return addresses[0]


def test_by_default_nobody_is_believed(tmp_path):
    settings = Settings(data_dir=tmp_path)
    assert seen(settings, "127.0.0.1", "203.0.113.9") == "127.0.0.1"
    assert seen(settings, "10.0.0.5", "203.0.113.9") == "10.0.0.5"


def test_a_trusted_proxy_is_believed_up_to_the_first_stranger(tmp_path):
    settings = Settings(data_dir=tmp_path, trusted_proxies="10.0.0.5, 10.1.0.0/24")
    assert seen(settings, "10.0.0.5", "203.0.113.9") == "203.0.113.9"
    assert seen(settings, "10.1.0.77", "198.51.100.1, 203.0.113.9, 10.0.0.5") == "203.0.113.9"
    assert seen(settings, "127.0.0.1", "203.0.113.9") == "127.0.0.1"


@pytest.mark.parametrize("wrong", ["*", "proxy.example", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(tmp_path, wrong):
    with pytest.raises(ValidationError, match="no address or network"):
        Settings(data_dir=tmp_path, trusted_proxies=wrong)
