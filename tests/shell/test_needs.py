"""What the policy says that services, topics and roles need, between whole nodes that run."""

from datetime import timedelta
from pathlib import Path

import pytest
import trio

from audit import bodies
from audit.entry import Entry
from audit.log import AuditLog
from overlay.app.local import LocalNode
from overlay.core.policy_parts import NOTHING
from overlay.core.trust import Quarantine
from overlay.errors import NotAllowed, Refused
from overlay.events import NodeEvent, ServiceRefused
from overlay.net.request import PeerInfo, Request
from overlay.net.rights import Rights
from overlay.net.stream import BrokenStream, Stream
from overlay.registry import EntryType, Reason
from overlay.testing import mesh
from tests.shell.authority_kit import POLL, until
from tests.shell.folder_kit import enrolled, started
from tests.shell.forward_kit import echo, service

LEARN = 'version = {version}\nmode = "learn"\n'


class Counter:
    """A service and a stream that count how often they ran."""

    def __init__(self) -> None:
        self.ran = 0

    async def call(self, request: Request) -> bytes:
        self.ran += 1
        return request.body

    async def stream(self, stream: Stream) -> None:
        self.ran += 1
        await stream.send_all(await stream.receive_some())


def log_of(node: LocalNode) -> AuditLog:
    log = node.seat.parts.log()
    assert log is not None
    return log


async def in_force(alice: LocalNode, text: str, *others: LocalNode, version: int = 2) -> None:
    """Alice orders a policy, and all have it."""
    said = await alice.authority.policy(LEARN.format(version=version) + text)
    assert said.fields["counts"] is True
    await until(lambda: {one.seat.ledger.trust.policy.policy.version for one in (alice, *others)} == {version})


async def test_a_call_of_somebody_below_the_level_is_refused_before_the_handler_runs() -> None:
    counter, events, written = Counter(), list[NodeEvent](), list[Entry]()
    async with mesh("alice", "bob", services={"alice": {"count": counter.call}}) as (alice, bob):
        alice.engine.observe(events.append)
        log_of(alice).listen(written.extend)
        await in_force(alice, "[services.count]\nlevel = 2\n", bob)
        peer = await bob.wait_peer("alice")
        with pytest.raises(NotAllowed):
            await peer.call("count", b"x")
        assert counter.ran == 0
        (refused,) = [event for event in events if isinstance(event, ServiceRefused)]
        assert (refused.name, refused.service, refused.reason) == ("bob", "count", Reason.LEVEL_TOO_LOW)
        await until(lambda: any(one.type == EntryType.REFUSAL for one in written))
        (entry,) = [one for one in written if one.type == EntryType.REFUSAL]
        assert bodies.read_body(EntryType.REFUSAL, entry.body)["reason"] == Reason.LEVEL_TOO_LOW
        await in_force(alice, "", bob, version=3)
        assert await peer.call("count", b"x") == b"x"


async def test_a_service_is_for_the_roles_that_the_policy_names() -> None:
    counter = Counter()
    nodes = mesh(
        "alice", "bob", "carol", services={"alice": {"count": counter.call}}, streams={"alice": {"count": counter.stream}},
        roles={"carol": ("worker",)},
    )
    async with nodes as (alice, bob, carol):
        await in_force(alice, '[services.count]\nroles = ["worker"]\n', bob, carol)
        assert await (await carol.wait_peer("alice")).call("count", b"x") == b"x"
        peer = await bob.wait_peer("alice")
        with pytest.raises(NotAllowed):
            await peer.call("count", b"x")
        async with peer.open_stream("count") as stream:
            with pytest.raises(BrokenStream, match=r"not.allowed"):
                await stream.receive_some()
        assert counter.ran == 1


async def test_a_role_counts_from_the_level_that_it_needs() -> None:
    counter = Counter()
    nodes = mesh("alice", "bob", services={"alice": {"count": counter.call}}, roles={"bob": ("worker",)}, attest_every=60.0)
    async with nodes as (alice, bob):
        await in_force(alice, '[services.count]\nroles = ["worker"]\n[roles.worker]\nlevel = 2\n', bob)
        with pytest.raises(NotAllowed):
            await (await bob.wait_peer("alice")).call("count", b"x")
        assert counter.ran == 0


async def test_a_forwarded_service_needs_what_the_policy_says_beside_its_own_rules() -> None:
    async with mesh("alice", "bob") as (alice, bob), service(echo) as found:
        await in_force(alice, '[services.db]\nroles = ["worker"]\n', bob)
        async with alice.expose("db", found.address, allow=["member"]), bob.forward("db", peer="alice") as address:
            host, _, port = address.rpartition(":")
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
        assert found.ends == []


# --- topics ---------------------------------------------------------------------------------------------------------


def without_rules(node: LocalNode) -> None:
    """It publishes what the policy does not let it."""

    class Lax(Rights):
        """Lets everything pass."""

        @property
        def _needs(self) -> object:
            return NOTHING

    node.engine.rights = Lax(node.engine.parts.trust, node.engine.parts.standings)


async def test_what_an_author_publishes_who_may_not_is_neither_taken_nor_shown_and_comes_when_it_may() -> None:
    async with mesh("alice", "bob", "carol") as (alice, bob, carol):
        await in_force(alice, '[topics.news]\nroles = ["operator"]\n', bob, carol)
        without_rules(bob)
        async with alice.subscribe("news") as items, carol.subscribe("news") as others:
            await bob.publish("news", b"not mine to say")
            await bob.publish("news", b"nor this", transient=True)
            await alice.publish("news", b"good")
            for one in (items, others):
                with trio.fail_after(10):
                    assert (await anext(one)).body == b"good"
            assert [chain for chain in alice._topics._check.states.values() if chain.node_id == bob.node_id] == []
            await in_force(alice, "", bob, carol, version=3)
            for one in (items, others):
                with trio.fail_after(20):
                    assert (await anext(one)).body == b"not mine to say"


async def test_what_was_kept_of_an_author_is_not_shown_while_it_may_not_publish() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        await bob.publish("news", b"before")
        async with alice.subscribe("news") as items:
            with trio.fail_after(10):
                assert (await anext(items)).body == b"before"
        await in_force(alice, '[topics.news]\nroles = ["operator"]\n', bob)
        await alice.publish("news", b"after")
        async with alice.subscribe("news") as items:
            with trio.fail_after(10):
                assert (await anext(items)).body == b"after"


@pytest.mark.parametrize("transient", [True, False])
async def test_whoever_may_not_publish_is_told_so_at_home(transient: bool) -> None:
    async with mesh("alice", "bob") as (alice, bob):
        await in_force(alice, "[topics.news]\nlevel = 2\n", bob)
        with pytest.raises(Refused, match="level 1 where 2 is wanted for news"):
            await bob.publish("news", b"text", transient=transient)


# --- beyond neighbours ----------------------------------------------------------------------------------------------


async def has_admitted(node: LocalNode, about: LocalNode) -> bool:
    entries = [one for one in await log_of(node).newest(node_id=node.node_id) if one.type == EntryType.ADMISSION]
    return any(bodies.read_body(EntryType.ADMISSION, one.body)["peer"] == about.node_id for one in entries)


async def drift_of(node: LocalNode, about: LocalNode, reason: Reason = Reason.PCR_MISMATCH) -> None:
    """Its log says that the other one has drifted, after it has said that it was let in."""
    with trio.fail_after(10):
        while not await has_admitted(node, about):  # noqa: ASYNC110 (nobody tells)
            await trio.sleep(POLL)
    await log_of(node).append(EntryType.DRIFT, bodies.drift(about.node_id, reason))


def counted(node: LocalNode, about: LocalNode) -> int:
    """The level that counts there of somebody who has shown level 4."""
    return node.engine.rights.limited(PeerInfo(about.node_id, about.name, (), 4)).level


async def test_a_signer_that_reports_drift_limits_a_node_everywhere_until_it_is_let_in_again() -> None:
    async with mesh("alice", "bob", "carol", attest_every=600.0) as (alice, bob, carol):  # no newer evidence meanwhile
        assert counted(carol, bob) == 4
        await drift_of(alice, bob)
        await until(lambda: counted(carol, bob) == 1)
        assert counted(bob, bob) == 4
        assert any("bob counts as level 1" in warning for warning in carol.statistics().warnings)
        await log_of(alice).append(EntryType.ADMISSION, bodies.admission(bob.node_id, bytes(32), level=4, evidence=2))
        await until(lambda: counted(carol, bob) == 4)
        assert not any("level 1" in warning for warning in carol.statistics().warnings)


async def test_the_word_of_whoever_is_in_quarantine_counts_for_nothing_and_its_certificate_gives_no_level() -> None:
    async with mesh("alice", "bob", "carol", attest_every=600.0) as (alice, bob, carol):
        await drift_of(alice, bob)
        await until(lambda: counted(carol, bob) == 1)
        assert carol.engine.parts.standings.member(alice.node_id) is not None
        ledger = carol.seat.ledger
        end = carol.seat.parts.at() + timedelta(hours=1)
        ledger.trust = ledger.trust.with_quarantine(Quarantine(alice.node_id, end, bytes(32)))
        assert counted(carol, bob) == 4
        assert carol.engine.parts.standings.member(alice.node_id) is None


async def test_nodes_that_are_neither_signers_nor_well_attested_limit_nobody() -> None:
    async with mesh("alice", "bob", "carol", "dave") as (alice, bob, carol, dave):
        for node in (carol, dave):
            await drift_of(node, bob)
        await drift_of(alice, carol)
        await until(lambda: counted(bob, carol) == 1)  # alice's entries have come, and so have theirs before long
        await until(lambda: all(len(log_of(alice).replica.logs_of(one.node_id)) == 1 for one in (carol, dave)))
        assert counted(alice, bob) == 4


async def test_what_was_found_before_a_restart_still_limits_and_the_level_of_who_is_away_is_its_certificates(
    tmp_path: Path,
) -> None:
    folders = enrolled(tmp_path, "alice", "bob", "carol")
    async with started(folders[0]) as alice, started(folders[2], alice.node) as carol:
        async with started(folders[1], alice.node) as bob:
            await bob.node.wait_peer("alice")
            await until(lambda: bool(log_of(carol.node).replica.logs_of(bob.node.node_id)))
            gone = bob.node.node_id
        await until(lambda: gone not in alice.node.engine.pool.links)
        assert alice.node.engine.info_of(gone, "bob").level == 1
        body = bodies.drift(gone, Reason.PCR_MISMATCH)
        entry = await log_of(alice.node).append(EntryType.DRIFT, body)
        await until(lambda: log_of(carol.node).replica.logs_of(entry.node_id)[0].size > entry.seq)
    async with started(folders[2]) as carol:
        assert carol.node.engine.rights.limited(PeerInfo(gone, "bob", (), 4)).level == 1
