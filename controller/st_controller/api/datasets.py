"""``/v1/datasets``: register content under a name."""

from typing import Annotated

from fastapi import APIRouter

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.services import datasets, views
from st_controller.services.caller import Caller
from st_shared.protocol.resources import (
    DatasetComplete,
    DatasetRequest,
    DatasetTickets,
    DatasetView,
    Page,
)

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

Viewer = Annotated[Caller, requires("dataset.view")]
Creator = Annotated[Caller, requires("dataset.create")]


@router.post("")
def announce(platform: PlatformDep, caller: Creator, request: DatasetRequest) -> DatasetTickets:
    """Where to PUT the archives; what the store already has is not sent again."""
    with platform.db.write() as tx:
        dataset = datasets.announce(tx, caller, request)
    return DatasetTickets(tickets=datasets.tickets(platform.objects, dataset, request))


@router.post("/{name}/complete")
def complete(
    platform: PlatformDep, caller: Creator, name: str, request: DatasetComplete
) -> DatasetView:
    """Let the name stand for this content from now on."""
    with platform.db.read() as session:
        version = datasets.get_version(session, caller.org, name, request.digest)
    lacking = datasets.missing(platform.objects, version)
    with platform.db.write() as tx:
        dataset = datasets.complete(tx, caller, name, request.digest, lacking)
        tx.session.flush()
        return views.dataset_views(tx.session, [dataset])[0]


@router.get("")
def list_datasets(
    platform: PlatformDep,
    caller: Viewer,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Page[DatasetView]:
    """What each name stands for now."""
    with platform.db.read() as session:
        found, following = datasets.list_datasets(session, caller.org, cursor, limit)
        return Page(items=views.dataset_views(session, found), next_cursor=following)


@router.get("/{name}")
def show(platform: PlatformDep, caller: Viewer, name: str) -> DatasetView:
    """What this name stands for now."""
    with platform.db.read() as session:
        return views.dataset_views(session, [datasets.get_dataset(session, caller.org, name)])[0]
