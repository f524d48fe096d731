"""What boto3 raises, as errors that callers can name without knowing boto3."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from st_shared.objectstore.store import StoreUnreachableError

T = TypeVar("T")


@contextmanager
def failures() -> Iterator[None]:
    """Turn what boto3 raises inside the block into ``StoreUnreachableError``."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StoreUnreachableError(str(error)) from error


def watched(items: Iterable[T]) -> Iterator[T]:
    """``items``, with the failures of the requests that bring them told as ours."""
    with failures():
        yield from items


def code_of(error: Any) -> str:
    """The code that the server gave a ``ClientError``, such as ``NoSuchUpload``."""
    return str(error.response["Error"]["Code"])
