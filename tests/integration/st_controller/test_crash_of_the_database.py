"""Offers do not wait for the disk; marks that a crash removes tell whoever must know of it.

A real crash: ``tests/faults/test_crash_of_the_database.py``.
"""

from collections import defaultdict
from datetime import timedelta

import pytest
from sqlalchemy import delete, text, update

from st_controller.dispatch.leadership import LeadershipLostError
from st_controller.services import outbox
from st_controller.store.places import SKIPPED
from st_controller.store.schema import CrashMark, EventOrder, OutboxEvent

GRACE = timedelta(seconds=25)


def lose_marks(steps) -> None:
    """What is left of the marks after a crash."""
    with steps.db.write() as tx:
        tx.session.execute(delete(CrashMark))


def positions(steps) -> list[int]:
    with steps.db.read() as session:
        return [row["position"] for row in outbox.all_after(session, 0)]


def told(steps, *, urgently: bool) -> int:
    """Tell of something; which place it got."""
    with steps.db.write(places_events=urgently) as tx:
        tx.emit("t", "k", {})
    steps.relay()
    return positions(steps)[-1]


@pytest.mark.parametrize("urgently", [True, False])
def test_a_place_that_was_told_and_lost_is_not_given_again(steps, urgently):
    if steps.db.is_sqlite:
        pytest.skip("SQLite waits for its disk")
    told(steps, urgently=urgently)
    seen = told(steps, urgently=urgently)
    with steps.db.write() as tx:
        tx.session.execute(delete(OutboxEvent).where(OutboxEvent.position == seen))
        tx.session.execute(update(EventOrder).values(last_position=seen - 1))
    lose_marks(steps)
    after = told(steps, urgently=urgently)
    assert after == seen + SKIPPED
    assert told(steps, urgently=not urgently) == after + 1  # once


def test_whoever_led_before_a_crash_decides_nothing_until_all_is_read_anew(steps):
    steps.join()
    job_id = steps.submit()
    lose_marks(steps)
    with pytest.raises(LeadershipLostError):
        steps.place()
    assert steps.job(job_id).state == "queued"
    found = steps.rounds.seek(steps.lead.holder, alone=False)
    assert found.epoch == steps.lead.epoch + 1  # so whoever leads begins anew
    assert steps.rounds.seek(steps.lead.holder, alone=False) == found
    steps.rounds.begin(found, GRACE)
    assert steps.rounds.place(found) == 1


def test_only_what_means_nothing_by_itself_does_not_wait_for_the_disk(steps, monkeypatch):
    if steps.db.is_sqlite:
        pytest.skip("SQLite waits for its disk")
    write, waits = steps.db.write, defaultdict(set)

    def seen(**how):
        opened = write(**how)

        class Noting:
            def __enter__(self):
                self.tx = opened.__enter__()
                waits[step].add(self.tx.session.scalar(text("SHOW synchronous_commit")))
                return self.tx

            def __exit__(self, *error):
                return opened.__exit__(*error)

        return Noting()

    monkeypatch.setattr(steps.db, "write", seen)
    step = "join"
    worker_id = steps.join()
    step = "submit"
    steps.submit()
    step = "offer"
    steps.place()
    step = "claim"
    attempt_id = steps.offered(worker_id)
    steps.claim(worker_id, attempt_id)
    step = "run"
    steps.run(worker_id, attempt_id)
    step = "yield"
    steps.submit(priority="urgent")
    steps.place()
    assert "off" in waits.pop("offer")
    assert waits == {step: {"on"} for step in ("join", "submit", "claim", "run", "yield")}
