"""The states of a stream and every move between them: the table that `streams.py` obeys.

A pair that is missing is refused as FLOW_CONTROL (the peer's doing) or LocalProtocolError (ours).
"""

from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason


class State(Enum):
    """Where a stream is in its life, seen from one end."""

    OPENING = auto()  # we opened it; the peer has not said anything yet
    OPENING_ENDED = auto()  # and we have sent END already
    OFFERED = auto()  # the peer opened it; we have not answered
    OFFERED_ENDED = auto()  # and the peer has sent END already
    OPEN = auto()
    ENDED_BY_US = auto()  # our direction has ended
    ENDED_BY_PEER = auto()  # the peer's direction has ended
    CLOSED = auto()  # both have, or it was broken off

    __hash__ = object.__hash__  # Enum's own is Python code, and the table is asked for each write and each read


class Step(Enum):
    """What moves a stream on: frames of the peer, and what our side does."""

    GOT_DATA = auto()
    GOT_SEGMENT = auto()
    GOT_CREDIT = auto()
    GOT_END = auto()
    GOT_RESET = auto()
    ACCEPT = auto()
    WRITE = auto()
    READ = auto()
    END = auto()
    RESET = auto()

    __hash__ = object.__hash__


_BY_PEER: Final = frozenset({Step.GOT_DATA, Step.GOT_SEGMENT})

TRANSITIONS: Final = MappingProxyType(
    {
        (State.OPENING, Step.GOT_CREDIT): State.OPEN,  # the first credit acknowledges the open
        (State.OPENING, Step.WRITE): State.OPENING,
        (State.OPENING, Step.END): State.OPENING_ENDED,
        (State.OPENING_ENDED, Step.GOT_CREDIT): State.ENDED_BY_US,
        (State.OFFERED, Step.GOT_CREDIT): State.OFFERED,
        (State.OFFERED, Step.GOT_END): State.OFFERED_ENDED,
        (State.OFFERED, Step.ACCEPT): State.OPEN,
        (State.OFFERED_ENDED, Step.GOT_CREDIT): State.OFFERED_ENDED,
        (State.OFFERED_ENDED, Step.ACCEPT): State.ENDED_BY_PEER,
        (State.OPEN, Step.GOT_CREDIT): State.OPEN,
        (State.OPEN, Step.GOT_END): State.ENDED_BY_PEER,
        (State.OPEN, Step.WRITE): State.OPEN,
        (State.OPEN, Step.READ): State.OPEN,
        (State.OPEN, Step.END): State.ENDED_BY_US,
        (State.ENDED_BY_US, Step.GOT_CREDIT): State.ENDED_BY_US,  # was under way
        (State.ENDED_BY_US, Step.GOT_END): State.CLOSED,
        (State.ENDED_BY_US, Step.READ): State.ENDED_BY_US,
        (State.ENDED_BY_PEER, Step.GOT_CREDIT): State.ENDED_BY_PEER,
        (State.ENDED_BY_PEER, Step.WRITE): State.ENDED_BY_PEER,
        (State.ENDED_BY_PEER, Step.READ): State.ENDED_BY_PEER,
        (State.ENDED_BY_PEER, Step.END): State.CLOSED,
        (State.CLOSED, Step.GOT_CREDIT): State.CLOSED,  # was under way
        (State.CLOSED, Step.READ): State.CLOSED,  # what had come before
        (State.CLOSED, Step.WRITE): State.CLOSED,  # the peer was faster: there is no room
        (State.CLOSED, Step.END): State.CLOSED,
    }
    | {(state, step): state for state in (State.OFFERED, State.OPEN, State.ENDED_BY_US) for step in _BY_PEER}
    | {(state, step): State.CLOSED for state in State for step in (Step.RESET, Step.GOT_RESET)}
)

PEER_ENDED: Final = frozenset({State.OFFERED_ENDED, State.ENDED_BY_PEER, State.CLOSED})  # nothing more will come
WRITABLE: Final = frozenset({State.OPENING, State.OPEN, State.ENDED_BY_PEER})


def after_ours(state: State, step: Step) -> State:
    """The state after something that our side does; raises LocalProtocolError where the table has none."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise LocalProtocolError(f"{step.name} on a stream in state {state.name}") from None


def after_peers(state: State, step: Step) -> State:
    """The state after a frame of the peer; raises Refused(FLOW_CONTROL) where the table has none."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise Refused(Reason.FLOW_CONTROL, f"{step.name} on a stream in state {state.name}") from None
