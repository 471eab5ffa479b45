"""A guard that fails, refuses."""

import pytest

from overlay.core.guard import asked
from overlay.errors import Refused
from overlay.registry import Reason


def raising(error: BaseException) -> None:
    raise error


def test_an_answer_is_passed_on() -> None:
    assert asked(lambda: 7) == 7


def test_a_refusal_keeps_its_reason() -> None:
    with pytest.raises(Refused) as caught:
        asked(lambda: raising(Refused(Reason.PCR_MISMATCH, "why")))
    assert (caught.value.reason, caught.value.detail) == (Reason.PCR_MISMATCH, "why")


@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), KeyError("k"), RecursionError(), MemoryError()])
def test_any_other_error_is_a_no_and_says_what_it_was(error: Exception) -> None:
    with pytest.raises(Refused) as caught:
        asked(lambda: raising(error))
    assert caught.value.reason is Reason.INTERNAL
    assert type(error).__name__ in caught.value.detail
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit()])
def test_the_end_of_the_process_is_no_answer(end: BaseException) -> None:
    with pytest.raises(type(end)):
        asked(lambda: raising(end))
