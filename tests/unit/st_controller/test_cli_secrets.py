"""``st-controller secrets`` on a data folder."""

import json
import shutil
import sys

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from st_controller.auth.vault import Sealed
from st_controller.cli import main
from st_controller.console import open_database
from st_controller.secret_key import open_vault
from st_controller.settings import Settings
from st_controller.store.schema import AuditEntry, StoredSecret

NAMES = ("one", "two", "three")


@pytest.fixture
def folder(tmp_path, sqlite_template, monkeypatch):
    """A data folder with three secrets."""
    monkeypatch.setattr("st_controller.services.rewrapping.PAGE", 2)
    shutil.copy(sqlite_template, tmp_path / "controller.db")
    settings = Settings(data_dir=tmp_path)
    vault, db = open_vault(settings), open_database(settings)
    with db.write() as tx:
        for name in NAMES:
            sealed = vault.seal(f"value {name}".encode(), name)
            tx.session.add(
                StoredSecret(
                    id=f"sec_{name}", org="default", owner="", name=name, key_id=sealed.key_id,
                    wrapped_key=sealed.wrapped_key, box=sealed.box, created_at=tx.now,
                    changed_at=tx.now, changed_by="ada",
                )
            )  # fmt: skip
    db.close()
    return tmp_path


def rewrap(folder, *options):
    said = CliRunner().invoke(
        main, ["secrets", "rewrap", "--data", str(folder), "--json", *options]
    )
    return json.loads(said.stdout) if said.exit_code == 0 else said.output


def opened(folder) -> dict[str, str]:
    """Every secret, as a controller that starts now reads it."""
    settings = Settings(data_dir=folder)
    vault, db = open_vault(settings), open_database(settings)
    with db.read() as session:
        rows = list(session.scalars(select(StoredSecret)))
        found = {
            row.name: vault.open(Sealed(row.key_id, row.wrapped_key, row.box), row.name).decode()
            for row in rows
        }
    db.close()
    return found


def test_another_key_of_the_folder_takes_over_and_the_former_may_go(folder):
    running = open_vault(Settings(data_dir=folder))
    first = (folder / "secrets.key").read_text()
    assert rewrap(folder)["rewrapped"] == 0
    done = rewrap(folder, "--new-key")
    assert (done["rewrapped"], done["key"] != running.key.id) == (3, True)
    (former,) = folder.glob("secrets.*.key")
    assert former.read_text() == first
    former.unlink()
    assert opened(folder) == {name: f"value {name}" for name in NAMES}
    db = open_database(Settings(data_dir=folder))
    with db.read() as session:
        row = session.scalars(select(StoredSecret)).first()
        told = session.scalars(select(AuditEntry).where(AuditEntry.action == "secrets.rewrapped"))
        assert [entry.details["count"] for entry in told] == [2, 1]
    db.close()
    assert running.open(Sealed(row.key_id, row.wrapped_key, row.box), row.name)  # it looks again


def test_a_key_service_takes_over_from_a_file_and_wraps_all_anew(folder, monkeypatch):
    script = folder / "kms.py"
    script.write_text(
        "import base64, sys\n"
        "print(base64.b64encode(base64.b64decode(sys.stdin.read())[::-1]).decode())\n"
    )
    monkeypatch.setenv("ST_SECRETS_KEY_COMMAND", f"{sys.executable} -S {script}")
    assert rewrap(folder) == {"rewrapped": 3, "key": "command"}
    assert rewrap(folder) == {"rewrapped": 0, "key": "command"}
    assert rewrap(folder, "--all") == {"rewrapped": 3, "key": "command"}
    assert "does not come from a file" in rewrap(folder, "--new-key")


def test_without_the_former_key_nothing_is_changed(folder, monkeypatch):
    (folder / "secrets.key").unlink()
    monkeypatch.setenv("ST_SECRETS_KEY", "n" * 32)
    assert "ST_SECRETS_FORMER_KEYS" in rewrap(folder)
