"""`background()`: the caller's exceptions leave it bare, ours never in silence, cancellation as trio has it.

Every block is run by `end_of`, because a `Cancelled` that escapes its scope would end a test in silence.
"""

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from overlay.errors import InternalError
from overlay.net.background import background


class Bug(Exception):
    """What a background task should not have raised."""


async def fail() -> None:
    raise Bug


async def fail_at_the_end() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise Bug


async def end_of(block: Callable[[], Awaitable[None]]) -> BaseException | None:
    """What came out of it, whatever it was."""
    try:
        await block()
    except BaseException as error:  # noqa: BLE001
        return error
    return None


def tells_of_the_bug(error: BaseException | None) -> bool:
    assert isinstance(error, InternalError), repr(error)
    cause = error.__cause__
    return isinstance(cause, BaseExceptionGroup) and cause.subgroup(Bug) is not None


async def test_the_callers_exception_leaves_the_block_bare() -> None:
    mine = KeyError("mine")

    async def block() -> None:
        async with background() as tasks:
            tasks.start_soon(trio.sleep_forever)
            raise mine

    assert await end_of(block) is mine


async def test_the_callers_exception_group_leaves_the_block_as_it_was() -> None:
    mine = ExceptionGroup("mine", [KeyError(1), ValueError(2)])

    async def block() -> None:
        async with background() as tasks:
            tasks.start_soon(trio.sleep_forever)
            raise mine

    assert await end_of(block) is mine


async def test_a_keyboard_interrupt_of_the_block_leaves_it_bare() -> None:
    async def block() -> None:
        async with background() as tasks:
            tasks.start_soon(trio.sleep_forever)
            raise KeyboardInterrupt

    assert isinstance(await end_of(block), KeyboardInterrupt)


async def test_tasks_end_with_the_block() -> None:
    ended = trio.Event()

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with background() as tasks:
        tasks.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
    assert ended.is_set()


async def test_a_bug_while_the_block_waits_is_an_internal_error() -> None:
    async def block() -> None:
        async with background() as tasks:
            tasks.start_soon(fail)
            await trio.sleep_forever()

    assert tells_of_the_bug(await end_of(block))


async def test_a_bug_while_the_block_waits_in_a_nursery_of_its_own_is_an_internal_error() -> None:
    async def block() -> None:
        async with background() as tasks, trio.open_nursery() as own:
            own.start_soon(trio.sleep_forever)
            tasks.start_soon(fail)
            await trio.sleep_forever()

    assert tells_of_the_bug(await end_of(block))


async def test_a_bug_at_the_end_of_the_block_is_an_internal_error() -> None:
    async def block() -> None:
        async with background() as tasks:
            tasks.start_soon(fail_at_the_end)
            await trio.testing.wait_all_tasks_blocked()

    assert tells_of_the_bug(await end_of(block))


async def test_a_bug_while_the_block_is_cancelled_is_an_internal_error() -> None:
    async def block() -> None:
        with trio.CancelScope() as scope:
            async with background() as tasks:
                tasks.start_soon(fail_at_the_end)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()

    assert tells_of_the_bug(await end_of(block))


async def test_the_callers_exception_goes_before_a_bug() -> None:
    mine = KeyError("mine")

    async def block() -> None:
        async with background() as tasks:
            tasks.start_soon(fail_at_the_end)
            await trio.testing.wait_all_tasks_blocked()
            raise mine

    assert await end_of(block) is mine


async def test_a_cancelled_block_ends_as_cancelled() -> None:
    async def block() -> None:
        with trio.CancelScope() as scope:
            async with background() as tasks:
                tasks.start_soon(trio.sleep_forever)
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught

    assert await end_of(block) is None


async def test_a_block_that_cancels_its_own_tasks_ends_in_order() -> None:
    async def block() -> None:
        async with background() as tasks:
            tasks.start_soon(trio.sleep_forever)
            tasks.cancel_scope.cancel()
            await trio.sleep_forever()

    assert await end_of(block) is None
