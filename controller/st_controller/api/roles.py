"""``/v1/roles``: what each role gives, and roles made here."""

from typing import Annotated

from fastapi import APIRouter, Path

from st_controller.api.dependencies import PlatformDep, requires, requires_any
from st_controller.services import roles
from st_controller.services.caller import Caller
from st_shared.protocol.resources import Page
from st_shared.protocol.tenancy import RoleRequest, RoleView

router = APIRouter(prefix="/v1/roles", tags=["people"])

Maker = Annotated[Caller, requires("admin.levels")]
Slug = Annotated[str, Path(max_length=40)]


@router.get("")
def list_roles(
    platform: PlatformDep, caller: Annotated[Caller, requires_any("admin.users", "admin.levels")]
) -> Page[RoleView]:
    """Every role, the highest rank last."""
    with platform.db.read() as session:
        return Page(items=roles.views(session, caller, roles.list_roles(session)))


@router.post("", status_code=201)
def create(platform: PlatformDep, caller: Maker, request: RoleRequest) -> RoleView:
    """Make a role."""
    with platform.db.write() as tx:
        role = roles.make_role(tx, caller, request)
        return roles.views(tx.session, caller, [role])[0]


@router.put("/{role}")
def change(platform: PlatformDep, caller: Maker, role: Slug, request: RoleRequest) -> RoleView:
    """Let a role give something else, at once for whoever has it."""
    with platform.db.write() as tx:
        changed = roles.change_role(tx, caller, role, request)
        tx.session.flush()
        return roles.views(tx.session, caller, [changed])[0]


@router.delete("/{role}", status_code=204)
def delete(platform: PlatformDep, caller: Maker, role: Slug) -> None:
    """Remove a role that nobody has."""
    with platform.db.write() as tx:
        roles.delete_role(tx, caller, role)
