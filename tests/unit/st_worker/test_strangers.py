"""Somebody between agent and controller answers in its stead: no training is lost by that."""

import pytest

from st_shared.protocol.states import Outcome

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("status", [200, 403])
async def test_trainings_outlive_a_proxy_that_answers_all_calls(
    double, start_agent, tmp_path, status
):
    hands = await start_agent()
    attempt = double.offer([["log", "begun"], ["wait", str(tmp_path / "go")], ["log", "done"]])
    await double.until(lambda: "begun" in attempt.messages)
    double.stranger = status
    double.cut_streams()
    await double.until(lambda: {"heartbeat", "stream"} <= double.misled)
    (tmp_path / "go").touch()
    await double.until(lambda: "events" in double.misled)
    assert not hands.task.done()
    double.stranger = None
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.SUCCEEDED
    assert attempt.messages[-2:] == ["begun", "done"]
    assert double.registered_with == ["token"]
