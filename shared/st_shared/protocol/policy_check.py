"""What ``POST jobs:check`` says: whether a job could be submitted, step by step; it writes nothing.

| route | permission | body | answer |
|---|---|---|---|
| ``POST jobs:check`` | ``job.view.own`` | a JobSpec | ``CheckView`` |
"""

from typing import Literal

from pydantic import Field

from st_shared.protocol.message import Resource
from st_shared.protocol.problems import FieldProblem

StepName = Literal["file", "permission", "rules", "quotas", "approval", "workers"]


class CheckStep(Resource):
    """One step of the pass that every job goes through."""

    step: StepName
    verdict: Literal["yes", "no", "waits"]
    """``no``: it would be refused here; ``waits``: it would be let through, and wait for this."""
    problems: list[FieldProblem] = Field(default_factory=list)
    """What is refused, field by field."""
    notes: list[str] = Field(default_factory=list)
    """What else there is to say."""


class CheckView(Resource):
    """What would come of a job file now."""

    verdict: Literal["yes", "no", "needs_approval"]
    org: str
    team: str
    """As which it would be submitted."""
    steps: list[CheckStep]
    """Those that were looked at, in the order of the pass; of a wrong file no others are."""
