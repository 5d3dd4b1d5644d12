"""The table of moves is complete, and nothing leaves a settled state."""

import itertools

from shared.lifecycle import MOVES, SETTLED, DeliveryState, live_state, may_move


def test_every_state_has_its_row_and_settled_ones_have_no_way_out() -> None:
    assert set(MOVES) == {None, *DeliveryState}
    assert {state for state in DeliveryState if not MOVES[state]} == SETTLED


def test_nothing_is_sent_without_a_claim_and_the_gate() -> None:
    into_started = {before for before in MOVES if may_move(before, DeliveryState.STARTED)}
    into_delivered = {before for before in MOVES if may_move(before, DeliveryState.DELIVERED)}
    assert into_started == {DeliveryState.CLAIMED}
    assert into_delivered == {DeliveryState.STARTED}


def test_every_live_row_has_a_state_and_a_hold_shows_unless_it_came_too_late() -> None:
    for held, claimed, started in itertools.product([False, True], repeat=3):
        state = live_state(held=held, claimed=claimed, started=started)
        assert state not in SETTLED
        assert (state is DeliveryState.HELD) == (held and not started)
