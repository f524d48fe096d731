"""Of everything that a leader writes, nothing changes once somebody else leads.

Each kind of write is made due first; that the successor then does it shows that it was.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from controller_steps import Steps
from sqlalchemy import select

from st_controller.dispatch.leadership import Leadership, LeadershipLostError
from st_controller.dispatch.rounds import Rounds
from st_controller.domain.policy.roles import Role
from st_controller.services.idempotency import KEPT
from st_controller.services.policy import approval_rules
from st_controller.services.worker_orders import VANISHED
from st_controller.store.schema import CrashMark, LeaderLease
from st_controller.store.schema.base import Table
from st_shared.protocol.policy_approvals import ApprovalRuleRequest
from st_shared.protocol.states import WorkerDesired, WorkerState

GRACE = timedelta(seconds=25)
Make = Callable[[Steps], None]
DUE: dict[str, tuple[Make, str, str]] = {}
"""What makes a write due, the step of a leader that does it, and a table that it changes."""

pytestmark = pytest.mark.embedded


def due(step: str, table: str) -> Callable[[Make], Make]:
    def keep(make: Make) -> Make:
        DUE[make.__name__] = make, step, table
        return make

    return keep


def everything(steps) -> dict[str, list[tuple]]:
    """Every row of every table but the lease itself and its mark."""
    with steps.db.read() as session:
        return {
            table.name: sorted(map(tuple, session.execute(select(table))), key=repr)
            for table in Table.metadata.sorted_tables
            if table.name not in {LeaderLease.__tablename__, CrashMark.__tablename__}
        }


def running(steps, **fields) -> tuple[str, str]:
    """A worker, and the attempt that runs on it."""
    worker_id = steps.join()
    steps.submit("running", **fields)
    attempt_id = steps.claimed(worker_id)
    steps.run(worker_id, attempt_id)
    return worker_id, attempt_id


@due("place", "attempts")
def an_offer(steps):
    steps.submit()
    steps.join()


@due("place", "attempts")
def an_order_to_yield(steps):
    running(steps)
    steps.submit("urgent", priority="urgent")


@due("sweep", "attempts")
def the_end_of_an_offer(steps):
    steps.submit()
    steps.join()
    steps.place()
    steps.clock.advance(steps.patience.offer_ttl)


@due("sweep", "attempts")
def the_end_of_a_lease(steps):
    running(steps)
    steps.clock.advance(steps.patience.lease_ttl)


@due("sweep", "workers")
def the_silence_of_a_worker(steps):
    steps.join()
    steps.clock.advance(steps.patience.silent_after)


@due("sweep", "attempts")
def the_end_of_a_drain(steps):
    worker_id, _ = running(steps)
    steps.order(worker_id, WorkerDesired.DRAINING, grace=timedelta(seconds=5))
    steps.clock.advance(5)


@due("sweep", "workers")
def the_exchange_of_an_old_credential(steps):
    worker_id = steps.join()
    steps.clock.advance(timedelta(days=31).total_seconds())
    steps.beat(worker_id)


@due("sweep", "approvals")
def the_rejection_of_what_nobody_decided(steps):
    asked = {"name": "all", "condition": "role", "pattern": "researcher", "expires_after": 60}
    with steps.db.write() as tx:
        approval_rules.create(tx, steps.admin, ApprovalRuleRequest.model_validate(asked))
    steps.submit(actor=steps.user("ann", Role.RESEARCHER))
    steps.clock.advance(60)


@due("sweep", "idempotency_keys")
def the_end_of_a_key(steps):
    steps.submit(key="once")
    steps.clock.advance(KEPT.total_seconds() + 1)


@due("sweep", "workers")
def the_retirement_of_a_worker_that_vanished(steps):
    worker_id = steps.join(ephemeral=True)
    steps.wait(steps.patience.lease_ttl)
    assert steps.worker(worker_id).observed == WorkerState.GONE
    steps.clock.advance(VANISHED.total_seconds())


@due("place", "tenant_usage")
def what_tenants_have_used(steps):
    worker_id, attempt_id = running(steps)
    steps.clock.advance(10)
    steps.beat(worker_id, attempt_id)
    steps.finish(worker_id, attempt_id)
    steps.clock.advance(60)
    steps.beat(worker_id)


@due("begin", "workers")
def the_pardon_of_silence(steps):
    """Whoever takes over counts the silence of workers and leases from then on."""
    running(steps)
    steps.clock.advance(5)


def steps_of(rounds: Rounds, lead: Leadership) -> dict[str, Callable[[], object]]:
    """All that a leader does."""
    return {
        "begin": lambda: rounds.begin(lead, GRACE),
        "sweep": lambda: rounds.sweep(lead),
        "place": lambda: rounds.place(lead),
    }


@pytest.mark.parametrize("name", sorted(DUE))
def test_a_leader_that_was_replaced_changes_nothing(steps, name):
    make, step, table = DUE[name]
    make(steps)
    heir = Rounds(steps.db, steps.patience)
    lead = heir.seek("ctl_heir", alone=True)
    before = everything(steps)
    for rounds in (steps.rounds, Rounds(steps.db, steps.patience)):
        with pytest.raises(LeadershipLostError):
            steps_of(rounds, steps.lead)[step]()
        for another in steps_of(rounds, steps.lead).values():
            with suppress(LeadershipLostError):
                another()
        assert everything(steps) == before
    steps_of(heir, lead)[step]()
    assert everything(steps)[table] != before[table]


def test_a_leader_that_is_replaced_between_two_writes_of_a_sweep_does_only_the_first(
    steps, monkeypatch
):
    the_retirement_of_a_worker_that_vanished(steps)
    write, count = steps.db.write, iter(range(100))

    def replaced(**how):
        if next(count) == 1:
            Rounds(steps.db, steps.patience).seek("ctl_heir", alone=True)
        return write(**how)

    monkeypatch.setattr(steps.db, "write", replaced)
    before = everything(steps)
    with pytest.raises(LeadershipLostError):
        steps.sweep()
    assert everything(steps) == before
    assert next(count) == 3  # the first write, the change of leaders, the second write
