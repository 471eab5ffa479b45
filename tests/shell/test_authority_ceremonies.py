"""The mesh key in many hands: made, used, renewed, handed on and repaired by real nodes; and what fails changes nothing."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from overlay.core.authority.contents import ObjectKind
from overlay.core.authority.record_requests import AuthorityTest, Roster
from overlay.core.keys import verify_ed25519
from overlay.errors import Refused, UsageError
from overlay.events import AuthorityChanged, CertificateSigned
from overlay.registry import Label, Reason
from overlay.store.state import FOUNDING_KEY, ROLLOVER, SHARE, SHARE_NEXT
from tests.shell.authority_kit import (
    PATIENCE,
    Running,
    admitted,
    founded,
    join,
    linked,
    opened,
    parted,
    token_of,
    until,
)

THREE = ("alice", "bob", "carol")


@asynccontextmanager
async def signers(tmp_path: Path, *more: str) -> AsyncIterator[tuple[Running, ...]]:
    """Alice, bob and carol, who may all sign, and others."""
    path = founded(tmp_path)
    async with linked(path, *(admitted(path, name, "signer") for name in (*THREE[1:], *more))) as nodes:
        yield nodes


async def renewed(nodes: tuple[Running, ...], generation: int = 1) -> None:
    """Until all have certificates by the newest root, and are linked."""
    with trio.fail_after(2 * PATIENCE):
        for one in nodes:
            await until(lambda one=one: len(one.node.engine.identity.verified.certificate.lineage) - 1 >= generation)
        for one in nodes:
            await one.node.wait_members(len(nodes))


async def distributed(nodes: tuple[Running, ...], threshold: int = 2, names: tuple[str, ...] = THREE) -> None:
    await nodes[0].node.authority.distribute(names, threshold)
    for one in nodes:
        await one.heard(AuthorityChanged)
    await renewed(nodes)


def root_key(one: Running) -> bytes:
    return one.node.seat.ledger.chain.newest_root.public_key


async def proves(one: Running) -> None:
    """The signers answer, and their signature is the mesh key's."""
    nonce = bytes(32)
    signature = await one.node.seat.keeper.desk.sign(AuthorityTest(nonce))
    data = Label.AUTHORITY_TEST + one.node.mesh_id + nonce
    verify_ed25519(root_key(one), signature, data)


def files(one: Running) -> set[str]:
    return {path.name for path in one.node.folder.iterdir()}


async def test_a_key_that_no_machine_holds_takes_the_place_of_the_founders(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        before = root_key(nodes[0])
        await distributed(nodes)
        assert {root_key(one) for one in nodes} == {root_key(nodes[0])} != {before}
        for one in nodes:
            assert SHARE in files(one) and not files(one) & {FOUNDING_KEY, SHARE_NEXT, ROLLOVER}
            assert (one.node.folder / SHARE).stat().st_mode & 0o777 == 0o600
            assert "founding key: one machine holds the mesh" not in one.node.statistics().warnings
            await proves(one)
        secrets = {one.node.seat.ledger.share.secret.encode() for one in nodes if one.node.seat.ledger.share}
        assert len(secrets) == 3


async def test_what_the_many_have_signed_is_accepted_by_openssl_up_to_the_founding_root(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        ledger = nodes[0].node.seat.ledger
        shown = {"root": ledger.trust.root.der, "cross": ledger.trust.later[0].root.der}
        shown |= {name: one.node.engine.identity.credentials.leaf for name, one in zip("abc", nodes, strict=True)}
        for name, der in shown.items():
            pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
            (tmp_path / f"{name}.pem").write_bytes(pem)
        command = ["openssl", "verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "cross.pem"]
        leaves = ["a.pem", "b.pem", "c.pem"]
        done = subprocess.run([*command, *leaves], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout.count(": OK") == 3, done.stdout + done.stderr


async def test_a_joiner_is_signed_for_while_one_of_three_signers_is_away(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        alice, bob, carol = nodes
        token = await token_of(alice, at=(alice, bob), roles=["worker"])
        carol.node.engine.pool.close(Reason.SHUTDOWN)
        await parted(alice.node, "carol")
        certificate = await join(tmp_path / "dave", token, name="dave")
        assert len(certificate.lineage) == 2 and certificate.roles == ("worker",)
        signed = [one for one in (alice, bob, carol) if one.all(CertificateSigned, lambda event: event.name == "dave")]
        assert len(signed) >= 2


async def test_nothing_changes_where_a_member_does_not_take_part(tmp_path: Path) -> None:
    path = founded(tmp_path)
    paths = [admitted(path, name, "signer") for name in THREE[1:]]
    async with linked(path, *paths[:1]) as (alice, bob):
        async with opened(paths[1], alice, bob) as carol:
            await carol.node.wait_members(3)
        before = root_key(alice)
        with pytest.raises(Refused) as refused:
            await alice.node.authority.distribute(THREE, 2)
        assert refused.value.reason is Reason.KEY_GENERATION_FAILED and "not linked" in str(refused.value)
        assert root_key(alice) == before and FOUNDING_KEY in files(alice)
        assert not files(alice) & {SHARE_NEXT, ROLLOVER} and SHARE not in files(bob)
        await proves(alice)


async def test_whoever_has_not_the_role_holds_no_share_and_can_be_given_it(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        with pytest.raises(UsageError, match="role signer"):
            await alice.node.authority.distribute(["alice", "bob"], 2)
        await alice.node.authority.grant("bob", ["signer"])
        await until(lambda: bool(bob.node.seat.keeper.orders_that_count()))
        await bob.node.authority.renew()
        await until(lambda: any(one.name == "bob" and "signer" in one.roles for one in alice.node.seat.ledger.members))
        await alice.node.authority.distribute(["alice", "bob"], 2)
        await proves(bob)


async def test_new_shares_of_the_same_key_and_old_ones_do_not_mix_with_them(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        key, old = root_key(nodes[0]), [one.node.seat.ledger.share for one in nodes]
        await nodes[0].node.authority.refresh()
        await until(lambda: all(one.node.seat.ledger.share != before for one, before in zip(nodes, old, strict=True)))
        for one, before in zip(nodes, old, strict=True):
            share = one.node.seat.ledger.share
            assert before is not None and share is not None
            assert share.generation == before.generation + 1 and share.secret != before.secret
        assert root_key(nodes[0]) == key
        await proves(nodes[1])


async def test_the_same_key_in_other_hands_and_who_is_out_signs_no_more(tmp_path: Path) -> None:
    async with signers(tmp_path, "dave") as nodes:
        await distributed(nodes)
        alice, bob, carol, dave = nodes
        key = root_key(alice)
        await alice.node.authority.reshare(["alice", "bob", "dave"], 2)
        for one in nodes:
            await one.heard(AuthorityChanged, lambda event: event.kind == ObjectKind.RESHARING.value)
        assert {root_key(one) for one in nodes} == {key}
        await proves(dave)
        await until(lambda: SHARE not in files(carol))
        with pytest.raises(Refused) as refused:
            await carol.node.seat.keeper.desk.sign(AuthorityTest(bytes(32)))
        assert refused.value.reason is Reason.NOT_A_SIGNER
        await proves(bob)


async def test_a_lost_share_is_given_back_by_the_others(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        alice, _, carol = nodes
        before = carol.node.seat.ledger.share
        await carol.node.seat.ledger.keep_share(None)
        carol.node.seat.keeper.desk.share_changed()
        await carol.node.authority.repair()
        assert carol.node.seat.ledger.share == before
        await proves(carol)
        await proves(alice)


async def test_a_member_of_the_mesh_that_is_no_signer_gets_no_share_by_asking(tmp_path: Path) -> None:
    async with signers(tmp_path, "dave") as nodes:
        await distributed(nodes)
        dave = nodes[3]
        with pytest.raises(UsageError):
            await dave.node.authority.repair()
        with pytest.raises(Refused):
            await dave.node.seat.ceremonies.repair()
        assert SHARE not in files(dave)


async def test_signers_sign_nothing_that_no_order_asks_for(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        with pytest.raises(Refused) as refused:
            await nodes[0].node.seat.keeper.desk.sign(Roster(20_000, bytes(32)))
        assert refused.value.reason is Reason.NOT_ENOUGH_SIGNERS


async def test_a_share_outlives_a_restart(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
    async with linked(*(tmp_path / name for name in THREE)) as again:
        await proves(again[2])


async def test_a_leaf_that_the_old_root_makes_after_its_end_counts_nowhere(tmp_path: Path) -> None:
    """Somebody has copied the founder's folder before the key was distributed."""
    path = founded(tmp_path)
    others = [admitted(path, name, "signer") for name in THREE[1:]]
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    await trio.to_thread.run_sync(lambda: subprocess.run(["cp", "-rp", str(path), str(stolen)], check=True))
    async with linked(path, *others) as nodes:
        await distributed(nodes)
        mallory = admitted(stolen / "alice", "mallory", "operator", "signer")
        async with opened(mallory, *nodes) as thief:
            with trio.move_on_after(3):
                await thief.node.wait_members(2)
            assert thief.node.peers == ()
            with pytest.raises(Refused):
                await thief.node.authority.renew()
