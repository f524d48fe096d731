"""Rules, weights and limits of the queue, as an admin sets them; each change is audited."""

import re
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.errors import InvalidRequest, NotFound, NotPermitted
from st_controller.services import queue_reading
from st_controller.services.actor import Actor
from st_controller.store.schema import QueuePolicy, ShareNode
from st_controller.store.transaction import QUEUE_RULES, Transaction
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.queue import QueueRules, ShareRequest, ShareView

WHOLE = "all"
"""Stands for the whole system where a path is asked."""

_PATH = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}(/[a-z0-9][a-z0-9._@-]{0,99}){0,2}")


def rules(session: Session) -> QueueRules:
    """The rules in force."""
    return QueueRules(**asdict(queue_reading.policy(session)))


def set_rules(tx: Transaction, actor: Actor, wanted: QueueRules) -> QueueRules:
    """Put other rules in force."""
    before = rules(tx.session)
    row = tx.session.get(QueuePolicy, 1, with_for_update=True)
    if row is None:
        row = QueuePolicy(id=1, rules={}, changed_at=tx.now)
        tx.session.add(row)
    row.rules, row.changed_at = wanted.model_dump(), tx.now
    changed = {
        name: [getattr(before, name), value]
        for name, value in wanted
        if getattr(before, name) != value
    }
    tx.audit(actor.signature, "queue.policy_changed", "queue", changed=changed)
    tx.wake(QUEUE_RULES)
    return wanted


def set_share(tx: Transaction, actor: Actor, path: str, wanted: ShareRequest) -> ShareView:
    """Set weight and limits of a node; it need not have submitted anything yet."""
    return _write_share(tx, actor, path, wanted.model_dump())


def change_share(tx: Transaction, actor: Actor, path: str, wanted: ShareRequest) -> ShareView:
    """The same for what was given in the request; the rest stays as it is."""
    return _write_share(tx, actor, path, wanted.model_dump(exclude_unset=True))


def _write_share(tx: Transaction, actor: Actor, path: str, values: dict[str, Any]) -> ShareView:
    place = _place(actor, path)
    node = tx.session.get(ShareNode, place, with_for_update=True)
    before = _columns(node) if node else None
    if node is None:
        node = ShareNode(path=place, weight=1.0, max_jobs=None, max_slots=None)
        tx.session.add(node)
    for name, value in values.items():
        setattr(node, name, value)
    node.changed_at = tx.now
    tx.audit(actor.signature, "queue.share_set", path, before=before, after=_columns(node))
    tx.wake(QUEUE_RULES)
    return ShareView(
        path=path, weight=node.weight, max_jobs=node.max_jobs, max_slots=node.max_slots
    )


def _columns(node: ShareNode) -> list[float | None]:
    return [node.weight, node.max_jobs, node.max_slots]


def remove_share(tx: Transaction, actor: Actor, path: str) -> None:
    """Let a node have weight 1 and no limits again."""
    node = tx.session.get(ShareNode, _place(actor, path), with_for_update=True)
    if node is None:
        raise NotFound(f"no share was set for {path}")
    tx.session.delete(node)
    tx.audit(actor.signature, "queue.share_removed", path)
    tx.wake(QUEUE_RULES)


def _place(actor: Actor, path: str) -> str:
    """The node of a path, or a refusal: it is none, or beyond the actor's reach."""
    place = _node(path)
    if not _covers(actor, place):
        raise NotPermitted(f"the share of {path!r} is beyond your reach")
    return place


def _covers(actor: Actor, place: str) -> bool:
    """Whether the actor may divide what is above a node: all that have it as a share."""
    org, _, below = place.partition("/")
    team, _, user = below.partition("/")
    reach = actor.reach("queue.manage") or Reach.OWN
    if reach is Reach.SYSTEM:
        return True
    if org != actor.org or not team:
        return False
    return reach is Reach.ORG or (reach is Reach.TEAM and bool(user) and team in actor.teams)


def _node(path: str) -> str:
    if path == WHOLE:
        return ""
    if not _PATH.fullmatch(path):
        raise InvalidRequest(
            "the path names no tenant",
            errors=[
                FieldProblem(
                    field="path", message="write `org`, `org/team`, `org/team/user`, or `all`"
                )
            ],
        )
    return path
