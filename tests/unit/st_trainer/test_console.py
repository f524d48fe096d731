"""What a person sees of a run without a terminal."""

import io
from datetime import UTC, datetime

from rich.console import Console

from st_shared.protocol.journal import ProgressEvent
from st_trainer.console import PlainLines


def told(*events):
    console = Console(width=200, record=True, file=io.StringIO())
    lines = PlainLines(console)
    for number, (phase, step, steps, more) in enumerate(events, 1):
        at = datetime(2026, 1, 1, tzinfo=UTC)
        event = ProgressEvent(seq=number, at=at, phase=phase, step=step, steps=steps, **more)
        lines(event)
    return console.export_text().splitlines()


def test_caching_and_training_are_told_now_and_then_with_the_time_left():
    found = told(
        ("loading", 0, 4, {}),
        ("caching", 0, 100, {}),
        ("caching", 50, 100, {"eta_seconds": 61.0}),
        ("caching", 51, 100, {"eta_seconds": 60.0}),
        ("training", 1, 4, {"eta_seconds": 3.0, "loss": 0.5}),
    )
    assert found == [
        "caching 0 of 100",
        "caching 50 of 100  1:01 left",
        "step 1 of 4  loss 0.5000  0:03 left",
    ]
