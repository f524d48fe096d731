"""The chain of the audit log by itself."""

import hmac
from dataclasses import replace

import pytest

from st_controller.domain.audit import (
    BEGINNING,
    GENESIS,
    ROTATED,
    AuditKey,
    AuditKeys,
    Chain,
    Entry,
    FaultKind,
    Head,
    canonical,
    sign_head,
    verify,
)

KEY = AuditKey(b"k" * 32)
OTHER = AuditKey(b"o" * 32)
KEYS = AuditKeys.of(KEY)
AT = "2026-01-01T00:00:00+00:00"


def entry(place: int, **fields) -> Entry:
    given = {"id": 10 * place, "at": place, "actor": "user:a", "action": "job.queued"}
    given |= {"target": f"job_{place}", "details": {"b": [1, None], "a": "ü"}, "code": None}
    return Entry(place, **{**given, **fields})


def new_chain(key: AuditKey = KEY) -> Chain:
    return Chain(AuditKeys.of(key), Head(0, GENESIS, key.id))


def chained(count: int, key: AuditKey = KEY) -> list[Entry]:
    chain, made = new_chain(key), map(entry, range(1, count + 1))
    return [replace(item, code=chain.append(item)) for item in made]


def fault(entries, heads=(), start=BEGINNING):
    found = verify(KEYS, entries, heads, start)[1]
    return found and (found.place, found.kind)


def head_of(entries, place, key=KEY):
    return sign_head(key, Head(place, entries[place - 1].code), AT)


def test_a_chain_that_nobody_touched_has_no_fault():
    log = chained(5)
    heads = [head_of(log, 2), head_of(log, 5)]
    assert verify(KEYS, log, heads) == (Head(5, log[4].code, KEY.id), None)
    assert verify(KEYS, [], []) == (BEGINNING, None)


def test_the_code_is_hmac_sha_256_of_the_canonical_json():
    """The key of a purpose, and the code, computed once more with the standard library alone."""
    text = (
        '{"action":"job.queued","actor":"user:a","at":1,"details":{"a":"\\u00fc","b":[1,null]},'
        '"id":10,"place":1,"previous":"' + "0" * 64 + '","target":"job_1"}'
    )
    key = hmac.digest(b"k" * 32, b"audit chain", "sha256")
    assert chained(1)[0].code == hmac.digest(key, text.encode(), "sha256").hex()


@pytest.mark.parametrize(
    "change",
    [
        {"id": 31},
        {"at": 4},
        {"at": None},
        {"actor": "user:b"},
        {"action": "job.failed"},
        {"target": "job_4"},
        {"details": {"a": "ü", "b": [True, None]}},
        {"details": {"a": "ü", "b": [1.0, None]}},
        {"code": "0" * 64},
        {"code": None},
    ],
)
def test_every_field_is_covered(change):
    log = chained(5)
    log[2] = replace(log[2], **change)
    assert fault(log) == (3, FaultKind.CHANGED)


def test_fields_cannot_flow_into_each_other():
    first = new_chain().append(entry(1, actor="user:ab", action="c"))
    second = new_chain().append(entry(1, actor="user:a", action="bc"))
    assert first != second


def test_deletion_insertion_and_order_are_found_where_they_begin():
    log = chained(6)
    assert fault(log[:2] + log[3:]) == (3, FaultKind.MISSING)
    assert fault(log[1:]) == (1, FaultKind.MISSING)
    assert fault([*log[:3], replace(log[2], id=99), *log[3:]]) == (3, FaultKind.REPEATED)
    moved = [*log[:2], replace(log[3], place=3), replace(log[2], place=4), *log[4:]]
    assert fault(moved) == (3, FaultKind.CHANGED)
    closed_up = log[:2] + [replace(item, place=item.place - 1) for item in log[3:]]
    assert fault(closed_up) == (3, FaultKind.CHANGED)


def test_what_is_cut_off_shows_by_a_head():
    log = chained(6)
    assert fault(log[:4]) is None
    assert fault(log[:4], [head_of(log, 3)]) is None
    assert fault(log[:4], [head_of(log, 3), head_of(log, 6)]) == (5, FaultKind.TRUNCATED)
    assert fault([], [head_of(log, 6)]) == (1, FaultKind.TRUNCATED)


def test_whoever_has_the_key_cannot_make_the_log_anew_under_a_signed_head():
    log = chained(3)
    chain, others = new_chain(), [log[0], replace(log[1], actor="user:b"), log[2]]
    anew = [replace(item, code=chain.append(item)) for item in others]
    assert fault(anew) is None
    assert fault(anew, [head_of(log, 3)]) == (3, FaultKind.REWRITTEN)


def test_a_head_of_another_key_is_told():
    log = chained(3)
    assert fault(log, [head_of(log, 2, OTHER)]) == (2, FaultKind.HEAD_FORGED)
    assert fault(chained(3, OTHER)) == (1, FaultKind.CHANGED)


def test_a_chain_is_checked_from_any_place():
    log = chained(5)
    start = Head(3, log[2].code)
    assert fault(log[3:], [head_of(log, 2)], start) is None
    assert fault(log[4:], [], start) == (4, FaultKind.MISSING)


def test_what_is_no_json_has_a_canonical_form_all_the_same():
    assert canonical({"z": 1, "a": b"x"}) == b'{"a":"b\'x\'","z":1}'


def test_a_key_shows_nothing_of_itself():
    assert "kkk" not in repr(KEY)
    assert len(KEY.id) == 16
    assert KEY.id != OTHER.id


class TestRotation:
    """Entries 1 to 3 under one key, of which the last hands over; 4 and 5 under the other."""

    BOTH = AuditKeys.of(KEY, OTHER)

    def log(self, details=None, key: AuditKey = KEY) -> list[Entry]:
        chain = Chain(self.BOTH, Head(0, GENESIS, key.id))
        details = details or KEY.rotation(OTHER)
        made = [*map(entry, (1, 2)), entry(3, action=ROTATED, details=details), *map(entry, (4, 5))]
        return [replace(item, code=chain.append(item)) for item in made]

    def test_the_chain_goes_on_under_the_other_key(self):
        log = self.log()
        heads = [
            sign_head(KEY, Head(2, log[1].code), AT),
            sign_head(OTHER, Head(5, log[4].code), AT),
        ]
        assert verify(self.BOTH, log, heads) == (Head(5, log[4].code, OTHER.id), None)
        assert log[3].code != chained(4)[3].code

    def test_either_key_alone_says_from_where_on_it_cannot_tell(self):
        assert verify(AuditKeys.of(KEY), self.log(), [])[1].place == 4
        assert verify(AuditKeys.of(KEY), self.log(), [])[1].kind is FaultKind.NO_KEY
        assert verify(AuditKeys.of(OTHER), self.log(), [])[1].place == 1

    @pytest.mark.parametrize("name", ["proof", "taken", "from"])
    def test_who_has_not_both_keys_hands_over_nothing(self, name):
        log = self.log({**KEY.rotation(OTHER), name: "0" * 64})
        assert verify(self.BOTH, log, []) == (Head(5, log[4].code, KEY.id), None)

    def test_the_former_key_makes_nothing_right_after_it_was_given_up(self):
        log = self.log()
        forged = chained(5)  # the whole log anew, with the key that got about
        head = sign_head(OTHER, Head(4, log[3].code), AT)
        assert verify(self.BOTH, forged, [head])[1].place == 4
        changed = [replace(log[0], actor="user:eve"), *log[1:]]
        assert verify(self.BOTH, changed, [])[1].place == 1
        signed = sign_head(KEY, Head(5, log[4].code), AT)
        assert verify(self.BOTH, log, [signed])[1].kind is FaultKind.REWRITTEN
