"""``st users``: who there is, and what one person may do."""

import sys
from datetime import UTC
from typing import Any

import click

from st_client.commands.keys import key_options, key_request, print_keys, print_made
from st_client.errors import BadInputError
from st_client.output import connect, json_option, print_json, print_table
from st_shared.protocol.tenancy import UserDetail


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--org")
@click.option("--team")
@json_option
def users(context: click.Context, *, org: str | None, team: str | None, as_json: bool) -> None:
    """List the users that you may manage; commands make and change them."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.people.users(org, team))
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [
        (each.username, each.role, each.org, ", ".join(each.teams), "disabled" * each.disabled)
        for each in found
    ]
    print_table(("USER", "ROLE", "ORG", "TEAMS", ""), rows)


@users.command("show")
@click.argument("user")
@json_option
def show_user(*, user: str, as_json: bool) -> None:
    """Show a user with all that they may do."""
    with connect() as client:
        found = client.people.user(user)
    _print_user(found, as_json=as_json)


@users.command("add")
@click.argument("user")
@click.option("--role", default="researcher", show_default=True)
@click.option("--org", help="Yours without it.")
@click.option("--team", default="default", show_default=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--no-password", is_flag=True, help="They cannot sign in before one is set.")
@json_option
def add_user(
    *,
    user: str,
    role: str,
    org: str | None,
    team: str,
    password_stdin: bool,
    no_password: bool,
    as_json: bool,
) -> None:
    """Make a user."""
    fields = {"username": user, "role": role, "org": org, "team": team}
    if not no_password:
        fields["password"] = _password(from_stdin=password_stdin)
    with connect() as client:
        made = client.people.create_user(fields)
    print_json(made) if as_json else click.echo(f"made {user} ({made.role}) in {made.org}/{team}")


@users.command("set")
@click.argument("user")
@click.option("--role")
@click.option("--team", help="One of their teams, as which they submit unless they say otherwise.")
@json_option
def set_user(*, user: str, role: str | None, team: str | None, as_json: bool) -> None:
    """Give a user another role or first team."""
    given = {"role": role, "team": team}
    with connect() as client:
        now = client.people.change_user(user, {key: text for key, text in given.items() if text})
    _print_user(now, as_json=as_json)


@users.command("disable")
@click.argument("user")
@json_option
def disable_user(*, user: str, as_json: bool) -> None:
    """Sign a user out everywhere, and void their keys; nothing is lost."""
    with connect() as client:
        now = client.people.change_user(user, {"disabled": True})
    print_json(now) if as_json else click.echo(f"disabled {user}")


@users.command("enable")
@click.argument("user")
@json_option
def enable_user(*, user: str, as_json: bool) -> None:
    """Let a user sign in again."""
    with connect() as client:
        now = client.people.change_user(user, {"disabled": False})
    print_json(now) if as_json else click.echo(f"enabled {user}")


@users.command("grant")
@click.argument("user")
@click.argument("permission")
@json_option
def grant(*, user: str, permission: str, as_json: bool) -> None:
    """Give one user a permission beside those of their role."""
    with connect() as client:
        now = client.people.grant(user, permission, "allow")
    _print_user(now, as_json=as_json)


@users.command("deny")
@click.argument("user")
@click.argument("permission")
@json_option
def deny(*, user: str, permission: str, as_json: bool) -> None:
    """Keep a permission from one user, whatever their role says."""
    with connect() as client:
        now = client.people.grant(user, permission, "deny")
    _print_user(now, as_json=as_json)


@users.command("ungrant")
@click.argument("user")
@click.argument("permission")
@json_option
def ungrant(*, user: str, permission: str, as_json: bool) -> None:
    """Let the role alone decide of a permission again."""
    with connect() as client:
        client.people.ungrant(user, permission)
        now = client.people.user(user)
    _print_user(now, as_json=as_json)


@users.command("keys")
@click.argument("user")
@json_option
def keys(*, user: str, as_json: bool) -> None:
    """List the API keys of a user, without their secrets."""
    with connect() as client:
        found = list(client.people.keys(user))
    print_keys(found, as_json=as_json)


@users.command("make-key")
@click.argument("user")
@key_options
@json_option
def make_key(*, user: str, as_json: bool, **fields: Any) -> None:
    """Make a key of an account without password, such as a pipeline's; shown this once."""
    request = key_request(**fields)
    with connect() as client:
        made = client.people.create_key(user, request)
    print_made(made, as_json=as_json)


@users.command("revoke-key")
@click.argument("user")
@click.argument("key")
@json_option
def revoke_key(*, user: str, key: str, as_json: bool) -> None:
    """End a key of a user at once."""
    with connect() as client:
        client.people.revoke_key(user, key)
    print_json({"revoked": key}) if as_json else click.echo(f"revoked {key}")


@users.command("reset")
@click.argument("user")
@click.option("--clear-second-factor", is_flag=True, help="Their authenticator is lost.")
@json_option
def reset(*, user: str, clear_second_factor: bool, as_json: bool) -> None:
    """Make a token with which a user chooses a password, once, within a day."""
    with connect() as client:
        made = client.people.offer_reset(user, clears_second_factor=clear_second_factor)
    if as_json:
        print_json(made)
        return
    until = f"{made.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    click.echo(f"for {user}, until {until}; shown this once:", err=True)
    click.echo(made.token)


@users.command("sign-out")
@click.argument("user")
@json_option
def sign_out(*, user: str, as_json: bool) -> None:
    """End all sessions of a user in browsers; their keys stay."""
    with connect() as client:
        ended = client.people.sign_out(user)
    print_json(ended) if as_json else click.echo(f"ended {ended.count} sessions of {user}")


def _print_user(user: UserDetail, *, as_json: bool) -> None:
    if as_json:
        print_json(user)
        return
    facts = {
        "user": user.username + (" (disabled)" if user.disabled else ""),
        "role": f"{user.role}, reaches {user.reach}",
        "in": f"{user.org}: {', '.join(user.teams)}; submits as {user.team}",
        "granted": ", ".join(user.allowed) or "-",
        "denied": ", ".join(user.denied) or "-",
        "may": ", ".join(user.permissions) or "-",
    }
    for name, text in facts.items():
        click.echo(f"{name:<8} {text}")


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise BadInputError(
            "there is no terminal to ask on", hint="give --password-stdin or --no-password"
        )
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return answer
