"""Whole nodes and the logs of a machine with a TPM: level 5, a list that grows, and what is measured against the rules."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.areas import parse_area
from attest.manifest import installed_root, package_manifest
from attest.tpm import Tpm
from overlay.app.authority.joining import join_mesh
from overlay.app.config import Config
from overlay.app.enrol import found_mesh
from overlay.core.policy import Policy
from overlay.core.policy_parts import DigestRule, MissingLog, Mode
from overlay.core.wire import sha256
from overlay.events import LinkRefused, PeerAttested, PeerUp, TrustLost
from overlay.registry import Reason
from overlay.store.state import StateFolder
from tests.shell.authority_kit import PATIENCE, Running, opened, token_of
from tests.tpm.conftest import Swtpm, Tool
from tests.tpm.local_ca import LocalCa, store_chain
from tests.unit.attest.event_log_kit import BOOT, Made, Measured, log

pytestmark = pytest.mark.tpm

BITMAP = 0x44FF  # PCRs 0 to 7, 10 and 14
ENTRIES = [Measured("boot_aggregate"), *(Measured("/usr/bin/program-").at(number) for number in range(1500))]
EVIL = Measured("/tmp/evil", b"evil")


class Machine:
    """A machine as it boots: what it measures goes into its TPM, and into files."""

    def __init__(self, folder: Path, tpm: Tpm) -> None:
        self._tpm = tpm
        self.boot, self.ima = folder / "boot", folder / "ima"
        self.boot.write_bytes(log(*BOOT))
        self.ima.touch()
        for event in BOOT:
            tpm.extend_pcr(event.pcr, event.sha256)

    def runs(self, *entries: Measured) -> None:
        """The kernel writes an entry before it extends the PCR."""
        with self.ima.open("ab") as file:
            for entry in entries:
                file.write(entry.pack())
                file.flush()
                self._tpm.extend_pcr(10, entry.extended)

    @property
    def settings(self) -> dict[str, object]:
        return {"boot_log": str(self.boot), "ima": str(self.ima), "evidence": "tpm", "attest_every": 1.0}


@pytest.fixture
def maker(tmp_path: Path, swtpm: Swtpm, tpm: Tpm, tool: Tool) -> Iterator[LocalCa]:
    found = LocalCa.make(tmp_path / "maker")
    store_chain(swtpm, tool, tmp_path, found.certify(parse_area(tpm.endorsement_public())), found.between)
    yield found


def strict(maker: LocalCa) -> Policy:
    """The loaders of BOOT and nothing else; any file but one."""
    loaders = DigestRule(4, allowed=(sha256(b"shim"), sha256(b"grub")), required=(sha256(bytes(4)),))
    return Policy(
        version=1, mode=Mode.ENFORCE, pcr_bitmap=BITMAP, manifests=(package_manifest(installed_root()),),
        ek_roots=(maker.root,), digest_rules=(loaders,), missing_log=MissingLog.REFUSE,
        file_rule=DigestRule(10, forbidden=(sha256(EVIL.content),)),
    )


@asynccontextmanager
async def founded(path: Path, policy: Policy, swtpm: Swtpm, tpm: Tpm, machine: Machine) -> AsyncIterator[Running]:
    """Alice, who has no TPM, founds the mesh; bob joins it with his, and with the logs of his machine."""
    with StateFolder.create(path / "alice") as folder:
        found_mesh(folder, "alice", "home", policy, None)
    async with opened(path / "alice", attest_every=1.0) as alice:
        token = await token_of(alice, name="bob")
        with StateFolder.create(path / "bob") as folder:
            config = Config(mdns=False, tcti=swtpm.tcti, boot_log=str(machine.boot), ima=str(machine.ima))
            await join_mesh(folder, token, config, tpm, name="bob", patience=PATIENCE)
        yield alice


async def test_a_machine_that_meets_the_rules_has_level_5_until_something_else_runs_on_it(
    tmp_path: Path, swtpm: Swtpm, tpm: Tpm, maker: LocalCa
) -> None:
    machine = Machine(tmp_path, tpm)
    await trio.to_thread.run_sync(lambda: machine.runs(*ENTRIES))
    async with (
        founded(tmp_path, strict(maker), swtpm, tpm, machine) as alice,
        opened(tmp_path / "bob", alice, tcti=swtpm.tcti, **machine.settings),
    ):
        assert (await alice.heard(PeerUp, lambda event: event.name == "bob")).level == 5
        await alice.heard(PeerAttested, lambda event: event.name == "bob" and event.level == 5)
        since = len(alice.all(PeerAttested))
        await trio.to_thread.run_sync(lambda: machine.runs(*(Measured("/opt/").at(number) for number in range(20))))
        await alice.heard(PeerAttested, times=since + 2)
        assert alice.all(TrustLost) == []
        await trio.to_thread.run_sync(lambda: machine.runs(EVIL))
        lost = await alice.heard(TrustLost)
        assert (lost.reason, lost.name) == (Reason.PCR_MISMATCH, "bob")
        assert lost.detail == f"file 1521 ('/tmp/evil') is forbidden: {sha256(EVIL.content).hex()}"


async def test_what_is_measured_and_not_in_the_log_is_drift(tmp_path: Path, swtpm: Swtpm, tpm: Tpm, maker: LocalCa) -> None:
    machine = Machine(tmp_path, tpm)
    machine.runs(*ENTRIES[:3])
    async with (
        founded(tmp_path, strict(maker), swtpm, tpm, machine) as alice,
        opened(tmp_path / "bob", alice, tcti=swtpm.tcti, **machine.settings),
    ):
        await alice.heard(PeerUp, lambda event: event.name == "bob")
        await trio.to_thread.run_sync(lambda: tpm.extend_pcr(7, sha256(b"secretly")))
        assert (await alice.heard(TrustLost)).reason is Reason.PCR_MISMATCH


async def test_a_machine_that_booted_something_else_or_hides_its_logs_is_not_let_in(
    tmp_path: Path, swtpm: Swtpm, tpm: Tpm, maker: LocalCa
) -> None:
    machine = Machine(tmp_path, tpm)
    machine.runs(*ENTRIES[:3])
    async with founded(tmp_path, strict(maker), swtpm, tpm, machine) as alice:
        hidden = {**machine.settings, "boot_log": "", "ima": ""}
        async with opened(tmp_path / "bob", alice, tcti=swtpm.tcti, **hidden):
            refused = await alice.heard(LinkRefused, lambda event: event.name == "bob")
            assert refused.reason is Reason.LOG_MISSING
        bootkit = Made(4, b"a bootkit")
        machine.boot.write_bytes(log(*BOOT, bootkit))
        await trio.to_thread.run_sync(lambda: tpm.extend_pcr(4, bootkit.sha256))
        since = len(alice.all(LinkRefused))
        async with opened(tmp_path / "bob", alice, tcti=swtpm.tcti, **machine.settings):
            refused = await alice.heard(LinkRefused, times=since + 1)
            assert refused.reason is Reason.PCR_MISMATCH
            assert "(EV_EFI_ACTION, PCR 4) is not among the allowed ones" in refused.detail
        assert alice.all(PeerUp) == []
