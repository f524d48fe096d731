"""What the routes that submit have in common."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Header, Response
from pydantic import BaseModel

from st_controller.platform import Platform
from st_controller.services.drafts import Rules

IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")
]


WANTED = (
    "config.view",
    "job.priority.high",
    "job.priority.urgent",
    "job.command",
    "job.bypass.approval",
)
"""Permissions that a job file may need beyond that to submit."""


def rules_of(platform: Platform) -> Rules:
    """What this controller's configuration lets people submit."""
    return Rules(allow_commands=platform.settings.allow_command_jobs)


def encoded(answer: BaseModel, status: int, headers: Mapping[str, str] = {}) -> Response:
    """An answer as it goes out: our own model, so that the framework need not check it again."""
    return Response(
        answer.model_dump_json(),
        status_code=status,
        media_type="application/json",
        headers=dict(headers),
    )
