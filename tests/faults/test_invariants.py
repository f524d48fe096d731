"""The campaign's judges themselves: each broken promise is seen."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from faults.expected import loss
from faults.invariants import (
    Wanted,
    _attempts,
    _charged_as_used,
    _curve,
    usage_violations,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WANTED = Wanted("job_1", "training", seed=7, steps=20, every=10, log_every=5)


def _rig(points):
    made = [
        SimpleNamespace(
            attempt=attempt,
            seq=seq,
            step=step,
            values={"loss": loss(7, step) if value is None else value},
        )
        for seq, (attempt, step, value) in enumerate(points)
    ]
    return SimpleNamespace(client=SimpleNamespace(metrics=lambda _job: made))


def _steps(*steps, attempt=1):
    return [(attempt, step, None) for step in steps]


@pytest.mark.parametrize(
    ("points", "is_whole"),
    [
        (_steps(5, 10, 15, 20), True),
        (_steps(5, 10, 15) + _steps(15, 20, attempt=2), True),
        (_steps(5, 10, 20), False),
        (_steps(5, 10) + _steps(20, attempt=2), False),
        (_steps(5, 5, 10, 15, 20), False),
        ([*_steps(5, 10, 15), (1, 20, 0.5)], False),
    ],
    ids=["whole", "resumed", "gap", "gap between attempts", "double", "another number"],
)
def test_a_curve_is_whole_or_is_told(points, is_whole):
    assert (list(_curve(_rig(points), WANTED)) == []) is is_whole


@pytest.mark.parametrize(
    ("outcomes", "is_right"),
    [
        (["succeeded"], True),
        (["lost", "preempted", "succeeded"], True),
        (["succeeded", "succeeded"], False),
        (["succeeded", "lost"], False),
        (["cancelled", "succeeded"], False),
    ],
)
def test_a_job_succeeds_once(outcomes, is_right):
    attempts = [SimpleNamespace(outcome=outcome) for outcome in outcomes]
    assert (list(_attempts(attempts)) == []) is is_right


@pytest.mark.parametrize(
    ("charged", "is_right"), [(4.0, True), (8.0, False), (0.0, False), (3.8, False), (4.3, False)]
)
def test_slots_are_charged_once(charged, is_right):
    attempt = SimpleNamespace(
        outcome="succeeded",
        slots=[0, 1],
        offered_at=NOW - timedelta(seconds=3),
        claimed_at=NOW,
        released_at=NOW + timedelta(seconds=2),
        finished_at=NOW + timedelta(seconds=30),
    )
    whole = SimpleNamespace(path="", usage=10.0 + charged)
    rig = SimpleNamespace(
        client=SimpleNamespace(
            attempts=lambda _job: [attempt], queue=lambda: SimpleNamespace(tenants=[whole])
        )
    )
    assert (usage_violations(rig, ["job_1"], before=10.0) == []) is is_right


@pytest.mark.parametrize(
    ("used", "outcome", "waited", "is_right"),
    [
        (6.0, "succeeded", 0, True),
        (8.9, "succeeded", 0, True),
        (9.1, "succeeded", 0, False),
        (9.1, "failed", 1, True),  # its supervisor waited for room on a full disk
        (5.8, "succeeded", 0, False),
        (5.8, "lost", 0, True),
        (9.1, "lost", 0, False),
    ],
)
def test_a_program_is_charged_for_as_long_as_it_ran(tmp_path, used, outcome, waited, is_right):
    run = tmp_path / "attempts" / "att_1" / "run"
    run.mkdir(parents=True)
    (run / "journal.ndjson").write_text(f'{{"at": "{NOW.isoformat()}"}}\n{{"at": "later"}}\n')
    ended = NOW + timedelta(seconds=6)
    note = run / "exit.json"
    note.write_text(f'{{"ended_at": "{ended.isoformat()}"}}')
    os.utime(note, (ended.timestamp() + waited,) * 2)
    attempt = SimpleNamespace(
        id="att_1",
        number=1,
        outcome=outcome,
        claimed_at=NOW,
        released_at=NOW + timedelta(seconds=used),
    )
    rig = SimpleNamespace(agents=[SimpleNamespace(state=tmp_path)])
    assert (list(_charged_as_used(rig, [attempt])) == []) is is_right


def test_two_jobs_never_share_a_number():
    assert loss(replace(WANTED, seed=8).seed, 5) != loss(WANTED.seed, 5)
