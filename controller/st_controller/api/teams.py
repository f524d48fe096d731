"""``/v1/teams``: teams, and who is in them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.services import memberships, tenants
from st_controller.services.caller import Caller
from st_controller.store.schema import Team
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Page
from st_shared.protocol.tenancy import MemberView, TeamChange, TeamRequest, TeamView

router = APIRouter(prefix="/v1/teams", tags=["people"])

Viewer = Annotated[Caller, requires("team.view")]
Members = Annotated[Caller, requires("team.manage.members")]
Slug = Annotated[str, Path(max_length=64)]
Username = Annotated[str, Path(max_length=200)]


@router.get("")
def list_teams(
    platform: PlatformDep,
    caller: Viewer,
    org: Annotated[str | None, Query(max_length=64)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[TeamView]:
    """The teams that the caller may see: their own, those of their organisation, or all."""
    with platform.db.read() as session:
        found, following = tenants.list_teams(session, caller, org=org, after=cursor, limit=limit)
        return Page(items=tenants.team_views(session, found), next_cursor=following)


@router.post("", status_code=201)
def create(
    platform: PlatformDep, caller: Annotated[Caller, requires("team.create")], request: TeamRequest
) -> TeamView:
    """Make a team."""
    with platform.db.write() as tx:
        return _view(tx, tenants.make_team(tx, caller, request))


@router.get("/{org}/{team}")
def show(platform: PlatformDep, caller: Viewer, org: Slug, team: Slug) -> TeamView:
    """One team."""
    with platform.db.read() as session:
        found = tenants.get_team(session, caller, org, team)
        return tenants.team_views(session, [found])[0]


@router.patch("/{org}/{team}")
def change(
    platform: PlatformDep,
    caller: Annotated[Caller, requires("team.edit")],
    org: Slug,
    team: Slug,
    request: TeamChange,
) -> TeamView:
    """Give it another name; the one in paths stays."""
    with platform.db.write() as tx:
        return _view(tx, tenants.rename_team(tx, caller, org, team, request.name))


@router.delete("/{org}/{team}")
def archive(
    platform: PlatformDep,
    caller: Annotated[Caller, requires("team.delete")],
    org: Slug,
    team: Slug,
) -> TeamView:
    """Let nobody submit as it any more; its jobs stay."""
    with platform.db.write() as tx:
        return _view(tx, tenants.archive_team(tx, caller, org, team))


@router.get("/{org}/{team}/members")
def members(
    platform: PlatformDep,
    caller: Viewer,
    org: Slug,
    team: Slug,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[MemberView]:
    """Who is in it, by name."""
    with platform.db.read() as session:
        tenants.get_team(session, caller, org, team)
        found, following = memberships.members(session, org, team, after=cursor, limit=limit)
    return Page(items=found, next_cursor=following)


@router.put("/{org}/{team}/members/{username}", status_code=204)
def take_in(
    platform: PlatformDep, caller: Members, org: Slug, team: Slug, username: Username
) -> None:
    """Take a user of the organisation into it."""
    with platform.db.write() as tx:
        memberships.join_team(tx, caller, org, team, username)


@router.delete("/{org}/{team}/members/{username}", status_code=204)
def take_out(
    platform: PlatformDep, caller: Members, org: Slug, team: Slug, username: Username
) -> None:
    """Take a user out of it; their jobs stay where they are."""
    with platform.db.write() as tx:
        memberships.leave_team(tx, caller, org, team, username)


def _view(tx: Transaction, team: Team) -> TeamView:
    tx.session.flush()
    return tenants.team_views(tx.session, [team])[0]
