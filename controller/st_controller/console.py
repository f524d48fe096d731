"""What the commands of ``st-controller`` share: their options, settings, and how they end."""

# ruff: noqa: PLC0415  (`--help` must not wait for what only some commands need)

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from st_controller.settings import Settings
    from st_controller.store.database import Database

data_option = click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Data folder."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_of(data: Path | None, **given: Any) -> "Settings":
    """The settings in force; ends the command where something does not fit."""
    from pydantic import ValidationError

    from st_controller.settings import Settings

    chosen = {name: value for name, value in given.items() if value is not None}
    if data is not None:
        chosen["data_dir"] = data
    try:
        settings = Settings(**chosen)
    except ValidationError as error:
        fail("\n".join(f"{_place(item)}: {sentence(item)}" for item in error.errors()))
    from st_shared import logging as structured

    structured.configure(level=settings.log_level, format=settings.log_format)
    for chatty in ("alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return settings


def _place(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    return f"ST_{name.upper()}" if name else "settings"


def sentence(item: Any) -> str:
    """What is wrong, of an error that pydantic found."""
    return str(item["msg"]).removeprefix("Value error, ")


def open_database(settings: "Settings", *, migrated: bool = True) -> "Database":
    """The database; ends the command where it does not answer, or has another schema."""
    from st_controller import assembly
    from st_controller.services.readiness import NotReadyError, must_answer, must_be_ready

    try:
        db = assembly.open_database(settings)
        (must_be_ready if migrated else must_answer)(db)
    except (NotReadyError, OSError) as error:
        fail(str(error))
    return db


def show(as_json: bool, value: Any, text: str) -> None:
    """Print one JSON document, or text for people."""
    click.echo(json.dumps(value) if as_json else text)


def fail(message: str) -> NoReturn:
    """End the command with exit code 1."""
    click.echo(f"error: {message}", err=True)
    sys.exit(1)
