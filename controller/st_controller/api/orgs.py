"""``/v1/orgs``: organisations, and who is in them."""

from typing import Annotated

from fastapi import APIRouter, Path

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.services import memberships, tenants, user_views
from st_controller.services.caller import Caller
from st_controller.store.schema import Organisation
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Page
from st_shared.protocol.tenancy import (
    MemberView,
    OrgChange,
    OrgMember,
    OrgRequest,
    OrgView,
    UserView,
)

router = APIRouter(prefix="/v1/orgs", tags=["people"])

Viewer = Annotated[Caller, requires("org.view")]
Slug = Annotated[str, Path(max_length=64)]
Username = Annotated[str, Path(max_length=200)]


@router.get("")
def list_orgs(
    platform: PlatformDep, caller: Viewer, cursor: Cursor = None, limit: Limit = 100
) -> Page[OrgView]:
    """The organisations that the caller may see: their own, or all."""
    with platform.db.read() as session:
        found, following = tenants.list_orgs(session, caller, after=cursor, limit=limit)
        return Page(items=tenants.org_views(session, found), next_cursor=following)


@router.post("", status_code=201)
def create(
    platform: PlatformDep, caller: Annotated[Caller, requires("org.create")], request: OrgRequest
) -> OrgView:
    """Make an organisation, with a team `default`."""
    with platform.db.write() as tx:
        return _view(tx, tenants.make_org(tx, caller, request))


@router.get("/{org}")
def show(platform: PlatformDep, caller: Viewer, org: Slug) -> OrgView:
    """One organisation."""
    with platform.db.read() as session:
        return tenants.org_views(session, [tenants.get_org(session, caller, org)])[0]


@router.patch("/{org}")
def change(
    platform: PlatformDep,
    caller: Annotated[Caller, requires("org.edit")],
    org: Slug,
    request: OrgChange,
) -> OrgView:
    """Give it another name or time zone; its name in paths stays."""
    with platform.db.write() as tx:
        return _view(tx, tenants.change_org(tx, caller, org, request))


@router.delete("/{org}")
def disable(
    platform: PlatformDep, caller: Annotated[Caller, requires("org.delete")], org: Slug
) -> OrgView:
    """Let nobody of it sign in any more; what runs is left alone, and nothing is lost."""
    with platform.db.write() as tx:
        return _view(tx, tenants.set_org_disabled(tx, caller, org, disabled=True))


@router.post("/{org}/enable")
def enable(
    platform: PlatformDep, caller: Annotated[Caller, requires("org.delete")], org: Slug
) -> OrgView:
    """Let its people sign in again."""
    with platform.db.write() as tx:
        return _view(tx, tenants.set_org_disabled(tx, caller, org, disabled=False))


@router.get("/{org}/members")
def members(
    platform: PlatformDep,
    caller: Annotated[Caller, requires("org.manage.members")],
    org: Slug,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[MemberView]:
    """Who is in it, by name."""
    with platform.db.read() as session:
        tenants.get_org(session, caller, org, "org.manage.members")
        found, following = memberships.members(session, org, None, after=cursor, limit=limit)
    return Page(items=found, next_cursor=following)


@router.put("/{org}/members/{username}")
def take_in(
    platform: PlatformDep,
    caller: Annotated[Caller, requires("org.manage.members")],
    org: Slug,
    username: Username,
    request: OrgMember,
) -> UserView:
    """Take a user into it; what they made stays with the organisation that they leave."""
    with platform.db.write() as tx:
        user = memberships.move_to_org(tx, caller, username, org, request.team)
        tx.session.flush()
        return user_views.views(tx.session, [user])[0]


def _view(tx: Transaction, org: Organisation) -> OrgView:
    tx.session.flush()
    return tenants.org_views(tx.session, [org])[0]
