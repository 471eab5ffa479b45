"""Natural batching: what queues while a batch is signed and sent is the next; publishers and the slowest link set the pace."""

from datetime import datetime, timedelta

import pytest
import trio
import trio.testing

from overlay.app.transient_sender import PATIENCE, Pace, TransientSender
from overlay.core.batches import SignedBatch
from overlay.core.limits import BATCH_COUNT_MAX, BATCH_MESSAGES_MAX
from overlay.core.mesh.chains import hlc_of
from tests.unit.core.authority_kit import make_member, make_mesh
from tests.unit.core.session_kit import local

MESH = make_mesh()
OWN = local(make_member(MESH, "alice"))


class SlowLink:
    """A link that takes nothing while it is busy."""

    def __init__(self) -> None:
        self.busy = False
        self._free = trio.Event()

    def may_write(self) -> bool:
        return not self.busy

    async def wait_may_write(self) -> None:
        if self.busy:
            await self._free.wait()

    def free(self) -> None:
        self.busy = False
        self._free.set()
        self._free = trio.Event()


class Wire:
    """A sender, what it has sent, and the links that it waits for."""

    def __init__(self) -> None:
        self.batches: list[SignedBatch] = []
        self.links: list[SlowLink] = []
        self.at: datetime = MESH.at
        self.sender = TransientSender(
            mesh_id=MESH.mesh_id, identity=lambda: OWN, calendar=lambda: self.at, send=self.batches.append,
            links=lambda: self.links,
        )

    @property
    def sent(self) -> list[list[bytes]]:
        return [list(batch.messages) for batch in self.batches]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def running(wire: Wire, nursery: trio.Nursery) -> Wire:
    nursery.start_soon(wire.sender.run)
    await trio.testing.wait_all_tasks_blocked()
    return wire


async def test_a_lone_message_leaves_at_once(running: Wire) -> None:
    assert await running.sender.put(b"one")
    await trio.testing.wait_all_tasks_blocked()
    assert running.sent == [[b"one"]]


async def test_what_one_publisher_says_in_a_row_shares_a_signature(running: Wire) -> None:
    firsts = [await running.sender.put(b"%d" % number) for number in range(100)]
    await trio.testing.wait_all_tasks_blocked()
    assert running.sent == [[b"%d" % number for number in range(100)]]
    assert firsts == [True] + [False] * 99


async def test_a_batch_that_is_full_leaves_and_the_publisher_waits_for_that(running: Wire) -> None:
    for number in range(2 * BATCH_COUNT_MAX + 1):
        await running.sender.put(b"%d" % number)
    await trio.testing.wait_all_tasks_blocked()
    assert [len(batch) for batch in running.sent] == [BATCH_COUNT_MAX, BATCH_COUNT_MAX, 1]
    sent = [message for batch in running.sent for message in batch]
    assert sent == [b"%d" % number for number in range(2 * BATCH_COUNT_MAX + 1)]


async def test_a_batch_is_full_by_its_bytes_too(running: Wire) -> None:
    for _ in range(5):
        await running.sender.put(bytes(BATCH_MESSAGES_MAX // 2 - 5))
    await trio.testing.wait_all_tasks_blocked()
    assert [len(batch) for batch in running.sent] == [2, 2, 1]


async def test_times_rise_from_batch_to_batch_whatever_the_clock_does(running: Wire) -> None:
    for count, later in ((3, 0), (1, -60), (1, 60)):
        running.at = MESH.at + timedelta(seconds=later)
        for _ in range(count):
            await running.sender.put(b"")
        await trio.testing.wait_all_tasks_blocked()
    first = hlc_of(MESH.at)
    assert [batch.head.hlc for batch in running.batches] == [first, first + 3, hlc_of(MESH.at + timedelta(minutes=1))]


async def test_what_is_queued_when_the_node_ends_still_leaves(wire: Wire) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.sender.run)
        await trio.testing.wait_all_tasks_blocked()
        await wire.sender.put(b"last words")
        nursery.cancel_scope.cancel()
    assert wire.sent == [[b"last words"]]


async def test_a_cancelled_publisher_has_said_nothing(wire: Wire) -> None:
    for _ in range(BATCH_COUNT_MAX):
        await wire.sender.put(b"")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.sender.put, b"never")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.sender.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert wire.sent == [[b""] * BATCH_COUNT_MAX]


# --- the pace ---------------------------------------------------------------------------------------------------------


async def test_while_a_link_takes_nothing_the_next_batch_waits(running: Wire, autojump_clock: trio.abc.Clock) -> None:
    link = SlowLink()
    link.busy = True
    running.links = [link]
    await running.sender.put(b"one")
    await trio.testing.wait_all_tasks_blocked()
    await running.sender.put(b"two")
    await running.sender.put(b"three")
    await trio.sleep(PATIENCE / 2)
    assert running.sent == [[b"one"]]
    link.free()
    await trio.testing.wait_all_tasks_blocked()
    assert running.sent == [[b"one"], [b"two", b"three"]]


async def test_a_link_that_is_stuck_is_waited_for_once(autojump_clock: trio.abc.Clock) -> None:
    pace, stuck, quick = Pace(), SlowLink(), SlowLink()
    stuck.busy = True
    waits = []
    for _ in range(3):
        began = trio.current_time()
        await pace.wait([stuck, quick])
        waits.append(trio.current_time() - began)
    assert waits == [pytest.approx(PATIENCE), 0, 0]


async def test_a_link_that_moves_again_is_waited_for_again(autojump_clock: trio.abc.Clock) -> None:
    pace, link = Pace(), SlowLink()
    for busy, wanted in ((True, PATIENCE), (True, 0), (False, 0), (True, PATIENCE)):
        link.busy = busy
        began = trio.current_time()
        await pace.wait([link])
        assert trio.current_time() - began == pytest.approx(wanted)


async def test_pace_gives_others_a_turn_even_if_no_link_is_slow() -> None:
    with trio.testing.assert_checkpoints():
        await Pace().wait([SlowLink()])
