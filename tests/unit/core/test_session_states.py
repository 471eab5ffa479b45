"""The table of states: every pair is in it or refuses."""

from itertools import product

import pytest

from overlay.core.session_states import ADMISSION, HANDSHAKE, TRANSITIONS, State, Step, after
from overlay.errors import LocalProtocolError


@pytest.mark.parametrize(("state", "step"), list(product(State, Step)), ids=lambda one: one.name)
def test_every_pair_of_state_and_step_is_in_the_table_or_refuses(state: State, step: Step) -> None:
    if (state, step) in TRANSITIONS:
        assert after(state, step) is TRANSITIONS[state, step]
    else:
        with pytest.raises(LocalProtocolError, match=f"{step.name} in state {state.name}"):
            after(state, step)


def test_a_link_goes_through_handshake_and_admission_and_never_back() -> None:
    order = [HANDSHAKE, ADMISSION, {State.OPEN}, {State.CLOSED}]
    place = {state: index for index, states in enumerate(order) for state in states}
    assert set(place) == set(State)
    assert all(place[state] <= place[following] for (state, _), following in TRANSITIONS.items())


def test_open_is_reached_only_with_both_verdicts() -> None:
    before_open = {pair for pair, state in TRANSITIONS.items() if state is State.OPEN}
    assert before_open == {(State.ADMITTED_PEER, Step.GOT_VERDICT_OK), (State.ADMITTED_US, Step.SENT_VERDICT_OK)}


def test_every_state_can_be_closed_and_nothing_leaves_the_closed_one() -> None:
    assert all(after(state, Step.CLOSE) is State.CLOSED for state in State)
    assert [step for state, step in TRANSITIONS if state is State.CLOSED] == [Step.CLOSE]
