"""Whole nodes whose TPM is in trouble, and verifiers that are: the node goes on, and nobody is trusted by mistake."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.appraiser import PolicyAppraiser
from overlay.app.compose import Assembly
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.tpm import open_tpm
from overlay.core.evidence import Appraisal, Binding, Evidence, Inquiry
from overlay.core.limits import AttestTimes
from overlay.core.policy import Policy
from overlay.core.trust import VerifiedPeer
from overlay.events import EvidenceFailed, PeerAttested, PeerDown, PeerUp, TrustLost
from overlay.registry import Reason
from overlay.store.state import StateFolder
from tests.shell.authority_kit import Running, opened, until
from tests.tpm.conftest import Swtpm, Tool

pytestmark = pytest.mark.tpm

EVERY = 1.0  # seconds between two rounds
LEASE = AttestTimes.period(EVERY).lease
STATE = "tpm2-00.permall"  # where an emulator keeps it
PATIENCE = 40.0  # seconds for anything here


@pytest.fixture
def other_state(tmp_path: Path) -> Path:
    """What another TPM has in its memory."""
    (tmp_path / "second").mkdir()
    second = Swtpm(tmp_path / "second")
    with open_tpm(second.tcti) as tpm:
        tpm.endorsement_public()
    second.stop()
    return tmp_path / "second" / STATE


def enrol(path: Path, tcti: str) -> None:
    """Alice founds the mesh without a TPM; bob has one."""
    with StateFolder.create(path / "alice") as folder:
        found_mesh(folder, "alice", "home", Policy.default(), None)
    with open_tpm(tcti) as tpm, StateFolder.create(path / "bob") as folder:
        install(folder, admit(path / "alice", make_request(folder, tpm), "bob", ("worker",)), tpm)


@asynccontextmanager
async def linked(path: Path, swtpm: Swtpm) -> AsyncIterator[tuple[Running, Running]]:
    await trio.to_thread.run_sync(enrol, path, swtpm.tcti)
    async with (
        opened(path / "alice", attest_every=EVERY) as alice,
        opened(path / "bob", alice, evidence="tpm", tcti=swtpm.tcti, attest_every=EVERY) as bob,
    ):
        assert (await alice.heard(PeerUp)).level == 2
        await alice.heard(PeerAttested)
        yield alice, bob


async def gone(alice: Running, bob: Running) -> None:
    """Bob can prove nothing: he says so, alice lets go of him when his lease has ended, and he lives on."""
    with trio.fail_after(PATIENCE):
        await bob.heard(EvidenceFailed)
        lost = await alice.heard(TrustLost)
    assert lost.reason is Reason.LEASE_EXPIRED
    assert any("evidence" in one for one in bob.node.statistics().warnings)


async def back(alice: Running) -> None:
    with trio.fail_after(PATIENCE):
        await alice.heard(PeerUp, times=2)
    assert alice.all(PeerUp)[1].level == 2


async def test_a_tpm_that_is_unplugged_degrades_its_node_and_heals_it_when_it_is_back(tmp_path: Path, swtpm: Swtpm) -> None:
    async with linked(tmp_path, swtpm) as (alice, bob):
        swtpm.stop()
        await gone(alice, bob)
        await trio.to_thread.run_sync(swtpm.start)
        await back(alice)


async def busy_for(seconds: float, path: Path, swtpm: Swtpm) -> None:
    """The emulator is held, so that a command hangs and none is answered."""
    async with linked(path, swtpm) as (alice, bob):
        assert swtpm.process_id
        os.kill(swtpm.process_id, signal.SIGSTOP)
        try:
            began = trio.current_time()
            with trio.fail_after(PATIENCE):
                lost = await alice.heard(TrustLost)
            assert lost.reason is Reason.LEASE_EXPIRED
            assert trio.current_time() - began < LEASE + 10
            await trio.sleep_until(began + seconds)  # the time that is spoken of
        finally:
            os.kill(swtpm.process_id, signal.SIGCONT)
        await back(alice)
        await until(lambda: not any("evidence" in one for one in bob.node.statistics().warnings), PATIENCE)


async def test_a_tpm_that_is_busy_for_longer_than_a_lease_costs_the_links_and_not_the_node(
    tmp_path: Path, swtpm: Swtpm
) -> None:
    await busy_for(LEASE, tmp_path, swtpm)


@pytest.mark.slow
async def test_a_tpm_that_is_busy_for_a_minute_costs_the_links_and_not_the_node(tmp_path: Path, swtpm: Swtpm) -> None:
    await busy_for(60.0, tmp_path, swtpm)


async def test_another_tpm_in_its_place_cannot_speak_for_the_node(tmp_path: Path, swtpm: Swtpm, other_state: Path) -> None:
    """The state of another emulator is put where the node looks for its own."""
    async with linked(tmp_path, swtpm) as (alice, bob):
        swtpm.stop()
        own = tmp_path / "swtpm" / STATE
        shutil.copy(own, tmp_path / "own")
        shutil.copy(other_state, own)
        await trio.to_thread.run_sync(swtpm.start)
        assert "not of this TPM" in (await bob.heard(EvidenceFailed, lambda event: event.hint.startswith("this key"))).hint
        swtpm.stop()
        shutil.copy(tmp_path / "own", own)
        await trio.to_thread.run_sync(swtpm.start)
        shown = len(alice.all(PeerAttested))
        await alice.heard(PeerAttested, times=shown + 1)
        assert alice.all(TrustLost) == []


async def test_a_tpm_that_was_cleared_is_another_one_and_the_node_says_what_to_do(
    tmp_path: Path, swtpm: Swtpm, tool: Tool
) -> None:
    async with linked(tmp_path, swtpm) as (alice, bob):
        done = await trio.to_thread.run_sync(tool.run, "tpm2_clear", "-c", "p", "-T", swtpm.tcti)
        assert done.returncode == 0, done.stderr
        assert "enrolled again" in (await bob.heard(EvidenceFailed)).hint
        shown = len(alice.all(PeerAttested))
        await bob.heard(EvidenceFailed, times=3)
        assert len(alice.all(PeerAttested)) == shown


class Throwing:
    """An appraiser with a bug that shows when it is told to."""

    def __init__(self, good: PolicyAppraiser) -> None:
        self._good = good
        self.accepted = good.accepted
        self.broken = False

    def appraise(
        self, evidence: Evidence, binding: Binding, peer: VerifiedPeer, previous: Appraisal | None
    ) -> Appraisal | Inquiry:
        if self.broken:
            raise ZeroDivisionError("in the middle of a judgement")
        return self._good.appraise(evidence, binding, peer, previous)


async def test_a_verifier_that_throws_in_the_middle_trusts_nobody_any_more(tmp_path: Path, swtpm: Swtpm) -> None:
    made: list[Throwing] = []

    def alter(assembly: Assembly) -> Assembly:
        good = assembly.parts.appraiser
        assert isinstance(good, PolicyAppraiser)
        made.append(Throwing(good))
        return replace(assembly, parts=replace(assembly.parts, appraiser=made[0]))

    await trio.to_thread.run_sync(enrol, tmp_path, swtpm.tcti)
    async with (
        opened(tmp_path / "alice", attest_every=EVERY, alter=alter) as alice,
        opened(tmp_path / "bob", alice, evidence="tpm", tcti=swtpm.tcti, attest_every=EVERY),
    ):
        await alice.heard(PeerAttested)
        made[0].broken = True
        assert (await alice.heard(PeerDown)).reason is Reason.INTERNAL
        assert list(alice.node.peers) == []
        made[0].broken = False
        await back(alice)
