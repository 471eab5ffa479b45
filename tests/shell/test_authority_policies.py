"""A new policy between real nodes: who orders it, who signs it, and from when it holds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from attest.manifest import installed_root, package_manifest
from audit.bodies import describe
from audit.log import AuditLog
from overlay.core.authority.order_bodies import PolicyOrder
from overlay.core.authority.record_requests import PolicyRequest
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.policy_file import parse_policy_toml
from overlay.core.wire import sha256
from overlay.errors import NotAllowed, Refused, UsageError
from overlay.events import PeerAttested, PeerDown, PolicyChanged, TrustLost
from overlay.registry import EntryType, Reason
from overlay.testing import mesh
from tests.shell.authority_kit import Running, admitted, founded, linked, opened, order_of, parted, signed_by, until

STRICTER = 'version = 2\nmode = "warn"\nmanifests = ["' + "11" * 32 + '"]\n'
HARD = 'version = 3\nmode = "enforce"\nmanifests = ["' + "11" * 32 + '"]\n'
LOOSER = 'version = 3\nmode = "learn"\n'


def version_at(*nodes: Running) -> list[int]:
    return [one.node.seat.ledger.trust.policy.policy.version for one in nodes]


async def test_a_policy_that_an_operator_orders_is_in_force_on_every_node_and_after_a_restart(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with linked(path, bobs) as (alice, bob):
        said = await alice.node.authority.policy(STRICTER)
        assert said.fields["counts"] is True
        await bob.heard(PolicyChanged, lambda event: event.version == 2)
        assert version_at(alice, bob) == [2, 2]
        assert bob.node.seat.ledger.trust.policy.policy == parse_policy_toml(STRICTER)
        assert (await alice.node.authority.status()).fields["waiting"] == []
    async with opened(bobs) as bob:
        assert version_at(bob) == [2]


async def test_a_dry_run_changes_nothing_and_says_how_many_operators_it_takes(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        tighter = await alice.node.authority.policy(STRICTER, dry_run=True)
        looser = await alice.node.authority.policy('version = 2\nmode = "learn"\nattestation = "off"\n', dry_run=True)
        assert (tighter.fields["operators_needed"], looser.fields["operators_needed"]) == (1, 2)
        assert version_at(alice) == [1]
        assert alice.node.seat.ledger.orders.held == {}


@pytest.mark.parametrize("text", ["version = 1\n", 'mode = "warn"\n', "version = 2\nnonsense = 1\n", "no toml"])
async def test_a_policy_that_is_none_or_no_newer_is_usage(tmp_path: Path, text: str) -> None:
    async with opened(founded(tmp_path)) as alice:
        with pytest.raises(UsageError):
            await alice.node.authority.policy(text)
        assert version_at(alice) == [1]


async def test_whoever_is_no_operator_orders_none_and_is_not_helped(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        with pytest.raises(NotAllowed):
            await bob.node.authority.policy(STRICTER)
        with pytest.raises(NotAllowed, match="let us call"):
            await bob.node.engine.call(alice.node.node_id, "overlay.policy", parse_policy_toml(STRICTER).pack(), 10.0)
        assert version_at(alice, bob) == [1, 1]


async def test_a_signer_signs_no_policy_that_no_operator_has_ordered(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        with pytest.raises(Refused) as error:
            await alice.node.seat.keeper.desk.sign(PolicyRequest(parse_policy_toml(STRICTER).pack()))
        assert error.value.reason is Reason.NOT_ENOUGH_SIGNERS
        assert "not_allowed" in str(error.value)


async def test_an_order_for_one_policy_is_none_for_another(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        order = order_of(alice.node, PolicyOrder(sha256(parse_policy_toml(STRICTER).pack())), number=1)
        alice.node.seat.keeper.take_order(signed_by(alice.node, order))
        other = Policy(version=2, attestation=Attestation.PREFER, mode=Mode.LEARN)
        with pytest.raises(Refused, match="not_allowed"):
            await alice.node.seat.keeper.desk.sign(PolicyRequest(other.pack()))


async def test_a_looser_policy_takes_two_operators_where_there_are_two(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob", "operator")) as (alice, bob):
        assert (await alice.node.authority.policy(STRICTER)).fields["counts"] is True
        waits = await alice.node.authority.policy(LOOSER)
        assert (waits.fields["counts"], version_at(alice)) == (False, [2])
        assert (await alice.node.authority.policy(LOOSER)).fields["order"] == waits.fields["order"]
        await until(lambda: bytes.fromhex(waits.fields["order"]) in bob.node.seat.ledger.orders.held)
        await bob.node.authority.countersign(waits.fields["order"])
        held = alice.node.seat.ledger.orders.held
        await until(lambda: len(held_of(alice, waits.fields["order"])) == 2 and bool(held))
        assert (await alice.node.authority.policy(LOOSER)).fields["counts"] is True
        await until(lambda: version_at(alice, bob) == [3, 3])


def held_of(node: Running, order: str) -> tuple[object, ...]:
    return node.node.seat.ledger.orders.held[bytes.fromhex(order)].signers


async def test_a_node_that_does_not_meet_a_stricter_policy_is_dropped_with_its_next_proof(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with opened(path, attest_every=1.0) as alice, opened(bobs, alice, attest_every=1.0) as bob:
        with trio.fail_after(15):
            await alice.node.wait_members(2)
        await alice.node.authority.policy(HARD)
        down = await alice.heard(PeerDown)
        assert (down.name, down.reason) == ("bob", Reason.SOFTWARE_MISMATCH)
        assert [event.reason for one in (alice, bob) for event in one.all(TrustLost)][:1] == [Reason.SOFTWARE_MISMATCH]


async def test_an_operator_without_a_share_has_it_signed_by_those_who_hold_the_key() -> None:
    names = ("alice", "bob", "carol", "dave")
    async with mesh(*names, roles={name: ("signer",) for name in names[1:]}) as nodes:
        await nodes[0].authority.distribute(names[1:], 2)
        with trio.fail_after(20):
            while nodes[0].seat.ledger.share is not None:  # noqa: ASYNC110 (nobody tells)
                await trio.sleep(0.05)
        assert (await nodes[0].authority.policy(STRICTER)).fields["counts"] is True
        with trio.fail_after(20):
            while any(node.seat.ledger.trust.policy.policy.version != 2 for node in nodes):  # noqa: ASYNC110
                await trio.sleep(0.05)


async def test_the_next_proof_is_of_what_the_new_policy_asks_for(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        before = alice.node.engine._attester.prover
        await alice.node.authority.policy(STRICTER)
        after = alice.node.engine._attester.prover
        assert (before.claims.policy_version, after.claims.policy_version) == (1, 2)  # type: ignore[attr-defined]


# --- grace, and modes that change while nodes run ---------------------------------------------------------------------

OWN = package_manifest(installed_root()).hex()
OTHER = "11" * 32
STRICT = f'version = 2\nmode = "enforce"\nmanifests = ["{OWN}"]\n'


@asynccontextmanager
async def pair(path: Path) -> AsyncIterator[tuple[Running, Running]]:
    """Alice, who founded the mesh, and bob, linked, with a round each second."""
    founder, member = founded(path), admitted(path / "alice", "bob")
    async with opened(founder, attest_every=1.0) as alice, opened(member, alice, attest_every=1.0) as bob:
        with trio.fail_after(15):
            await alice.node.wait_members(2)
        yield alice, bob


def log_of(node: Running) -> AuditLog:
    log = node.node.seat.parts.log()
    assert log is not None
    return log


def said_by(node: Running, what: str) -> bool:
    return any(what in warning for warning in node.node.statistics().warnings)


async def test_with_grace_what_was_good_before_passes_for_a_while_with_a_warning_and_then_no_more(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        await alice.node.authority.policy(STRICT)
        since = len(bob.all(PeerAttested))
        await until(lambda: len(bob.all(PeerAttested)) > since + 1)
        assert not said_by(bob, "passes until")
        report = await alice.node.authority.policy(f'version = 3\nmanifests = ["{OTHER}"]\ngrace = "6s"\n')
        assert "what was good before passes until" in report.said[0]
        await until(lambda: said_by(alice, "bob: software mismatch") and said_by(bob, "alice: software mismatch"))
        assert bob.node.seat.ledger.trust.policy.policy.earlier[0].references.manifests == (bytes.fromhex(OWN),)
        assert alice.all(PeerDown) == []
        down = await alice.heard(PeerDown)
        assert (down.name, down.reason) == ("bob", Reason.SOFTWARE_MISMATCH)
        end = alice.node.seat.ledger.trust.policy.policy.earlier[0].until
        assert alice.node.seat.parts.at().timestamp() >= end
        entries = await log_of(alice).newest()
        told = [describe(one.type, one.body) for one in entries if one.type == EntryType.LIFECYCLE]
        assert any(one["event"] == "peer-warning" and "passes until" in one["detail"] for one in told)


async def test_a_policy_with_grace_that_a_second_operator_has_to_countersign_is_the_one_that_was_ordered(
    tmp_path: Path,
) -> None:
    path = founded(tmp_path)
    looser = 'version = 2\nattestation = "off"\nmode = "learn"\ngrace = "1h"\n'
    async with linked(path, admitted(path, "bob", "operator")) as (alice, bob):
        waits = await alice.node.authority.policy(looser)
        assert waits.fields["counts"] is False
        await until(lambda: bytes.fromhex(waits.fields["order"]) in bob.node.seat.ledger.orders.held)
        await bob.node.authority.countersign(waits.fields["order"])
        await until(lambda: len(held_of(alice, waits.fields["order"])) == 2)
        (order,) = alice.node.seat.ledger.orders.in_force(alice.node.seat.parts.at())
        await until(lambda: alice.node.seat.parts.at() > order.not_before + timedelta(seconds=2))
        assert (await alice.node.authority.policy(looser)).fields["counts"] is True
        (one,) = alice.node.seat.ledger.trust.policy.policy.earlier
        assert one.until == int(order.not_before.timestamp()) + 3600


async def test_warn_lets_pass_what_enforce_refuses_and_both_hold_at_once(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        await alice.node.authority.policy(STRICTER)
        await until(lambda: said_by(alice, "bob: software mismatch") and said_by(bob, "alice: software mismatch"))
        assert alice.all(PeerDown) == []
        await alice.node.authority.policy(HARD)
        assert (await alice.heard(PeerDown)).reason is Reason.SOFTWARE_MISMATCH


async def test_from_off_to_enforce_whoever_meets_it_stays_and_whoever_does_not_goes_with_the_next_round(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        await alice.node.authority.policy('version = 2\nattestation = "off"\n')
        since = len(alice.all(PeerAttested))
        await until(lambda: len(alice.all(PeerAttested)) > since + 1)
        assert alice.all(PeerDown) == []
        await alice.node.authority.policy(f'version = 3\nattestation = "prefer"\nmanifests = ["{OWN}"]\n')
        await until(lambda: version_at(alice, bob) == [3, 3])
        since = len(alice.all(PeerAttested))
        await until(lambda: len(alice.all(PeerAttested)) > since + 1)
        assert alice.all(PeerDown) == []
        await alice.node.authority.policy(f'version = 4\nmanifests = ["{OTHER}"]\n')
        down = await alice.heard(PeerDown)
        assert (down.name, down.reason) == ("bob", Reason.SOFTWARE_MISMATCH)


@pytest.mark.parametrize("text", ['attestation = "require"', "minimum_level = 2", "[roles.operator]\nlevel = 2"])
async def test_a_policy_that_would_shut_out_the_operators_own_node_is_not_ordered(tmp_path: Path, text: str) -> None:
    async with opened(founded(tmp_path)) as alice:
        with pytest.raises(UsageError, match="would shut out this node itself"):
            await alice.node.authority.policy(f"version = 2\n{text}\n")
        assert version_at(alice) == [1]
        assert alice.node.seat.ledger.orders.held == {}


async def test_nodes_that_a_policy_has_parted_hear_of_the_next_one_and_come_back(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        await alice.node.authority.policy('version = 2\nmode = "enforce"\nmanifests = ["' + OTHER + '"]\n')
        await until(lambda: version_at(alice, bob) == [2, 2])
        await parted(alice.node, "bob")
        await parted(bob.node, "alice")
        await alice.node.authority.policy('version = 3\nmode = "learn"\n')
        await until(lambda: version_at(alice, bob) == [3, 3], 45)
        with trio.fail_after(45):
            await alice.node.wait_peer("bob")
        judge = next(one for one in (alice, bob) if one.all(TrustLost))
        said = list[int]()
        log_of(judge).listen(lambda entries: said.extend(one.type for one in entries if one.node_id == judge.node.node_id))
        said += [entry.type for entry in await log_of(judge).newest(node_id=judge.node.node_id)]
        await until(lambda: EntryType.DRIFT in said and EntryType.ADMISSION in said[said.index(EntryType.DRIFT) :])


async def test_a_node_that_was_off_while_the_policy_changed_hears_of_it_though_each_refuses_the_other(tmp_path: Path) -> None:
    founder, member = founded(tmp_path), admitted(tmp_path / "alice", "bob")
    async with opened(founder, attest_every=1.0) as alice:
        async with opened(member, alice, attest_every=1.0) as bob:
            with trio.fail_after(15):
                await alice.node.wait_members(2)
            await alice.node.authority.policy('version = 2\nmode = "enforce"\nmanifests = ["' + OTHER + '"]\n')
            await until(lambda: version_at(alice, bob) == [2, 2])
        await alice.node.authority.policy('version = 3\nmode = "learn"\n')
        async with opened(member, alice, attest_every=1.0) as bob:
            assert version_at(alice, bob) == [3, 2]
            await until(lambda: version_at(alice, bob) == [3, 3], 45)
            with trio.fail_after(45):
                await alice.node.wait_peer("bob")
