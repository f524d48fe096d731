"""The audit log as a chain: what is changed, removed, added or moved breaks it at that place.

Every entry has a place, counted from 1 without gaps, and a code: HMAC-SHA-256 (RFC 2104) over the
canonical JSON of all its fields, its place and the code of the entry before. Whoever has no key can
make no code, so the first entry that does not fit is the first that somebody touched. What is cut
off at the end leaves no trace in the chain itself; signed heads that lie elsewhere show it.

A key is exchanged by an entry that holders of both keys alone can make: the codes after it are the
new key's, and cover those before it, whatever becomes of the old key.
"""

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

GENESIS = "0" * 64
"""Stands for the code before the first entry."""
ROTATED = "audit.key_rotated"
"""The action of the last entry under a key."""


@dataclass(frozen=True)
class AuditKey:
    """The keys of an audit log, derived from one secret of 32 bytes or more."""

    secret: bytes = field(repr=False)

    def code(self, purpose: str, value: Mapping[str, Any]) -> str:
        """HMAC-SHA-256 of ``value`` under the key of one purpose; 64 hexadecimal digits."""
        key = hmac.digest(self.secret, f"audit {purpose}".encode(), "sha256")
        return hmac.digest(key, canonical(value), "sha256").hex()

    @cached_property
    def id(self) -> str:
        """Tells keys apart and nothing of them; 16 hexadecimal digits."""
        return self.code("key id", {})[:16]

    def rotation(self, to: "AuditKey") -> dict[str, str]:
        """Details of the entry by which ``to`` takes over from this key."""
        said = {"from": self.id, "to": to.id}
        return {**said, "proof": self.code("rotation", said), "taken": to.code("rotation", said)}


@dataclass(frozen=True, slots=True)
class AuditKeys:
    """The keys that a log had; the first is the one with which a new log begins."""

    keys: tuple[AuditKey, ...]

    @classmethod
    def of(cls, *keys: AuditKey) -> "AuditKeys":
        """These keys."""
        return cls(keys)

    def find(self, key_id: str) -> AuditKey | None:
        """The key of this id, if it is here."""
        return next((key for key in self.keys if key.id == key_id), None)

    def after(self, entry: "Entry", key: AuditKey) -> str:
        """Id of the key in force after an entry that was made under ``key``."""
        told = entry.details
        if entry.action != ROTATED or not isinstance(told, Mapping):
            return key.id
        to = self.find(str(told.get("to")))
        if to is None:  # whether it took over cannot be told, and what follows cannot be read
            said = {"from": key.id, "to": str(told.get("to"))}
            return said["to"] if _same(told.get("proof"), key.code("rotation", said)) else key.id
        right = key.rotation(to)
        return to.id if all(_same(told.get(name), right[name]) for name in right) else key.id


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the log, as it is stored."""

    place: int
    """From 1."""
    id: int
    """The row's own number; there may be gaps between these."""
    at: int | None
    """Microseconds since 1970; none where what is stored is no moment."""
    actor: str
    action: str
    target: str
    details: Any
    """JSON."""
    code: str | None

    def fields(self) -> dict[str, Any]:
        """All that the code covers, beside the code before."""
        return {
            "place": self.place,
            "id": self.id,
            "at": self.at,
            "actor": self.actor,
            "action": self.action,
            "target": self.target,
            "details": self.details,
        }


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a chain at some moment."""

    place: int
    """0: no entry yet."""
    code: str
    key_id: str = ""
    """Of the key in force after it; empty: of the one that fits."""


BEGINNING = Head(0, GENESIS)


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head that only a holder of the key can have made."""

    place: int
    code: str
    at: str
    """ISO 8601 in UTC."""
    key: str
    """Id of the key in force."""
    signature: str

    def is_genuine(self, keys: AuditKeys) -> bool:
        """Whether the signature is right."""
        key = keys.find(self.key)
        return key is not None and _same(
            self.signature, sign_head(key, Head(self.place, self.code), self.at).signature
        )


class FaultKind(StrEnum):
    """What is wrong at a place."""

    CHANGED = "changed"
    """The entry at this place is not the one that was written there: edited, put in or moved."""
    MISSING = "missing"
    """The entry of this place is gone, and later ones are there."""
    REPEATED = "repeated"
    """This place is taken twice."""
    TRUNCATED = "truncated"
    """The log once was longer: this is the first place that was cut off."""
    HEAD_FORGED = "head_forged"
    """A stored head, or a record of what was archived, is not signed by this log's key."""
    NO_KEY = "no_key"
    """From this place on another key was in force, which was not given."""
    REWRITTEN = "rewritten"
    """The entry fits the chain, but a head that was signed before had another at this place."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place at which a log is not what was written."""

    place: int
    kind: FaultKind
    said: str


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, in ASCII; numbers as Python writes them."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=repr)
    return text.encode("ascii")


class Chain:
    """Follows a log entry by entry, to give codes or to check them."""

    def __init__(self, keys: AuditKeys, start: Head = BEGINNING) -> None:
        self._keys, self.head = keys, start
        self._key = keys.find(start.key_id)

    def append(self, entry: Entry) -> str:
        """Take ``entry`` as the next; gives its code. The key in force must be here."""
        if self._key is None:
            raise LookupError(self.head.key_id)
        code = self._code(self._key, entry)
        self._go_on(self._key, entry, code)
        return code

    def check(self, entry: Entry) -> Fault | None:
        """Go on to ``entry``, or say why it is not the next."""
        expected = self.head.place + 1
        if entry.place > expected:
            return Fault(expected, FaultKind.MISSING, f"entry {expected} is not there")
        if entry.place < expected:
            return Fault(entry.place, FaultKind.REPEATED, f"place {entry.place} is taken twice")
        if self._key is None and self.head.key_id:
            what = f"the key {self.head.key_id} was in force from entry {expected}, and is not here"
            return Fault(expected, FaultKind.NO_KEY, what)
        for key in [self._key] if self._key else self._keys.keys:
            if _same(entry.code, self._code(key, entry)):
                self._go_on(key, entry, entry.code or "")
                return None
        return Fault(
            expected,
            FaultKind.CHANGED,
            f"entry {expected} is not the one that was written: edited, put in or moved",
        )

    def _go_on(self, key: AuditKey, entry: Entry, code: str) -> None:
        self._key, key_id = key, key.id
        if entry.action == ROTATED:
            key_id = self._keys.after(entry, key)
            self._key = self._keys.find(key_id)
        self.head = Head(entry.place, code, key_id)

    def _code(self, key: AuditKey, entry: Entry) -> str:
        return key.code("chain", {**entry.fields(), "previous": self.head.code})


def sign_head(key: AuditKey, head: Head, at: str) -> SignedHead:
    """The head, signed with the key in force."""
    said = {"place": head.place, "code": head.code, "at": at}
    return SignedHead(head.place, head.code, at, key.id, key.code("head", said))


def verify(
    keys: AuditKeys, entries: Iterable[Entry], heads: Iterable[SignedHead], start: Head = BEGINNING
) -> tuple[Head, Fault | None]:
    """Check entries after ``start``, in order of their places, and what heads say of them.

    Heads of places before ``start`` say nothing here. Gives the last entry that is right, and the
    first fault. At most one head a place is held against the log; all have to be genuine.
    """
    said: dict[int, SignedHead] = {}
    for head in heads:
        if not head.is_genuine(keys):
            what = f"a head of place {head.place} is not signed by a key of this log"
            return start, Fault(head.place, FaultKind.HEAD_FORGED, what)
        said[head.place] = head
    chain = Chain(keys, start)
    for entry in entries:
        before = chain.head
        if fault := chain.check(entry) or _against(said.get(entry.place), chain.head):
            return before, fault
    last = max(said, default=0)
    if last > chain.head.place:
        first = chain.head.place + 1
        what = f"entries {first} to {last} are gone: a signed head of {said[last].at} had them"
        return chain.head, Fault(first, FaultKind.TRUNCATED, what)
    return chain.head, None


def _against(said: SignedHead | None, found: Head) -> Fault | None:
    if said is None or (_same(said.code, found.code) and said.key == found.key_id):
        return None
    what = f"entry {found.place} was another, or of another key, when it was signed on {said.at}"
    return Fault(found.place, FaultKind.REWRITTEN, what)


def _same(given: object, right: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(), right.encode())
