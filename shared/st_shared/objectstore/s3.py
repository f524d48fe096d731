"""Objects in a bucket of S3 or of a server that speaks its protocol (MinIO, R2, nanio ...)."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Literal

from st_shared.media import content_type_of
from st_shared.objectstore.key import InvalidKeyError, check_key
from st_shared.objectstore.s3_failures import code_of, failures, watched
from st_shared.objectstore.s3_multipart import DECLARED, S3Uploads
from st_shared.objectstore.store import (
    PIECE_BYTES,
    DigestMismatchError,
    ObjectChangedError,
    ObjectMissingError,
    ObjectStat,
    ObjectTooLargeError,
    SignedUpload,
)

AddressingStyle = Literal["auto", "path", "virtual"]
"""How a bucket is named: in the path of a URL, or in the name of its host."""

VERIFIED = "st-sha256"
"""Metadata of an object that ``put`` stored: its digest, verified before it was sent."""

_IN_MEMORY_BYTES = 8 << 20
_LARGEST_PUT_BYTES = 5 << 30
"""Largest object that one PUT may store; a limit of S3."""

_CHANGED = frozenset({"412", "PreconditionFailed"})


class S3Store:
    """An ``ObjectStore`` in a bucket, below ``prefix``.

    A signed upload binds size and SHA-256 by signed headers. AWS, MinIO and R2 refuse other bytes;
    for a server that ignores the checksum ``stat`` reads the object, so what it tells is true.

    Args:
        bucket: an existing bucket.
        prefix: put before every key, such as ``fleet/``; empty: none.
        client: an S3 client of boto3; ``connect`` makes one.
        reads_back: read every object that was made of parts and compare its SHA-256.
        signs_checksums: bind the SHA-256 of an upload by a signed header; off for servers that
            refuse ``x-amz-checksum-sha256``.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        client: Any,
        *,
        reads_back: bool = False,
        signs_checksums: bool = True,
    ) -> None:
        self._bucket, self._client = bucket, client
        self._prefix = f"{check_key(prefix.strip('/'))}/" if prefix.strip("/") else ""
        self._reads_back, self._signs_checksums = reads_back, signs_checksums
        self.uploads = S3Uploads(
            client,
            bucket,
            self._prefix,
            lambda key: _digest_of(self.open(key)),
            reads_back=reads_back,
            signs_checksums=signs_checksums,
        )

    @classmethod
    def connect(
        cls,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        addressing: AddressingStyle | None = None,
        checksums: Literal["when_required", "when_supported"] = "when_required",
        reads_back: bool = False,
        signs_checksums: bool = True,
    ) -> "S3Store":
        """A store at AWS, or at ``endpoint_url``; without keys boto3 looks for them itself.

        Args:
            addressing: none takes ``path`` at an endpoint, and the host of the bucket's region at
                AWS (``path`` for names with dots, which no certificate fits).
            checksums: boto3's ``request_checksum_calculation`` and the like for answers, of what
                this process itself sends and reads; many servers know no ``when_supported``.

        Raises:
            StoreUnreachableError: boto3's own settings, such as a profile, cannot be.
        """
        import boto3  # noqa: PLC0415  (only who uses S3 needs it installed)
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            signature_version="s3v4",
            # Checksums other than ours would be signed into URLs, and their holder not know them.
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            # At AWS ``auto`` signs URLs for the host of all regions, which sends whoever has a new
            # bucket elsewhere on to that bucket's own, where the signature is void.
            s3={"addressing_style": addressing or ("path" if endpoint_url else "virtual")},
        )
        with failures():
            client = boto3.client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=config,
            )
        return cls(bucket, prefix, client, reads_back=reads_back, signs_checksums=signs_checksums)

    def put(self, key: str, body: BinaryIO, *, sha256: str | None = None) -> ObjectStat:
        """Store ``body``, digested first, so that wrong bytes never reach the bucket."""
        name = self._name(key)
        with SpooledTemporaryFile(_IN_MEMORY_BYTES) as spool:
            digest, size = hashlib.sha256(), 0
            while piece := body.read(PIECE_BYTES):
                digest.update(piece)
                size += spool.write(piece)
            found = digest.hexdigest()
            if sha256 not in {None, found}:
                raise DigestMismatchError(f"{key}: the bytes have SHA-256 {found}, not {sha256}")
            spool.seek(0)
            with failures():
                self._client.upload_fileobj(
                    spool, self._bucket, name, ExtraArgs={"Metadata": {VERIFIED: found}}
                )
        return ObjectStat(key, size, found)

    def open(self, key: str) -> Iterator[bytes]:
        """The object in pieces; ``ObjectMissingError`` at once when there is none."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        name = self._name(key)
        with failures():
            try:
                reply = self._client.get_object(Bucket=self._bucket, Key=name)
            except ClientError as error:
                if _is_missing(error):
                    raise ObjectMissingError(f"no object {key!r}") from None
                raise
        return watched(reply["Body"].iter_chunks(PIECE_BYTES))

    def read(self, key: str, start: int, count: int, *, version: str | None = None) -> bytes:
        """``count`` bytes from ``start`` of the object, whose ETag must be ``version``."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        asked = {"Range": f"bytes={start}-{start + count - 1}"}
        if version is not None:
            asked["IfMatch"] = version
        with failures():
            try:
                reply = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **asked)
            except ClientError as error:
                if _is_missing(error):
                    raise ObjectMissingError(f"no object {key!r}") from None
                if code_of(error) in _CHANGED:
                    raise ObjectChangedError(f"{key!r} was written anew meanwhile") from None
                raise
            with closing(reply["Body"]) as body:
                if version not in {None, reply["ETag"]}:  # such servers know no conditions
                    raise ObjectChangedError(f"{key!r} was written anew meanwhile")
                if "ContentRange" not in reply:  # all of it: such servers know no ranges
                    body.read(start)
                found: bytes = body.read(count)
        return found

    def stat(self, key: str) -> ObjectStat | None:
        """What is stored under ``key``; the object is read where nobody verified its digest."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        name = self._name(key)
        with failures():
            try:
                reply = self._client.head_object(
                    Bucket=self._bucket, Key=name, ChecksumMode="ENABLED"
                )
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
        size, sha256 = reply["ContentLength"], _verified_digest(reply)
        if sha256 is None and not self._reads_back:
            sha256 = reply["Metadata"].get(DECLARED)
        if sha256 is None:
            try:
                size, sha256 = _digest_of(self.open(key))
            except ObjectMissingError:
                return None
        return ObjectStat(key, size, sha256)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Objects whose key begins with ``prefix``, in order, without digests."""
        if ".." in prefix.split("/") or prefix.startswith("/"):
            raise InvalidKeyError(f"no object key begins with {prefix!r}")
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        for page in watched(pages):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._prefix)
                yield ObjectStat(key, item["Size"], None, version=item.get("ETag"))

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        name = self._name(key)
        with failures():
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def sign_upload(self, key: str, *, size: int, sha256: str, expires_in: int) -> SignedUpload:
        """Let the holder store exactly these bytes, at most 5 GiB, within ``expires_in`` seconds.

        Raises:
            ObjectTooLargeError: more bytes than one PUT may carry.
        """
        if size > _LARGEST_PUT_BYTES:
            raise ObjectTooLargeError(
                f"{key}: {size} bytes are more than the 5 GiB of a single PUT"
            )
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        params = {"Bucket": self._bucket, "Key": self._name(key), "ContentLength": size}
        headers = {}
        if self._signs_checksums:
            params["ChecksumSHA256"] = headers["x-amz-checksum-sha256"] = checksum
        url = self._client.generate_presigned_url("put_object", params, ExpiresIn=expires_in)
        return SignedUpload(url, headers)

    def sign_download(self, key: str, *, expires_in: int) -> str:
        """Let the holder read ``key`` within ``expires_in`` seconds."""
        url: str = self._client.generate_presigned_url(
            "get_object",
            Params={"Bucket": self._bucket, "Key": self._name(key)} | _told(key),
            ExpiresIn=expires_in,
        )
        return url

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)


def _told(key: str) -> dict[str, str]:
    """What the bucket shall answer with a sample, so that a browser shows or plays it."""
    kind = content_type_of(key)
    return {"ResponseContentType": kind} if kind else {}


def _is_missing(error: Any) -> bool:
    return code_of(error) in {"404", "NoSuchKey", "NotFound"}


def _verified_digest(reply: dict[str, Any]) -> str | None:
    """The digest that ``put`` or the server verified; a checksum over parts (``x-3``) is none."""
    checksum = reply.get("ChecksumSHA256", "")
    of_parts = "-" in checksum or DECLARED in reply["Metadata"]
    if checksum and not of_parts:
        return base64.b64decode(checksum).hex()
    verified: str | None = reply["Metadata"].get(VERIFIED)
    return verified


def _digest_of(pieces: Iterator[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
