"""``st-controller audit`` on a data folder."""

import csv
import io
import json
import shutil

import pytest
from click.testing import CliRunner
from sqlalchemy import delete, update

from st_controller.assembly import open_objects
from st_controller.cli import main
from st_controller.console import open_database
from st_controller.domain.audit import AuditKey, AuditKeys
from st_controller.secret_key import load_audit_keys
from st_controller.services import audit_chain, audit_heads
from st_controller.settings import Settings
from st_controller.store.schema import AuditEntry, AuditHead


@pytest.fixture
def folder(tmp_path, sqlite_template):
    """A data folder with three chained entries and their signed head, and one entry that waits."""
    settings = Settings(data_dir=tmp_path)
    shutil.copy(sqlite_template, tmp_path / "controller.db")
    keys, db = load_audit_keys(settings), open_database(settings)
    with db.write() as tx:
        tx.audit("user:anna", "job.queued", "job_1", name="=HYPERLINK(1)")
        tx.audit("user:ben", "job.queued", "job_2")
        tx.audit("=cmd", "session.opened", "ses_1")
    with db.write() as tx:
        audit_chain.extend(tx, keys)
    with db.read() as session:
        head = audit_chain.current_head(session)
    audit_heads.publish(open_objects(settings, db.clock), keys.keys[0], head, db.clock())
    with db.write() as tx:
        tx.audit("user:anna", "job.cancelled", "job_1")
    db.close()
    return tmp_path


def st_controller(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def change(folder, statement) -> None:
    db = open_database(Settings(data_dir=folder))
    with db.write() as tx:
        tx.session.execute(statement)
    db.close()


def test_a_whole_log_is_said_to_be_whole(folder):
    said = st_controller("audit", "verify", "--archives", "--data", folder)
    assert said.exit_code == 0, said.output
    assert "whole: 3 entries, held against 1 signed heads; 1 not chained yet" in said.output


def test_the_first_bad_entry_is_named_and_the_exit_code_says_so(folder):
    change(folder, update(AuditEntry).where(AuditEntry.place == 2).values(target="job_3"))
    said = st_controller("audit", "verify", "--data", folder, "--json")
    assert said.exit_code == 1
    fault = json.loads(said.output)["fault"]
    assert (fault["place"], fault["kind"]) == (2, "changed")
    change(folder, delete(AuditEntry))
    said = st_controller("audit", "verify", "--data", folder)
    assert said.exit_code == 1
    assert "BROKEN at place 1 (truncated)" in said.output


def test_without_the_key_nothing_can_be_said(folder):
    (folder / "audit.key").unlink()
    said = st_controller("audit", "verify", "--data", folder)
    assert said.exit_code == 1
    assert "ST_AUDIT_KEY" in said.output
    (folder / "audit.key").write_text("ab" * 32)
    (folder / "audit.key").chmod(0o600)
    assert "another key" in st_controller("audit", "verify", "--data", folder).output


def test_the_key_is_exchanged_and_both_are_kept(folder, monkeypatch):
    said = st_controller("audit", "rotate-key", "--data", folder, "--json")
    assert said.exit_code == 0, said.output
    made = json.loads(said.output)
    file = folder / f"audit.{made['to']}.key"
    assert file.stat().st_mode & 0o077 == 0
    settings = Settings(data_dir=folder)
    db, keys = open_database(settings), load_audit_keys(settings)
    with db.write() as tx:
        audit_chain.extend(tx, keys)
        tx.audit("user:anna", "job.queued", "job_9")
    with db.write() as tx:
        audit_chain.extend(tx, keys)
    db.close()
    said = st_controller("audit", "verify", "--data", folder)
    assert "whole: 6 entries" in said.output
    monkeypatch.setenv("ST_AUDIT_KEY", "n" * 32)
    said = st_controller("audit", "rotate-key", "--data", folder)
    assert said.exit_code == 1
    file.unlink()
    monkeypatch.delenv("ST_AUDIT_KEY")
    assert made["to"] in st_controller("audit", "verify", "--data", folder).output


def test_keys_of_the_environment_are_exchanged(folder, monkeypatch):
    monkeypatch.setenv("ST_AUDIT_KEY", "n" * 32)
    said = st_controller("audit", "rotate-key", "--data", folder)
    assert said.exit_code == 1
    assert "ST_AUDIT_FORMER_KEYS" in said.output
    former = "former key of this log, long enough"
    monkeypatch.setenv("ST_AUDIT_FORMER_KEYS", json.dumps([former]))
    settings = Settings(data_dir=folder)
    db = open_database(settings)
    with db.write() as tx:
        tx.session.execute(delete(AuditEntry))
        tx.session.execute(delete(AuditHead))
        tx.audit("user:anna", "job.queued", "job_1")
    with db.write() as tx:
        audit_chain.extend(tx, AuditKeys.of(AuditKey(former.encode())))
    assert st_controller("audit", "rotate-key", "--data", folder).exit_code == 0
    keys = load_audit_keys(settings)
    with db.write() as tx:
        audit_chain.extend(tx, keys)
    with db.read() as session:
        assert audit_chain.key_in_force(session, keys).secret == b"n" * 32
    db.close()
    assert "is in force already" in st_controller("audit", "rotate-key", "--data", folder).output


def test_entries_are_exported_with_filters(folder):
    def targets(*options):
        said = st_controller("audit", "export", "--data", folder, *options)
        assert said.exit_code == 0, said.output
        return [json.loads(line)["target"] for line in said.output.splitlines()]

    assert targets() == ["job_1", "job_2", "ses_1", "job_1"]
    assert targets("--actor", "user:*") == ["job_1", "job_2", "job_1"]
    assert targets("--action", "job.*", "--target", "job_1") == ["job_1", "job_1"]
    assert targets("--action", "job_*") == []
    assert targets("--since", "2999-01-01") == []
    assert targets("--until", "2999-01-01T00:00") == ["job_1", "job_2", "ses_1", "job_1"]
    said = st_controller("audit", "export", "--data", folder, "--since", "yesterday")
    assert said.exit_code == 1
    assert "is no moment" in said.output


def test_a_spreadsheet_finds_no_formula_in_the_export(folder):
    said = st_controller("audit", "export", "--data", folder, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(said.output)))
    assert [row["actor"] for row in rows] == ["user:anna", "user:ben", "'=cmd", "user:anna"]
    assert json.loads(rows[0]["details"]) == {"name": "=HYPERLINK(1)"}
    assert len(rows[0]["code"]) == 64


def test_an_export_goes_to_a_file(folder, tmp_path):
    path = tmp_path / "audit.jsonl"
    assert st_controller("audit", "export", "--data", folder, "--output", path).output == ""
    assert len(path.read_text().splitlines()) == 4
