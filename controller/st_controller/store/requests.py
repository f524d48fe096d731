"""What the scheduler reads of a specification, kept beside it so that a queue is read quickly."""

import json
from typing import Any

from sqlalchemy.engine.default import DefaultExecutionContext


def request_of(context: DefaultExecutionContext) -> str:
    """The request of a new job as JSON with sorted keys, alike for all jobs that ask the same."""
    spec = _column(context, "spec")
    asked = {**spec["resources"], "limit": spec["time_limit"]}
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))


def wants_of(context: DefaultExecutionContext) -> list[str]:
    """Ids of contents that a worker may hold already: pinned datasets, then the base model."""
    pins = list(_column(context, "dataset_pins").values())
    training = _column(context, "spec").get("training") or {}
    base = training.get("model", {}).get("base")
    return [*pins, f"base:{base}"] if base else pins


def expected_of(context: DefaultExecutionContext) -> float | None:
    """How long the submitter thinks that the job takes, seconds."""
    expected: float | None = _column(context, "spec").get("expected_time")
    return expected


def _column(context: DefaultExecutionContext, name: str) -> dict[str, Any]:
    found: dict[str, Any] = context.get_current_parameters(isolate_multiinsert_groups=True)[name]  # type: ignore[no-untyped-call]
    return found
