"""Shares of the mesh key at rest on a node with a TPM: that machine opens them, and nobody who has the folder."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
import trio

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.tpm import Tpm
from overlay.app.authority.ledger import Ledger
from overlay.app.authority.share_vault import PlainVault, TpmVault, is_sealed
from overlay.app.authority.shares import NextShare, Shares
from overlay.app.enrol import found_mesh
from overlay.app.identity import load_membership
from overlay.core.authority.group import BASE, Scalar
from overlay.core.authority.sharing import GroupKey, Share
from overlay.core.keys import NodeId
from overlay.core.policy import Policy
from overlay.errors import HostLacks, OverlayError, StateDamaged
from overlay.events import AuthorityAlarm
from overlay.registry import Reason
from overlay.store.state import FOUNDING_KEY, SHARE, SHARE_NEXT, StateFolder
from tests.shell.authority_kit import Running, admitted, founded, linked, met, opened
from tests.tpm.conftest import Swtpm

pytestmark = pytest.mark.tpm

MESH = bytes(32)
OWN = NodeId(b"\1" * 32)


def a_share(seed: int = 1) -> Share:
    secret = Scalar.of_seed(bytes([seed]) * 32)
    public = (BASE * secret).encode()
    return Share(1, 0, secret, GroupKey(1, public, {1: public}))


@pytest.fixture
def other(tmp_path: Path, tpm_module: ModuleType) -> Iterator[Tpm]:
    """A second TPM."""
    folder = tmp_path / "other"
    folder.mkdir()
    emulator = Swtpm(folder)
    with tpm_module.Tpm.open(emulator.tcti, timeout=20) as found:
        yield found
    emulator.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    with StateFolder.open(founded(tmp_path), exclusive=True) as found:
        found.remove(FOUNDING_KEY)
        yield found


def ledger_of(folder: StateFolder, vault: TpmVault | PlainVault) -> Ledger:
    return Ledger(folder, load_membership(folder).mesh, vault)


def content_of(path: Path) -> bytes:
    """What a node keeps as its share."""
    with StateFolder.open(path, exclusive=False) as folder:
        return folder.read(SHARE) or b""


def holding(folder: StateFolder, secret: bytes) -> list[str]:
    """The files in which those bytes stand."""
    return [path.name for path in folder.path.rglob("*") if path.is_file() and secret in path.read_bytes()]


async def test_the_tpm_that_sealed_a_share_opens_it_and_no_file_holds_it(folder: StateFolder, tpm: Tpm) -> None:
    share, vault = a_share(), TpmVault(tpm, MESH)
    ledger = ledger_of(folder, vault)
    await ledger.keep_share(share)
    shares = Shares(folder, ledger, OWN, vault)
    await shares.keep_next(NextShare(a_share(2), bytes(32)))
    assert is_sealed(folder.read(SHARE) or b"") and is_sealed(folder.read(SHARE_NEXT) or b"")
    assert holding(folder, share.secret.encode()) == holding(folder, a_share(2).secret.encode()) == []
    again = ledger_of(folder, vault)
    assert again.share is not None and again.share.secret == share.secret and again.locked is None
    kept = Shares(folder, again, OWN, vault).next
    assert kept is not None and kept.share.secret == a_share(2).secret


async def test_another_tpm_does_not_open_it_and_leaves_it_as_it_is(folder: StateFolder, tpm: Tpm, other: Tpm) -> None:
    await ledger_of(folder, TpmVault(tpm, MESH)).keep_share(a_share())
    content = folder.read(SHARE)
    stolen = ledger_of(folder, TpmVault(other, MESH))
    assert stolen.share is None and stolen.locked is not None and "ca repair" in stolen.locked.hint
    assert not await stolen.unlock()
    assert folder.read(SHARE) == content


async def test_without_a_tpm_it_stays_closed(folder: StateFolder, tpm: Tpm) -> None:
    await ledger_of(folder, TpmVault(tpm, MESH)).keep_share(a_share())
    found = ledger_of(folder, PlainVault())
    assert found.share is None and isinstance(found.locked, HostLacks) and "sealed to a TPM" in str(found.locked)


@pytest.mark.parametrize("place", [20, -200, -1])
def test_a_changed_byte_opens_nothing(tpm: Tpm, place: int) -> None:
    vault = TpmVault(tpm, MESH)
    content = bytearray(vault.close(SHARE, bytes(300)))
    content[place] ^= 1
    with pytest.raises(OverlayError, match="does not open"):
        vault.open(SHARE, bytes(content))


def test_a_file_does_not_stand_in_for_another_one_nor_for_that_of_another_mesh(tpm: Tpm) -> None:
    vault = TpmVault(tpm, MESH)
    content = vault.close(SHARE_NEXT, b"a share that waits")
    assert vault.open(SHARE_NEXT, content) == b"a share that waits"
    with pytest.raises(OverlayError, match="another file"):
        vault.open(SHARE, content)
    with pytest.raises(OverlayError, match="another file"):
        TpmVault(tpm, b"\1" * 32).open(SHARE_NEXT, content)


def test_the_same_share_is_never_sealed_alike(tpm: Tpm) -> None:
    vault = TpmVault(tpm, MESH)
    first, second = vault.close(SHARE, bytes(100)), vault.close(SHARE, bytes(100))
    assert first[-116:] != second[-116:]


async def test_what_lay_in_the_open_before_there_was_a_tpm_is_sealed_at_the_next_start(folder: StateFolder, tpm: Tpm) -> None:
    plain = ledger_of(folder, PlainVault())
    await plain.keep_share(a_share())
    await Shares(folder, plain, OWN).keep_next(NextShare(a_share(2), bytes(32)))
    assert SHARE in holding(folder, a_share().secret.encode())
    found = ledger_of(folder, TpmVault(tpm, MESH))
    assert found.share is not None and found.share.secret == a_share().secret
    assert Shares(folder, found, OWN, TpmVault(tpm, MESH)).next is not None
    assert holding(folder, a_share().secret.encode()) == holding(folder, a_share(2).secret.encode()) == []


async def test_a_share_is_not_written_at_all_if_the_tpm_cannot_seal_it(folder: StateFolder, swtpm: Swtpm, tpm: Tpm) -> None:
    ledger = ledger_of(folder, TpmVault(tpm, MESH))
    swtpm.stop()
    with pytest.raises(OverlayError):
        await ledger.keep_share(a_share())
    assert folder.read(SHARE) is None
    assert holding(folder, a_share().secret.encode()) == []


async def test_a_share_that_waits_behind_a_tpm_that_is_away_is_not_overwritten(
    folder: StateFolder, swtpm: Swtpm, tpm: Tpm
) -> None:
    vault = TpmVault(tpm, MESH)
    await Shares(folder, ledger_of(folder, vault), OWN, vault).keep_next(NextShare(a_share(2), bytes(32)))
    swtpm.stop()
    shares = Shares(folder, ledger_of(folder, vault), OWN, vault)
    assert shares.next is None and shares.locked is not None
    with pytest.raises(OverlayError):
        await shares.check()
    swtpm.start()
    await shares.check()
    assert shares.next is not None and shares.next.share.secret == a_share(2).secret and shares.locked is None


async def test_a_share_that_opens_later_and_makes_no_sense_stays_locked(folder: StateFolder, swtpm: Swtpm, tpm: Tpm) -> None:
    vault = TpmVault(tpm, MESH)
    for name in (SHARE, SHARE_NEXT):
        folder.write(name, vault.close(name, b"no share"))
    swtpm.stop()
    shares = Shares(folder, ledger := ledger_of(folder, vault), OWN, vault)
    swtpm.start()
    assert not await shares.unlock()
    assert isinstance(ledger.locked, StateDamaged) and isinstance(shares.locked, StateDamaged)
    with pytest.raises(StateDamaged):
        await shares.check()


# --- whole nodes ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_signers(path: Path, swtpm: Swtpm, tpm: Tpm) -> AsyncIterator[tuple[Path, Running]]:
    """alice's folder, whose keys are in a TPM, and bob, who runs: two of two hold the mesh key, and alice does not run."""
    with StateFolder.create(path / "alice") as created:
        found_mesh(created, "alice", "home", Policy.default(), tpm)
    bobs = admitted(path / "alice", "bob", "signer")
    async with opened(bobs) as bob:
        async with opened(path / "alice", bob, tcti=swtpm.tcti, evidence="auto") as alice:
            await met(alice, bob)
            await alice.node.authority.distribute(["alice", "bob"], 2)
            assert not (path / "alice" / FOUNDING_KEY).exists()
        yield path / "alice", bob


async def test_a_signer_with_a_tpm_signs_after_a_restart_and_its_folder_alone_is_no_share(
    tmp_path: Path, swtpm: Swtpm, tpm: Tpm
) -> None:
    async with two_signers(tmp_path, swtpm, tpm) as (path, bob):
        assert is_sealed(content_of(path)) and not is_sealed(content_of(bob.node.folder))
        async with opened(path, bob, tcti=swtpm.tcti, evidence="auto") as alice:
            await met(alice, bob)
            await alice.node.authority.renew()


async def test_a_signer_whose_tpm_is_away_says_so_and_signs_again_when_it_is_back(
    tmp_path: Path, swtpm: Swtpm, tpm: Tpm
) -> None:
    async with two_signers(tmp_path, swtpm, tpm) as (path, bob):
        swtpm.stop()
        async with opened(path, bob, tcti=swtpm.tcti, evidence="auto") as alice:
            await alice.heard(AuthorityAlarm, lambda event: event.reason is Reason.BAD_SHARE)
            assert any("share of the mesh key cannot be used" in one for one in alice.node.statistics().warnings)
            assert alice.node.seat.ledger.share is None
            swtpm.start()
            assert await alice.node.seat.parts.shares.unlock()
            alice.node.seat.keeper.desk.share_changed()
            assert alice.node.seat.ledger.share is not None
            assert not any("share" in one for one in alice.node.statistics().warnings)


async def test_a_signer_whose_share_was_spoilt_gets_it_back_from_the_others(tmp_path: Path, swtpm: Swtpm, tpm: Tpm) -> None:
    with StateFolder.create(tmp_path / "alice") as created:
        found_mesh(created, "alice", "home", Policy.default(), tpm)
    paths = [admitted(tmp_path / "alice", name, "signer") for name in ("bob", "carol")]
    async with linked(*paths) as (bob, carol):
        async with opened(tmp_path / "alice", bob, carol, tcti=swtpm.tcti, evidence="auto") as alice:
            await met(alice, bob, carol)
            await alice.node.authority.distribute(["alice", "bob", "carol"], 2)
            share = alice.node.seat.ledger.share
            assert share is not None
        content = bytearray(content_of(tmp_path / "alice"))
        content[-1] ^= 1
        with StateFolder.open(tmp_path / "alice", exclusive=True) as folder:
            folder.write(SHARE, bytes(content))
        async with opened(tmp_path / "alice", bob, carol, tcti=swtpm.tcti, evidence="auto") as alice:
            await met(alice, bob, carol)
            assert alice.node.seat.ledger.share is None
            with trio.fail_after(30):
                await alice.node.authority.repair()
            repaired = alice.node.seat.ledger.share
            assert repaired is not None and repaired.secret == share.secret
            assert alice.node.seat.ledger.locked is None
        assert is_sealed(content_of(tmp_path / "alice"))


async def test_a_tpm_that_fails_as_a_share_comes_into_force_ends_nothing_and_the_share_goes_on_waiting(
    tmp_path: Path, swtpm: Swtpm, tpm: Tpm
) -> None:
    async with two_signers(tmp_path, swtpm, tpm) as (path, _):
        with StateFolder.open(path, exclusive=True) as folder:
            vault = TpmVault(tpm, load_membership(folder).mesh.root.mesh_id)
            ledger = ledger_of(folder, vault)
            share, newest = ledger.share, ledger.chain.newest
            assert share is not None and newest.contents.transcript is not None
            shares = Shares(folder, ledger, newest.member_ids[share.identifier - 1], vault)
            await shares.keep_next(NextShare(share, newest.contents.transcript))
            await ledger.keep_share(None)
            content = folder.read(SHARE_NEXT)
            swtpm.stop()
            await shares.settle()
            assert shares.locked is not None and ledger.share is None and folder.read(SHARE_NEXT) == content
            swtpm.start()
            assert await shares.unlock()
            found = ledger.share
            assert shares.locked is None and found is not None and found.secret == share.secret
            assert folder.read(SHARE_NEXT) is None and is_sealed(folder.read(SHARE) or b"")
