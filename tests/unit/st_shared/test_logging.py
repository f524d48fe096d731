import io
import json
import logging

import pytest
import structlog
from structlog.testing import capture_logs

from st_shared import logging as ours
from st_shared.logging import hide_secrets


def test_values_of_secret_keys_never_show() -> None:
    event = {"event": "joined", "join_token": "stj_x", "Authorization": "Bearer y", "worker": "w"}

    shown = hide_secrets(None, "info", event)

    assert shown["worker"] == "w"
    assert {shown["join_token"], shown["Authorization"]} == {"[hidden]"}


@pytest.fixture
def written():
    """Lines that were logged, after ``configure(level="info", format="json")``."""
    stream = io.StringIO()
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level, processors = root.handlers[:], root.level, before["processors"][:]
    ours.configure(level="info", format="json", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    before["processors"][:] = processors
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_logger_in_use_follows_a_later_configuration(written):
    log = structlog.get_logger("some.module").bind()
    ours.configure(format="json", stream=io.StringIO())
    with capture_logs() as seen:
        log.warning("told")
    assert [line["event"] for line in seen] == ["told"]
    assert written() == []


@pytest.mark.parametrize("made_by", [structlog.get_logger, logging.getLogger])
def test_a_line_is_json_with_time_level_and_name(written, made_by):
    log = made_by("some.module")
    log.debug("too small")
    log.warning("told")
    (line,) = written()
    assert (line["event"], line["level"]) == ("told", "warning")
    assert line["logger"] == "some.module"
    assert line["timestamp"].endswith("Z")


def test_values_of_any_kind_are_written_and_secrets_are_not(written):
    log = structlog.get_logger("some.module")
    with structlog.contextvars.bound_contextvars(request="req_1"):
        log.info("told", thing=io, token="stj_x", text="ä\nb")
    (line,) = written()
    assert (line["request"], line["token"], line["text"]) == ("req_1", "[hidden]", "ä\nb")
    assert "module 'io'" in line["thing"]


def test_an_exception_is_told_with_its_traceback(written):
    try:
        int("boom")
    except ValueError:
        structlog.get_logger("some.module").exception("failed")
    (line,) = written()
    assert line["exception"].endswith("'boom'")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (b"\xff", None),
        ("\ud800", "\ud800"),
        ({1, 2}, [1, 2]),
    ],
)
def test_what_json_has_no_word_for_is_written_all_the_same(written, value, shown):
    structlog.get_logger("some.module").info("told", value=value)
    (line,) = written()
    assert line["event"] == "told"
    assert line["value"] == (shown or repr(value))


class Broken(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self._error = error

    def write(self, _text):
        raise self._error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_a_line_that_cannot_be_written_harms_nobody(written, error):
    ours.configure(level="info", format="json", stream=Broken(error))
    structlog.get_logger("some.module").info("lost")
    logging.getLogger("lib").info("lost, too")


def test_a_closed_stream_harms_nobody(written):
    stream = io.StringIO()
    ours.configure(level="info", format="json", stream=stream)
    stream.close()
    structlog.get_logger("some.module").info("lost")
