"""``st roles``: what people of one kind may do."""

from collections.abc import Sequence
from typing import Any

import click

from st_client.errors import MissingError
from st_client.output import connect, json_option, print_json, print_table
from st_shared.protocol.tenancy import RoleView

_REACHES = click.Choice(("own", "team", "org", "system"))


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def roles(context: click.Context, *, as_json: bool) -> None:
    """List roles; commands make, change and remove them."""
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


@roles.command("show")
@click.argument("role")
@json_option
def show_role(*, role: str, as_json: bool) -> None:
    """Show a role with all its permissions."""
    found = _find(role)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found.slug} ({found.name}): reaches {found.reach}, rank {found.rank}")
    click.echo("\n".join(f"  {permission}" for permission in found.permissions))


@roles.command("set")
@click.argument("role")
@click.option("--name", help="For people.")
@click.option("--reach", type=_REACHES)
@click.option("--rank", type=click.IntRange(0, 100))
@click.option("--allow", multiple=True, metavar="PERMISSION")
@click.option("--without", multiple=True, metavar="PERMISSION")
@json_option
def set_role(
    *,
    role: str,
    name: str | None,
    reach: str | None,
    rank: int | None,
    allow: Sequence[str],
    without: Sequence[str],
    as_json: bool,
) -> None:
    """Let a role made here give more or less, at once for whoever has it."""
    standing = _find(role)
    fields = {
        "slug": role,
        "name": name or standing.name,
        "permissions": sorted({*standing.permissions, *allow} - set(without)),
        "reach": reach or standing.reach,
        "rank": standing.rank if rank is None else rank,
    }
    with connect() as client:
        now = client.people.change_role(role, fields)
    print_json(now) if as_json else click.echo(f"{role}: {', '.join(now.permissions)}")


@roles.command("create")
@click.argument("role")
@click.option("--name", help="For people.")
@click.option("--reach", type=_REACHES, default="own")
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


def _find(slug: str) -> RoleView:
    with connect() as client:
        for role in client.people.roles():
            if role.slug == slug:
                return role
    raise MissingError(f"there is no role {slug}", hint="`st roles` lists them")
