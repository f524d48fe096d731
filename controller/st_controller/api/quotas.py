"""``/v1/quotas``, ``/v1/prices``: how much may be used, by whom, and what it costs."""

from typing import Annotated

from fastapi import APIRouter, Query

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.errors import InvalidRequest
from st_controller.services.caller import Caller
from st_controller.services.policy import pricing, quota_setting, quota_usage
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.quotas import (
    PriceRequest,
    PriceView,
    QuotaRequest,
    QuotaView,
    UsageView,
)
from st_shared.protocol.resources import Page

router = APIRouter(prefix="/v1", tags=["quotas"])

Viewer = Annotated[Caller, requires("job.view.own", "quota.view")]
Keeper = Annotated[Caller, requires("quota.manage")]
OrgKeeper = Annotated[Caller, requires("org.manage.quotas")]
TeamKeeper = Annotated[Caller, requires("team.manage.quotas")]
Treasurer = Annotated[Caller, requires("admin.quotas")]
TenantPath = Annotated[
    str | None,
    Query(max_length=260, description="`org`, `org/team`, `org/team/user`, or `all`"),
]


@router.get("/quotas")
def list_quotas(platform: PlatformDep, caller: Viewer) -> Page[QuotaView]:
    """The limits that bind the caller, and those that they may see."""
    with platform.db.read() as session:
        return Page(items=quota_usage.list_quotas(session, caller))


@router.get("/quotas/usage")
def usage(platform: PlatformDep, caller: Viewer, path: TenantPath = None) -> UsageView:
    """What is used, held and left, and when it runs out; by default the caller's own."""
    with platform.db.read() as session:
        return quota_usage.usage(session, caller, path, platform.db.clock())


@router.put("/quotas")
def set_quota(platform: PlatformDep, caller: Keeper, request: QuotaRequest) -> QuotaView:
    """Set a limit; it counts what was used in its period before."""
    with platform.db.write() as tx:
        return quota_setting.set_quota(tx, caller, request)


@router.delete("/quotas/{quota_id}", status_code=204)
def remove_quota(platform: PlatformDep, caller: Keeper, quota_id: str) -> None:
    """Take a limit away."""
    with platform.db.write() as tx:
        quota_setting.remove_quota(tx, caller, quota_setting.find(tx.session, quota_id))


@router.put("/orgs/{org}/quotas")
def set_org_quota(
    platform: PlatformDep, caller: OrgKeeper, org: str, request: QuotaRequest
) -> QuotaView:
    """Set a limit of an organisation, or of what lies below it."""
    _must_lie_in(request.path, org)
    with platform.db.write() as tx:
        return quota_setting.set_quota(tx, caller, request, "org.manage.quotas")


@router.delete("/orgs/{org}/quotas/{quota_id}", status_code=204)
def remove_org_quota(platform: PlatformDep, caller: OrgKeeper, org: str, quota_id: str) -> None:
    """Take a limit of an organisation, or of what lies below it, away."""
    with platform.db.write() as tx:
        quota = quota_setting.find(tx.session, quota_id)
        _must_lie_in(quota.path, org)
        quota_setting.remove_quota(tx, caller, quota, "org.manage.quotas")


@router.put("/orgs/{org}/teams/{team}/quotas")
def set_team_quota(
    platform: PlatformDep, caller: TeamKeeper, org: str, team: str, request: QuotaRequest
) -> QuotaView:
    """Set a limit of a team, or of its members."""
    _must_lie_in(request.path, f"{org}/{team}")
    with platform.db.write() as tx:
        return quota_setting.set_quota(tx, caller, request, "team.manage.quotas")


@router.delete("/orgs/{org}/teams/{team}/quotas/{quota_id}", status_code=204)
def remove_team_quota(
    platform: PlatformDep, caller: TeamKeeper, org: str, team: str, quota_id: str
) -> None:
    """Take a limit of a team, or of its members, away."""
    with platform.db.write() as tx:
        quota = quota_setting.find(tx.session, quota_id)
        _must_lie_in(quota.path, f"{org}/{team}")
        quota_setting.remove_quota(tx, caller, quota, "team.manage.quotas")


@router.get("/prices")
def list_prices(platform: PlatformDep, caller: Viewer) -> Page[PriceView]:
    """What slots cost, with prices of the past and of the future."""
    del caller
    with platform.db.read() as session:
        return Page(items=pricing.prices(session))


@router.post("/prices", status_code=201)
def set_price(platform: PlatformDep, caller: Treasurer, request: PriceRequest) -> PriceView:
    """Let slots cost something from a moment on."""
    with platform.db.write() as tx:
        return pricing.set_price(tx, caller, request)


@router.delete("/prices/{price_id}", status_code=204)
def remove_price(platform: PlatformDep, caller: Treasurer, price_id: str) -> None:
    """Take a price away; what was charged stays charged."""
    with platform.db.write() as tx:
        pricing.remove_price(tx, caller, price_id)


def _must_lie_in(path: str, node: str) -> None:
    if path != node and not path.startswith(f"{node}/"):
        said = f"it must be {node} or lie below it"
        raise InvalidRequest(f"path: {said}", errors=[FieldProblem(field="path", message=said)])
