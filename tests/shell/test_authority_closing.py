"""Who leads a ceremony says where the logs of the old signers end, and others sign that only if it is so."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from overlay.app.authority import resharing, succeeding
from overlay.app.authority.closings import closing_problem
from overlay.core.authority.closing import SETTLED_BEFORE
from overlay.core.authority.contents import ClosingCheckpoint, Contents
from overlay.core.keys import NodeId
from overlay.errors import Refused
from overlay.events import AuthorityAlarm
from overlay.registry import Reason
from tests.shell.authority_kit import PATIENCE, Running, admitted, founded, linked, until
from tests.shell.test_authority_ceremonies import THREE, distributed, proves, signers

Lie = Callable[[ClosingCheckpoint], ClosingCheckpoint]
BEYOND: Lie = lambda one: replace(one, size=one.size + 5)  # noqa: E731
FORKED: Lie = lambda one: replace(one, root=bytes(32))  # noqa: E731


def lies(one: Running, how: Lie) -> None:
    """From now on this node says something else of where logs end."""
    ceremonies = one.node.seat.ceremonies
    honest = ceremonies._ports.heads
    ceremonies._ports = replace(ceremonies._ports, heads=lambda nodes: tuple(map(how, honest(nodes))))


def number(one: Running) -> int:
    return one.node.seat.ledger.chain.newest.number


@pytest.mark.parametrize("lie", [BEYOND, FORKED], ids=["beyond", "forked"])
async def test_a_resharing_with_a_false_end_of_a_log_comes_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: Lie
) -> None:
    monkeypatch.setattr(resharing, "CLOSING_WITHIN", 1.0)
    monkeypatch.setattr(resharing, "OBJECT_WITHIN", 6.0)
    async with signers(tmp_path, "dave") as nodes:
        await distributed(nodes)
        alice, bob, _carol, dave = nodes
        leader = min((alice, bob), key=lambda one: one.node.node_id)
        lies(leader, lie)
        before = [number(one) for one in nodes]
        with pytest.raises(Refused):
            await alice.node.authority.reshare(["alice", "bob", "dave"], 2)
        await dave.heard(AuthorityAlarm, lambda event: "closed after" in event.detail)
        assert [number(one) for one in nodes] == before
        await proves(bob)


async def test_a_new_key_with_a_false_end_of_a_log_is_not_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succeeding, "DOUBT", 0.5)
    path = founded(tmp_path)
    async with linked(path, *(admitted(path, name, "signer") for name in THREE[1:])) as nodes:
        alice, bob, carol = nodes
        lies(alice, FORKED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.node.authority.distribute, list(THREE), 2)
            for one in (bob, carol):
                found = await one.heard(AuthorityAlarm, lambda event: event.reason is Reason.BAD_AUTHORITY_OBJECT)
                assert "another history" in found.detail
            assert [number(one) for one in nodes] == [0, 0, 0]
            nursery.cancel_scope.cancel()


async def test_an_old_signer_that_says_a_false_end_of_a_log_does_not_stop_the_next_key(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        liar = min(nodes, key=lambda one: one.node.node_id)  # whose turn is first
        others = [one for one in nodes if one is not liar]
        lies(liar, FORKED)
        with trio.move_on_after(PATIENCE):
            await nodes[0].node.authority.distribute([one.node.name for one in others], 2)
        await until(lambda: all(number(one) == 2 for one in others))
        assert all(one.root != bytes(32) for one in others[0].node.seat.ledger.chain.newest.contents.closing)


# --- what is looked at --------------------------------------------------------------------------------------------------


async def problem(one: Running, closing: tuple[ClosingCheckpoint, ...], *, later: timedelta = timedelta()) -> str:
    """As this node sees an object that closes these logs and begins so much later."""
    seat = one.node.seat
    newest = seat.ledger.chain.newest.contents
    found: Contents = replace(newest, closing=closing)
    return await closing_problem(found, newest, one.node.node_id, seat.parts.at() + later, seat.parts.copy_of)


async def test_entries_that_were_there_before_are_closed_in(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        own = alice.node.node_id
        await until(lambda: bob.node.seat.parts.heads((own,)) == alice.node.seat.parts.heads((own,)))
        (head,) = alice.node.seat.parts.heads((own,))
        for one in (alice, bob):
            assert await problem(one, (head,)) == ""
            earlier = await earlier_end(one, head)
            assert await problem(one, (earlier,)) == ""  # what is so new may not have come to all
            assert "older ones" in await problem(one, (earlier,), later=2 * SETTLED_BEFORE)
            assert "nobody has shown" in await problem(one, (replace(head, log_id=bytes(16)),))
        assert "our own log" in await problem(alice, ())
        stranger = ClosingCheckpoint(NodeId(bytes(32)), bytes(16), 3, bytes(32))
        assert await problem(bob, (stranger,)) == ""


async def earlier_end(one: Running, head: ClosingCheckpoint) -> ClosingCheckpoint:
    """Where the log ended after its first entry."""
    log = one.node.seat.parts.log()
    assert log is not None

    def first(store: object) -> bytes:
        with store.tree(head.log_id) as tree:  # type: ignore[attr-defined]
            root: bytes = tree.root(1)
        return root

    return replace(head, size=1, root=await log.read_store(first))
