"""What was hashed is what runs: bytes that are sealed, in memory that is bounded."""

import os
from collections.abc import AsyncIterator

import pytest

from overlay.app.work.staging import Stage
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason

DATA = b"what runs"


async def source(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_what_was_hashed_cannot_be_swapped_or_changed_any_more() -> None:
    stage = Stage()
    staged = await stage.take("the artifact", sha256(DATA), len(DATA), source(DATA[:4], DATA[4:]))
    with pytest.raises(PermissionError):
        os.pwrite(staged.descriptor, b"WHAT", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(staged.descriptor, 0)
    with open(f"/proc/self/fd/{staged.descriptor}", "r+b", buffering=0) as again, pytest.raises(PermissionError):
        again.write(b"WHAT")
    assert os.pread(staged.descriptor, 100, 0) == DATA
    stage.drop(staged)


async def test_more_than_there_is_room_for_is_refused_and_room_comes_back() -> None:
    stage = Stage(most=len(DATA))
    staged = await stage.take("one", sha256(DATA), len(DATA), source(DATA))
    with pytest.raises(Refused) as caught:
        await stage.take("two", sha256(b"x"), 1, source(b"x"))
    assert caught.value.reason is Reason.BUSY
    stage.drop(staged)
    with pytest.raises(Refused) as caught:
        await stage.take("three", sha256(DATA), len(DATA), source(DATA, b"more"))
    assert caught.value.reason is Reason.ARTIFACT_MISMATCH
    stage.drop(await stage.take("four", sha256(DATA), len(DATA), source(DATA)))
