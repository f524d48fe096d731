"""Whether this process lives, and whether it can serve."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response

from st_controller.api.dependencies import PlatformDep, public
from st_controller.api.edge import Edge
from st_controller.services.readiness import DatabaseState, database_state
from st_shared.protocol.message import Resource

router = APIRouter(tags=["health"])


class Health(Resource):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Resource):
    """What this process depends on; only the database decides ``ready``."""

    ready: bool
    database: DatabaseState
    redis: Literal["connected", "away", "none"]
    """``away`` and ``none`` cost speed and replicas' news, nothing else."""


def _redis(request: Request) -> Literal["connected", "away", "none"]:
    edge: Edge = request.app.state.edge
    if edge.fanout is None:
        return "none"
    return "connected" if edge.fanout.is_connected else "away"


@router.get("/healthz", dependencies=[public()])
async def healthz() -> Health:
    """The event loop turns."""
    return Health()


@router.get("/readyz", dependencies=[public()], responses={503: {"model": Readiness}})
def readyz(
    platform: PlatformDep,
    response: Response,
    redis: Annotated[Literal["connected", "away", "none"], Depends(_redis)],
) -> Readiness:
    """Requests can be served: the database answers and its schema is this version's."""
    database = database_state(platform.db)
    if database != "ready":
        response.status_code = 503
    return Readiness(ready=database == "ready", database=database, redis=redis)
