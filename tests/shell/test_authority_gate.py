"""After a revocation there is another gate key: all use it, nobody loses anybody, and it outlives a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from overlay.app.authority.joining import join_mesh
from overlay.app.config import Config
from overlay.core.gate_keys import _CARRIED, GATE_KEY_MAX
from overlay.core.mesh.found import Candidate
from overlay.core.trust_update import TrustUpdate
from overlay.core.wire import make_map, open_map
from overlay.events import PeerDown
from overlay.registry import FrameType, Reason
from overlay.store.state import PEERS, StateFolder
from tests.shell.authority_kit import PATIENCE, Running, admitted, founded, join, linked, met, opened, token_of, until


def number(one: Running) -> int:
    return one.node.seat.parts.ring.newest[0]


def key(one: Running) -> bytes:
    return one.node.seat.parts.ring.newest[1]


async def test_a_revocation_brings_another_gate_key_to_all_but_the_revoked(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob"), admitted(path, "carol")
    async with linked(path, bobs, carols) as (alice, bob, carol):
        old = key(alice)
        await alice.node.authority.revoke(["carol"])
        await until(lambda: number(bob) == number(alice) == 2)
        assert key(bob) == key(alice) != old == key(carol)
        assert [peer.name for peer in bob.node.peers] == ["alice"], "nobody is lost"
        certificate = await join(tmp_path / "dave", await token_of(alice), name="dave")
        assert certificate.name == "dave"
        async with opened(tmp_path / "dave", bob) as dave:
            await met(bob, dave)
            assert number(dave) == 2
    async with linked(path, bobs) as (alice, bob):
        assert number(alice) == number(bob) == 2, "it outlives a restart"


async def test_a_node_that_was_away_comes_back_with_the_old_key_and_learns_the_new_one(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob"), admitted(path, "carol")
    async with linked(path, bobs, carols):
        pass
    async with opened(path) as alice:
        await alice.node.authority.revoke(["carol"])
        assert number(alice) == 2
        async with opened(bobs, alice) as bob:
            assert number(bob) == 1
            await met(alice, bob)
            await until(lambda: number(bob) == 2)


@asynccontextmanager
async def on_the_air(path: Path) -> AsyncIterator[Running]:
    """A node that finds others by multicast on loopback, and knows no address."""
    with StateFolder.open(path, exclusive=True) as folder:
        folder.remove(PEERS)
    async with opened(path, mdns=True, interfaces=("lo",), include_loopback=True) as one:
        yield one


async def test_a_node_that_was_away_is_found_by_multicast_alone_and_learns_the_new_key(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob"), admitted(path, "carol")
    async with linked(path, bobs, carols):
        pass
    async with opened(path) as alice:
        await alice.node.authority.revoke(["carol"])
        assert number(alice) == 2
    async with on_the_air(path) as alice, on_the_air(bobs) as bob:
        assert (number(alice), number(bob)) == (2, 1)
        await met(alice, bob)
        await until(lambda: number(bob) == 2)


async def test_who_announces_under_an_old_key_is_knocked_at_with_it(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob"), admitted(path, "carol")
    async with linked(path, bobs, carols):
        pass
    async with opened(path) as alice, opened(bobs) as bob:
        old = key(bob)
        await alice.node.authority.revoke(["carol"])
        assert number(alice) == 2
        candidate = Candidate(
            addresses=(("127.0.0.1", bob.node.port),), tag=bytes(8), node_id=bob.node.node_id, gate_key=old, ours=True,
            source="test",
        )  # fmt: skip
        alice.node.engine.pool.found(candidate)
        await met(alice, bob)
        await until(lambda: number(bob) == 2)


async def test_a_token_of_before_still_works_by_multicast_alone(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, _bob):
        token = replace(await token_of(alice), addresses=())
        await alice.node.authority.revoke(["bob"])
        assert number(alice) == 2
    config = Config(evidence="software", interfaces=("lo",), include_loopback=True)
    async with on_the_air(path):
        with StateFolder.create(tmp_path / "dave") as folder:
            certificate = await join_mesh(folder, token, config, None, name="dave", patience=PATIENCE)
    assert certificate.name == "dave"


async def test_a_token_of_before_still_works(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, _bob):
        token = await token_of(alice)
        await alice.node.authority.revoke(["bob"])
        assert number(alice) == 2
        assert (await join(tmp_path / "dave", token, name="dave")).name == "dave"


def made_by(one: Running) -> bytes:
    """A new gate key that this node has signed, as it is carried."""
    engine = one.node.engine
    return one.node.seat.parts.ring.next_one(
        engine.identity, one.node.mesh_id, engine.parts.chance, one.node.seat.parts.at()
    )  # fmt: skip


async def test_a_gate_key_of_a_member_that_is_no_signer_changes_nothing(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob"), admitted(path, "carol")) as (alice, bob, carol):
        bob.node.engine.tell(alice.node.node_id, FrameType.TRUST_UPDATE, TrustUpdate(gate=made_by(bob)).pack())
        good = made_by(alice)
        bob.node.engine.tell(carol.node.node_id, FrameType.TRUST_UPDATE, TrustUpdate(gate=good).pack())
        await until(lambda: number(carol) == number(alice) == number(bob) == 2)
        assert key(alice) == key(bob) == key(carol)
        assert alice.all(PeerDown) == [], "somebody who passes it on may know of signers that we do not"


async def test_a_forged_gate_key_costs_the_link(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        cose, made, *shown = open_map(made_by(alice), *_CARRIED, limit=GATE_KEY_MAX)
        forged = make_map(cose[:-1] + bytes([cose[-1] ^ 1]), made, *shown)
        bob.node.engine.tell(alice.node.node_id, FrameType.TRUST_UPDATE, TrustUpdate(gate=forged).pack())
        gone = await alice.heard(PeerDown)
        assert (gone.name, gone.reason, number(alice)) == ("bob", Reason.BAD_SIGNATURE, 1)
