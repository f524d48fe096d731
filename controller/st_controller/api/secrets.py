"""``/v1/secrets``, ``/v1/shared-secrets``: set, listed by name, removed; values are never told."""

from typing import Annotated

from fastapi import APIRouter, Path

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.platform import Platform
from st_controller.services import stored_secrets
from st_controller.services.caller import Caller
from st_shared.protocol.resources import Page
from st_shared.protocol.secrets import SecretRequest, SecretView
from st_shared.spec.secret_names import SECRET_NAME

router = APIRouter(tags=["secrets"])

Keeper = Annotated[Caller, requires("secret.own")]
Manager = Annotated[Caller, requires("secret.manage")]
Name = Annotated[str, Path(max_length=64, pattern=SECRET_NAME)]


@router.get("/v1/secrets")
def list_(platform: PlatformDep, caller: Keeper) -> Page[SecretView]:
    """The secrets that the caller's jobs may name."""
    with platform.db.read() as session:
        return Page(items=stored_secrets.usable(session, caller))


@router.put("/v1/secrets/{name}")
def put(platform: PlatformDep, caller: Keeper, name: Name, body: SecretRequest) -> SecretView:
    """Store a secret of one's own, in place of an earlier one."""
    return _put(platform, caller, name, body, shared=False)


@router.delete("/v1/secrets/{name}", status_code=204)
def remove(platform: PlatformDep, caller: Keeper, name: Name) -> None:
    """Remove a secret of one's own."""
    with platform.db.write() as tx:
        stored_secrets.remove(tx, caller, name, shared=False)


@router.put("/v1/shared-secrets/{name}")
def put_shared(
    platform: PlatformDep, caller: Manager, name: Name, body: SecretRequest
) -> SecretView:
    """Store a secret that everybody in the caller's organisation may use in jobs."""
    stored_secrets.must_manage(caller)
    return _put(platform, caller, name, body, shared=True)


@router.delete("/v1/shared-secrets/{name}", status_code=204)
def remove_shared(platform: PlatformDep, caller: Manager, name: Name) -> None:
    """Remove a secret of the caller's organisation."""
    stored_secrets.must_manage(caller)
    with platform.db.write() as tx:
        stored_secrets.remove(tx, caller, name, shared=True)


def _put(
    platform: Platform, caller: Caller, name: str, body: SecretRequest, *, shared: bool
) -> SecretView:
    value = body.value.get_secret_value()
    sealed = stored_secrets.seal(platform.vault, caller, name, value, shared=shared)
    with platform.db.write() as tx:
        return stored_secrets.put(tx, caller, name, sealed, shared=shared)
