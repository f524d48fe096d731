"""What every object store promises, shown on a folder and on a real S3 server."""

import hashlib
import http.server
import io
import os
import threading
import time
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from bucket_server import connect, serve_buckets

from st_shared.clock import utc_now
from st_shared.objectstore import (
    DigestMismatchError,
    GrantError,
    InvalidKeyError,
    LocalStore,
    ObjectMissingError,
)

BUCKET = "contract"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def nanio_url(tmp_path_factory):
    with serve_buckets(tmp_path_factory.mktemp("nanio")) as url:
        yield url


@pytest.fixture
def bucket_store(nanio_url, request):
    prefix = f"{request.node.name.partition('[')[0]}/{os.urandom(4).hex()}/"
    store = connect(nanio_url, BUCKET, prefix)
    yield store
    store._client.close()


class ObjectRoutes(http.server.BaseHTTPRequestHandler):
    """The routes that a controller has for a local store, on the standard library's server."""

    store = None

    def grant(self):
        parts = urlsplit(self.path)
        key = parts.path.removeprefix("/v1/objects/")
        return self.store.verify(self.command, key, dict(parse_qsl(parts.query)), utc_now())

    def do_PUT(self):
        try:
            grant = self.grant()
            with self.store.begin(grant.key, grant.size, grant.sha256) as writer:
                writer.write(self.rfile.read(int(self.headers["Content-Length"])))
                writer.commit()
        except GrantError:
            self.answer(403)
        except DigestMismatchError:
            self.answer(400)
        else:
            self.answer(200)

    def do_GET(self):
        try:
            body = b"".join(self.store.open(self.grant().key))
        except GrantError:
            self.answer(403)
        else:
            self.answer(200, body)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def folder_store(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ObjectRoutes)
    url = f"http://127.0.0.1:{server.server_port}"
    ObjectRoutes.store = LocalStore(tmp_path, b"k" * 32, url)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield ObjectRoutes.store
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["folder", "bucket"])
def any_store(request):
    return request.getfixturevalue(f"{request.param}_store")


def test_what_was_put_is_read_again(any_store):
    data = os.urandom(3_500_000)
    put = any_store.put("jobs/1/weights.bin", io.BytesIO(data), sha256=sha256(data))
    assert (put.key, put.size, put.sha256) == ("jobs/1/weights.bin", len(data), sha256(data))
    assert any_store.stat("jobs/1/weights.bin") == put
    assert b"".join(any_store.open("jobs/1/weights.bin")) == data


def test_an_empty_object_is_an_object(any_store):
    any_store.put("empty", io.BytesIO())
    assert any_store.stat("empty").sha256 == sha256(b"")
    assert b"".join(any_store.open("empty")) == b""


def test_putting_again_replaces(any_store):
    any_store.put("a", io.BytesIO(b"old"))
    any_store.put("a", io.BytesIO(b"newer"))
    assert b"".join(any_store.open("a")) == b"newer"
    assert any_store.stat("a").sha256 == sha256(b"newer")


def test_a_wrong_digest_stores_nothing(any_store):
    any_store.put("a", io.BytesIO(b"old"))
    with pytest.raises(DigestMismatchError):
        any_store.put("a", io.BytesIO(b"new"), sha256=sha256(b"other"))
    with pytest.raises(DigestMismatchError):
        any_store.put("b", io.BytesIO(b"new"), sha256=sha256(b"other"))
    assert b"".join(any_store.open("a")) == b"old"
    assert any_store.stat("b") is None


def test_what_is_missing_is_said_at_once(any_store):
    assert any_store.stat("none") is None
    with pytest.raises(ObjectMissingError):
        any_store.open("none")
    any_store.delete("none")


def test_deleted_is_gone(any_store):
    any_store.put("a", io.BytesIO(b"1"))
    any_store.delete("a")
    assert any_store.stat("a") is None
    assert list(any_store.list("")) == []


def test_lists_by_prefix_in_order_of_keys(any_store):
    for key in ("b/2", "b/10", "b-1", "a", "b/c/d", "c"):
        any_store.put(key, io.BytesIO(key.encode()))
    assert [stat.key for stat in any_store.list("b/")] == ["b/10", "b/2", "b/c/d"]
    assert [stat.key for stat in any_store.list("b")] == ["b-1", "b/10", "b/2", "b/c/d"]
    assert [stat.key for stat in any_store.list("b/c/")] == ["b/c/d"]
    assert [stat.size for stat in any_store.list("")] == [1, 3, 4, 3, 5, 1]
    assert list(any_store.list("none/")) == []


@pytest.mark.parametrize("key", ["", "/a", "../a", "a/./b", "a b", "x" * 300])
def test_a_bad_key_is_refused_by_every_method(any_store, key):
    calls = [
        lambda: any_store.put(key, io.BytesIO(b"")),
        lambda: any_store.open(key),
        lambda: any_store.stat(key),
        lambda: any_store.delete(key),
        lambda: any_store.sign_upload(key, size=1, sha256="0" * 64, expires_in=1),
        lambda: any_store.sign_download(key, expires_in=1),
    ]
    for call in calls:
        with pytest.raises(InvalidKeyError):
            call()


def test_a_list_never_leaves_the_store(any_store):
    for prefix in ("../", "/etc", "a/../.."):
        with pytest.raises(InvalidKeyError):
            list(any_store.list(prefix))


def test_a_signed_upload_and_download_need_no_credentials(any_store):
    data = os.urandom(100_000)
    upload = any_store.sign_upload("up/a.bin", size=len(data), sha256=sha256(data), expires_in=60)
    assert httpx.put(upload.url, content=data, headers=upload.headers).status_code == 200
    stat = any_store.stat("up/a.bin")
    assert (stat.size, stat.sha256) == (len(data), sha256(data))
    assert httpx.get(any_store.sign_download("up/a.bin", expires_in=60)).content == data


def test_a_signed_upload_takes_no_other_size(any_store):
    upload = any_store.sign_upload("up", size=5, sha256=sha256(b"hello"), expires_in=60)
    reply = httpx.put(upload.url, content=b"hello, world", headers=upload.headers)
    assert reply.status_code in {400, 403}
    assert any_store.stat("up") is None


def test_other_bytes_are_refused_or_seen_by_stat(any_store):
    """A server may ignore the checksum of an upload; ``stat`` still tells the truth."""
    upload = any_store.sign_upload("up", size=5, sha256=sha256(b"hello"), expires_in=60)
    reply = httpx.put(upload.url, content=b"hellO", headers=upload.headers)
    stat = any_store.stat("up")
    if reply.status_code == 200:
        assert stat.sha256 == sha256(b"hellO")
    else:
        assert stat is None


def test_an_altered_url_opens_nothing(any_store):
    any_store.put("a", io.BytesIO(b"1"))
    any_store.put("b", io.BytesIO(b"2"))
    url = any_store.sign_download("a", expires_in=60)
    assert httpx.get(url).status_code == 200
    other = url.replace("/a?", "/b?")
    assert other != url
    assert httpx.get(other).status_code == 403
    put = httpx.put(url, content=b"3")
    assert put.status_code == 403
    assert b"".join(any_store.open("a")) == b"1"


def test_an_expired_url_opens_nothing(any_store):
    any_store.put("a", io.BytesIO(b"1"))
    url = any_store.sign_download("a", expires_in=1)
    deadline = time.monotonic() + 10
    while httpx.get(url).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)  # the clock of the S3 server is not ours to move
    assert httpx.get(url).status_code == 403


def test_a_bucket_refuses_a_part_that_one_put_cannot_carry(bucket_store):
    with pytest.raises(ValueError, match="5 GiB"):
        bucket_store.sign_upload("a", size=6 << 30, sha256="0" * 64, expires_in=60)


def test_a_large_object_goes_to_the_bucket_in_parts(bucket_store):
    data = os.urandom(9 << 20)
    bucket_store.put("big", io.BytesIO(data))
    assert bucket_store.stat("big").sha256 == sha256(data)
    assert hashlib.sha256(b"".join(bucket_store.open("big"))).hexdigest() == sha256(data)
