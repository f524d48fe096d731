import errno
import json
import os

import pytest

from st_shared.clock import ManualClock
from st_shared.protocol.journal import MAX_LINE_BYTES, journal_event
from st_trainer.journal import Journal


def read(path):
    return [journal_event.validate_json(line) for line in path.read_bytes().splitlines()]


def test_lines_are_numbered_from_1_and_complete_when_the_call_returns(tmp_path):
    path = tmp_path / "journal.ndjson"
    clock = ManualClock()
    with Journal(path, clock) as journal:
        journal.log("hello")
        assert [event.seq for event in read(path)] == [1]
        clock.advance(5)
        journal.metric(3, {"loss": 0.25})
        first, second = read(path)
        assert (second.seq, second.step, second.values) == (2, 3, {"loss": 0.25})
        assert (second.at - first.at).total_seconds() == 5


def test_seq_goes_on_after_a_restart(tmp_path):
    path = tmp_path / "journal.ndjson"
    for text in ("one", "two"):
        with Journal(path) as journal:
            journal.log(text)
            journal.progress("training", 1, 2)
    assert [event.seq for event in read(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("torn", [b'{"seq":2,"at":"20', b'{"kind":"log"', b"x"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    path = tmp_path / "journal.ndjson"
    with Journal(path) as journal:
        journal.log("kept")
    with path.open("ab") as file:
        file.write(torn)
    with Journal(path) as journal:
        journal.log("after")
    assert [(event.seq, event.message) for event in read(path)] == [(1, "kept"), (2, "after")]


def test_a_journal_that_is_one_torn_line_starts_anew(tmp_path):
    path = tmp_path / "journal.ndjson"
    path.write_bytes(b'{"seq":1')
    with Journal(path) as journal:
        journal.log("first")
    assert [event.seq for event in read(path)] == [1]


@pytest.mark.parametrize("character", ["a", "é", "漢", "😀", '"', "\n", "\x00"])
def test_long_messages_are_shortened_to_a_line_that_fits(tmp_path, character):
    path = tmp_path / "journal.ndjson"
    with Journal(path) as journal:
        journal.log(character * 200_000)
        journal.log("next")
    lines = path.read_bytes().splitlines(keepends=True)
    assert all(len(line) <= MAX_LINE_BYTES for line in lines)
    assert read(path)[0].message.endswith("(shortened)")
    assert read(path)[1].message == "next"


def test_long_prompts_are_shortened_each(tmp_path):
    path = tmp_path / "journal.ndjson"
    with Journal(path) as journal:
        journal.sample(1, "samples/step-000001.png", ["😀" * 4000] * 256)
    assert len(path.read_bytes()) <= MAX_LINE_BYTES
    (event,) = read(path)
    assert len(event.prompts) == 256
    assert all(prompt.endswith("(shortened)") for prompt in event.prompts)


def test_text_that_utf8_cannot_hold_is_replaced(tmp_path):
    path = tmp_path / "journal.ndjson"
    with Journal(path) as journal:
        journal.log("skipped \udcff.png")
    assert read(path)[0].message == "skipped ?.png"


def test_a_failed_write_leaves_whole_lines_and_the_same_number(tmp_path, monkeypatch):
    path = tmp_path / "journal.ndjson"
    real_write = os.write
    with Journal(path) as journal:
        journal.log("one")

        def half_then_full(descriptor, line):
            if len(line) > 20:
                return real_write(descriptor, line[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", half_then_full)
        with pytest.raises(OSError, match="No space left"):
            journal.log("cut short" + "." * (11 + (-len("cut short")) % 20))
        monkeypatch.undo()
        journal.log("two")
    assert [(event.seq, event.message) for event in read(path)] == [(1, "one"), (2, "two")]


def test_a_line_waits_for_room_on_a_full_disk_and_no_longer(tmp_path, monkeypatch):
    path, slept, room_after = tmp_path / "journal.ndjson", [], 3
    real_write = os.write

    def full(descriptor, line):
        if len(slept) < room_after:
            real_write(descriptor, line[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, line)

    with Journal(path, patience=2.0, sleep=slept.append) as journal:
        monkeypatch.setattr(os, "write", full)
        journal.log("late")
        assert slept == [0.5, 0.5, 0.5]
        room_after = 100
        with pytest.raises(OSError, match="No space left"):
            journal.log("never")
        assert sum(slept) == 2.0
        with pytest.raises(OSError, match="No space left"):
            journal.log("nor this, and nobody waits again")
        assert sum(slept) == 2.0
        monkeypatch.undo()
        journal.log("after")
    assert [(event.seq, event.message) for event in read(path)] == [(1, "late"), (2, "after")]


def test_a_journal_goes_on_behind_what_was_given_back(tmp_path):
    path = tmp_path / "journal.ndjson"
    with Journal(path) as journal:
        for _ in range(200):
            journal.log("x" * 16_000)
    with path.open("r+b") as file:  # reads as a hole does
        file.write(bytes(2 * 2**20))
    with Journal(path) as journal:
        assert journal.seq == 200
        journal.log("more")
    assert json.loads(path.read_bytes().splitlines()[-1])["seq"] == 201


def test_the_listener_sees_what_is_written(tmp_path):
    seen = []
    with Journal(tmp_path / "journal.ndjson", listener=seen.append) as journal:
        journal.output("weights", "output/weights.safetensors")
    assert seen == read(tmp_path / "journal.ndjson")


def test_secrets_of_the_environment_are_kept_out(tmp_path, monkeypatch):
    monkeypatch.setenv("ST_SECRET_NAMES", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_never_seen")
    path = tmp_path / "journal.ndjson"
    with Journal(path) as journal:
        journal.log("cannot fetch with hf_never_seen")
        journal.sample(1, "a.png", ["a prompt with hf_never_seen"])
    assert "hf_never_seen" not in path.read_text()
    assert path.read_text().count("[secret HF_TOKEN]") == 2
