"""The authority of a mesh is lost: recovery keys name another one, it waits, and the mesh goes on; or the living answer."""

import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from audit.verifier import verify_store
from overlay.app.authority.recovery_at_rest import propose_at_rest, submit_at_rest
from overlay.app.authority.recovery_proposals import Proposer, make
from overlay.app.cli.recovery_keys import KeyMaker
from overlay.app.compose import open_node
from overlay.app.enrol import found_mesh
from overlay.app.identity import identity_signer
from overlay.core.authority.contents import ObjectKind
from overlay.core.authority.objects import Signatures, assemble
from overlay.core.authority.record_requests import AuthorityTest
from overlay.core.join_frames import Renewal
from overlay.core.keys import verify_ed25519
from overlay.core.policy import Policy
from overlay.core.recovery_files import RecoveryKey, RecoveryProposal
from overlay.errors import Refused, UsageError
from overlay.events import AuthorityAlarm, AuthorityChanged
from overlay.net.system import wall_clock
from overlay.registry import FrameType, Label, Reason
from overlay.store.membership import load_mesh
from overlay.store.state import AUDIT_STORE, RECOVERY, SHARE, StateFolder
from tests.shell.authority_kit import (
    PATIENCE,
    Running,
    admitted,
    join,
    linked,
    met,
    opened,
    parted,
    set_calendar,
    token_of,
    until,
)
from tests.shell.folder_kit import ALONE

WAIT = 5.0  # seconds: long enough for a check before it is over
NAMES = ("alice", "bob", "carol", "dave", "erin")


def founded_with_keys(path: Path, wanted: str = "2of3") -> tuple[Path, list[RecoveryKey]]:
    """The folder of a founder, and the keys as they lie in their files."""
    maker = KeyMaker.of(wanted, path / "keys", "home")
    with StateFolder.create(path / "alice") as folder:
        found_mesh(folder, "alice", "home", Policy.default(), None, maker.make)
    return path / "alice", [RecoveryKey.from_text(file.read_text()) for file in maker.files]


async def many_hands(nodes: Sequence[Running], threshold: int, names: Sequence[str]) -> None:
    """The key is distributed, and all have renewed."""
    await nodes[0].node.authority.distribute(list(names), threshold)
    with trio.fail_after(2 * PATIENCE):
        for one in nodes:
            await until(lambda one=one: generation(one) >= 1)
        for one in nodes:
            await one.node.wait_members(len(nodes))


def generation(one: Running) -> int:
    return len(one.node.engine.identity.verified.certificate.lineage) - 1


async def proposed(one: Running, keys: Sequence[RecoveryKey]) -> RecoveryProposal:
    """By this node, and signed by these."""
    proposal = RecoveryProposal.from_text((await one.node.authority.recover()).fields["proposal"])
    for key in keys:
        proposal = proposal.signed_by(key)
    return proposal


async def proves(one: Running) -> None:
    """Its authority signs."""
    signature = await one.node.seat.keeper.desk.sign(AuthorityTest(bytes(32)))
    data = Label.AUTHORITY_TEST + one.node.mesh_id + bytes(32)
    verify_ed25519(one.node.seat.ledger.chain.newest_root.public_key, signature, data)


def recovery_alarm(event: AuthorityAlarm) -> bool:
    return event.reason is Reason.RECOVERY


async def test_two_of_five_signers_are_lost_for_ever_and_the_mesh_goes_on_by_its_recovery_keys(tmp_path: Path) -> None:
    path, keys = founded_with_keys(tmp_path)
    paths = [path, *(admitted(path, name, "signer") for name in NAMES[1:])]
    async with linked(*paths) as nodes:
        await many_hands(nodes, 4, NAMES)
    async with AsyncExitStack() as stack:
        alive: list[Running] = []
        for one in paths[:3]:
            alive.append(await stack.enter_async_context(opened(one, *alive, recovery_wait=WAIT)))
        for one in alive:
            await one.node.wait_members(3)
        alice, bob, _carol = alive
        token = await token_of(alice, roles=["worker"])
        with pytest.raises(Refused):
            await alice.node.seat.keeper.desk.sign(AuthorityTest(bytes(32)))
        with pytest.raises(UsageError, match="1 of 2 recovery keys"):
            await alice.node.authority.submit_recovery((await proposed(alice, keys[:1])).to_text())
        proposal = await proposed(alice, (keys[0], keys[2]))
        report = await alice.node.authority.submit_recovery(proposal.to_text())
        assert report.fields["authority"] == 2
        for one in alive:
            alarm = await one.heard(AuthorityAlarm, recovery_alarm)
            assert "make alice authority 2" in alarm.detail and alarm.node == str(alice.node.node_id)
            assert generation(one) == 1 and one.node.seat.ledger.chain.newest.number == 1
        for one in alive:
            changed = await one.heard(AuthorityChanged)
            assert (changed.kind, changed.number) == (ObjectKind.RECOVERY.value, 2)
        for one in alive:
            await until(lambda one=one: generation(one) == 2)
            await one.node.wait_members(3)
        await proves(alice)
        assert [one.node.engine.identity.verified.roles for one in alive] == [("operator", "signer"), ("signer",), ("signer",)]
        assert not (path / RECOVERY).exists() and (path / SHARE).exists() and not (bob.node.folder / SHARE).exists()
        fresh = await token_of(alice, at=(alice, bob), roles=["worker"])
        assert token.root_hash != fresh.root_hash
        certificate = await join(tmp_path / "frank", fresh, name="frank")
        assert len(certificate.lineage) == 3
        frank = await stack.enter_async_context(opened(tmp_path / "frank", *alive))
        await frank.node.wait_members(4)
        await many_hands_again(alive)


async def many_hands_again(alive: Sequence[Running]) -> None:
    alice = alive[0]
    await alice.node.authority.distribute(["alice", "bob", "carol"], 2)
    await until(lambda: alice.node.seat.ledger.chain.newest.number == 3)
    await proves(alive[1])


@asynccontextmanager
async def three(tmp_path: Path, **settings: float) -> AsyncIterator[tuple[tuple[Running, ...], list[RecoveryKey]]]:
    """Alice, bob and carol, of whom two sign, and recovery keys that somebody has."""
    path, keys = founded_with_keys(tmp_path)
    paths = [path, *(admitted(path, name, "signer") for name in NAMES[1:3])]
    async with linked(*paths) as nodes:
        await many_hands(nodes, 2, NAMES[:3])
    async with AsyncExitStack() as stack:
        again: list[Running] = []
        for one in paths:
            again.append(await stack.enter_async_context(opened(one, *again, **settings)))
        await met(*again)
        yield tuple(again), keys


def stolen(thief: Running, keys: Sequence[RecoveryKey]) -> RecoveryProposal:
    """What a member signs who has these keys, and asks nobody whether the authority is there."""
    identity, chain = thief.node.engine.identity, thief.node.seat.ledger.chain
    proposal = make(chain, Proposer(
        identity=identity.verified.certificate.identity, sign=thief.node.seat.parts.sign, heads=lambda _members: (),
        seed=bytes(range(32)),
    ), wall_clock()).proposal  # fmt: skip
    for key in keys:
        proposal = proposal.signed_by(key)
    return proposal


def sealed(proposal: RecoveryProposal) -> bytes:
    """The object, whether enough have signed or not."""
    signatures = Signatures(proposal.root_signed, proposal.members_signed, recovery=proposal.recovery)
    return assemble(proposal.payload, signatures)


async def test_a_thief_of_one_recovery_key_gets_nothing(tmp_path: Path) -> None:
    async with three(tmp_path, recovery_wait=1.0) as ((alice, bob, carol), keys):
        thief = sealed(stolen(carol, keys[:1]))
        before = [one.node.seat.ledger.chain for one in (alice, bob)]
        for one in (alice, bob):
            with pytest.raises(Refused, match="too few recovery keys"):
                one.node.seat.keeper.take_object(thief, carol.node.node_id)
            carol.node.engine.tell(one.node.node_id, FrameType.AUTHORITY_OBJECT, thief)
            await parted(one.node, "carol")
        assert [one.node.seat.ledger.chain for one in (alice, bob)] == before
        assert not alice.all(AuthorityAlarm, recovery_alarm) and not bob.all(AuthorityAlarm, recovery_alarm)


async def test_whoever_steals_enough_recovery_keys_is_made_void_by_the_living_authority(tmp_path: Path) -> None:
    async with three(tmp_path, recovery_wait=60.0) as ((alice, bob, carol), keys):
        nodes = (alice, bob, carol)
        with pytest.raises(UsageError, match="nothing is lost"):
            await carol.node.authority.recover()
        thief = stolen(carol, keys[:2])
        with pytest.raises(UsageError, match="nothing is lost"):
            await carol.node.authority.submit_recovery(thief.to_text())
        carol.node.seat.keeper.take_object(sealed(thief))
        for one in nodes:
            await one.heard(AuthorityAlarm, recovery_alarm)
            assert (await one.node.authority.status()).fields["recovery"]["waiting"]
        await alice.node.authority.distribute(list(NAMES[:3]), 2)
        for one in nodes:
            await one.heard(AuthorityAlarm, lambda event: recovery_alarm(event) and "void" in event.detail)
        for one in nodes:
            chain = one.node.seat.ledger.chain
            assert (chain.newest.kind, chain.newest.number, chain.candidates) == (ObjectKind.ROLLOVER, 2, ())
            assert chain.settle(wall_clock() + timedelta(days=9)) is chain
            assert all(event.kind != ObjectKind.RECOVERY.value for event in one.all(AuthorityChanged))
        said, passed_on = len(alice.events), list[bytes]()
        alice.node.seat.keeper._pass_on = lambda _kind, body, _but: passed_on.append(body)  # type: ignore[method-assign]
        carol.node.engine.tell(alice.node.node_id, FrameType.AUTHORITY_OBJECT, sealed(thief))
        await proves(bob)
        assert not [event for event in alice.events[said:] if isinstance(event, AuthorityAlarm)]
        assert len(alice.node.seat.ledger.chain.objects) == 3 and sealed(thief) not in passed_on


async def test_a_node_that_was_off_hears_the_answer_before_its_wait_counts(tmp_path: Path) -> None:
    async with three(tmp_path, recovery_wait=60.0) as ((alice, bob, carol), keys):
        carol.node.seat.keeper.take_object(sealed(stolen(carol, keys[:2])))
        for one in (alice, bob, carol):
            await one.heard(AuthorityAlarm, recovery_alarm)
        folder = carol.node.folder
        await carol.node.seat.ledger.flush()
        copy = folder.parent / "carol-later"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("control.sock"))
        await alice.node.authority.distribute(list(NAMES[:3]), 2)
        carol.node.ask_to_stop()
        carol.node.engine.pool.close(Reason.SHUTDOWN)
        await parted(alice.node, "carol")
        set_calendar(copy, wall_clock() + timedelta(seconds=61))
        async with opened(copy, alice, bob, recovery_wait=60.0) as later:
            alarm = await later.heard(AuthorityAlarm, recovery_alarm)
            assert "make carol authority 2" in alarm.detail
            changed = await later.heard(AuthorityChanged)
            assert (changed.kind, changed.number) == (ObjectKind.ROLLOVER.value, 2)


async def test_after_a_recovery_nodes_start_again_and_every_log_holds(tmp_path: Path) -> None:
    path, keys = founded_with_keys(tmp_path, "1of1")
    bob_path = admitted(path, "bob", "signer")
    async with linked(path, bob_path) as nodes:
        await many_hands(nodes, 2, NAMES[:2])
    proposal = propose_of(path, keys[0])
    with StateFolder.open(path, exclusive=True) as folder:
        submit_at_rest(folder, proposal, wall_clock())
    async with opened(path, recovery_wait=1.0) as alice:
        await alice.heard(AuthorityChanged)
        await until(lambda: generation(alice) == 2)
        await alice.node.audit.append("note", "{}")
        token = await token_of(alice, roles=["worker"])
        await join(tmp_path / "frank", token, name="frank")
    async with linked(path, tmp_path / "frank") as (alice, frank):
        assert generation(alice) == generation(frank) == 2
        await until(lambda: len(frank.node.audit.statistics()) >= 2)
        assert alice.node.seat.ledger.trust.hash == frank.node.seat.ledger.trust.hash
    for one in (path, tmp_path / "frank"):
        with StateFolder.open(one, exclusive=False) as folder:
            mesh = load_mesh(folder)
            assert mesh is not None
            report = verify_store(folder.file(AUDIT_STORE), mesh.root)
        assert report.holds, report.lines


def propose_of(path: Path, key: RecoveryKey) -> RecoveryProposal:
    """In a folder whose node does not run."""
    with StateFolder.open(path, exclusive=True) as folder:
        found = propose_at_rest(folder, lambda: identity_signer(folder, None), wall_clock())
        again = propose_at_rest(folder, lambda: identity_signer(folder, None), wall_clock())
    assert found == again
    return found.signed_by(key)


async def test_a_day_later_when_every_certificate_has_ended_a_recovery_still_brings_the_mesh_back(tmp_path: Path) -> None:
    path, keys = founded_with_keys(tmp_path, "1of1")
    paths = [path, admitted(path, "bob", "signer"), admitted(path, "carol", "worker")]
    async with linked(*paths) as nodes:
        await many_hands(nodes, 2, NAMES[:2])
    proposal = propose_of(path, keys[0])
    with StateFolder.open(path, exclusive=True) as folder:
        submit_at_rest(folder, proposal, tomorrow())
    came: list[Running] = []
    with trio.fail_after(2 * PATIENCE):
        async with trio.open_nursery() as nursery:
            port = free_port()

            async def start(one: Path, **settings: Any) -> None:
                found = Running()
                config = replace(ALONE, recovery_wait=WAIT, **settings)
                async with open_node(one, config=config, observers=[found.take], clock=tomorrow) as found.node:
                    came.append(found)
                    await trio.sleep_forever()

            nursery.start_soon(partial(start, path, listen=("127.0.0.1", port)))
            nursery.start_soon(partial(start, paths[2], seeds=(f"127.0.0.1:{port}",)))
            await until(lambda: len(came) == 2)
            await met(*came)
            assert {generation(one) for one in came} == {2}
            nursery.cancel_scope.cancel()


async def test_a_renewal_that_was_begun_a_day_ago_is_not_bound_to_a_certificate_that_has_ended(tmp_path: Path) -> None:
    path, _ = founded_with_keys(tmp_path)
    async with opened(admitted(path, "bob")) as bob:
        own, request = bob.node.engine.identity.verified.certificate, bob.node.seat.parts.make_request()
    begun = own.not_before + timedelta(minutes=1)
    set_calendar(path, begun + timedelta(hours=25))
    async with opened(path) as alice:
        hosting = alice.node.seat._hosting
        assert hosting is not None
        stale = Renewal(csr=request, serial=own.serial, not_before=begun)
        assert (await hosting.renew(stale, own)).reason is Reason.CLOCK
        fresh = replace(stale, not_before=begun + timedelta(hours=2))
        assert (await hosting.renew(fresh, own)).approved


def tomorrow() -> datetime:
    """When leaves of today have ended."""
    return wall_clock() + timedelta(hours=26)


def free_port() -> int:
    """A TCP port that nobody uses at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
