"""The stored audit log: chained without gaps, and verified, archived and held against its heads."""

import gzip
import json
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update

from st_controller.dispatch.auditing import Auditing
from st_controller.domain.audit import AuditKey, AuditKeys, FaultKind
from st_controller.services import audit_archive, audit_chain, audit_heads
from st_controller.services.audit_archive import BrokenLogError
from st_controller.services.audit_chain import WrongAuditKeyError
from st_controller.services.audit_verifying import verify_log
from st_controller.store.schema import AuditArchive, AuditEntry, AuditHead

KEY, NEXT = AuditKey(b"k" * 32), AuditKey(b"n" * 32)


@pytest.fixture
def log(db, steps):
    return Log(steps)


class Log:
    """An audit log that tests write, chain and look at."""

    def __init__(self, steps) -> None:
        self.db, self.objects, self.clock = steps.db, steps.objects, steps.clock
        self.keys = AuditKeys.of(KEY)
        self.auditing = Auditing(steps.platform, lambda: self.keys, lambda: True)

    def write(self, *targets: str) -> None:
        with self.db.write() as tx:
            tx.audit_all("user:a", "thing.done", [(name, {"n": [1, 2.5]}) for name in targets])

    def chain(self, keys=None) -> None:
        full = True
        while full:
            with self.db.write() as tx:
                full = audit_chain.extend(tx, keys or self.keys)

    def publish(self) -> None:
        with self.db.read() as session:
            head = audit_chain.current_head(session)
            key = audit_chain.key_in_force(session, self.keys)
        audit_heads.publish(self.objects, key, head, self.clock())

    def verify(self):
        heads = list(audit_heads.published(self.objects))
        with self.db.read() as session:
            return verify_log(session, self.keys, heads)

    def fault(self):
        found = self.verify().fault
        return found and (found.place, found.kind)

    def places(self) -> list[int | None]:
        with self.db.read() as session:
            return list(session.scalars(select(AuditEntry.place).order_by(AuditEntry.place)))

    def do(self, statement) -> None:
        with self.db.write() as tx:
            tx.session.execute(statement)

    def archive(self, days=1) -> int:
        return audit_archive.move(self.db, self.objects, self.keys, timedelta(days=days))


def test_places_are_dense_whatever_was_undone_and_whoever_was_late(log, db):
    """On PostgreSQL a number that was drawn early can become visible late, or never."""
    log.write("a")
    with suppress(RuntimeError), db.write() as tx:
        tx.audit("user:a", "thing.done", "undone")
        tx.settle(None)
        raise RuntimeError
    if not db.is_sqlite:
        with db.write() as tx:
            tx.audit("user:a", "thing.done", "late")
            tx.settle(None)
            log.write("b")
            log.chain()
    log.write("c")
    log.chain()
    log.chain()
    assert log.places() == list(range(1, len(log.places()) + 1))
    verdict = log.verify()
    assert (verdict.fault, verdict.last, verdict.waiting) == (None, len(log.places()), 0)


def test_more_than_a_batch_and_chainers_at_once_give_one_chain(log, together):
    log.write(*(f"t{n}" for n in range(audit_chain.BATCH + 7)))
    together(lambda _: log.chain(), range(4))
    assert log.places() == list(range(1, audit_chain.BATCH + 8))
    assert log.fault() is None


def test_what_is_not_chained_yet_is_counted(log):
    log.write("a", "b")
    assert (log.verify().waiting, log.fault()) == (2, None)


def test_the_leader_chains_and_signs(log, clock):
    log.write("a", "b")
    log.auditing.work()
    assert log.places() == [1, 2]
    assert [head.place for head in audit_heads.published(log.objects)] == [2]
    log.write("c")
    log.auditing.work()
    assert [head.place for head in audit_heads.published(log.objects)] == [2]
    clock.advance(11)
    log.auditing.work()
    assert [head.place for head in audit_heads.published(log.objects)] == [3]
    clock.advance(3600)
    log.write("d")
    log.auditing.work()
    assert [head.place for head in audit_heads.published(log.objects)] == [3, 4]
    assert log.fault() is None


def test_another_key_chains_nothing(log):
    log.write("a")
    log.chain()
    log.write("b")
    with pytest.raises(WrongAuditKeyError, match="ST_AUDIT_KEY"):
        log.chain(AuditKeys.of(AuditKey(b"o" * 32)))
    assert log.verify().waiting == 1


def test_a_log_whose_key_was_exchanged_is_verified_with_both(log, clock):
    log.write("a")
    with log.db.write() as tx:
        audit_chain.rotate(tx, log.keys, NEXT, "console")
    log.write("b")
    with pytest.raises(WrongAuditKeyError, match=NEXT.id):
        log.chain()  # what was written before it is chained, with the entry that hands over
    assert set(log.places()) == {1, 2, None}
    log.keys = AuditKeys.of(KEY, NEXT)  # the file is there now: the leader finds it by itself
    log.auditing.work()
    assert (log.verify().last, log.fault()) == (3, None)
    clock.advance(86_400 * 2)
    log.write("c")
    log.chain()
    assert log.archive() == 3
    log.chain()
    assert (log.verify().archived, log.fault()) == (3, None)
    with log.db.read() as session:
        assert len(list(audit_archive.archived(session, log.objects, log.keys))) == 3
    log.do(update(AuditHead).values(key_id=KEY.id))
    assert log.fault() == (log.verify().last, FaultKind.CHANGED)


def test_truncation_shows_although_the_end_in_the_database_was_set_back(log):
    log.write(*"abcdef")
    log.chain()
    log.do(delete(AuditEntry).where(AuditEntry.place > 4))
    assert log.fault() == (5, FaultKind.TRUNCATED)  # by the end that the database tells
    with log.db.read() as session:
        code = session.scalar(select(AuditEntry.code).where(AuditEntry.place == 4))
    log.do(update(AuditHead).values(place=4, code=code))
    assert log.fault() is None  # nothing was signed yet, so nobody can know


def test_truncation_shows_by_the_signed_head(log):
    log.write(*"abcdef")
    log.chain()
    log.publish()
    log.do(delete(AuditEntry))
    log.do(delete(AuditHead))
    assert log.fault() == (1, FaultKind.TRUNCATED)


def test_a_head_that_somebody_else_wrote_is_told(log, clock):
    log.write("a")
    log.chain()
    with log.db.read() as session:
        head = audit_chain.current_head(session)
    audit_heads.publish(log.objects, AuditKey(b"o" * 32), head, clock())
    assert log.fault() == (1, FaultKind.HEAD_FORGED)


def test_old_entries_are_archived_and_the_chain_stays_verifiable(log, clock):
    log.write("a", "b", "c")
    log.chain()
    log.publish()
    clock.advance(86_400 * 2)
    log.write("d")
    log.chain()
    assert log.archive() == 3
    log.chain()
    assert log.places() == [4, 5]
    verdict = log.verify()
    assert (verdict.archived, verdict.first, verdict.last, verdict.fault) == (3, 4, 5, None)
    with log.db.read() as session:
        old = list(audit_archive.archived(session, log.objects, log.keys))
        told = session.scalar(select(AuditEntry).where(AuditEntry.action == "audit.archived"))
    assert [entry.target for entry in old] == ["a", "b", "c"]
    assert told.details["last"] == 3
    assert log.archive() == 0
    clock.advance(86_400 * 2)
    assert log.archive() == 2
    assert (log.verify().archived, log.fault()) == (5, None)


def test_an_archive_that_dies_half_way_is_made_once(log, clock, monkeypatch):
    log.write("a", "b")
    log.chain()
    clock.advance(86_400 * 2)
    with monkeypatch.context() as broken:
        broken.setattr(audit_archive, "_replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            log.archive()
    assert log.places() == [1, 2]
    assert log.archive() == 2
    assert len(list(log.objects.list("audit/archive/"))) == 1


def test_a_log_that_was_touched_is_not_archived(log, clock):
    log.write("a", "b", "c")
    log.chain()
    clock.advance(86_400 * 2)
    log.do(update(AuditEntry).where(AuditEntry.place == 2).values(actor="user:b"))
    with pytest.raises(BrokenLogError) as refused:
        log.archive()
    assert refused.value.fault.place == 2
    assert log.places() == [1, 2, 3]


@pytest.fixture
def archived(log, clock):
    """Entries 1 to 3 and 4 to 5 in archives, later ones in the database."""
    log.write("a", "b", "c")
    log.chain()
    clock.advance(86_400)
    log.write("d", "e")
    log.chain()
    clock.advance(86_400 * 1.5)
    log.archive(days=2)
    log.chain()
    clock.advance(86_400)
    log.archive(days=2)
    log.chain()
    return log


def records(log) -> list[tuple[int, int]]:
    with log.db.read() as session:
        columns = select(AuditArchive.first_place, AuditArchive.last_place)
        return [tuple(row) for row in session.execute(columns.order_by(AuditArchive.first_place))]


def test_records_of_archives_are_part_of_the_chain(archived):
    assert archived.fault() is None
    assert records(archived) == [(1, 3), (4, 5)]
    archived.do(delete(AuditArchive).where(AuditArchive.first_place == 1))
    assert archived.fault() == (1, FaultKind.MISSING)
    archived.do(delete(AuditArchive))
    assert archived.fault() == (1, FaultKind.MISSING)


def test_a_record_of_an_archive_that_was_changed_is_told(archived):
    archived.do(update(AuditArchive).where(AuditArchive.first_place == 4).values(sha256="0" * 64))
    assert archived.fault() == (4, FaultKind.HEAD_FORGED)


def test_rows_that_vanish_behind_the_archive_are_missed(archived):
    first = archived.places()[0]
    archived.do(delete(AuditEntry).where(AuditEntry.place == first))
    assert archived.fault()[0] == first


def test_an_archive_that_was_changed_is_not_read(archived):
    with archived.db.read() as session:
        record = session.scalar(select(AuditArchive).order_by(AuditArchive.first_place))
    body = gzip.decompress(b"".join(archived.objects.open(record.key)))
    assert [json.loads(line)["place"] for line in body.splitlines()] == [1, 2, 3]
    archived.objects.delete(record.key)
    with archived.db.read() as session, pytest.raises(BrokenLogError, match="is gone"):
        list(audit_archive.archived(session, archived.objects, archived.keys))
