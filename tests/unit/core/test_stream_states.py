"""The table of the states of a stream: every pair is in it or refuses."""

from itertools import product

import pytest

from overlay.core.stream_states import PEER_ENDED, TRANSITIONS, WRITABLE, State, Step, after_ours, after_peers
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason


@pytest.mark.parametrize(("state", "step"), list(product(State, Step)), ids=lambda one: one.name)
def test_every_pair_of_state_and_step_is_in_the_table_or_refuses(state: State, step: Step) -> None:
    if (state, step) in TRANSITIONS:
        assert after_ours(state, step) is after_peers(state, step) is TRANSITIONS[state, step]
        return
    with pytest.raises(LocalProtocolError, match=f"{step.name} on a stream in state {state.name}"):
        after_ours(state, step)
    with pytest.raises(Refused) as caught:
        after_peers(state, step)
    assert caught.value.reason is Reason.FLOW_CONTROL


def test_nothing_leaves_the_closed_state_and_every_state_can_be_broken_off() -> None:
    assert {after for (state, _), after in TRANSITIONS.items() if state is State.CLOSED} == {State.CLOSED}
    assert all(TRANSITIONS[state, step] is State.CLOSED for state in State for step in (Step.RESET, Step.GOT_RESET))


def test_a_direction_that_has_ended_takes_no_data() -> None:
    steps = (Step.GOT_DATA, Step.GOT_SEGMENT, Step.GOT_END)
    assert not any((state, step) in TRANSITIONS for state in PEER_ENDED for step in steps)
    assert {state for state in State if (state, Step.END) in TRANSITIONS} == WRITABLE | {State.CLOSED}
    assert {state for state in State if (state, Step.WRITE) in TRANSITIONS} == WRITABLE | {State.CLOSED}


def test_a_peer_says_nothing_on_a_stream_before_it_has_accepted_it() -> None:
    for state in (State.OPENING, State.OPENING_ENDED):
        steps = {step for one, step in TRANSITIONS if one is state and step.name.startswith("GOT")}
        assert steps == {Step.GOT_CREDIT, Step.GOT_RESET}
