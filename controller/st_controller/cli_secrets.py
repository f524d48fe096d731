"""``st-controller secrets``: the key that seals what is stored to be read back."""

# ruff: noqa: PLC0415  (`--help` must not wait for what only some commands need)

from pathlib import Path

import click

from st_controller.console import data_option, fail, json_option, open_database, settings_of, show


@click.group()
def secrets() -> None:
    """Stored secrets and second factors: the key that seals them."""


@secrets.command()
@click.option("--new-key", is_flag=True, help="First put another key into the file secrets.key.")
@click.option("--all", "everything", is_flag=True, help="Also what the key in force has wrapped.")
@data_option
@json_option
def rewrap(new_key: bool, everything: bool, data: Path | None, as_json: bool) -> None:
    """Wrap with the key in force what a former one has wrapped.

    Former keys come from ST_SECRETS_FORMER_KEYS, the files secrets.*.key in the data folder and,
    beside ST_SECRETS_KEY_COMMAND, ST_SECRETS_KEY and secrets.key. They are not needed afterwards.
    """
    settings = settings_of(data)
    db = open_database(settings)
    from st_controller.auth.vault import SealError
    from st_controller.secret_key import UnsafeSecretError, new_sealing_key, open_vault
    from st_controller.services.rewrapping import rewrap as rewrap_all

    try:
        if new_key:
            new_sealing_key(settings)
        vault = open_vault(settings)
        count = rewrap_all(db, vault, "console", everything=everything)
    except (SealError, UnsafeSecretError, ValueError) as error:
        fail(str(error))
    said = {"rewrapped": count, "key": vault.key.id}
    show(as_json, said, f"{count} values are wrapped with the key {vault.key.id} now")
