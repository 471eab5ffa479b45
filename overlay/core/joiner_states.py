"""Which states a joiner has on its present link."""

from enum import Enum, auto, unique


@unique
class State(Enum):
    """Where the conversation on the present link is."""

    IDLE = auto()  # there is no link, or it is of no more use
    GREETING = auto()  # the welcome is to come
    ASKED = auto()  # JOIN is out
    PROVING = auto()  # the driver's TPM is at work
    ANSWERED = auto()
    FINISHING = auto()
    DONE = auto()
