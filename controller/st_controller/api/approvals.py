"""``/v1/approvals`` and ``/v1/approval-rules``: jobs that wait for a person's word."""

from typing import Annotated

from fastapi import APIRouter, Query

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.errors import Refusal
from st_controller.platform import Platform
from st_controller.services.caller import Caller
from st_controller.services.policy import approval_rules, approvals
from st_shared.protocol.policy_approvals import (
    ApprovalRuleRequest,
    ApprovalRuleView,
    ApprovalState,
    ApprovalView,
    Decision,
    DecisionResult,
    DecisionResults,
    ManyDecisions,
)
from st_shared.protocol.resources import Page

router = APIRouter(prefix="/v1/approvals", tags=["policy"])
many_router = APIRouter(prefix="/v1/approvals:decide", tags=["policy"])
rules_router = APIRouter(prefix="/v1/approval-rules", tags=["policy"])

Viewer = Annotated[Caller, requires("job.view.own")]
Approver = Annotated[Caller, requires(approvals.DECIDE)]
Keeper = Annotated[Caller, requires(approval_rules.MANAGE)]


@router.get("")
def list_approvals(
    platform: PlatformDep,
    caller: Viewer,
    state: Annotated[ApprovalState | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ApprovalView]:
    """Approvals of one's own jobs, and of those that one may decide on, oldest first."""
    with platform.db.read() as session:
        return approvals.list_approvals(
            session, caller, platform.db.clock(), state=state, cursor=cursor, limit=limit
        )


@router.get("/{ref}")
def show(platform: PlatformDep, caller: Viewer, ref: str) -> ApprovalView:
    """An approval, by its id or that of the job."""
    with platform.db.read() as session:
        return approvals.get(session, caller, ref, platform.db.clock())


@router.post("/{ref}/decision")
def decide(platform: PlatformDep, caller: Approver, ref: str, said: Decision) -> ApprovalView:
    """Approve or reject a job."""
    with platform.db.write() as tx:
        return approvals.decide(tx, caller, ref, said)


@many_router.post("")
def decide_many(platform: PlatformDep, caller: Approver, request: ManyDecisions) -> DecisionResults:
    """Approve or reject many jobs, each on its own: some may be refused while others are not."""
    said = Decision(decision=request.decision, reason=request.reason)
    return DecisionResults(
        results=[_one(platform, caller, ref, said) for ref in dict.fromkeys(request.ids)]
    )


def _one(platform: Platform, caller: Caller, ref: str, said: Decision) -> DecisionResult:
    try:
        with platform.db.write() as tx:
            return DecisionResult(id=ref, approval=approvals.decide(tx, caller, ref, said))
    except Refusal as refused:
        return DecisionResult(id=ref, problem=refused.problem())


@rules_router.get("")
def list_rules(
    platform: PlatformDep, caller: Viewer, cursor: Cursor = None, limit: Limit = 200
) -> Page[ApprovalRuleView]:
    """The rules that bind the caller; for those who keep them, all of theirs."""
    with platform.db.read() as session:
        return approval_rules.list_rules(session, caller, cursor=cursor, limit=limit)


@rules_router.post("", status_code=201)
def create_rule(
    platform: PlatformDep, caller: Keeper, request: ApprovalRuleRequest
) -> ApprovalRuleView:
    """Make a rule; it holds for what is submitted from now on."""
    with platform.db.write() as tx:
        return approval_rules.create(tx, caller, request)


@rules_router.put("/{rule_id}")
def replace_rule(
    platform: PlatformDep, caller: Keeper, rule_id: str, request: ApprovalRuleRequest
) -> ApprovalRuleView:
    """Put other content in place of a rule's; jobs that wait already wait by the old one."""
    with platform.db.write() as tx:
        return approval_rules.replace(tx, caller, rule_id, request)


@rules_router.delete("/{rule_id}", status_code=204)
def remove_rule(platform: PlatformDep, caller: Keeper, rule_id: str) -> None:
    """Take a rule away; jobs that wait by it go on waiting."""
    with platform.db.write() as tx:
        approval_rules.remove(tx, caller, rule_id)
