from itertools import product

from st_controller.domain.attempts import LEASED, LIVE, TRANSITIONS, is_known, may_move
from st_shared.protocol.states import AttemptState


def test_the_table_covers_every_state() -> None:
    assert set(TRANSITIONS) == set(AttemptState)


def test_an_attempt_never_steps_back() -> None:
    for before, after in product(AttemptState, AttemptState):
        assert not (may_move(before, after) and is_known(after, before))


def test_an_offer_holds_slots_but_is_no_lease() -> None:
    assert AttemptState.OFFERED in LIVE - LEASED
    assert AttemptState.FINISHED not in LIVE
