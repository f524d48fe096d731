"""``st users``, ``st roles`` and ``st configs``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from st_client.errors import BadInputError
from st_client.output import connect, json_option, print_json, print_table
from st_shared.protocol.tenancy import UserDetail
from st_shared.spec.reading import SpecProblems, parse_yaml, read_text


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
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [(each.id, each.name, each.prefix, ", ".join(each.scopes or ())) for each in found]
    print_table(("ID", "NAME", "KEY", "SCOPES"), rows)


@users.command("revoke-key")
@click.argument("user")
@click.argument("key")
@json_option
def revoke_key(*, user: str, key: str, as_json: bool) -> None:
    """End a key of a user at once."""
    with connect() as client:
        client.people.revoke_key(user, key)
    print_json({"revoked": key}) if as_json else click.echo(f"revoked {key}")


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


# Roles


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def roles(context: click.Context, *, as_json: bool) -> None:
    """List roles; commands make and remove them."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.people.roles())
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [
        (each.slug, each.reach, str(each.rank), str(len(each.permissions)), str(each.users))
        for each in found
    ]
    print_table(("ROLE", "REACH", "RANK", "PERMISSIONS", "USERS"), rows)


@roles.command("create")
@click.argument("role")
@click.option("--name", help="For people.")
@click.option("--reach", type=click.Choice(("own", "team", "org", "system")), default="own")
@click.option("--rank", type=click.IntRange(0, 100), default=10, show_default=True)
@click.option("--like", help="Begin with the permissions of this role, as far as the reach allows.")
@click.option("--allow", multiple=True, metavar="PERMISSION")
@click.option("--without", multiple=True, metavar="PERMISSION")
@json_option
def create_role(
    *,
    role: str,
    name: str | None,
    reach: str,
    rank: int,
    like: str | None,
    allow: Sequence[str],
    without: Sequence[str],
    as_json: bool,
) -> None:
    """Make a role: at most what you may do yourself, and no farther."""
    fields: dict[str, Any] = {
        "slug": role,
        "name": name or role,
        "like": like,
        "permissions": list(allow),
        "without": list(without),
        "reach": reach,
        "rank": rank,
    }
    with connect() as client:
        made = client.people.create_role(fields)
    print_json(made) if as_json else click.echo(f"made {role}: {', '.join(made.permissions)}")


@roles.command("delete")
@click.argument("role")
@json_option
def delete_role(*, role: str, as_json: bool) -> None:
    """Remove a role that nobody has."""
    with connect() as client:
        client.people.delete_role(role)
    print_json({"deleted": role}) if as_json else click.echo(f"removed {role}")


# Saved configurations


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def configs(context: click.Context, *, as_json: bool) -> None:
    """List saved configurations, from which job files begin by `config: NAME`."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.people.configs())
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [(each.name, str(each.version), each.created_by, each.team, each.note) for each in found]
    print_table(("NAME", "VERSION", "BY", "TEAM", "NOTE"), rows)


@configs.command("show")
@click.argument("name")
@json_option
def show_config(*, name: str, as_json: bool) -> None:
    """Print a configuration."""
    with connect() as client:
        found = client.people.config(name)
    print_json(found if as_json else found.document)


@configs.command("save")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--note", default="", help="For people; of a new one.")
@json_option
def save_config(*, name: str, file: Path, note: str, as_json: bool) -> None:
    """Save part of a job file under NAME, or put it in place of what is there."""
    try:
        document = parse_yaml(read_text(file))
    except SpecProblems as found:
        raise BadInputError(f"{file} cannot be read", detail=str(found)) from None
    if not isinstance(document, dict):
        raise BadInputError(f"{file} is no part of a job file", hint="it maps keys to values")
    with connect() as client:
        known = {each.name for each in client.people.configs()}
        if name in known:
            saved = client.people.change_config(name, document)
        else:
            saved = client.people.create_config(name, document, note)
    print_json(saved) if as_json else click.echo(f"saved {name}, version {saved.version}")


@configs.command("delete")
@click.argument("name")
@json_option
def delete_config(*, name: str, as_json: bool) -> None:
    """Remove a configuration; jobs that were made of it stay as they are."""
    with connect() as client:
        client.people.delete_config(name)
    print_json({"deleted": name}) if as_json else click.echo(f"removed {name}")
