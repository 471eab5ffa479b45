"""A new policy between real nodes: who orders it, who signs it, and from when it holds."""

from pathlib import Path

import pytest
import trio

from overlay.core.authority.order_bodies import PolicyOrder
from overlay.core.authority.record_requests import PolicyRequest
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.policy_file import parse_policy_toml
from overlay.core.wire import sha256
from overlay.errors import NotAllowed, Refused, UsageError
from overlay.events import PeerDown, PolicyChanged, TrustLost
from overlay.registry import Reason
from overlay.testing import mesh
from tests.shell.authority_kit import Running, admitted, founded, linked, opened, order_of, signed_by, until

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
