"""Uploads in parts to a bucket of S3 or of a server that speaks its protocol.

A part is proven by the SHA-256 that the server checked, where it keeps that (AWS, MinIO, moto),
else by its ETag, the MD5 of its bytes (nanio and most others). Where it is neither, as with keys of
a KMS on servers without checksums, the object is read once after it was made.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from st_shared.objectstore.key import check_key
from st_shared.objectstore.multipart import (
    OpenUpload,
    PartDigest,
    StoredPart,
    UploadMissingError,
    md5_of_etag,
    must_be_proven,
)
from st_shared.objectstore.s3_failures import code_of, failures, watched
from st_shared.objectstore.store import (
    DigestMismatchError,
    ObjectStat,
    SignedUpload,
)

DECLARED = "st-declared-sha256"
"""Metadata of an object made of parts: the digest of the whole, which the parts were held to."""

_MISSING = frozenset({"NoSuchUpload", "404"})

Read = Callable[[str], tuple[int, str]]
"""Reads an object: its size and SHA-256."""


class S3Uploads:
    """``MultipartUploads`` of a bucket, below ``prefix``.

    Args:
        client: an S3 client of boto3.
        bucket: an existing bucket.
        prefix: put before every key.
        read: how an object is read whole.
        reads_back: read every object that was made of parts, whatever the server proved.
        signs_checksums: bind the SHA-256 of a part by a signed header.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str,
        read: Read,
        *,
        reads_back: bool,
        signs_checksums: bool,
    ) -> None:
        self._client, self._bucket, self._prefix, self._read = client, bucket, prefix, read
        self._reads_back, self._signs_checksums = reads_back, signs_checksums

    def begin(self, key: str, *, size: int, sha256: str) -> str:  # noqa: ARG002
        """Begin an upload that shall become the object ``key``; its id."""
        wanted = {"ChecksumAlgorithm": "SHA256"} if self._signs_checksums else {}
        with failures():
            reply = self._client.create_multipart_upload(
                **self._object(key), Metadata={DECLARED: sha256}, **wanted
            )
        return str(reply["UploadId"])

    def sign_part(
        self, key: str, upload_id: str, part: PartDigest, *, expires_in: int
    ) -> SignedUpload:
        """Let the holder store exactly this part within ``expires_in`` seconds, again and again."""
        params = {
            **self._object(key),
            "UploadId": upload_id,
            "PartNumber": part.number,
            "ContentLength": part.size,
        }
        headers = {}
        if self._signs_checksums:
            checksum = base64.b64encode(bytes.fromhex(part.sha256)).decode()
            params["ChecksumSHA256"] = headers["x-amz-checksum-sha256"] = checksum
        url = self._client.generate_presigned_url("upload_part", params, ExpiresIn=expires_in)
        return SignedUpload(url, headers)

    def parts(self, key: str, upload_id: str) -> list[StoredPart]:
        """What has arrived, by number; ``UploadMissingError`` when there is no such upload."""
        return [_stored(item) for item in self._listed(key, upload_id)]

    def complete(
        self, key: str, upload_id: str, parts: Sequence[PartDigest], *, sha256: str
    ) -> ObjectStat:
        """Make the object of all its parts, in one step; see ``MultipartUploads`` for errors."""
        listed = self._listed(key, upload_id)
        stored = [_stored(item) for item in listed]
        reads = self._reads_back or any(part.sha256 is None and part.md5 is None for part in stored)
        if not reads:
            must_be_proven(key, stored, parts)
        chosen = [_chosen(item) for item in listed]
        with failures(), _missing(upload_id):
            self._client.complete_multipart_upload(
                **self._object(key), UploadId=upload_id, MultipartUpload={"Parts": chosen}
            )
        size = sum(part.size for part in parts)
        if reads:
            self._must_be(key, size, sha256)
        return ObjectStat(key, size, sha256)

    def abort(self, key: str, upload_id: str) -> None:
        """Drop the upload and its parts; nothing happens when there is none."""
        try:
            with failures(), _missing(upload_id):
                self._client.abort_multipart_upload(**self._object(key), UploadId=upload_id)
        except UploadMissingError:
            return

    def unfinished(self) -> Iterator[OpenUpload]:
        """Every upload that was begun below this prefix and is neither completed nor aborted."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        for page in watched(pages):
            for item in page.get("Uploads", ()):
                if item["Key"].startswith(self._prefix):  # some servers ignore the prefix
                    key = item["Key"].removeprefix(self._prefix)
                    yield OpenUpload(key, item["UploadId"], item["Initiated"])

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _listed(self, key: str, upload_id: str) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("list_parts").paginate(
            **self._object(key), UploadId=upload_id
        )
        with failures(), _missing(upload_id):
            return [item for page in pages for item in page.get("Parts", ())]

    def _must_be(self, key: str, size: int, sha256: str) -> None:
        if self._read(key) != (size, sha256):
            with failures():
                self._client.delete_object(**self._object(key))
            raise DigestMismatchError(f"{key}: the parts together are not what was announced")


@contextmanager
def _missing(upload_id: str) -> Iterator[None]:
    """Turn the refusal of an unknown upload into ``UploadMissingError``."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        if code_of(error) in _MISSING:
            raise UploadMissingError(f"there is no upload {upload_id}") from error
        raise


def _stored(item: dict[str, Any]) -> StoredPart:
    checksum = item.get("ChecksumSHA256")
    sha256 = base64.b64decode(checksum).hex() if checksum else None
    return StoredPart(item["PartNumber"], item["Size"], sha256, md5_of_etag(item["ETag"]))


def _chosen(item: dict[str, Any]) -> dict[str, Any]:
    names = ("PartNumber", "ETag", "ChecksumSHA256")
    return {name: item[name] for name in names if item.get(name)}
