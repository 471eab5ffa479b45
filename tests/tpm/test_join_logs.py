"""Rules about logs at a join of whole nodes with real TPMs: who breaks one gets no certificate, and the reason of links."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest import join as attest_join
from attest.manifest import installed_root, package_manifest
from attest.tpm import Tpm
from overlay.app.authority.joining import JoinOver, join_mesh
from overlay.app.config import Config
from overlay.app.enrol import found_mesh
from overlay.app.machine_logs import OwnLogs
from overlay.core.certificates import VerifiedCertificate
from overlay.core.policy import Policy
from overlay.core.policy_parts import DigestRule, MissingLog, Mode
from overlay.core.wire import sha256
from overlay.events import PeerUp
from overlay.registry import Reason
from overlay.store.membership import load_mesh
from overlay.store.state import StateFolder
from tests.shell.authority_kit import PATIENCE, Running, opened, token_of
from tests.tpm.conftest import Swtpm
from tests.unit.attest.event_log_kit import BOOT, Made, Measured, log

pytestmark = pytest.mark.tpm

BITMAP = 0x44FF  # PCRs 0 to 7, 10 and 14
ENTRIES = [Measured("boot_aggregate"), *(Measured("/usr/bin/program-").at(number) for number in range(1500))]
EVIL = Measured("/tmp/evil", b"evil")
GRUB, LOADER = sha256(b"grub"), Made(4, b"an evil loader")
RULES = Policy(
    version=1, mode=Mode.ENFORCE, pcr_bitmap=BITMAP, manifests=(package_manifest(installed_root()),),
    digest_rules=(DigestRule(4, required=(GRUB,), forbidden=(LOADER.sha256,)),),
    file_rule=DigestRule(10, forbidden=(sha256(EVIL.content),)), missing_log=MissingLog.REFUSE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """One that boots and runs programs, which goes into its TPM and into two files."""

    path: Path
    swtpm: Swtpm
    tpm: Tpm

    @property
    def boot(self) -> Path:
        return self.path / "boot.log"

    @property
    def files(self) -> Path:
        return self.path / "files.log"

    def boots(self, *events: Made) -> None:
        for event in events:
            self.tpm.extend_pcr(event.pcr, event.sha256)
        self.boot.write_bytes(log(*events))

    def runs(self, *entries: Measured) -> None:
        """The kernel writes an entry before it extends the PCR."""
        with self.files.open("ab") as file:
            for entry in entries:
                file.write(entry.pack())
                file.flush()
                self.tpm.extend_pcr(10, entry.extended)

    async def join(self, host: Running, **changed: str) -> VerifiedCertificate:
        token = await token_of(host, name="bob")
        config = Config(mdns=False, tcti=self.swtpm.tcti, **{"boot_log": str(self.boot), "ima": str(self.files)} | changed)
        with StateFolder.create(self.path / "bob") as folder:
            return await join_mesh(folder, token, config, self.tpm, name="bob", patience=PATIENCE)

    async def refusal(self, host: Running, **changed: str) -> Reason:
        """Why there was no certificate."""
        with pytest.raises(JoinOver) as over:
            await self.join(host, **changed)
        with StateFolder.open(self.path / "bob", exclusive=True) as folder:
            assert load_mesh(folder) is None
        return over.value.reason


@pytest.fixture
def machine(tmp_path: Path, swtpm: Swtpm, tpm: Tpm) -> Machine:
    found = Machine(tmp_path, swtpm, tpm)
    found.boots(*BOOT)
    found.runs(*ENTRIES[:20])
    return found


@asynccontextmanager
async def founded(path: Path, policy: Policy = RULES) -> AsyncIterator[Running]:
    """The mesh of alice, who has no TPM and signs alone."""
    with StateFolder.create(path / "alice") as folder:
        found_mesh(folder, "alice", "home", policy, None)
    async with opened(path / "alice") as alice:
        yield alice


async def test_a_machine_whose_logs_meet_the_rules_gets_a_certificate_and_a_link(tmp_path: Path, machine: Machine) -> None:
    await trio.to_thread.run_sync(lambda: machine.runs(*ENTRIES[20:]))  # several parts
    async with founded(tmp_path) as alice:
        assert (await machine.join(alice)).level == 2
        settings = {"evidence": "tpm", "tcti": machine.swtpm.tcti, "boot_log": str(machine.boot), "ima": str(machine.files)}
        async with opened(tmp_path / "bob", alice, **settings):
            assert (await alice.heard(PeerUp)).level == 2


async def test_a_machine_that_booted_what_a_rule_forbids_gets_no_certificate(tmp_path: Path, machine: Machine) -> None:
    machine.boots(LOADER)  # after the others, as a boot loader that loads another
    machine.boot.write_bytes(log(*BOOT, LOADER))
    async with founded(tmp_path) as alice:
        assert await machine.refusal(alice) is Reason.PCR_MISMATCH


async def test_a_machine_that_hides_what_it_booted_gets_no_certificate(tmp_path: Path, machine: Machine) -> None:
    """Its log is that of a good boot, and does not lead to what its TPM has quoted."""
    machine.tpm.extend_pcr(LOADER.pcr, LOADER.sha256)
    async with founded(tmp_path) as alice:
        assert await machine.refusal(alice) is Reason.PCR_MISMATCH


async def test_a_machine_on_which_a_forbidden_file_ran_gets_no_certificate(tmp_path: Path, machine: Machine) -> None:
    machine.runs(EVIL)
    async with founded(tmp_path) as alice:
        assert await machine.refusal(alice) is Reason.PCR_MISMATCH


async def test_a_machine_that_leaves_a_file_out_of_its_list_gets_no_certificate(tmp_path: Path, machine: Machine) -> None:
    before = machine.files.read_bytes()
    machine.runs(EVIL, *ENTRIES[20:30])
    machine.files.write_bytes(before + b"".join(entry.pack() for entry in ENTRIES[20:30]))
    async with founded(tmp_path) as alice:
        assert await machine.refusal(alice) is Reason.PCR_MISMATCH


@pytest.mark.parametrize("missing", [MissingLog.REFUSE, MissingLog.WARN, MissingLog.ALLOW])
async def test_whether_a_machine_without_logs_gets_a_certificate_is_for_the_policy_to_say(
    tmp_path: Path, machine: Machine, missing: MissingLog
) -> None:
    async with founded(tmp_path, replace(RULES, missing_log=missing)) as alice:
        if missing is MissingLog.REFUSE:
            assert await machine.refusal(alice, boot_log="", ima="") is Reason.LOG_MISSING
        else:
            assert (await machine.join(alice, boot_log="", ima="")).level == 2


async def test_a_list_that_is_longer_than_is_read_of_a_joiner_is_as_good_as_none(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attest_join, "JOIN_LIST_MAX", machine.files.stat().st_size - 1)
    async with founded(tmp_path) as alice:
        assert await machine.refusal(alice) is Reason.LOG_MISSING


async def test_a_boot_log_that_is_not_the_one_that_was_named_is_refused(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What X names is what has to come: nothing is chosen when the challenge is known."""
    look = OwnLogs.look

    def swap(self: OwnLogs) -> bytes | None:
        found = look(self)
        machine.boot.write_bytes(log(*BOOT, Made(4, b"later")))
        return found

    monkeypatch.setattr(OwnLogs, "look", swap)
    async with founded(tmp_path) as alice:
        assert await machine.refusal(alice) is Reason.BAD_EVIDENCE
