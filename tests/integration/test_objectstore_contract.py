"""What every object store promises, shown on a folder and on two S3 servers.

moto answers like AWS, checksums of parts included, but lets everybody in; nanio checks signatures
and their expiry, and knows no checksums.
"""

import hashlib
import http.server
import io
import os
import re
import threading
import time
from contextlib import contextmanager
from functools import partial
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from botocore.stub import Stubber
from bucket_server import connect, serve_buckets
from moto.server import ThreadedMotoServer

from st_shared.clock import utc_now
from st_shared.objectstore import (
    DigestMismatchError,
    GrantError,
    InvalidKeyError,
    LocalStore,
    ObjectChangedError,
    ObjectMissingError,
    PartDigest,
    StoreUnreachableError,
    UploadMissingError,
    multipart,
)

BUCKET = "contract"

get, put = partial(httpx.get, timeout=120), partial(httpx.put, timeout=120)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def nanio_url(tmp_path_factory):
    with serve_buckets(tmp_path_factory.mktemp("nanio")) as url:
        yield url


@pytest.fixture(scope="module")
def moto_url():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def bucket(url, request):
    prefix = f"{request.node.name.partition('[')[0]}/{os.urandom(4).hex()}/"
    store = connect(url, BUCKET, prefix)
    yield store
    store._client.close()


@pytest.fixture
def nanio_store(nanio_url, request):
    yield from bucket(nanio_url, request)


@pytest.fixture
def moto_store(moto_url, request):
    yield from bucket(moto_url, request)


@contextmanager
def closing_writer(writer):
    try:
        yield writer
    finally:
        writer.abort()


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
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with closing_writer(self.store.begin_granted(grant)) as writer:
                writer.write(body)
                writer.commit()
        except GrantError:
            self.answer(403)
        except UploadMissingError:
            self.answer(404)
        except DigestMismatchError:
            self.answer(400)
        else:
            self.answer(200)

    def do_GET(self):
        try:
            body = b"".join(self.store.open(self.grant().key))
        except GrantError:
            self.answer(403)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            last = int(wanted[2]) + 1 if wanted[2] else len(body)
            self.answer(206, body[int(wanted[1]) : last])
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
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield ObjectRoutes.store
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["folder", "nanio", "moto"])
def any_store(request):
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture(params=["folder", "nanio"])
def strict_store(request):
    """A store that checks who asks."""
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


@pytest.mark.parametrize(
    "key", ["", "/a", "../a", "a/./b", "a//b", "a b", "a\nb", "bär", "a/", "x" * 300, "a/" * 600]
)
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
    assert put(upload.url, content=data, headers=upload.headers).status_code == 200
    stat = any_store.stat("up/a.bin")
    assert (stat.size, stat.sha256) == (len(data), sha256(data))
    assert get(any_store.sign_download("up/a.bin", expires_in=60)).content == data


def test_a_signed_upload_takes_no_other_size(strict_store):
    upload = strict_store.sign_upload("up", size=5, sha256=sha256(b"hello"), expires_in=60)
    reply = put(upload.url, content=b"hello, world", headers=upload.headers)
    assert reply.status_code in {400, 403}
    assert strict_store.stat("up") is None


def test_other_bytes_are_refused_or_seen_by_stat(any_store):
    """A server may ignore the checksum of an upload; ``stat`` still tells the truth."""
    upload = any_store.sign_upload("up", size=5, sha256=sha256(b"hello"), expires_in=60)
    reply = put(upload.url, content=b"hellO", headers=upload.headers)
    stat = any_store.stat("up")
    if reply.status_code == 200:
        assert stat.sha256 == sha256(b"hellO")
    else:
        assert stat is None


def test_an_altered_url_opens_nothing(strict_store):
    strict_store.put("a", io.BytesIO(b"1"))
    strict_store.put("b", io.BytesIO(b"2"))
    url = strict_store.sign_download("a", expires_in=60)
    assert get(url).status_code == 200
    other = url.replace("/a?", "/b?")
    assert other != url
    assert get(other).status_code == 403
    assert put(url, content=b"3").status_code == 403
    assert b"".join(strict_store.open("a")) == b"1"


def test_an_expired_url_opens_nothing(strict_store):
    strict_store.put("a", io.BytesIO(b"1"))
    url = strict_store.sign_download("a", expires_in=1)
    deadline = time.monotonic() + 120
    while get(url).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)  # the clock of the S3 server is not ours to move
    assert get(url).status_code == 403


def test_a_bucket_refuses_a_part_that_one_put_cannot_carry(nanio_store):
    with pytest.raises(ValueError, match="5 GiB"):
        nanio_store.sign_upload("a", size=6 << 30, sha256="0" * 64, expires_in=60)


def test_a_bucket_says_of_samples_what_they_are(moto_store):
    """As S3 does; ``nanio`` does not look at ``response-content-type``."""
    for name, kind in (("a.mp4", "video/mp4"), ("b.WAV", "audio/wav")):
        moto_store.put(name, io.BytesIO(b"1"))
        reply = get(moto_store.sign_download(name, expires_in=60))
        assert (reply.content, reply.headers["content-type"]) == (b"1", kind)


def test_a_large_object_goes_to_the_bucket_in_parts(nanio_store):
    data = os.urandom(9 << 20)
    nanio_store.put("big", io.BytesIO(data))
    assert nanio_store.stat("big").sha256 == sha256(data)
    assert hashlib.sha256(b"".join(nanio_store.open("big"))).hexdigest() == sha256(data)


def test_a_range_of_an_object_is_served(any_store):
    any_store.put("a", io.BytesIO(b"0123456789"))
    url = any_store.sign_download("a", expires_in=60)
    for wanted, body in (("bytes=2-4", b"234"), ("bytes=7-", b"789")):
        reply = get(url, headers={"Range": wanted})
        assert (reply.status_code, reply.content) == (206, body)


@pytest.mark.parametrize(
    ("start", "count", "found"),
    [(0, 10, b"0123456789"), (2, 3, b"234"), (7, 3, b"789"), (9, 1, b"9")],
)
def test_a_part_of_an_object_is_read(any_store, start, count, found):
    any_store.put("a", io.BytesIO(b"0123456789"))
    (listed,) = any_store.list("")
    assert any_store.read("a", start, count) == found
    assert any_store.read("a", start, count, version=listed.version) == found


def test_a_part_of_what_is_missing_is_said_to_be(any_store):
    with pytest.raises(ObjectMissingError):
        any_store.read("none", 0, 1)


@pytest.mark.parametrize("server", ["nanio", "moto"])
def test_a_part_of_another_version_is_refused(server, request):
    store = request.getfixturevalue(f"{server}_store")
    store.put("a", io.BytesIO(b"old"))
    (listed,) = store.list("")
    store.put("a", io.BytesIO(b"new"))
    with pytest.raises(ObjectChangedError):
        store.read("a", 0, 2, version=listed.version)
    assert store.read("a", 0, 2) == b"ne"


def test_a_long_list_comes_whole(any_store):
    for number in range(PAGE + 5):
        any_store.put(f"many/{number:04}", io.BytesIO(b""))
    if hasattr(any_store, "_client"):  # so that pages are small
        any_store._client.meta.events.register(
            "provide-client-params.s3.ListObjectsV2",
            lambda params, **_: {**params, "MaxKeys": PAGE},
        )
    keys = [stat.key for stat in any_store.list("many/")]
    assert keys == [f"many/{number:04}" for number in range(PAGE + 5)]


PAGE = 20


# -- in parts ------------------------------------------------------------------------------------


@pytest.fixture
def cut(monkeypatch):
    """Cuts bytes into parts of 5 MiB, the smallest that S3 takes."""
    monkeypatch.setattr(multipart, "SINGLE_PUT_BYTES", 5 << 20)
    monkeypatch.setattr(multipart, "PART_BYTES", 5 << 20)

    def parts(data):
        found, start = [], 0
        for number, size in enumerate(multipart.part_sizes(len(data)), 1):
            piece = data[start : start + size]
            md5 = hashlib.md5(piece, usedforsecurity=False).hexdigest()
            found.append((PartDigest(number, size, sha256(piece), md5), piece))
            start += size
        return found

    return parts


DATA = os.urandom((5 << 20) + 1000)


def begun(store, key="jobs/1/weights.bin", data=DATA):
    return key, store.uploads.begin(key, size=len(data), sha256=sha256(data))


def send(store, key, upload_id, part, piece, expires_in=60):
    signed = store.uploads.sign_part(key, upload_id, part, expires_in=expires_in)
    return put(signed.url, content=piece, headers=signed.headers)


def test_parts_become_an_object_in_one_step(any_store, cut):
    key, upload_id = begun(any_store)
    for part, piece in reversed(cut(DATA)):
        assert any_store.stat(key) is None
        assert send(any_store, key, upload_id, part, piece).status_code == 200
    assert [part.number for part in any_store.uploads.parts(key, upload_id)] == [1, 2]
    parts = [part for part, _ in cut(DATA)]
    made = any_store.uploads.complete(key, upload_id, parts, sha256=sha256(DATA))
    assert (made.size, made.sha256) == (len(DATA), sha256(DATA))
    assert any_store.stat(key) == made
    assert sha256(b"".join(any_store.open(key))) == sha256(DATA)
    assert list(any_store.uploads.unfinished()) == []
    with pytest.raises(UploadMissingError):
        any_store.uploads.complete(key, upload_id, parts, sha256=sha256(DATA))


def test_a_part_may_be_sent_again(any_store, cut):
    key, upload_id = begun(any_store)
    (first, piece), (second, rest) = cut(DATA)
    for _ in range(2):
        assert send(any_store, key, upload_id, first, piece).status_code == 200
        assert [each.number for each in any_store.uploads.parts(key, upload_id)] == [1]
    send(any_store, key, upload_id, second, rest)
    any_store.uploads.complete(key, upload_id, [first, second], sha256=sha256(DATA))
    assert any_store.stat(key).sha256 == sha256(DATA)


def test_what_lacks_a_part_becomes_no_object(any_store, cut):
    key, upload_id = begun(any_store)
    (first, piece), (second, rest) = cut(DATA)
    send(any_store, key, upload_id, first, piece)
    with pytest.raises(DigestMismatchError, match="part 2 has not arrived"):
        any_store.uploads.complete(key, upload_id, [first, second], sha256=sha256(DATA))
    assert any_store.stat(key) is None
    send(any_store, key, upload_id, second, rest)
    with pytest.raises(DigestMismatchError, match="part 2 was never announced"):
        any_store.uploads.complete(key, upload_id, [first], sha256=sha256(DATA))
    any_store.uploads.complete(key, upload_id, [first, second], sha256=sha256(DATA))


def test_a_damaged_part_is_refused_or_found(any_store, cut):
    key, upload_id = begun(any_store)
    (first, piece), (second, rest) = cut(DATA)
    send(any_store, key, upload_id, first, piece)
    damaged = rest[:-1] + bytes([rest[-1] ^ 1])
    reply = send(any_store, key, upload_id, second, damaged)
    stored = any_store.uploads.parts(key, upload_id)
    assert reply.status_code >= 400 or not stored[-1].is_proven(second)
    with pytest.raises(DigestMismatchError):
        any_store.uploads.complete(key, upload_id, [first, second], sha256=sha256(DATA))
    assert any_store.stat(key) is None
    assert send(any_store, key, upload_id, second, rest).status_code == 200
    any_store.uploads.complete(key, upload_id, [first, second], sha256=sha256(DATA))
    assert any_store.stat(key).sha256 == sha256(DATA)


def test_a_signed_part_fits_its_place_alone(strict_store, cut):
    key, upload_id = begun(strict_store)
    other_key, other_id = begun(strict_store, "jobs/2/weights.bin")
    (first, piece), _ = cut(DATA)
    url = strict_store.uploads.sign_part(key, upload_id, first, expires_in=60).url
    moved = [
        url.replace("jobs/1/", "jobs/2/"),
        url.replace(upload_id, other_id),
        re.sub(r"(part|partNumber)=1", r"\1=2", url),
    ]
    for wrong in moved:
        assert wrong != url
        assert put(wrong, content=piece).status_code == 403
    assert strict_store.uploads.parts(key, upload_id) == []
    assert strict_store.uploads.parts(other_key, other_id) == []


def test_an_expired_part_url_stores_nothing(strict_store, cut):
    key, upload_id = begun(strict_store)
    (_, _), (second, rest) = cut(DATA)
    signed = strict_store.uploads.sign_part(key, upload_id, second, expires_in=1)
    deadline = time.monotonic() + 120
    while put(signed.url, content=rest, headers=signed.headers).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)  # the clock of the S3 server is not ours to move
    assert put(signed.url, content=rest, headers=signed.headers).status_code == 403
    assert send(strict_store, key, upload_id, second, rest).status_code == 200


def test_an_aborted_upload_is_gone_and_may_be_aborted_again(any_store, cut):
    key, upload_id = begun(any_store)
    part, piece = cut(DATA)[1]
    send(any_store, key, upload_id, part, piece)
    assert [each.upload_id for each in any_store.uploads.unfinished()] == [upload_id]
    assert [each.key for each in any_store.uploads.unfinished()] == [key]
    for _ in range(2):
        any_store.uploads.abort(key, upload_id)
    assert list(any_store.uploads.unfinished()) == []
    with pytest.raises(UploadMissingError):
        any_store.uploads.parts(key, upload_id)
    assert send(any_store, key, upload_id, part, piece).status_code in {404, 500}  # moto: 500
    assert any_store.stat(key) is None


def test_a_whole_that_is_another_is_found_where_it_is_read(cut, nanio_url, folder_store):
    reading = connect(nanio_url, BUCKET, f"back/{os.urandom(4).hex()}/", reads_back=True)
    for store in (reading, folder_store):
        key = "weights.bin"
        upload_id = store.uploads.begin(key, size=len(DATA), sha256=sha256(b"other"))
        for part, piece in cut(DATA):
            send(store, key, upload_id, part, piece)
        with pytest.raises(DigestMismatchError):
            store.uploads.complete(
                key, upload_id, [part for part, _ in cut(DATA)], sha256=sha256(b"other")
            )
        assert store.stat(key) is None
    reading._client.close()


def test_parts_are_few_and_equal():
    assert multipart.part_bytes(32 << 20) is None
    assert multipart.part_sizes((32 << 20) + 1) == [16 << 20, 16 << 20, 1]
    sizes = multipart.part_sizes(5 << 40)
    assert len(sizes) <= 10_000
    assert len(set(sizes[:-1])) == 1
    assert sum(sizes) == 5 << 40
    assert multipart.part_sizes(0) == []


def test_a_store_that_refuses_is_told_so_that_callers_need_not_know_boto(nanio_store):
    calls = {
        "head_object": lambda: nanio_store.stat("a"),
        "get_object": lambda: nanio_store.open("a"),
        "put_object": lambda: nanio_store.put("a", io.BytesIO(b"")),
        "delete_object": lambda: nanio_store.delete("a"),
        "create_multipart_upload": lambda: nanio_store.uploads.begin("a", size=9, sha256="0" * 64),
        "list_parts": lambda: nanio_store.uploads.parts("a", "1"),
    }
    for name, call in calls.items():
        with Stubber(nanio_store._client) as stubbed:
            stubbed.add_client_error(name, "ServiceUnavailable", http_status_code=503)
            with pytest.raises(StoreUnreachableError):
                call()
