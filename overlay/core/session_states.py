"""The states of a link and every move between them: the table that `session.py` obeys.

A pair that is missing is refused as UNEXPECTED_FRAME (the peer's doing) or LocalProtocolError (ours).
"""

from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from overlay.errors import LocalProtocolError


class State(Enum):
    """Where a link is in its life."""

    AWAIT_HELLO = auto()  # responder: nothing received
    AWAIT_MESSAGE_2 = auto()  # opener: hello and XX message 1 sent
    AWAIT_MESSAGE_3 = auto()  # responder: XX message 2 sent
    AWAIT_CHALLENGE = auto()  # keys agreed, CHALLENGE sent
    ADMITTING = auto()  # CHALLENGE received; proofs and verdicts on their way
    ADMITTED_PEER = auto()  # VERDICT ok sent
    ADMITTED_US = auto()  # VERDICT ok received
    OPEN = auto()
    CLOSED = auto()

    __hash__ = object.__hash__  # Enum's own is Python code


class Step(Enum):
    """What moves a link on."""

    GOT_HELLO = auto()
    GOT_MESSAGE_2 = auto()
    GOT_MESSAGE_3 = auto()
    GOT_CHALLENGE = auto()
    SENT_VERDICT_OK = auto()
    GOT_VERDICT_OK = auto()
    CLOSE = auto()


TRANSITIONS: Final = MappingProxyType(
    {
        (State.AWAIT_HELLO, Step.GOT_HELLO): State.AWAIT_MESSAGE_3,
        (State.AWAIT_MESSAGE_2, Step.GOT_MESSAGE_2): State.AWAIT_CHALLENGE,
        (State.AWAIT_MESSAGE_3, Step.GOT_MESSAGE_3): State.AWAIT_CHALLENGE,
        (State.AWAIT_CHALLENGE, Step.GOT_CHALLENGE): State.ADMITTING,
        (State.ADMITTING, Step.SENT_VERDICT_OK): State.ADMITTED_PEER,
        (State.ADMITTING, Step.GOT_VERDICT_OK): State.ADMITTED_US,
        (State.ADMITTED_PEER, Step.GOT_VERDICT_OK): State.OPEN,
        (State.ADMITTED_US, Step.SENT_VERDICT_OK): State.OPEN,
    }
    | {(state, Step.CLOSE): State.CLOSED for state in State}
)

HANDSHAKE: Final = frozenset({State.AWAIT_HELLO, State.AWAIT_MESSAGE_2, State.AWAIT_MESSAGE_3})
ADMISSION: Final = frozenset({State.AWAIT_CHALLENGE, State.ADMITTING, State.ADMITTED_PEER, State.ADMITTED_US})


def after(state: State, step: Step) -> State:
    """The state that follows; raises LocalProtocolError for a pair that the table does not hold."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise LocalProtocolError(f"{step.name} in state {state.name}") from None
