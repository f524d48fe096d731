"""Objects in a bucket of S3 or of a server that speaks its protocol (MinIO, R2, nanio ...)."""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, TypeVar

from st_shared.objectstore.key import InvalidKeyError, check_key
from st_shared.objectstore.store import (
    PIECE_BYTES,
    DigestMismatchError,
    ObjectMissingError,
    ObjectStat,
    ObjectTooLargeError,
    SignedUpload,
    StoreUnreachableError,
)

T = TypeVar("T")

VERIFIED = "st-sha256"
"""Metadata of an object that ``put`` stored: its digest, verified before it was sent."""

_IN_MEMORY_BYTES = 8 << 20
_SINGLE_PUT_BYTES = 5 << 30
"""Largest object that one PUT may store; a limit of S3."""


class S3Store:
    """An ``ObjectStore`` in a bucket, below ``prefix``.

    A signed upload binds size and SHA-256 by signed headers. AWS, MinIO and R2 refuse other bytes;
    for a server that ignores the checksum ``stat`` reads the object, so what it tells is true.

    Args:
        bucket: an existing bucket.
        prefix: put before every key, such as ``fleet/``; empty: none.
        client: an S3 client of boto3; ``connect`` makes one.
    """

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:
        self._bucket, self._client = bucket, client
        self._prefix = f"{check_key(prefix.strip('/'))}/" if prefix.strip("/") else ""

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
    ) -> "S3Store":
        """A store at AWS, or at ``endpoint_url``; without keys boto3 looks for them itself.

        Raises:
            StoreUnreachableError: boto3's own settings, such as a profile, cannot be.
        """
        import boto3  # noqa: PLC0415  (only who uses S3 needs it installed)
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            signature_version="s3v4",
            # Checksums other than ours would be signed into URLs, and their holder not know them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if endpoint_url else {},
        )
        with _failures():
            client = boto3.client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=config,
            )
        return cls(bucket, prefix, client)

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
            self._client.upload_fileobj(
                spool, self._bucket, name, ExtraArgs={"Metadata": {VERIFIED: found}}
            )
        return ObjectStat(key, size, found)

    def open(self, key: str) -> Iterator[bytes]:
        """The object in pieces; ``ObjectMissingError`` at once when there is none."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        name = self._name(key)
        with _failures():
            try:
                reply = self._client.get_object(Bucket=self._bucket, Key=name)
            except ClientError as error:
                if _is_missing(error.response):
                    raise ObjectMissingError(f"no object {key!r}") from None
                raise
        return _watched(reply["Body"].iter_chunks(PIECE_BYTES))

    def stat(self, key: str) -> ObjectStat | None:
        """What is stored under ``key``; the object is read where nobody verified its digest."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        try:
            reply = self._client.head_object(
                Bucket=self._bucket, Key=self._name(key), ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if _is_missing(error.response):
                return None
            raise
        size, sha256 = reply["ContentLength"], _verified_digest(reply)
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
        for page in _watched(pages):
            for item in page.get("Contents", ()):
                yield ObjectStat(item["Key"].removeprefix(self._prefix), item["Size"], None)

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def sign_upload(self, key: str, *, size: int, sha256: str, expires_in: int) -> SignedUpload:
        """Let the holder store exactly these bytes, at most 5 GiB, within ``expires_in`` seconds.

        Raises:
            ObjectTooLargeError: more bytes than one PUT may carry.
        """
        if size > _SINGLE_PUT_BYTES:
            raise ObjectTooLargeError(
                f"{key}: {size} bytes are more than the 5 GiB of a single PUT"
            )
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        url = self._client.generate_presigned_url(
            "put_object",
            Params={
                "Bucket": self._bucket,
                "Key": self._name(key),
                "ContentLength": size,
                "ChecksumSHA256": checksum,
            },
            ExpiresIn=expires_in,
        )
        return SignedUpload(url, {"x-amz-checksum-sha256": checksum})

    def sign_download(self, key: str, *, expires_in: int) -> str:
        """Let the holder read ``key`` within ``expires_in`` seconds."""
        url: str = self._client.generate_presigned_url(
            "get_object",
            Params={"Bucket": self._bucket, "Key": self._name(key)},
            ExpiresIn=expires_in,
        )
        return url

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)


@contextmanager
def _failures() -> Iterator[None]:
    """What boto3 raises, as an error that callers can name without knowing boto3."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StoreUnreachableError(str(error)) from error


def _watched(items: Iterable[T]) -> Iterator[T]:
    """``items``, with the failures of the requests that bring them told as ours."""
    with _failures():
        yield from items


def _is_missing(response: dict[str, Any]) -> bool:
    return response["Error"]["Code"] in {"404", "NoSuchKey", "NotFound"}


def _verified_digest(reply: dict[str, Any]) -> str | None:
    """The digest that ``put`` or the server verified; a checksum over parts (``x-3``) is none."""
    checksum = reply.get("ChecksumSHA256", "")
    if checksum and "-" not in checksum:
        return base64.b64decode(checksum).hex()
    verified: str | None = reply["Metadata"].get(VERIFIED)
    return verified


def _digest_of(pieces: Iterator[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
