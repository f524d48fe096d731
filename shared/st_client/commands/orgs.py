"""``st orgs`` and ``st teams``: tenants, and who is in them."""

import click

from st_client.errors import BadInputError
from st_client.output import connect, json_option, print_json, print_table
from st_client.people import split


@click.group(invoke_without_command=True)
@click.pass_context
@json_option
def orgs(context: click.Context, *, as_json: bool) -> None:
    """List organisations; commands make and change them."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.people.orgs())
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [
        (
            each.slug,
            each.name,
            each.time_zone,
            str(each.teams),
            str(each.users),
            "disabled" if each.disabled else "",
        )
        for each in found
    ]
    print_table(("ORG", "NAME", "TIME ZONE", "TEAMS", "USERS", ""), rows)


@orgs.command("create")
@click.argument("org")
@click.option("--name", help="For people.")
@click.option("--time-zone", default="UTC", show_default=True, help="Such as Europe/Berlin.")
@json_option
def create_org(*, org: str, name: str | None, time_zone: str, as_json: bool) -> None:
    """Make an organisation, with a team `default`."""
    with connect() as client:
        made = client.people.create_org(org, name, time_zone)
    print_json(made) if as_json else click.echo(f"made {made.slug}")


@orgs.command("set")
@click.argument("org")
@click.option("--name")
@click.option("--time-zone")
@json_option
def set_org(*, org: str, name: str | None, time_zone: str | None, as_json: bool) -> None:
    """Give an organisation another name or time zone."""
    given = {"name": name, "time_zone": time_zone}
    with connect() as client:
        now = client.people.change_org(org, {key: text for key, text in given.items() if text})
    print_json(now) if as_json else click.echo(f"{now.slug}: {now.name}, {now.time_zone}")


@orgs.command("disable")
@click.argument("org")
@json_option
def disable_org(*, org: str, as_json: bool) -> None:
    """Let nobody of an organisation sign in; what runs is left alone."""
    with connect() as client:
        client.people.disable_org(org)
    print_json({"slug": org, "disabled": True}) if as_json else click.echo(f"disabled {org}")


@orgs.command("enable")
@click.argument("org")
@json_option
def enable_org(*, org: str, as_json: bool) -> None:
    """Let the people of an organisation sign in again."""
    with connect() as client:
        now = client.people.enable_org(org)
    print_json(now) if as_json else click.echo(f"enabled {org}")


@orgs.command("add")
@click.argument("org")
@click.argument("user")
@click.option("--team", default="default", show_default=True)
@json_option
def move_user(*, org: str, user: str, team: str, as_json: bool) -> None:
    """Take a user into an organisation; what they made stays with the one that they leave."""
    with connect() as client:
        now = client.people.move_user(user, org, team)
    print_json(now) if as_json else click.echo(f"{user} is in {now.org}/{now.team}")


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--org", help="Of this organisation alone.")
@json_option
def teams(context: click.Context, *, org: str | None, as_json: bool) -> None:
    """List the teams that you may see; commands make and change them."""
    if context.invoked_subcommand is not None:
        return
    with connect() as client:
        found = list(client.people.teams(org))
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [
        (f"{each.org}/{each.slug}", each.name, str(each.members), "archived" * each.archived)
        for each in found
    ]
    print_table(("TEAM", "NAME", "MEMBERS", ""), rows)


@teams.command("create")
@click.argument("team")
@click.option("--name", help="For people.")
@json_option
def create_team(*, team: str, name: str | None, as_json: bool) -> None:
    """Make TEAM of your organisation, or ORG/TEAM."""
    with connect() as client:
        made = client.people.create_team(team, name)
    print_json(made) if as_json else click.echo(f"made {made.org}/{made.slug}")


@teams.command("rename")
@click.argument("team", metavar="ORG/TEAM")
@click.argument("name")
@json_option
def rename_team(*, team: str, name: str, as_json: bool) -> None:
    """Give a team another name for people."""
    with connect() as client:
        now = client.people.rename_team(_whole(team), name)
    print_json(now) if as_json else click.echo(f"{team} is called {now.name}")


@teams.command("archive")
@click.argument("team", metavar="ORG/TEAM")
@json_option
def archive_team(*, team: str, as_json: bool) -> None:
    """Let nobody submit as a team any more; its jobs stay."""
    with connect() as client:
        client.people.archive_team(_whole(team))
    print_json({"team": team, "archived": True}) if as_json else click.echo(f"archived {team}")


@teams.command("members")
@click.argument("team", metavar="ORG/TEAM")
@json_option
def members(*, team: str, as_json: bool) -> None:
    """List who is in a team."""
    with connect() as client:
        found = list(client.people.members(_whole(team)))
    if as_json:
        print_json({"items": [each.model_dump(mode="json") for each in found]})
        return
    rows = [(each.username, each.role, "disabled" * each.disabled) for each in found]
    print_table(("USER", "ROLE", ""), rows)


@teams.command("add")
@click.argument("team", metavar="ORG/TEAM")
@click.argument("user")
@json_option
def add_member(*, team: str, user: str, as_json: bool) -> None:
    """Take a user of the organisation into a team."""
    with connect() as client:
        client.people.add_member(_whole(team), user)
    print_json({"team": team, "user": user}) if as_json else click.echo(f"{user} is in {team}")


@teams.command("remove")
@click.argument("team", metavar="ORG/TEAM")
@click.argument("user")
@json_option
def remove_member(*, team: str, user: str, as_json: bool) -> None:
    """Take a user out of a team; their jobs stay where they are."""
    with connect() as client:
        client.people.remove_member(_whole(team), user)
    print_json({"team": team, "left": user}) if as_json else click.echo(f"{user} left {team}")


def _whole(team: str) -> str:
    if split(team)[0] is None:
        raise BadInputError(f"{team!r} names no team", hint="write it as ORG/TEAM")
    return team
