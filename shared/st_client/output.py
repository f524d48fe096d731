"""What ``st`` prints: text for people, or exactly one JSON document on standard output."""

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from st_client.client import Client
from st_client.credentials import Credentials
from st_client.errors import BadInputError, ClientError

Function = TypeVar("Function", bound=Callable[..., Any])
Model = TypeVar("Model", bound=BaseModel)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def json_option(function: Function) -> Function:
    """Give a command ``--json``, passed to it as ``as_json``; errors become JSON as well."""

    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **options: Any) -> Any:
        try:
            with _told_as_client_error():
                return function(*args, as_json=as_json, **options)
        except ClientError as error:
            if as_json:
                print_json(error.document())
            raise

    option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
    return option(command)  # type: ignore[return-value]


@contextmanager
def _told_as_client_error() -> Iterator[None]:
    """Make a sentence of what this machine refuses, such as a folder that cannot be written."""
    try:
        yield
    except BrokenPipeError:  # nobody reads what we print, which is no error
        raise
    except OSError as error:
        raise ClientError(
            f"cannot use {error.filename}" if error.filename else "this machine refuses",
            detail=error.strerror or str(error),
            hint="check the path, its permissions and the space on its disk",
            code="local_file",
        ) from error


def connect() -> Client:
    """A client of the current controller."""
    credential = Credentials().current()
    return Client(credential.url, credential.api_key)


def request_of(kind: type[Model], fields: Mapping[str, Any], title: str) -> Model:
    """A request of this kind; ``BadInputError`` with the title and every mistake otherwise."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:  # told without values: one may be secret
        wrong = [
            (".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
            for item in error.errors()
        ]
        raise BadInputError(title, fields=wrong) from None


def jsonable(value: Any) -> Any:
    """``value`` with its models turned into what JSON can hold."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return value


def print_json(value: Any) -> None:
    """Print one JSON document on a line of its own."""
    click.echo(json.dumps(jsonable(value), ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns under their titles."""
    lines = [list(columns), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def clean(text: str) -> str:
    """``text`` without control characters, which could make a terminal do things."""
    return _CONTROL.sub("", text)


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago something was, such as ``5m``; empty when it was not."""
    if moment is None:
        return ""
    return duration(((now or datetime.now(UTC)) - moment).total_seconds())


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter: ``42s``, ``3m 5s``, ``2h 10m``, ``4d 1h``."""
    left = max(0, round(seconds))
    units = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
    for index, (unit, length) in enumerate(units):
        if left >= length:
            parts = f"{left // length}{unit}"
            small = units[index + 1] if index + 1 < len(units) else None
            rest = left % length // small[1] if small else 0
            return f"{parts} {rest}{small[0]}" if small and rest else parts
    return "0s"


def size(count: float) -> str:
    """Bytes in the unit that keeps the number short: ``3.2 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def on_terminal() -> bool:
    """Whether a person watches standard output."""
    return sys.stdout.isatty()
