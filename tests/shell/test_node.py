"""Nodes over real TCP on loopback."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest
import trio
import trio.testing

from overlay.core.evidence import Binding, Evidence, Prover
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.mesh.found import Candidate
from overlay.errors import DeadlineExceeded, NotAllowed, PeerUnreachable, RemoteError
from overlay.events import LinkRefused, LinkRekeyed, PeerAttested, PeerDown, PeerUp, TrustLost
from overlay.net.request import Request
from overlay.registry import EvidenceKind, Reason
from tests.shell.node_kit import fresh_mesh, linked, make_parts, running


async def test_a_call_reaches_the_other_node_and_its_answer_comes_back() -> None:
    async with linked(fresh_mesh(), "alice", "bob") as (alice, bob):
        (peer,) = bob.node.peers
        assert (peer.name, peer.level) == ("alice", 1)
        assert await peer.call("shout", b"hello") == b"HELLO"
        assert len(await alice.node.peers[0].call("shout", bytes(1024 * 1024))) == 1024 * 1024


async def test_a_service_that_is_not_there_or_fails_is_an_error_of_the_caller_only() -> None:
    async def fail(request: Request) -> bytes:
        raise ValueError("no such door")

    async def forbid(request: Request) -> bytes:
        raise NotAllowed("not you")

    async def hang(request: Request) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    services = {"fail": fail, "forbid": forbid, "hang": hang}
    async with linked(fresh_mesh(), "alice", "bob", services=services) as (_, bob):
        (peer,) = bob.node.peers
        with pytest.raises(RemoteError, match="no service"):
            await peer.call("nothing")
        with pytest.raises(RemoteError, match="ValueError: no such door"):
            await peer.call("fail")
        with pytest.raises(NotAllowed):
            await peer.call("forbid")
        with pytest.raises(DeadlineExceeded):
            await peer.call("hang", timeout=0.1)


async def test_a_call_under_way_ends_when_the_peer_goes() -> None:
    async def hang(request: Request) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice", services={"hang": hang})) as alice:  # noqa: SIM117
        async with running(make_parts(mesh, "bob", seeds=[alice.seed])) as bob:
            await bob.saw(PeerUp)
            (peer,) = bob.node.peers
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    with pytest.raises(PeerUnreachable):
                        await peer.call("hang")

                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked(0.05)
                alice.node.pool.close(Reason.SHUTDOWN)


async def test_five_nodes_that_all_dial_each_other_keep_one_link_for_each_pair() -> None:
    mesh = fresh_mesh()
    names = ("alice", "bob", "carol", "dave", "erin")
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(running(make_parts(mesh, name))) for name in names]
        for watched in nodes:  # all of them listen before any of them dials
            for other in nodes:
                if other is not watched:
                    watched.node.pool.found(candidate(other.seed))
        with trio.fail_after(20):
            for watched in nodes:
                while len(watched.node.peers) < len(names) - 1:
                    await watched.node.wait_peers_change()
            while any(len(watched.node.pool.all_links) != len(names) - 1 for watched in nodes):
                await trio.testing.wait_all_tasks_blocked(0.05)
        kept = {link.session.first_h for watched in nodes for link in watched.node.pool.links.values()}
        assert len(kept) == 10  # both ends of a pair kept the same link


def candidate(seed: str) -> Candidate:
    host, port = seed.rsplit(":", 1)
    return Candidate(addresses=((host, int(port)),), ours=True, source="static")


async def test_a_node_that_dials_itself_notices_and_stays_alone() -> None:
    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice")) as alice:
        alice.node.pool.found(candidate(alice.seed))
        refused = await alice.saw(LinkRefused, lambda event: event.reason is Reason.SELF_DIAL)
        assert refused.node == ""
        assert not alice.node.peers


async def test_a_node_with_another_gate_key_gets_nothing_at_all() -> None:
    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice")) as alice:
        stranger = make_parts(mesh, "mallory", seeds=[alice.seed], gate_keys=(bytes(32),))
        async with running(stranger) as mallory:
            await alice.saw(LinkRefused, lambda event: event.reason is Reason.BAD_GATE)
            lost = await mallory.saw(LinkRefused)
            assert lost.reason is Reason.LOST
            assert not mallory.node.peers and not alice.node.peers


async def test_keys_change_and_evidence_is_renewed_while_the_link_stays() -> None:
    times = {"rekey": RekeyTimes.every(1.0), "attest": AttestTimes.period(1.0)}
    async with linked(fresh_mesh(), "alice", "bob", **times) as (alice, bob):
        await alice.saw(LinkRekeyed, lambda event: event.epoch == 3)
        await bob.saw(LinkRekeyed, lambda event: event.epoch == 3)
        await alice.saw(PeerAttested, times=2)
        await bob.saw(PeerAttested, times=2)
        assert await bob.node.peers[0].call("shout", b"still here") == b"STILL HERE"
        assert not any(isinstance(event, PeerDown) for event in alice.events + bob.events)


async def test_a_restarted_peer_replaces_its_old_link() -> None:
    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice")) as alice:
        async with running(make_parts(mesh, "bob", seeds=[alice.seed])):
            await alice.saw(PeerUp)
        await alice.saw(PeerDown, lambda event: event.reason is Reason.SHUTDOWN and event.by_peer)
        async with running(make_parts(mesh, "bob", seeds=[alice.seed], start=2)):
            await alice.saw(PeerUp, times=2)


async def test_a_link_that_was_lost_is_dialled_again() -> None:
    async with linked(fresh_mesh(), "alice", "bob") as (alice, bob):
        for link in alice.node.pool.all_links:
            link.close(Reason.SHUTDOWN)
        await bob.saw(PeerDown)
        await bob.saw(PeerUp, times=2)


@dataclass
class Turncoat:
    """A prover that is honest until it is told not to be."""

    honest: Prover
    bad: bool = False
    kind: EvidenceKind = EvidenceKind.SOFTWARE

    def prove(self, bindings: Sequence[Binding]) -> list[Evidence]:
        found = self.honest.prove(bindings)
        return [replace(one, quote=one.quote[:-1] + b"\0") for one in found] if self.bad else found


async def test_a_peer_whose_new_evidence_is_bad_is_dropped_and_the_log_says_trust_lost() -> None:
    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice")) as alice:
        parts = make_parts(mesh, "bob", seeds=[alice.seed], attest=AttestTimes.period(1.0))
        turncoat = Turncoat(parts.prover(parts.identity))
        async with running(replace(parts, prover=lambda _: turncoat)):
            await alice.saw(PeerAttested)
            turncoat.bad = True
            lost = await alice.saw(TrustLost)
            assert isinstance(lost, TrustLost)
            assert lost.reason is Reason.EVIDENCE_SIGNATURE


async def test_a_hundred_silent_connections_do_not_keep_a_member_out() -> None:
    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice")) as alice:
        silent = [await trio.open_tcp_stream("127.0.0.1", alice.node.port) for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(alice.node.pool.all_links) <= 8
        for stream in silent:
            await stream.aclose()
        async with running(make_parts(mesh, "bob", seeds=[alice.seed])) as bob:
            await bob.saw(PeerUp)


