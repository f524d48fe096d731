"""``st logs`` and ``st metrics`` of long runs: what is asked for, and what is shown of it."""

import json
from datetime import UTC, datetime

import pytest

from st_shared.protocol import sse
from st_shared.protocol.resources import LogLine, MetricPoint, StateChange

NOW = "2026-01-02T03:04:05Z"


def log(seq, message):
    line = LogLine(attempt=1, seq=seq, at=NOW, level="info", message=message)
    return sse.encode("log", line.model_dump_json(), f"l{seq}")


def state(version, name):
    change = StateChange(version=version, state=name, at=NOW, reason=None)
    return sse.encode("state", change.model_dump_json(), f"s{version}")


def ident(number):
    return f"job_{number:026d}"


def test_logs_are_chosen_by_the_controller_and_filtered_here(st_run, fake_controller):
    fake_controller.logs = [
        LogLine(attempt=2, seq=n, at=NOW, level="info", message=f"line {n}") for n in range(1, 6)
    ]
    chosen = ["--attempt", "2", "-n", "2", "--since", NOW, "--grep", "[35]$"]
    code, out, _ = st_run("logs", ident(1), *chosen)
    assert (code, [line.split()[-1] for line in out.splitlines()]) == (0, ["5"])
    query = fake_controller.log_queries[0]
    assert (query["attempt"], query["tail"]) == ("2", "2")
    assert query["since"] == "2026-01-02T03:04:05+00:00"
    st_run("logs", ident(1), "--since", "10m")
    ago = datetime.now(UTC) - datetime.fromisoformat(fake_controller.log_queries[-1]["since"])
    assert 599 < ago.total_seconds() < 660


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--since", "soon"), "neither a moment nor a time"),
        (("--grep", "("), "is no regular expression"),
        (("--tail", "5001"), "5001 is not in the range"),
    ],
)
def test_a_choice_of_logs_that_cannot_be_is_explained(st_run, option, said):
    code, _, err = st_run("logs", ident(1), *option)
    assert (code, said in err) == (2, True)


def test_following_from_the_last_lines_repeats_nothing(st_run, fake_controller):
    fake_controller.logs = [
        LogLine(attempt=1, seq=n, at=NOW, level="info", message=f"line {n}") for n in range(1, 4)
    ]
    script = [state(1, "running"), log(4, "line 4"), log(5, "other"), state(2, "succeeded")]
    fake_controller.event_scripts = [script, script]
    code, out, _ = st_run("logs", ident(1), "-f", "--tail", "1", "--grep", "line")
    assert (code, fake_controller.followed_after) == (0, ["1:3"])
    assert [line.split(maxsplit=1)[1] for line in out.splitlines()] == [
        "line 3",
        "line 4",
        "== succeeded",
    ]
    _, out, _ = st_run("logs", ident(1), "-f", "--tail", "2", "--json")
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [2, 3, 4, 5]


def test_of_a_long_run_it_is_said_how_much_is_drawn(st_run, fake_controller):
    fake_controller.metrics = [
        MetricPoint(attempt=1, seq=n, at=NOW, step=n, values={"loss": n}) for n in (1, 2)
    ]
    assert "drawn from" not in st_run("metrics", ident(1))[1]
    fake_controller.measured = 9000
    assert "drawn from 2 of 9000 points" in st_run("metrics", ident(1))[1]
