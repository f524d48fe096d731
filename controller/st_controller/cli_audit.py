"""``st-controller audit``: whether the log is what was written, and what it says."""

# ruff: noqa: PLC0415  (`--help` must not wait for what only some commands need)

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from st_controller.console import data_option, fail, json_option, open_database, settings_of, show

if TYPE_CHECKING:
    from st_controller.domain.audit import AuditKeys
    from st_controller.services.audit_verifying import Verdict
    from st_controller.settings import Settings
    from st_controller.store.database import Database
    from st_shared.objectstore import ObjectStore


@click.group()
def audit() -> None:
    """The audit log: who did what to what."""


@audit.command()
@click.option("--archives", is_flag=True, help="Also read every archive in the object store.")
@data_option
@json_option
def verify(archives: bool, data: Path | None, as_json: bool) -> None:
    """Say whether the log is whole; exit code 1 names the first entry that is not.

    Finds what was edited, deleted, put in, moved or cut off.
    """
    settings = settings_of(data)
    db, keys = open_database(settings), _keys(settings)
    from st_controller.assembly import open_objects
    from st_controller.services.audit_chain import WrongAuditKeyError
    from st_shared.objectstore import StoreUnreachableError

    try:
        verdict = _verdict(db, open_objects(settings, db.clock), keys, archives=archives)
    except (WrongAuditKeyError, StoreUnreachableError) as error:
        fail(str(error))
    fault = verdict.fault
    if fault is None:
        show(as_json, asdict(verdict), _whole(verdict))
        return
    show(as_json, asdict(verdict), f"BROKEN at place {fault.place} ({fault.kind}): {fault.said}")
    sys.exit(1)


@audit.command()
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl")
@click.option("--actor", help="Such as user:anna, or user:*.")
@click.option("--action", help="Such as job.submitted, or job.*.")
@click.option("--target", help="Id of what was acted upon.")
@click.option("--since", help="A day or a moment in UTC, such as 2026-01-31 or 2026-01-31T08:00.")
@click.option("--until", help="Up to this moment, which is left out.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A file.")
@data_option
def export(
    form: str,
    actor: str | None,
    action: str | None,
    target: str | None,
    since: str | None,
    until: str | None,
    output: Path | None,
    data: Path | None,
) -> None:
    """Write the entries that are in the database, oldest first, as JSON lines or CSV."""
    from st_controller.audit_export import lines
    from st_controller.services.audit_reading import AuditFilter, stream

    wanted = AuditFilter(
        actor, action, target, _moment("--since", since), _moment("--until", until)
    )
    db = open_database(settings_of(data))
    with _file(output) as file, db.read() as session:
        for line in lines(stream(session, wanted), "csv" if form == "csv" else "jsonl"):
            file.write(line)


@audit.command("rotate-key")
@data_option
@json_option
def rotate_key(data: Path | None, as_json: bool) -> None:
    """Let another key make the codes from now on; the former one is needed to verify what it made.

    The new key is ST_AUDIT_KEY, with the former ones in ST_AUDIT_FORMER_KEYS; without ST_AUDIT_KEY
    it is made, and kept in the data folder.
    """
    settings = settings_of(data)
    db, keys = open_database(settings), _keys(settings)
    from st_controller.secret_key import next_audit_key
    from st_controller.services import audit_chain

    try:
        with db.read() as session:
            audit_chain.key_in_force(session, keys)
        key = next_audit_key(settings)
        with db.write() as tx:
            former = audit_chain.rotate(tx, keys, key, "console")
    except audit_chain.WrongAuditKeyError as error:
        fail(str(error))
    except ValueError as error:
        fail(f"{error}; set ST_AUDIT_KEY to a new one, and ST_AUDIT_FORMER_KEYS to the former")
    said = {"from": former, "to": key.id}
    show(as_json, said, f"{key.id} takes over from {former}; keep the former key to verify with")


def _verdict(
    db: "Database", objects: "ObjectStore", keys: "AuditKeys", *, archives: bool
) -> "Verdict":
    from st_controller.services import audit_archive, audit_heads
    from st_controller.services.audit_verifying import verify_log

    heads = list(audit_heads.published(objects))
    with db.read() as session:
        verdict = verify_log(session, keys, heads)
        if archives and verdict.fault is None:
            try:
                for _ in audit_archive.archived(session, objects, keys):
                    pass
            except audit_archive.BrokenLogError as error:
                return replace(verdict, fault=error.fault)
    return verdict


def _whole(verdict: "Verdict") -> str:
    said = f"whole: {verdict.last} entries, held against {verdict.heads} signed heads"
    if verdict.archived:
        said += f"; {verdict.archived} of them archived"
    if verdict.waiting:
        said += f"; {verdict.waiting} not chained yet"
    return said


def _keys(settings: "Settings") -> "AuditKeys":
    from st_controller.secret_key import UnsafeSecretError, load_audit_keys

    if settings.audit_key is None and not (settings.data_dir / "audit.key").exists():
        fail("there is no audit.key in the data folder; give --data or ST_AUDIT_KEY")
    try:
        return load_audit_keys(settings)
    except UnsafeSecretError as error:
        fail(str(error))


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option}: {text!r} is no moment; write 2026-01-31 or 2026-01-31T08:00")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextmanager
def _file(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            yield file
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
