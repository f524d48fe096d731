from datetime import UTC, datetime

import pytest

from st_client.display import PlainDisplay, TerminalDisplay
from st_client.events import ProgressUpdate
from st_shared.protocol.resources import LogLine, MetricPoint, StateChange

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def progress(step, phase="training", steps=100):
    return ProgressUpdate(
        attempt=1, seq=step + 1, at=NOW, phase=phase, step=step, steps=steps, loss=0.5,
        steps_per_second=4.25, eta_seconds=3700,
    )  # fmt: skip


def log(message):
    return LogLine(attempt=1, seq=1, at=NOW, level="warning", message=message)


@pytest.fixture
def seconds():
    return [0.0]


@pytest.fixture
def plain(seconds):
    return PlainDisplay(clock=lambda: seconds[0])


def test_progress_lines_are_sparse(plain, seconds, capsys):
    for step in range(100):
        seconds[0] = step * 0.5
        plain.show(progress(step))
    steps = [int(line.split()[1].split("/")[0]) for line in capsys.readouterr().out.splitlines()]
    assert steps == list(range(0, 100, 6))


def test_a_slow_run_is_heard_of_every_half_minute(plain, seconds, capsys):
    for step in range(7):
        seconds[0] = step * 10.0
        plain.show(progress(step, steps=10_000))
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_progress_line_says_all_that_is_known(plain, capsys):
    plain.show(progress(20))
    plain.show(ProgressUpdate(attempt=1, seq=1, at=NOW, phase="loading", step=0, steps=0))
    line = "training 20/100 (20%)  loss 0.5000  4.25 steps/s  ETA 1h 1m\n"
    assert capsys.readouterr().out == line


def test_metrics_are_not_printed(plain, capsys):
    plain.show(MetricPoint(attempt=1, seq=1, at=NOW, step=1, values={"loss": 1.0}))
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_lines_and_a_bar(capsys):
    with TerminalDisplay() as display:
        display.show(log("[red]not markup[/red]"))
        display.show(progress(20))
        display.show(progress(21, phase="saving"))
        display.show(StateChange(version=1, state="running", at=NOW, reason=None))
        display.reconnecting("refused")
        task = display._progress.tasks[0]
        assert (task.description, task.completed, task.total) == ("saving", 21, 100)
        assert "4.25 steps/s" in task.fields["measures"]
    out = capsys.readouterr().out
    assert "03:04:05 warning: [red]not markup[/red]" in out
    assert "== running" in out
    assert "connection lost (refused); reconnecting" in out
