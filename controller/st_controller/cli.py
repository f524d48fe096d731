"""The ``st-controller`` command. Heavy parts are imported by the commands that need them."""

# ruff: noqa: PLC0415  (`--help` must not wait for what only some commands need)

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from st_controller.cli_apply import apply
from st_controller.cli_audit import audit
from st_controller.cli_secrets import secrets
from st_controller.console import data_option, json_option
from st_controller.console import fail as _fail
from st_controller.console import open_database as _open
from st_controller.console import sentence as _sentence
from st_controller.console import settings_of as _settings
from st_controller.console import show as _show

if TYPE_CHECKING:
    from st_controller.serve import Announcement
    from st_controller.store.database import Database

_ROLES = ("viewer", "researcher", "lead", "admin")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="st-fleet")
def main() -> None:
    """Run and administer an st-fleet controller.

    Everything can also be configured by environment variables ST_...; options win.
    Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
    """
    os.umask(0o077)  # what the data folder holds is nobody else's business


main.add_command(audit)
main.add_command(apply)
main.add_command(secrets)


@main.command()
@data_option
@click.option("--host", help="Address to listen on [127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port; 0 takes a free one [8400].")
@click.option("--public-url", help="Address under which people and workers reach it.")
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]))
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@json_option
def serve(data: Path | None, as_json: bool, **given: Any) -> None:
    """Serve the API, the dashboard and the scheduler until interrupted."""
    settings = _settings(data, **given)
    from st_controller import serve as serving
    from st_controller.folder_lock import FolderInUseError
    from st_controller.secret_key import UnsafeSecretError

    show = _print_json if as_json else _print_start
    try:
        serving.serve(settings, show)
    except (FolderInUseError, UnsafeSecretError, OSError, RuntimeError) as error:
        _fail(str(error))


@main.command()
@data_option
@json_option
def init(data: Path | None, as_json: bool) -> None:
    """Make the data folder, its keys and the database."""
    settings = _settings(data)
    from st_controller.secret_key import load_audit_keys, load_secret_key

    db = _open(settings, migrated=False)
    load_secret_key(settings)
    load_audit_keys(settings)
    revision = _upgrade(db)
    _show(as_json, {"data_dir": str(settings.data_dir), "revision": revision}, "ready")


@main.command()
@data_option
@json_option
def migrate(data: Path | None, as_json: bool) -> None:
    """Bring the database's schema up to date."""
    db = _open(_settings(data), migrated=False)
    _show(as_json, {"revision": _upgrade(db)}, "migrated")


@main.group()
def user() -> None:
    """People and service accounts."""


@user.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), required=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@data_option
@json_option
def user_add(name: str, role: str, password_stdin: bool, data: Path | None, as_json: bool) -> None:
    """Make a user."""
    settings = _settings(data)
    password = sys.stdin.readline().rstrip("\n") if password_stdin else _ask_password()
    _check_credentials(name, password)
    from st_controller.domain.policy.roles import Role
    from st_controller.errors import Refusal
    from st_controller.services.setup import add_user

    db = _open(settings)
    try:
        with db.write() as transaction:
            made = add_user(transaction, name, password, Role(role), actor="console")
    except Refusal as refusal:
        _fail(refusal.detail)
    _show(as_json, {"id": made.id, "username": name, "role": role}, f"made user {name} ({role})")


@user.command("move")
@click.argument("name")
@click.argument("org")
@click.argument("team")
@click.option("--create", is_flag=True, help="Make the organisation and the team if need be.")
@data_option
@json_option
def user_move(
    name: str, org: str, team: str, create: bool, data: Path | None, as_json: bool
) -> None:
    """Put a user into TEAM of ORG, whose share of the queue their jobs count against."""
    from st_controller.errors import Refusal
    from st_controller.services.setup import set_tenant

    try:
        with _open(_settings(data)).write() as transaction:
            set_tenant(transaction, name, org, team, actor="console", create=create)
    except Refusal as refusal:
        _fail("; ".join([refusal.detail, *(item.message for item in refusal.errors)]))
    _show(as_json, {"username": name, "org": org, "team": team}, f"{name} is in {org}/{team}")


@user.command("reset")
@click.argument("name")
@click.option("--second-factor", is_flag=True, help="Ask for no code any more, too.")
@data_option
@json_option
def user_reset(name: str, second_factor: bool, data: Path | None, as_json: bool) -> None:
    """Print a token with which NAME chooses a password, once, within a day."""
    from st_controller.services.account_passwords import offer_reset
    from st_controller.services.setup import user_named

    with _open(_settings(data)).write() as transaction:
        found = user_named(transaction.session, name)
        if found is None:
            _fail(f"there is no user {name!r}")
        told = offer_reset(transaction, found, "console", clears_second_factor=second_factor)
    _show(as_json, told.model_dump(mode="json"), told.token)


@user.command("list")
@data_option
@json_option
def user_list(data: Path | None, as_json: bool) -> None:
    """List all users."""
    from st_controller.services.setup import list_users

    with _open(_settings(data)).read() as session:
        rows = [
            {"id": row.id, "username": row.username, "role": row.role}
            | {"org": row.org, "team": row.team}
            | {"disabled": row.disabled_at is not None}
            for row in list_users(session)
        ]
    lines = [f"{row['username']:<30} {row['role']:<12} {row['org']}/{row['team']}" for row in rows]
    _show(as_json, rows, "\n".join(lines) or "no users yet")


@main.group()
def token() -> None:
    """Tokens that let workers in."""


@token.command("join")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option("--expires", default="1h", show_default=True, help="Such as 30m, 12h or 7d.")
@data_option
@json_option
def token_join(uses: int, expires: str, data: Path | None, as_json: bool) -> None:
    """Make a join token; it is shown this once."""
    settings = _settings(data)
    from st_controller.services import join_tokens
    from st_controller.services.setup import first_admin
    from st_shared.protocol.resources import JoinTokenRequest

    request = JoinTokenRequest(expires_in_seconds=_seconds(expires), uses=uses)
    with _open(settings).write() as transaction:
        admin = first_admin(transaction.session)
        if admin is None:
            _fail("there is no admin yet; open the controller's address and set it up first")
        made = join_tokens.create_token(transaction, request, user_id=admin.id, actor="console")
    _show(as_json, made.model_dump(mode="json"), made.token)


def _upgrade(db: "Database") -> str:
    from st_controller.store import migrate as migrations

    migrations.upgrade(db)
    return migrations.head()


def _ask_password() -> str:
    if not sys.stdin.isatty():
        _fail("there is no terminal to ask for the password on; give --password-stdin")
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer


def _check_credentials(name: str, password: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    from st_shared.protocol.resources import Password, Username

    try:
        TypeAdapter(Username).validate_python(name)
    except ValidationError:
        _fail(f"{name!r} is no user name: lower-case letters, digits, dots, dashes; 64 at most")
    try:
        TypeAdapter(Password).validate_python(password)
    except ValidationError:
        _fail("the password needs 10 to 1024 characters")


def _seconds(text: str) -> int:
    from pydantic import TypeAdapter, ValidationError

    from st_shared.spec.duration import Duration

    try:
        seconds = float(TypeAdapter(Duration).validate_python(text))
    except ValidationError as error:
        _fail(f"--expires: {_sentence(error.errors()[0])}")
    if not 60 <= seconds <= 30 * 86_400:
        _fail("--expires: between 1m and 30d")
    return int(seconds)


def _print_start(told: "Announcement") -> None:
    lines = [f"st-fleet controller   {told.url}", f"data folder           {told.data_dir}"]
    if told.setup_token:
        lines += [
            "",
            "No user exists yet. Open the address and make the first admin with this token:",
            f"setup token           {told.setup_token}",
        ]
    click.echo("\n".join(lines))


def _print_json(told: "Announcement") -> None:
    from st_controller.serve import as_json

    click.echo(as_json(told))
