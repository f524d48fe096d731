"""What the scheduler reads of a specification, kept beside it so that a queue is read quickly."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine.default import DefaultExecutionContext


def request_text(spec: Mapping[str, Any]) -> str:
    """The request of a job as JSON with sorted keys, alike for all jobs that ask the same."""
    asked = {**spec["resources"], "limit": spec["time_limit"]}
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))


def narrowed(request: str, groups: Mapping[str, str]) -> str:
    """A request whose globs are narrowed by further groups, such as ``!h100*``, by field."""
    asked = json.loads(request)
    asked |= {name: f"{asked[name]}&{group}" for name, group in groups.items()}
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))


def wanted_contents(spec: Mapping[str, Any], pins: Mapping[str, str]) -> list[str]:
    """Ids of contents that a worker may hold already: pinned datasets, then the base model."""
    wanted = list(pins.values())
    training = spec.get("training") or {}
    base = training.get("model", {}).get("base")
    return [*wanted, base_content(base)] if base else wanted


def base_content(model: str) -> str:
    """The id of a base model among contents; a worker that has ``owner/name`` holds it."""
    return f"base:{model}"


def kept_as(org: str, digest: str) -> str:
    """What workers call the content of a dataset: no other organisation finds it under its own."""
    return hashlib.sha256(f"{org}\n{digest}".encode()).hexdigest()


def model_of(content: str) -> str | None:
    """The model of a ``base_content``; none: it is another content."""
    kind, _, model = content.partition(":")
    return model if kind == "base" and model else None


def request_of(context: DefaultExecutionContext) -> str:
    """``request_text`` of a new row."""
    return request_text(_column(context, "spec"))


def wants_of(context: DefaultExecutionContext) -> list[str]:
    """``wanted_contents`` of a new row."""
    return wanted_contents(_column(context, "spec"), _column(context, "dataset_pins"))


def _column(context: DefaultExecutionContext, name: str) -> dict[str, Any]:
    found: dict[str, Any] = context.get_current_parameters(isolate_multiinsert_groups=True)[name]  # type: ignore[no-untyped-call]
    return found
