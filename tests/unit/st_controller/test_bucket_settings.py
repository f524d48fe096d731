"""Settings of buckets reach the addresses that workers are given, as the guide's table has them."""

from contextlib import closing
from urllib.parse import parse_qs, urlsplit

import pytest

from st_controller.assembly import open_objects
from st_controller.settings import Settings
from st_shared.clock import utc_now
from st_shared.objectstore import LocalStore, PartDigest

SHA256 = "ab" * 32
CHECKSUM = "x-amz-checksum-sha256"


def opened(tmp_path, **settings):
    keys = {"access_key": "AKEXAMPLE", "secret_key": "only for signing"}
    given = {"": "s3://runs/team-a", **keys, **settings}
    named = {f"object_store{name and '_'}{name}": value for name, value in given.items()}
    return open_objects(Settings(data_dir=tmp_path, **named), utc_now)


def signed(store):
    """What a worker gets for a small file, for a part of a large one, and to fetch a file."""
    part = PartDigest(1, 5 << 20, SHA256)
    small = store.sign_upload("jobs/1/w", size=3, sha256=SHA256, expires_in=60)
    large = store.uploads.sign_part("jobs/1/w", "an-upload", part, expires_in=60)
    return small, large, store.sign_download("jobs/1/w", expires_in=60)


@pytest.mark.parametrize(
    ("server", "settings", "place", "region"),
    [
        ("AWS", {"region": "eu-west-3"}, "runs.s3.eu-west-3.amazonaws.com/", "eu-west-3"),
        (
            "Cloudflare R2",
            {"endpoint": "https://acc.r2.cloudflarestorage.com", "region": "auto"},
            "acc.r2.cloudflarestorage.com/runs/",
            "auto",
        ),
        (
            "Wasabi, by host",
            {
                "endpoint": "https://s3.eu-central-2.wasabisys.com",
                "region": "eu-central-2",
                "addressing": "virtual",
            },
            "runs.s3.eu-central-2.wasabisys.com/",
            "eu-central-2",
        ),
        (
            "MinIO",
            {"endpoint": "http://minio.lan:9000", "region": "us-east-1"},
            "minio.lan:9000/runs/",
            "us-east-1",
        ),
    ],
)
@pytest.mark.parametrize("signs", [True, False], ids=["checksums", "no checksums"])
def test_addresses_are_those_of_the_server(tmp_path, server, settings, place, region, signs):
    store = opened(tmp_path, signed_checksums=signs, **settings)
    with closing(store._client):
        small, large, download = signed(store)
    for url in (small.url, large.url, download):
        parts, query = urlsplit(url), parse_qs(urlsplit(url).query)
        assert f"{parts.netloc}{parts.path}" == f"{place}team-a/jobs/1/w", server
        assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
        assert query["X-Amz-Credential"][0].split("/")[2:] == [region, "s3", "aws4_request"]
        assert "only+for+signing" not in url
    for upload in (small, large):
        signs_it = CHECKSUM in parse_qs(urlsplit(upload.url).query)["X-Amz-SignedHeaders"][0]
        assert (CHECKSUM in upload.headers, signs_it) == (signs, signs)
    assert urlsplit(small.url).scheme == urlsplit(settings.get("endpoint", "https://")).scheme


def test_a_bucket_with_dots_has_no_host_of_its_own(tmp_path):
    """The certificate of AWS is for one name before its own."""
    store = opened(tmp_path, **{"": "s3://my.runs"}, region="eu-west-3")
    with closing(store._client):
        for url in (signed(store)[0].url, signed(store)[2]):
            assert url.startswith("https://s3.eu-west-3.amazonaws.com/my.runs/jobs/1/w?")


def test_what_else_is_set_of_a_bucket_is_heeded(tmp_path):
    endpoint = "https://s3.example"
    careful = opened(tmp_path, endpoint=endpoint, checksums="when_supported", read_back=True)
    usual = opened(tmp_path, endpoint=endpoint)
    with closing(careful._client), closing(usual._client):
        for store, checksums, reads_back in (
            (careful, "when_supported", True),
            (usual, "when_required", False),
        ):
            config = store._client.meta.config
            assert config.request_checksum_calculation == checksums
            assert config.response_checksum_validation == checksums
            assert store._reads_back is store.uploads._reads_back is reads_back


def test_without_a_bucket_there_is_a_folder(tmp_path):
    store = open_objects(Settings(data_dir=tmp_path), utc_now)
    assert isinstance(store, LocalStore)
