"""A thousand tamperings of a stored log; each is found, and at the place where it was done."""

import json
import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import text

from st_controller.domain.audit import AuditKey, AuditKeys, Head, sign_head
from st_controller.services import audit_chain
from st_controller.services.audit_verifying import verify_log

KEY = AuditKey(b"k" * 32)
KEYS = AuditKeys.of(KEY)
SEED, TAMPERINGS, ENTRIES = 20261126, 1000, 16
COLUMNS = "seq, at, actor, action, target, details, place, code"


class UndoneError(Exception):
    """Ends a transaction of which nothing is to stay."""


@pytest.fixture
def heads(db, clock):
    """A chained log of sixteen entries, no two alike; its signed heads."""
    with db.write() as tx:
        for number in range(ENTRIES):
            actor = ("user:anna", "user:ben", "worker:w1", "system")[number % 4]
            tx.audit(actor, f"thing.{number % 3}", f"thing_{number}", n=number, why={"x": [1, "ü"]})
    with db.write() as tx:
        audit_chain.extend(tx, KEYS)
    with db.read() as session:
        head = audit_chain.current_head(session)
        code = session.scalar(text("SELECT code FROM audit_entries WHERE place = 11"))
    at = clock().isoformat()
    return [sign_head(KEY, Head(11, code), at), sign_head(KEY, head, at)]


class Tamperer:
    """Changes the stored log; each way gives the first place that is wrong afterwards."""

    def __init__(self, session, chance: random.Random) -> None:
        self.session, self.chance = session, chance

    def do(self, statement: str, **values) -> None:
        self.session.execute(text(statement), values)

    def any_place(self, below: int = ENTRIES) -> int:
        return self.chance.randint(1, below)

    def edit(self) -> int:
        place = self.any_place()
        column, value = self.chance.choice(
            [
                ("actor", "user:eve"),
                ("actor", ""),
                ("action", "nothing.done"),
                ("target", "thing_999"),
                ("details", json.dumps({"n": self.chance.randint(100, 999)})),
                ("details", "no JSON at all"),
                ("details", "{}"),
                ("at", "2020-02-02 02:02:02.000002"),
                ("at", "some day"),
                ("seq", 10_000 + place),
                ("code", self.chance.randbytes(32).hex()),
                ("code", None),
            ]
        )
        self.do(
            f"UPDATE audit_entries SET {column} = :value WHERE place = :p", value=value, p=place
        )
        return place

    def edit_one_character(self) -> int:
        place = self.any_place()
        column = self.chance.choice(["actor", "action", "target"])
        row = self.session.execute(
            text(f"SELECT {column} FROM audit_entries WHERE place = :p"), {"p": place}
        )
        value = row.scalar_one()
        at = self.chance.randrange(len(value))
        changed = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
        self.do(
            f"UPDATE audit_entries SET {column} = :value WHERE place = :p", value=changed, p=place
        )
        return place

    def delete(self) -> int:
        places = self.chance.sample(range(1, ENTRIES + 1), self.chance.randint(1, 4))
        for place in places:
            self.do("DELETE FROM audit_entries WHERE place = :p", p=place)
        return min(places)

    def delete_and_close_up(self) -> int:
        place = self.any_place(ENTRIES - 1)
        self.do("DELETE FROM audit_entries WHERE place = :p", p=place)
        self.shift(place, -1)
        return place

    def insert(self) -> int:
        place, copied = self.any_place(ENTRIES + 1), self.any_place()
        self.shift(place, 1)
        source = copied + (copied >= place)
        self.do(
            f"INSERT INTO audit_entries ({COLUMNS}) SELECT 5000, at, :actor, action, target,"
            " details, :place, code FROM audit_entries WHERE place = :source",
            actor=self.chance.choice(["user:anna", "user:eve"]),
            place=place,
            source=source,
        )
        return place

    def reorder(self) -> int:
        first, second = sorted(self.chance.sample(range(1, ENTRIES + 1), 2))
        for before, after in ((first, -1), (second, first), (-1, second)):
            self.do("UPDATE audit_entries SET place = :b WHERE place = :a", a=before, b=after)
        return first

    def move_away(self) -> int:
        place = self.any_place()
        self.do(
            "UPDATE audit_entries SET place = :b WHERE place = :a", a=place, b=ENTRIES + 7 + place
        )
        return place

    def truncate(self) -> int:
        place = self.any_place()
        self.do("DELETE FROM audit_entries WHERE place >= :p", p=place)
        if self.chance.random() < 0.5:
            self.set_end_back(place - 1)
        return place

    def swap_contents(self) -> int:
        """Two entries exchange what they say and keep their places and codes."""
        first, second = sorted(self.chance.sample(range(1, ENTRIES + 1), 2))
        self.reorder_codes(first, second)
        return first

    def reorder_codes(self, first: int, second: int) -> None:
        query = text("SELECT code FROM audit_entries WHERE place = :p")
        codes = [self.session.scalar(query, {"p": place}) for place in (first, second)]
        for place, code in zip((first, second), reversed(codes), strict=True):
            self.do("UPDATE audit_entries SET code = :c WHERE place = :p", c=code, p=place)

    def shift(self, start: int, by: int) -> None:
        self.do("UPDATE audit_entries SET place = -(place + :by) WHERE place >= :s", s=start, by=by)
        self.do("UPDATE audit_entries SET place = -place WHERE place < 0")

    def set_end_back(self, place: int) -> None:
        query = text("SELECT code FROM audit_entries WHERE place = :p")
        code = self.session.scalar(query, {"p": place}) or "0" * 64
        self.do("UPDATE audit_head SET place = :p, code = :c", p=place, c=code)


WAYS = (
    Tamperer.edit,
    Tamperer.edit_one_character,
    Tamperer.delete,
    Tamperer.delete_and_close_up,
    Tamperer.insert,
    Tamperer.reorder,
    Tamperer.move_away,
    Tamperer.swap_contents,
    Tamperer.truncate,
)


def tampered(db, heads, way, chance):
    """Where the log was tampered with, and the fault that was found; then all is as before."""
    with suppress(UndoneError), db.write() as tx:
        place = way(Tamperer(tx.session, chance))
        fault = verify_log(tx.session, KEYS, heads).fault
        raise UndoneError
    return place, fault


def test_a_thousand_tamperings_are_found_where_they_were_done(db, heads):
    chance, found, missed = random.Random(SEED), Counter(), []
    for number in range(TAMPERINGS):
        way = WAYS[number % len(WAYS)]
        place, fault = tampered(db, heads, way, chance)
        if fault is None or fault.place != place:
            missed.append((number, way.__name__, place, fault))
        else:
            found[way.__name__] += 1
    assert missed == []
    assert sum(found.values()) == TAMPERINGS
    assert len(found) == len(WAYS)
    with db.read() as session:
        assert verify_log(session, KEYS, heads).fault is None


def test_what_was_not_touched_has_no_fault(db, heads, clock):
    clock.advance(timedelta(days=400).total_seconds())
    with db.read() as session:
        verdict = verify_log(session, KEYS, heads)
    assert (verdict.fault, verdict.last, verdict.heads) == (None, ENTRIES, 2)
