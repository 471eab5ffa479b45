"""What signers have bound, told to who gets a share: more of it than fits into a message, and to nobody else."""

from dataclasses import replace
from pathlib import Path

import pytest

from overlay.app.authority.seat import ASK_WITHIN, BINDINGS
from overlay.core.authority.binding_pages import Reading
from overlay.core.authority.bindings import FOR_EVER, Binding, Bound
from overlay.core.keys import NodeId
from overlay.core.limits import MESSAGE_MAX
from overlay.core.wire import make_map, sha256, u64
from overlay.errors import NotAllowed, OverlayError, Refused
from overlay.registry import Reason
from tests.shell.authority_kit import Running
from tests.shell.test_authority_ceremonies import distributed, proves, signers

MANY = 12_000  # rows, of some 96 bytes


def bind_many(*nodes: Running) -> None:
    """What signers of a large mesh have bound in some weeks."""
    places = [sha256(b"root") + u64(number) + bytes(12) for number in range(MANY)]
    rows = [Binding(Bound.RENEWED, place, sha256(place), FOR_EVER) for place in places]
    for one in nodes:
        one.node.seat.ledger.bindings = one.node.seat.ledger.bindings.adding(rows)
    assert len(nodes[0].node.seat.ledger.bindings.pack()) > MESSAGE_MAX


def held(one: Running) -> int:
    return len(one.node.seat.ledger.bindings.rows.get(Bound.RENEWED, {}))


async def test_a_new_member_is_told_more_than_a_message_holds(tmp_path: Path) -> None:
    async with signers(tmp_path, "dave") as nodes:
        await distributed(nodes)
        alice, bob, carol, dave = nodes
        bind_many(alice, bob, carol)
        await alice.node.authority.reshare(["alice", "bob", "dave"], 2)
        assert held(dave) >= MANY
        await proves(dave)


async def test_a_member_that_lost_its_share_is_told_more_than_a_message_holds(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        alice, bob, carol = nodes
        bind_many(alice, bob)
        await carol.node.seat.ledger.keep_share(None)
        carol.node.seat.keeper.desk.share_changed()
        await carol.node.authority.repair()
        assert held(carol) >= MANY
        await proves(carol)


async def test_who_has_no_share_and_gets_none_is_told_nothing(tmp_path: Path) -> None:
    async with signers(tmp_path, "dave") as nodes:
        await distributed(nodes)
        alice, dave = nodes[0], nodes[3]
        with pytest.raises(NotAllowed):
            await dave.node.engine.call(alice.node.node_id, BINDINGS, Reading().asks, ASK_WITHIN)


@pytest.mark.parametrize("lie", ["nothing", "without end", "garbage"])
async def test_signers_that_do_not_tell_what_they_have_bound_give_no_share(tmp_path: Path, lie: str) -> None:
    """Whoever signs without knowing it counts as a liar."""
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        bob, carol = nodes[1], nodes[2]
        said = {"without end": make_map([[1, b"a", bytes(32), 0]], True), "garbage": b"\x00"}.get(lie)
        ceremonies = carol.node.seat.ceremonies
        honest = ceremonies._ports.ask_bindings

        async def ask(member: NodeId, asked: bytes) -> bytes:
            if member != bob.node.node_id:
                return await honest(member, asked)
            if said is None:
                raise NotAllowed("no")
            return said

        ceremonies._ports = replace(ceremonies._ports, ask_bindings=ask)
        await carol.node.seat.ledger.keep_share(None)
        carol.node.seat.keeper.desk.share_changed()
        with pytest.raises(OverlayError) as refused:
            await carol.node.authority.repair()
        assert isinstance(refused.value, Refused) and refused.value.reason is Reason.NOT_ENOUGH_SIGNERS
        assert carol.node.seat.ledger.share is None
