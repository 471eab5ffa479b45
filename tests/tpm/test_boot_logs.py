"""Boot logs on links of whole nodes with real TPMs: rules about events, level 5, and every way to show another log."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.areas import parse_area
from attest.manifest import installed_root, package_manifest
from attest.tpm import Tpm
from overlay.app.authority.joining import join_mesh
from overlay.app.compose import Assembly
from overlay.app.config import Config
from overlay.app.enrol import found_mesh
from overlay.app.machine_logs import OwnLogs
from overlay.core.policy import Policy
from overlay.core.policy_parts import DigestRule, MissingLog, Mode
from overlay.core.wire import sha256
from overlay.events import LinkRefused, PeerUp
from overlay.registry import Reason
from overlay.store.state import StateFolder
from tests.shell.authority_kit import PATIENCE, Running, opened, token_of
from tests.tpm.conftest import Swtpm, Tool
from tests.tpm.local_ca import LocalCa, store_chain
from tests.unit.attest.event_log_kit import BOOT, Made, log

pytestmark = pytest.mark.tpm

BITMAP = 0x41FF  # PCRs 0 to 8 and 14
GRUB, EVIL = sha256(b"grub"), sha256(b"an evil loader")
GOOD = Policy(
    version=1, mode=Mode.ENFORCE, pcr_bitmap=BITMAP, manifests=(package_manifest(installed_root()),),
    digest_rules=(DigestRule(4, required=(GRUB,), forbidden=(EVIL,)),),
)  # fmt: skip


@pytest.fixture
def booted(tpm: Tpm, tmp_path: Path) -> Iterator[Path]:
    """The TPM of a machine that has booted, and its boot log."""
    for event in BOOT:
        tpm.extend_pcr(event.pcr, event.sha256)
    path = tmp_path / "boot.log"
    path.write_bytes(log(*BOOT))
    yield path


@dataclass(frozen=True, slots=True)
class Place:
    """Where alice's mesh is, and bob's TPM and log."""

    path: Path
    swtpm: Swtpm
    tpm: Tpm
    boot_log: Path

    def found(self, policy: Policy) -> Path:
        with StateFolder.create(self.path / "alice") as folder:
            found_mesh(folder, "alice", "home", policy, None)
        return self.path / "alice"

    async def join(self, host: Running, boot_log: Path | None = None) -> None:
        token = await token_of(host, name="bob")
        config = Config(mdns=False, tcti=self.swtpm.tcti, boot_log=str(boot_log or self.boot_log))
        with StateFolder.create(self.path / "bob") as folder:
            await join_mesh(folder, token, config, self.tpm, name="bob", patience=PATIENCE)

    def bob(self, host: Running, **changes: Any) -> Any:
        settings = {"evidence": "tpm", "tcti": self.swtpm.tcti, "boot_log": str(self.boot_log)}
        return opened(self.path / "bob", host, **settings | changes)


@pytest.fixture
def place(tmp_path: Path, swtpm: Swtpm, tpm: Tpm, booted: Path) -> Place:
    return Place(tmp_path, swtpm, tpm, booted)


@asynccontextmanager
async def joined(place: Place, policy: Policy = GOOD) -> AsyncIterator[Running]:
    """alice, in whose mesh bob is."""
    async with opened(place.found(policy)) as alice:
        await place.join(alice)
        yield alice


async def linked_level(alice: Running, times: int = 1) -> int:
    return (await alice.heard(PeerUp, times=times)).level


async def refusal(alice: Running) -> LinkRefused:
    return await alice.heard(LinkRefused, lambda event: event.name == "bob" and not event.by_peer)


async def test_a_machine_whose_log_meets_the_rules_is_linked_and_shows_it_once(place: Place) -> None:
    async with joined(place) as alice:
        async with place.bob(alice) as bob:
            assert await linked_level(alice) == 2
            book = alice.node.engine.parts.appraiser.book
            assert book.boot(bob.node.node_id, sha256(place.boot_log.read_bytes())) is not None
        async with place.bob(alice):  # the second link: alice knows the log, and it does not go over again
            assert await linked_level(alice, times=2) == 2


async def test_a_machine_with_a_makers_certificate_and_a_good_boot_has_level_5(
    place: Place, tool: Tool, tmp_path: Path
) -> None:
    maker = LocalCa.make(tmp_path / "maker")
    store_chain(place.swtpm, tool, tmp_path, maker.certify(parse_area(place.tpm.endorsement_public())), maker.between)
    async with joined(place, replace(GOOD, ek_roots=(maker.root,))) as alice:
        async with place.bob(alice):
            assert await linked_level(alice) == 5
        async with place.bob(alice, boot_log=str(_other(tmp_path, b"nothing"))) as bob:
            del bob
            assert (await refusal(alice)).reason is Reason.BAD_EVIDENCE


def _other(path: Path, content: bytes) -> Path:
    (path / "other.log").write_bytes(content)
    return path / "other.log"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (DigestRule(4, forbidden=(GRUB,)), "is forbidden"), (DigestRule(4, required=(EVIL,)), "is not there"),
        (DigestRule(14, allowed=(EVIL,)), "is not among"),
    ],
)  # fmt: skip
async def test_a_machine_that_booted_something_else_is_refused_and_the_event_named(
    place: Place, rule: DigestRule, words: str
) -> None:
    async with opened(place.found(Policy.default())) as alice:
        await place.join(alice)
        async with place.bob(alice):
            assert await linked_level(alice) == 2
            manifest = GOOD.manifests[0].hex()
            kinds = {"allowed": rule.allowed, "required": rule.required, "forbidden": rule.forbidden}
            lines = "\n".join(f'{kind} = ["{digests[0].hex()}"]' for kind, digests in kinds.items() if digests)
            await alice.node.authority.policy(
                f'version = 2\nmode = "enforce"\npcrs = {[pcr for pcr in range(24) if BITMAP >> pcr & 1]}\n'
                f'manifests = ["{manifest}"]\n[digests.{rule.pcr}]\n{lines}\n'
            )
        async with place.bob(alice):
            found = await alice.heard(LinkRefused, lambda event: event.name == "bob" and event.reason is Reason.PCR_MISMATCH)
            assert words in found.detail and f"PCR {rule.pcr}" in found.detail


Change = Callable[[list[Made]], list[Made]]


@pytest.mark.parametrize(
    "change",
    [
        lambda events: events[:-1], lambda events: [*events[:-2], events[-1]], lambda events: [Made(4, b"x"), *events],
        lambda events: [events[1], events[0], *events[2:-1], Made(14, b"other keys")],
    ],
)
async def test_a_log_that_does_not_lead_to_the_quote_is_refused(place: Place, tmp_path: Path, change: Change) -> None:
    async with joined(place) as alice:
        forged = _other(tmp_path, log(*change(list(BOOT))))
        async with place.bob(alice, boot_log=str(forged)):
            assert (await refusal(alice)).reason is Reason.PCR_MISMATCH


@pytest.mark.parametrize("missing", [MissingLog.REFUSE, MissingLog.WARN, MissingLog.ALLOW])
async def test_what_a_machine_without_a_log_is_worth_is_for_the_policy_to_say(place: Place, missing: MissingLog) -> None:
    async with joined(place, replace(GOOD, missing_log=missing)) as alice, place.bob(alice, boot_log=""):
        if missing is MissingLog.REFUSE:
            assert (await refusal(alice)).reason is Reason.LOG_MISSING
        else:
            assert await linked_level(alice) == 2


async def test_a_log_that_the_claims_do_not_name_is_refused(place: Place, tmp_path: Path) -> None:
    """The quote is genuine; what comes beside it is a log of another machine."""
    shown = OwnLogs(_other(tmp_path, log(*BOOT[1:])), None)
    shown.look()

    def alter(assembly: Assembly) -> Assembly:
        return replace(assembly, parts=replace(assembly.parts, logs=shown))

    async with joined(place) as alice, place.bob(alice, alter=alter):
        assert (await refusal(alice)).reason is Reason.BAD_EVIDENCE
