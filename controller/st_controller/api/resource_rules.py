"""``/v1/resource-rules``: what people may ask for."""

from typing import Annotated

from fastapi import APIRouter

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.services.caller import Caller
from st_controller.services.policy import resource_rules
from st_shared.protocol.policy_rules import ResourceRuleRequest, ResourceRuleView
from st_shared.protocol.resources import Page

router = APIRouter(prefix="/v1/resource-rules", tags=["policy"])

Viewer = Annotated[Caller, requires("job.view.own")]
Keeper = Annotated[Caller, requires(resource_rules.MANAGE)]


@router.get("")
def list_rules(
    platform: PlatformDep, caller: Viewer, cursor: Cursor = None, limit: Limit = 200
) -> Page[ResourceRuleView]:
    """The rules that bind the caller; for those who keep them, all of theirs."""
    with platform.db.read() as session:
        return resource_rules.list_rules(session, caller, cursor=cursor, limit=limit)


@router.post("", status_code=201)
def create(platform: PlatformDep, caller: Keeper, request: ResourceRuleRequest) -> ResourceRuleView:
    """Make a rule; it holds for what is submitted from now on."""
    with platform.db.write() as tx:
        return resource_rules.create(tx, caller, request)


@router.put("/{rule_id}")
def replace(
    platform: PlatformDep, caller: Keeper, rule_id: str, request: ResourceRuleRequest
) -> ResourceRuleView:
    """Put other content in place of a rule's."""
    with platform.db.write() as tx:
        return resource_rules.replace(tx, caller, rule_id, request)


@router.delete("/{rule_id}", status_code=204)
def remove(platform: PlatformDep, caller: Keeper, rule_id: str) -> None:
    """Take a rule away."""
    with platform.db.write() as tx:
        resource_rules.remove(tx, caller, rule_id)
