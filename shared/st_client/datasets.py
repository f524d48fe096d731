"""Registering a folder as a dataset: digest, compare, send what is missing, make it count."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from st_client.connection import Connection
from st_client.errors import BadInputError, ClientError, MissingError, UnreachableError
from st_client.packing import Archive, Folder, pack, read_folder
from st_shared.protocol.message import Name
from st_shared.protocol.resources import (
    DatasetComplete,
    DatasetRequest,
    DatasetTicket,
    DatasetTickets,
    DatasetView,
)
from st_shared.spec.reading import problems_of

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""

_TRIES = 3


def push_folder(
    connection: Connection, name: str, root: Path, progress: Progress
) -> tuple[DatasetView, bool]:
    """Make ``name`` stand for the files below ``root``; false where it already did."""
    _check_name(name)
    folder = read_folder(root)
    digest = folder.digest
    registered = _registered(connection, name)
    if registered and registered.digest == digest:
        return registered, False
    archives = pack(folder)
    request = _request(name, digest, folder, archives)
    tickets = connection.post("datasets", DatasetTickets, request).tickets
    if len(tickets) != len(archives):
        raise ClientError(
            f"{len(tickets)} tickets came for {len(archives)} archives", code="unexpected_answer"
        )
    done, total = 0, sum(archive.size for archive in archives)
    for archive, ticket in zip(archives, tickets, strict=True):
        before = done
        if ticket.url:
            _send(connection, archive, ticket, lambda sent: progress(before + sent, total))  # noqa: B023
        done += archive.size
        progress(done, total)
    complete = DatasetComplete(digest=digest)
    return connection.post(f"datasets/{name}/complete", DatasetView, complete), True


def _check_name(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise BadInputError(
            f"{name!r} cannot name a dataset",
            hint="use lower-case letters, digits, '.', '_' and '-', at most 80, as in my-photos",
        ) from None


def _registered(connection: Connection, name: str) -> DatasetView | None:
    try:
        return connection.get(f"datasets/{name}", DatasetView)
    except MissingError:
        return None


def _request(name: str, digest: str, folder: Folder, archives: list[Archive]) -> DatasetRequest:
    document = {
        "name": name,
        "digest": digest,
        "samples": folder.samples,
        "archives": [{"size": item.size, "sha256": item.sha256} for item in archives],
    }
    try:
        return DatasetRequest.model_validate(document)
    except ValidationError as error:
        problems = problems_of(error, DatasetRequest, document)
        raise BadInputError(
            "the dataset cannot be registered",
            fields=[(problem.field, problem.message) for problem in problems],
        ) from None


def _send(
    connection: Connection, archive: Archive, ticket: DatasetTicket, sent: Callable[[int], None]
) -> None:
    """PUT one archive; a transfer that breaks off is tried again twice."""
    headers = {**ticket.headers, "Content-Length": str(archive.size)}
    for left in reversed(range(_TRIES)):
        try:
            connection.signed_put(str(ticket.url), _counted(archive, sent), headers)
        except UnreachableError:
            if not left:
                raise
        else:
            return


def _counted(archive: Archive, sent: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    for piece in archive.pieces():
        yield piece
        done += len(piece)
        sent(done)
