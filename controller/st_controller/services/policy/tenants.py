"""Conditions of SQL for what belongs to a node of the tenant tree."""

from typing import Any

from sqlalchemy import select

from st_controller.store.schema import User


def below(table: Any, path: str) -> list[Any]:
    """That rows of a table with ``org``, ``team`` and an owner lie at or below ``path``."""
    parts = path.split("/") if path else []
    owner = table.user_id if hasattr(table, "user_id") else table.submitted_by
    found = []
    if parts:
        found.append(table.org == parts[0])
    if len(parts) > 1:
        found.append(table.team == parts[1])
    if len(parts) > 2:
        user = select(User.id).where(User.username == parts[2]).scalar_subquery()
        found.append(owner == user)
    return found
