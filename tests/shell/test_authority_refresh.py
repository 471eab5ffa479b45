"""New shares without an order, by real nodes: one of them begins, once, when it is time and nothing else is under way."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import trio

from overlay.app.authority.refreshing import Refreshing
from overlay.app.authority.resharing import PLAN_WITHIN
from overlay.core.authority.refresh_rules import SLACK, RefreshRules, pack_wanted, unpack_answer
from overlay.core.authority.round_messages import Outgoing, RoundMessage
from overlay.events import AuthorityAlarm, OrderTaken
from overlay.registry import Reason, RoundKind
from overlay.store.state import ROLLOVER
from tests.shell.authority_kit import PATIENCE, Running, admitted, founded, linked, opened, until
from tests.shell.test_authority_ceremonies import THREE, distributed, proves
from tests.unit.core.authority_kit import DAY

EVERY = 5.0


@asynccontextmanager
async def refreshed(tmp_path: Path, *every: float) -> AsyncIterator[tuple[Running, ...]]:
    """Alice, bob and carol with shares of a key, who refresh them after so many seconds."""
    path = founded(tmp_path)
    paths = (path, *(admitted(path, name, "signer") for name in THREE[1:]))
    async with AsyncExitStack() as stack:
        nodes: list[Running] = []
        for folder, seconds in zip(paths, every, strict=True):
            nodes.append(await stack.enter_async_context(opened(folder, *nodes, refresh_every=seconds)))
        with trio.fail_after(PATIENCE):
            for one in nodes:
                await one.node.wait_members(len(nodes))
        await distributed(tuple(nodes))
        for one in nodes:
            await until(lambda one=one: refreshing_of(one)._share() is not None)  # it has been written down since when
        yield tuple(nodes)


def generation(one: Running) -> int:
    share = one.node.seat.ledger.share
    return -1 if share is None else share.generation


async def test_shares_are_refreshed_when_it_is_time_without_an_order_and_by_one_signer(tmp_path: Path) -> None:
    begun = trio.current_time()
    async with refreshed(tmp_path, EVERY, EVERY, EVERY) as nodes:
        for number in (1, 2):
            for one in nodes:
                await until(lambda one=one, number=number: generation(one) >= number)
        most = (trio.current_time() - begun) / (EVERY - EVERY / SLACK - 1)  # a second, because records are in whole ones
        for one in nodes:
            assert generation(one) <= most, "two at once, or too early"
            assert [event.kind for event in one.all(OrderTaken)] == ["distribute"]
            assert one.all(AuthorityAlarm) == []
        await proves(nodes[0])


async def test_all_are_waited_for_and_whoever_holds_a_young_share_holds_it_up(tmp_path: Path) -> None:
    async with refreshed(tmp_path, 600.0, 2 * EVERY, 2 * EVERY) as nodes:
        slow, bob, carol = map(refreshing_of, nodes)
        assert await asks(nodes[1], nodes[0], 0) is Reason.NOT_ALLOWED
        await until(lambda: bool(bob._used or carol._used))
        await until(lambda: len(bob._used + carol._used) > 2, PLAN_WITHIN)  # each is free again as soon as it is called off
        assert {generation(one) for one in nodes} == {0}
        slow._rules = bob._rules
        for one in nodes:
            await until(lambda one=one: generation(one) >= 1)


async def test_an_overdue_refresh_waits_for_a_member_that_says_not_yet(tmp_path: Path) -> None:
    async with refreshed(tmp_path, 600.0, 600.0, 600.0) as nodes:
        bob, carol = map(refreshing_of, nodes[1:])  # alice's share is young
        carol._rules = RefreshRules(timedelta(0))
        bob._upkeep.record = replace(bob._upkeep.record, since=bob._upkeep.record.since - DAY)
        bob._rules = RefreshRules(DAY / 2.5)  # two of three would be enough by now
        with trio.fail_after(PATIENCE):
            await bob._begin()
        assert all(one.all(AuthorityAlarm) == [] for one in nodes)
        bob._rules = RefreshRules(DAY / 3.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bob._begin)
            await until(lambda: all(one.node.seat.ceremonies._handover is not None for one in nodes[1:]))
            nursery.cancel_scope.cancel()  # they would wait for a day
        assert nodes[0].node.seat.ceremonies._handover is None


async def test_nobody_takes_part_in_a_refresh_that_is_not_due(tmp_path: Path) -> None:
    async with refreshed(tmp_path, 600.0, 600.0, 600.0) as (alice, bob, carol):
        assert await asks(bob, alice, generation(alice)) is Reason.NOT_ALLOWED
        assert await asks(bob, alice, generation(alice) + 1, b"2" * 16) is Reason.WRONG_GENERATION
        assert {generation(one) for one in (alice, bob, carol)} == {0}


async def test_a_refresh_that_somebody_wants_who_is_no_signer_is_refused(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "dave")) as (alice, dave):
        assert await asks(dave, alice, 0) is Reason.NOT_A_SIGNER


async def test_nobody_takes_part_while_something_else_is_under_way(tmp_path: Path) -> None:
    async with refreshed(tmp_path, 600.0, 600.0, 600.0) as (alice, bob, _carol):
        upkeep = alice.node.seat._upkeep
        assert upkeep is not None
        with alice.node.seat.ceremonies.claimed():
            assert await asks(bob, alice, generation(alice)) is Reason.BUSY
            assert not refreshing_of(alice)._is_due()
        (alice.node.folder / ROLLOVER).write_bytes(b"a roll-over goes on after a restart")
        assert await asks(bob, alice, generation(alice)) is Reason.BUSY


def refreshing_of(one: Running) -> Refreshing:
    found = one.node.seat.ceremonies.on_refresh.__self__  # type: ignore[attr-defined]
    assert isinstance(found, Refreshing)
    return found


async def test_a_session_is_used_once(tmp_path: Path) -> None:
    async with refreshed(tmp_path, 600.0, 600.0, 600.0) as (alice, bob, _carol):
        assert await asks(bob, alice, 1, b"s" * 16) is Reason.WRONG_GENERATION
        refreshing_of(alice)._rules = RefreshRules(timedelta(0))
        assert await asks(bob, alice, 0, b"s" * 16) is Reason.NOT_ALLOWED
        assert await asks(bob, alice, 0, b"t" * 16) is None


async def asks(one: Running, other: Running, generation: int, session: bytes = bytes(16)) -> Reason | None:
    """What the other says to a refresh that this one wants."""
    heard = list[RoundMessage]()
    carrier = one.node.seat.keeper.carrier
    with carrier.listening(session, heard.append):
        carrier.send([Outgoing(other.node.node_id, session, RoundKind.REFRESH_WANTED, pack_wanted(generation))])
        await until(lambda: bool(heard))
    assert heard[0].kind is RoundKind.REFRESH_ANSWER
    return unpack_answer(heard[0].body)
