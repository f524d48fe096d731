import errno
import io
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st_shared.clock import ManualClock
from st_worker.errors import JournalLost
from st_worker.journal import BATCH_BYTES, BATCH_LINES, Cursor, Journal
from st_worker.notes import Notes


def _line(seq: int, message: str = "hello") -> bytes:
    document = {"seq": seq, "at": "2026-01-01T00:00:00Z", "kind": "log", "message": message}
    return json.dumps(document).encode() + b"\n"


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "journal.ndjson"


def test_absent_journal_is_empty(journal_path):
    journal = Journal(journal_path)
    assert journal.read(Cursor()) == []
    assert journal.end(start=7) == Cursor(seq=7)


def test_torn_line_waits_for_its_end(journal_path):
    journal = Journal(journal_path)
    whole = _line(2)
    journal_path.write_bytes(_line(1) + whole[:-5])
    (line,) = journal.read(Cursor())
    assert line.event.seq == 1
    assert journal.read(line.after) == []
    with journal_path.open("ab") as file:
        file.write(whole[-5:])
    assert [line.event.seq for line in journal.read(line.after)] == [2]


def test_batches_are_bounded_and_follow_each_other(journal_path):
    journal_path.write_bytes(b"".join(_line(seq) for seq in range(1, BATCH_LINES + 11)))
    journal = Journal(journal_path)
    first = journal.read(Cursor())
    assert len(first) == BATCH_LINES
    assert [line.event.seq for line in journal.read(first[-1].after)] == list(
        range(BATCH_LINES + 1, BATCH_LINES + 11)
    )


def test_batch_keeps_to_its_bytes(journal_path):
    journal_path.write_bytes(b"".join(_line(seq, "x" * 16_000) for seq in range(1, 101)))
    lines = Journal(journal_path).read(Cursor())
    assert 0 < lines[-1].after.offset <= BATCH_BYTES


def test_line_longer_than_a_batch_is_replaced_not_stuck(journal_path):
    journal_path.write_bytes(_line(1, "x" * (BATCH_BYTES * 3)) + _line(2))
    clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
    journal = Journal(journal_path, clock)
    (long,) = journal.read(Cursor())
    assert (long.event.seq, long.event.level, long.event.at) == (1, "error", clock())
    assert f"a line of {BATCH_BYTES * 3 + 71} bytes" in long.event.message
    assert journal.read(long.after)[0].event.message == "hello"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{\n", "is not an event"),
        (b"\n", "is not an event"),
        (b"\xff\xfe\n", "is not an event"),
        (_line(9), "wrote line 9 where line 1 was due"),
        (_line(1, "x" * 70_000), "a line of 70071 bytes"),
        (_line(1, "x" * 20_000), "is not an event"),
        (b"\0" * 100 + b"\n", "is not an event"),
        (_line(1).replace(b"hello", b"h\xff\xfello"), "is not an event"),
        (_line(1)[:-2] + b" " * 70_000 + b"}\n", "a line of 70"),
    ],
    ids=[
        "half",
        "empty",
        "no text",
        "wrong number",
        "very long message",
        "long message",
        "NULs",
        "not UTF-8",
        "long line",
    ],
)
def test_broken_line_is_replaced_by_an_error(journal_path, raw, said):
    journal_path.write_bytes(raw + _line(2))
    broken, fine = Journal(journal_path).read(Cursor())
    assert (broken.event.seq, broken.event.kind, broken.event.level) == (1, "log", "error")
    assert said in broken.event.message
    assert fine.event.message == "hello"


def test_locate_finds_the_place_behind_any_line(journal_path):
    journal_path.write_bytes(b"".join(_line(seq) for seq in range(11, 31)))
    journal = Journal(journal_path)
    assert journal.locate(10) == Cursor(offset=0, seq=10)
    assert [line.event.seq for line in journal.read(journal.locate(29))] == [30]
    assert journal.read(journal.locate(30)) == []
    for absent in (9, 31):
        with pytest.raises(JournalLost, match=f"does not hold line {absent}"):
            journal.locate(absent)


def test_damaged_cursor_counts_as_none(tmp_path):
    path = tmp_path / "shipped.json"
    path.write_text("{")
    assert Cursor.load(path, start=4) == Cursor(offset=0, seq=4)
    Cursor(offset=10, seq=5).save(path)
    assert Cursor.load(path) == Cursor(offset=10, seq=5)


def test_last_error_is_the_newest(journal_path):
    def error(seq: int, message: str) -> bytes:
        return _line(seq, message).replace(b'"kind"', b'"level": "error", "kind"')

    journal_path.write_bytes(error(1, "old") + error(2, "new") + _line(3) + b'{"seq":')
    assert Journal(journal_path).last_error() == "new"


def test_notes_go_on_after_the_trainers_lines_and_drop_a_torn_one(journal_path):
    journal_path.write_bytes(_line(1) + b"broken\n" + _line(3) + b'{"seq": 4, "ki')
    notes = Notes(journal_path, clock=ManualClock())
    notes.log("the trainer was ended by signal 9", "error")
    notes.output_log("output.log")
    events = [line.event for line in Journal(journal_path).read(Cursor())]
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert events[3].message == "the trainer was ended by signal 9"
    assert (events[4].kind, events[4].path) == ("output", "output.log")


def test_notes_in_an_empty_journal_go_on_where_the_controller_is(journal_path):
    Notes(journal_path, start=10, clock=ManualClock()).log("x" * 50_000)
    (line,) = Journal(journal_path).read(Cursor(seq=10))
    assert line.event.seq == 11
    assert line.event.message.endswith("…")


def test_a_carriage_return_inside_a_line_does_not_shift_the_numbers(tmp_path):
    path = tmp_path / "journal.ndjson"
    good = b'{"seq": 2, "at": "2026-01-01T00:00:00Z", "kind": "log", "message": "two"}'
    path.write_bytes(b"bro\rken\n" + good + b"\n")
    journal = Journal(path)
    first, second = journal.read(Cursor())
    assert (first.event.seq, first.event.level) == (1, "error")
    assert second.event.message == "two"
    assert second.after == journal.locate(2) == journal.end()


@pytest.fixture
def holed(journal_path, monkeypatch) -> Journal:
    """A journal of 3,000 lines of 1,000 bytes, of which all before 2 MiB was given back."""
    monkeypatch.setattr("st_worker.journal.KEPT_BYTES", 0)
    journal_path.write_bytes(b"".join(_line(seq, "x" * 900) for seq in range(11, 3011)))
    journal = Journal(journal_path)
    if not journal.release(2 * 2**20 + 1):
        pytest.skip("this file system knows no holes")
    return journal


def test_what_was_dealt_with_is_given_back_and_all_else_stays(holed, journal_path):
    whole = journal_path.stat()
    assert whole.st_blocks * 512 < whole.st_size - 2**21 + 2**16
    beginning = holed.read(Cursor())
    first = beginning[0].event.seq
    assert beginning[0].event.message == "x" * 900
    assert holed.locate(first).seq == first
    assert holed.end() == Cursor(offset=whole.st_size, seq=3010)
    with pytest.raises(JournalLost):
        holed.locate(first - 2)
    Notes(journal_path).log("more")
    assert holed.end().seq == 3011
    assert holed.last_messages(1) == ["more"]


def test_a_place_in_the_hole_goes_on_behind_it(holed):
    """As after an agent that could not keep its place died on a full disk."""
    seqs, place = [], Cursor(offset=4096, seq=14)
    while lines := holed.read(place):
        seqs += [line.event.seq for line in lines]
        place = lines[-1].after
    assert seqs == list(range(seqs[0], 3011))
    assert 11 < seqs[0] < 3000


def test_nothing_is_given_back_too_early(journal_path):
    journal_path.write_bytes(_line(1))
    assert not Journal(journal_path).release(8 * 2**20)
    assert Journal(journal_path).read(Cursor())[0].event.seq == 1


def test_a_full_disk_leaves_a_note_out_and_the_journal_whole(journal_path, monkeypatch):
    notes = Notes(journal_path)
    notes.log("first")
    before = journal_path.read_bytes()

    class Full(io.FileIO):
        def write(self, piece):
            super().write(piece[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("st_worker.notes.os.fdopen", lambda fd, *_, **__: Full(fd, "wb"))
        notes.log("second")
    assert journal_path.read_bytes() == before
    notes.log("third")
    assert [line.event.seq for line in Journal(journal_path).read(Cursor())] == [1, 2]


class Fate(NamedTuple):
    """What happens next to an agent that ships a journal."""

    writes: int
    """Lines that the trainer appends first."""
    is_answered: bool
    """Whether the acknowledgement of the next batch arrives."""
    is_kept: bool
    """Whether the disk takes the place that it gives."""
    dies: bool
    """Whether the agent is killed afterwards, and another goes on from the disk."""


fates = st.lists(
    st.builds(Fate, st.integers(0, 6), st.booleans(), st.booleans(), st.booleans()), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(fates=fates)
def test_whatever_dies_and_is_given_back_each_line_arrives_once(tmp_path_factory, fates):
    folder = tmp_path_factory.mktemp("run")
    path, kept = folder / "journal.ndjson", folder / "shipped.json"
    journal, place, stored, written = Journal(path), Cursor(), [], 0

    def ship():
        """As the controller: only what follows, only once; gives the place after it."""
        lines = journal.read(place)
        if lines and lines[0].event.seq > len(stored) + 1:
            return journal.locate(len(stored))  # a gap, which it answers with what it has
        stored.extend(line.event.seq for line in lines if line.event.seq > len(stored))
        return lines[-1].after if lines else place

    with pytest.MonkeyPatch.context() as small:
        small.setattr("st_worker.journal.KEPT_BYTES", 0)
        small.setattr("st_worker.journal.GRAIN_BYTES", 4096)
        for fate in [*fates, Fate(1, is_answered=True, is_kept=True, dies=False)]:
            with path.open("ab") as file:
                for _ in range(fate.writes):
                    written += 1
                    file.write(_line(written, "x" * 1500))
            after = ship()
            if fate.is_answered:
                place = after
                if fate.is_kept:
                    place.save(kept)
                journal.release(place.offset)
            if fate.dies:
                journal, place = Journal(path), Cursor.load(kept)
        while (after := ship()) != place:
            place = after
    assert stored == list(range(1, written + 1))
