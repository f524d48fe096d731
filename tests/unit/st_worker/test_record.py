"""Records of attempts: those of older agents are read, those of newer ones are left alone."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from st_worker.errors import UsageError
from st_worker.folder import AttemptFolder
from st_worker.record import AttemptRecord, RecordedProcess
from st_worker.slot_time import Instant

ATTEMPT = "att_01m8a9341jegj9mreymns7r08y"
FORMAT_1 = {
    "claim": {
        "attempt_id": ATTEMPT,
        "epoch": 3,
        "job_id": "job_01m8a9341dft5tqg0q3mkk4vda",
        "number": 2,
        "slots": [1],
        "spec": {"name": "digits", "time_limit": 3600, "training": {"steps": 5}},
        "datasets": [
            {
                "name": "digits",
                "digest": "0" * 64,
                "archives": [{"path": "a.tar", "url": "/a", "size": 1, "sha256": "1" * 64}],
            }
        ],
        "resume": {
            "step": 4,
            "files": [{"path": "w", "url": "/w", "size": 1, "sha256": "2" * 64}],
        },
        "acked_seq": 7,
    },
    "claimed_at": "2026-01-01T00:00:00Z",
    "pid": 4711,
    "stop": "preempt",
    "ending": None,
}
"""As the first agents wrote it. It never changes: an agent of any age may be upgraded."""


@pytest.fixture
def folder(tmp_path):
    made = AttemptFolder(tmp_path / ATTEMPT)
    made.create()
    return made


def _write(folder, document):
    folder.record.write_text(json.dumps(document))


def test_a_clock_that_is_set_changes_no_time_limit(folder):
    _write(folder, FORMAT_1)
    record = AttemptRecord.load(folder)
    long_after = record.claimed_at + timedelta(days=30)
    assert record.time_left(record.claimed_at + timedelta(hours=1, seconds=-9)) == 9
    assert record.time_left(long_after) == 0
    began = record.model_copy(update={"began": Instant.now()})
    assert 3000 < began.time_left(long_after) <= 3600
    booted = began.model_copy(update={"began": Instant(boot="another", seconds=0.0)})
    assert booted.time_left(long_after) == 0


def test_a_record_of_the_first_format_is_read(folder):
    _write(folder, FORMAT_1)
    record = AttemptRecord.load(folder)
    assert record.process == RecordedProcess(pid=4711)
    assert (record.lease.attempt_id, record.lease.epoch, record.stop) == (ATTEMPT, 3, "preempt")
    assert (record.claim.number, record.claim.acked_seq, record.kind) == (2, 7, "train")
    assert record.claimed_at == datetime(2026, 1, 1, tzinfo=UTC)
    record.save(folder)
    assert AttemptRecord.load(folder) == record
    assert json.loads(folder.record.read_text())["format"] == 3


def test_a_record_of_the_second_format_is_read(folder):
    before = {key: value for key, value in FORMAT_1.items() if key != "pid"}
    process = {"pid": 4711, "started": 1.5}
    _write(folder, before | {"format": 2, "process": process, "root": str(folder.root)})
    record = AttemptRecord.load(folder)
    assert record.process == RecordedProcess(pid=4711, started=1.5)
    assert (record.began, record.used_seconds, record.elapsed) == (None, None, None)


def test_a_record_of_the_first_format_may_have_no_process_yet(folder):
    _write(folder, FORMAT_1 | {"pid": None})
    assert AttemptRecord.load(folder).process is None


def test_a_record_of_a_newer_agent_is_refused_and_left_as_it_is(folder):
    newer = FORMAT_1 | {"format": 4, "cgroup": "/st"}
    _write(folder, newer)
    with pytest.raises(UsageError, match=r"newer agent \(format 4; this one reads up to 3\)"):
        AttemptRecord.load(folder)
    assert json.loads(folder.record.read_text()) == newer


@pytest.mark.parametrize("raw", ["", "{", "[]", "{}", '{"format": 0}', '{"format": "two"}'])
def test_what_is_no_record_is_told_as_damaged(folder, raw):
    folder.record.write_text(raw)
    with pytest.raises(ValidationError):
        AttemptRecord.load(folder)
