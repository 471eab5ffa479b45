"""Ports that decide about trust are asked through here: whatever they raise, the answer is no."""

from collections.abc import Callable
from typing import TypeVar

from overlay.errors import Refused
from overlay.registry import Reason

Answer = TypeVar("Answer")


def asked(question: Callable[[], Answer]) -> Answer:
    """The port's answer; an exception that is no Refused becomes Refused(INTERNAL): a guard that fails refuses."""
    try:
        return question()
    except Refused:
        raise
    except Exception as error:
        raise Refused(Reason.INTERNAL, f"a guard failed: {type(error).__name__}: {error}") from error
