"""Notices that this machine has slept: the boot clock goes on in sleep, the monotonic one does not."""

import time

import trio

LOOK_EVERY = 2.0  # seconds
JUMP = 2.0  # seconds of sleep that count


def slept() -> float:
    """Seconds that this machine has slept since it booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


async def wait_wake() -> None:
    """Until the machine has slept, and is awake again."""
    before = slept()
    while slept() - before < JUMP:  # noqa: ASYNC110 - the kernel tells nobody
        await trio.sleep(LOOK_EVERY)
