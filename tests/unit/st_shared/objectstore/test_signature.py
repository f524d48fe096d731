from urllib.parse import parse_qsl, urlsplit

import pytest

from st_shared.clock import ManualClock
from st_shared.objectstore import BadSignatureError, GrantExpiredError, InvalidKeyError, LocalStore

KEY = b"k" * 32
SHA256 = "ab" * 32


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store(tmp_path, clock):
    return LocalStore(tmp_path, KEY, clock=clock)


def split(url):
    parts = urlsplit(url)
    return parts.path, dict(parse_qsl(parts.query))


def test_an_upload_grant_says_key_size_and_digest(store, clock):
    signed = store.sign_upload("a/b.bin", size=5, sha256=SHA256, expires_in=60)
    path, params = split(signed.url)
    grant = store.verify("PUT", "a/b.bin", params, clock())
    assert path == "/v1/objects/a/b.bin"
    assert (grant.key, grant.size, grant.sha256) == ("a/b.bin", 5, SHA256)
    assert (grant.expires - clock()).total_seconds() == 60


def test_a_download_grant_serves_get_and_head_but_not_put(store, clock):
    _, params = split(store.sign_download("a", expires_in=60))
    assert store.verify("GET", "a", params, clock()).size is None
    assert store.verify("HEAD", "a", params, clock()).method == "GET"
    for method in ("PUT", "DELETE"):
        with pytest.raises(BadSignatureError):
            store.verify(method, "a", params, clock())


def test_a_grant_ends_at_its_time(store, clock):
    _, params = split(store.sign_download("a", expires_in=60))
    clock.advance(59)
    store.verify("GET", "a", params, clock())
    clock.advance(1)
    with pytest.raises(GrantExpiredError):
        store.verify("GET", "a", params, clock())


@pytest.mark.parametrize(
    "change",
    [
        {"size": "6"},
        {"sha256": "cd" * 32},
        {"expires": "99999999999"},
        {"method": "GET"},
        {"sig": "0" * 64},
        {"sig": "ü"},
        {"sig": ""},
    ],
)
def test_an_altered_url_grants_nothing(store, clock, change):
    _, params = split(store.sign_upload("a", size=5, sha256=SHA256, expires_in=60).url)
    with pytest.raises(BadSignatureError):
        store.verify("PUT", "a", params | change, clock())


@pytest.mark.parametrize("missing", ["method", "size", "sha256", "expires", "sig"])
def test_a_url_without_a_parameter_grants_nothing(store, clock, missing):
    _, params = split(store.sign_upload("a", size=5, sha256=SHA256, expires_in=60).url)
    del params[missing]
    with pytest.raises(BadSignatureError):
        store.verify("PUT", "a", params, clock())


def test_a_grant_is_for_one_key_and_one_store(store, clock, tmp_path):
    _, params = split(store.sign_download("a", expires_in=60))
    with pytest.raises(BadSignatureError):
        store.verify("GET", "b", params, clock())
    with pytest.raises(BadSignatureError):
        LocalStore(tmp_path, b"x" * 32).verify("GET", "a", params, clock())
    with pytest.raises(InvalidKeyError):
        store.verify("GET", "../a", params, clock())


def test_the_base_url_is_put_before(tmp_path):
    store = LocalStore(tmp_path, KEY, "https://st.example/")
    assert store.sign_download("a", expires_in=1).startswith("https://st.example/v1/objects/a?")


def test_a_short_secret_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 32"):
        LocalStore(tmp_path, b"short")
