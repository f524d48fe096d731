"""Secrets of an attempt: asked for once, and taken out of what a program printed."""

from types import MappingProxyType, SimpleNamespace

import pytest

from st_shared.protocol.worker import SecretsReply
from st_shared.redaction import NAMES_VARIABLE
from st_worker.errors import TemporaryTrouble
from st_worker.secrets import Secrets

pytestmark = pytest.mark.anyio
VALUE = "hf_never_seen"


class Controller:
    def __init__(self, *answers) -> None:
        self.answers, self.calls = list(answers), 0

    async def secrets_of(self, attempt_id, wanted):
        self.calls += 1
        assert (attempt_id, wanted.epoch) == ("att_1", 3)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return SecretsReply(environment=answer)


def secrets(controller, named=MappingProxyType({"HF_TOKEN": "hub"})):
    claim = SimpleNamespace(attempt_id="att_1", epoch=3, spec={"secrets": named})
    return Secrets(controller, claim)


@pytest.fixture
def output(tmp_path):
    path = tmp_path / "output.log"
    path.write_text(f"a {VALUE} b\n\nlast {VALUE}")
    return path


async def test_they_are_asked_for_once(output):
    controller = Controller({"HF_TOKEN": VALUE})
    mine = secrets(controller)
    assert await mine.environment() == {"HF_TOKEN": VALUE, NAMES_VARIABLE: "HF_TOKEN"}
    await mine.take_out_of(output)
    assert output.read_text() == "a [secret HF_TOKEN] b\n\nlast [secret HF_TOKEN]"
    assert output.stat().st_mode & 0o777 == 0o600
    assert controller.calls == 1


async def test_an_agent_that_was_restarted_asks_again(output):
    await secrets(Controller({"HF_TOKEN": VALUE})).take_out_of(output)
    assert VALUE not in output.read_text()


async def test_what_cannot_be_cleared_is_left_out(output):
    await secrets(Controller(TemporaryTrouble("away"))).take_out_of(output)
    assert "left out" in output.read_text()
    assert VALUE not in output.read_text()


async def test_a_job_without_secrets_costs_nothing(output):
    mine = secrets(Controller(), {})
    assert await mine.environment() == {}
    await mine.take_out_of(output)
    assert VALUE in output.read_text()
    await secrets(Controller(), None).take_out_of(output.with_name("none"))
