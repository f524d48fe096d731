"""``/v1/configs``: parts of job files saved under a name."""

from typing import Annotated

from fastapi import APIRouter, Path

from st_controller.api.dependencies import PlatformDep, requires, requires_any
from st_controller.api.paging import Cursor, Limit
from st_controller.services import configs
from st_controller.services.caller import Caller
from st_shared.protocol.configs import ConfigChange, ConfigDetail, ConfigRequest, ConfigView
from st_shared.protocol.resources import Page

router = APIRouter(prefix="/v1/configs", tags=["configs"])

Viewer = Annotated[Caller, requires("config.view")]
Named = Annotated[str, Path(max_length=80)]


@router.get("")
def list_configs(
    platform: PlatformDep, caller: Viewer, cursor: Cursor = None, limit: Limit = 100
) -> Page[ConfigView]:
    """The saved configurations of the caller's organisation, by name."""
    with platform.db.read() as session:
        found, following = configs.list_configs(session, caller, after=cursor, limit=limit)
        return Page(items=configs.views(session, found), next_cursor=following)


@router.post("", status_code=201)
def create(
    platform: PlatformDep,
    caller: Annotated[Caller, requires("config.create")],
    request: ConfigRequest,
) -> ConfigDetail:
    """Save a part of a job file under a new name."""
    with platform.db.write() as tx:
        return configs.detail(tx.session, configs.make_config(tx, caller, request))


@router.get("/{name}")
def show(platform: PlatformDep, caller: Viewer, name: Named) -> ConfigDetail:
    """One configuration with its content."""
    with platform.db.read() as session:
        return configs.detail(session, configs.get_config(session, caller, name))


@router.put("/{name}")
def change(
    platform: PlatformDep,
    caller: Annotated[Caller, requires_any("config.edit.own", "config.edit.all")],
    name: Named,
    request: ConfigChange,
) -> ConfigDetail:
    """Put other content under a name."""
    with platform.db.write() as tx:
        row = configs.change_config(tx, caller, name, request)
        tx.session.flush()
        return configs.detail(tx.session, row)


@router.delete("/{name}", status_code=204)
def delete(
    platform: PlatformDep,
    caller: Annotated[Caller, requires_any("config.delete.own", "config.delete.all")],
    name: Named,
) -> None:
    """Remove a configuration; jobs that were made of it stay as they are."""
    with platform.db.write() as tx:
        configs.delete_config(tx, caller, name)
