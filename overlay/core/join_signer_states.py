"""Which states the signer's end of a joining link has, and which frame is heard in which; any other ends it."""

from collections.abc import Mapping
from enum import Enum, auto, unique
from types import MappingProxyType
from typing import Final

from overlay.registry import FrameType


@unique
class State(Enum):
    """Where the conversation is."""

    WAITING = auto()  # for JOIN
    CHALLENGED = auto()  # for the TPM's answer
    READING = auto()  # parts of the joiner's logs are to come
    DECIDING = auto()  # the driver makes the approval durable
    APPROVED = auto()  # the joiner may ask to finish
    FINISHING = auto()  # the driver has the certificate signed
    ENDED = auto()


EXPECTED: Final[Mapping[State, FrameType]] = MappingProxyType(
    {
        State.WAITING: FrameType.JOIN,
        State.CHALLENGED: FrameType.JOIN_ANSWER,
        State.READING: FrameType.EVIDENCE_PART,
        State.APPROVED: FrameType.JOIN_ANSWER,
    }
)
