"""`overlay attest` with a real TPM emulator and the quotes of tpm2-tools."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from attest.areas import parse_area
from overlay.app.tpm import open_tpm
from overlay.core.certificate_profile import ek_tag
from overlay.core.keys import MeshId
from overlay.core.wire import sha256
from tests.tpm.conftest import Swtpm
from tests.unit.attest.event_log_kit import BOOT, Made, Measured, log

pytestmark = [
    pytest.mark.tpm,
    pytest.mark.skipif(shutil.which("tpm2_quote") is None, reason="no tpm2_quote: apt-get install tpm2-tools"),
    pytest.mark.skipif(shutil.which("swtpm") is None, reason="no swtpm: apt-get install swtpm"),
]

PCRS = "0,1,2,3,4,5,6,7,8,10,14"
NONCE = "00112233445566778899"
MESH = MeshId(bytes(range(32)))
ENTRIES = [Measured("/usr/bin/program-").at(number) for number in range(5)]


@dataclass
class Bench:
    """A TPM that has measured a boot, with an attestation key, and a folder with what tpm2-tools write."""

    folder: Path
    tcti: str

    def tool(self, *words: str) -> None:
        subprocess.run(
            words, cwd=self.folder, env={**os.environ, "TPM2TOOLS_TCTI": self.tcti}, check=True, capture_output=True
        )

    def extend(self, pcr: int, digest: bytes) -> None:
        self.tool("tpm2_pcrextend", f"{pcr}:sha256={digest.hex()}")

    def quote(self, *more: str) -> None:
        words = ["tpm2_quote", "-c", "ak.ctx", "-l", f"sha256:{PCRS}", "-q", NONCE, "-m", "quote", "-s", "sig", "-g", "sha256"]
        self.tool(*words, *more)
        self.tool("tpm2_flushcontext", "-t")

    def overlay(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, in an environment without settings of this machine."""
        state = ["--state", str(self.folder / "no-state")]
        return subprocess.run(
            [sys.executable, "-P", "-m", "overlay.app.cli.main", *state, "attest", *words], cwd=self.folder, text=True,
            capture_output=True, check=False,
        )  # fmt: skip

    def check(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.overlay("check", "--quote", "quote", "--signature", "sig", "--key", "ak.pub", *words)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("attest")
    (folder / "tpm").mkdir()
    emulator = Swtpm(folder / "tpm")
    try:
        made = Bench(folder, emulator.tcti)
        made.tool("tpm2_createek", "-G", "ecc", "-c", "ek.ctx", "-u", "ek.pub")
        made.tool("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub")
        made.tool("tpm2_flushcontext", "-t")
        for event in BOOT:
            made.extend(event.pcr, event.sha256)
        for entry in ENTRIES:
            made.extend(10, entry.extended)
        (folder / "boot.log").write_bytes(log(*BOOT))
        (folder / "ima.log").write_bytes(b"".join(entry.pack() for entry in ENTRIES))
        made.quote()
        yield made
    finally:
        emulator.stop()


def test_a_quote_of_tpm2_tools_and_both_logs_hold_together(bench: Bench) -> None:
    ran = bench.check("--nonce", NONCE, "--boot-log", "boot.log", "--ima", "ima.log", "--json")
    found = json.loads(ran.stdout)
    assert (ran.returncode, found["nonce"], found["events"], found["measurements"], found["surplus"]) == (0, NONCE, 14, 5, 0)
    assert found["pcrs"] == [int(pcr) for pcr in PCRS.split(",")]


def test_quotes_with_a_high_s_are_read_too(bench: Bench) -> None:
    """A TPM gives one half the time: of four quotes all are low once in sixteen runs."""
    for _ in range(4):
        bench.quote()
        assert bench.check("--nonce", NONCE).returncode == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("nonce", "evidence not bound"), ("signature", "evidence signature"), ("quote", "evidence signature"),
        ("key", "evidence signature"), ("boot", "pcr mismatch"), ("ima", "pcr mismatch"), ("policy", "pcr mismatch"),
    ],
)  # fmt: skip
def test_whatever_is_changed_is_refused_for_what_it_is(bench: Bench, change: str, reason: str) -> None:
    words = {"--nonce": NONCE, "--boot-log": "boot.log", "--ima": "ima.log"}
    files = {"--quote": "quote", "--signature": "sig", "--key": "ak.pub"}
    if change == "nonce":
        words["--nonce"] = "00"
    elif change in ("signature", "quote"):
        name = {"signature": "sig", "quote": "quote"}[change]
        data = bytearray((bench.folder / name).read_bytes())
        data[-1] ^= 1
        (bench.folder / "changed").write_bytes(data)
        files[f"--{change}"] = "changed"
    elif change == "key":
        bench.tool("tpm2_createak", "-C", "ek.ctx", "-c", "2.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak2.pub")
        bench.tool("tpm2_flushcontext", "-t")
        files["--key"] = "ak2.pub"
    elif change == "boot":
        (bench.folder / "changed").write_bytes(log(*BOOT[:-1], Made(14, b"other keys")))
        words["--boot-log"] = "changed"
    elif change == "ima":
        (bench.folder / "changed").write_bytes(b"".join(entry.pack() for entry in [*ENTRIES[:4], Measured("/tmp/evil")]))
        words["--ima"] = "changed"
    else:
        text = 'version = 2\nmode = "enforce"\npcrs = [0,1,2,3,4,5,6,7,8,10,14]\npcr_digests = ["' + "00" * 32 + '"]\n'
        (bench.folder / "changed").write_text(text)
        words["--policy"] = "changed"
    ran = bench.overlay("check", *(word for pair in (files | words).items() for word in pair))
    assert (ran.returncode, ran.stdout) == (4, "")
    assert reason in ran.stderr


def test_what_a_machine_learns_is_what_a_policy_lets_pass(bench: Bench) -> None:
    learnt = bench.overlay("learn", "--pcrs", PCRS, "--tcti", bench.tcti)
    (bench.folder / "policy.toml").write_text(f'version = 2\nmode = "enforce"\n{learnt.stdout}')
    ran = bench.check("--policy", "policy.toml")
    assert (ran.returncode, "lets it pass" in ran.stdout) == (0, True)
    shown = json.loads(bench.overlay("policy", "policy.toml", "--json").stdout)
    assert (shown["version"], shown["mode"], shown["pcrs"]) == (2, "enforce", [int(pcr) for pcr in PCRS.split(",")])


def test_rules_about_logs_are_compared_and_what_breaks_one_is_named(bench: Bench) -> None:
    head = f'version = 2\nmode = "enforce"\npcrs = [{PCRS}]\n'
    logs = ("--nonce", NONCE, "--boot-log", "boot.log", "--ima", "ima.log", "--policy", "rules.toml")
    events = [sha256(data).hex() for data in (b"shim", b"grub", bytes(4))]
    (bench.folder / "rules.toml").write_text(f"{head}[digests.4]\nallowed = {json.dumps(events)}\n")
    assert "lets it pass" in bench.check(*logs).stdout
    assert "rules about logs were not looked at" in bench.check("--policy", "rules.toml").stderr
    (bench.folder / "rules.toml").write_text(f"{head}[digests.4]\nforbidden = {json.dumps(events[1:2])}\n")
    ran = bench.check(*logs)
    assert (ran.returncode, "event 12 of the boot log (EV_EFI_ACTION, PCR 4) is forbidden" in ran.stderr) == (4, True)
    files = [sha256(ENTRIES[3].content).hex()]
    (bench.folder / "rules.toml").write_text(f"{head}[digests.files]\nforbidden = {json.dumps(files)}\n")
    ran = bench.check(*logs)
    assert (ran.returncode, "file 3 ('/usr/bin/program-3') is forbidden" in ran.stderr) == (4, True)


def test_what_a_tpm_shows_is_explained_by_logs_or_not(bench: Bench) -> None:
    words = ("show", "--tcti", bench.tcti, "--boot-log", "boot.log", "--ima", "ima.log", "--json")
    found = json.loads(bench.overlay(*words).stdout)
    assert found["explained"] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14]
    assert found["separators_missing"] == []
    assert (found["ek_tag"], found["ek_issuer"], found["ek_above"]) == (None, "", 0)  # in no mesh, certified by nobody
    tag = json.loads(bench.overlay(*words, "--mesh", str(MESH)).stdout)["ek_tag"]
    with open_tpm(bench.tcti) as tpm:
        assert tag == ek_tag(MESH, parse_area(tpm.endorsement_public()).name).hex()
    (bench.folder / "short.log").write_bytes(log(*BOOT[:-1]))
    short = json.loads(bench.overlay(*words[:4], "short.log", *words[5:]).stdout)
    assert short["explained"] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("check", "--quote", "nothing", "--signature", "sig", "--key", "ak.pub"), "cannot read nothing"),
        (("check", "--quote", "quote", "--signature", "sig", "--key", "ak.pub", "--nonce", "xx"), "'xx' is not hexadecimal"),
        (("show", "--mesh", "home"), "'home' is no id of a mesh"),
        (("learn", "--pcrs", "24"), "'24' is no list of PCRs"),
        (("policy",), "this machine is in no mesh"),
        (("policy", "boot.log"), "the policy is not TOML"),
    ],
)
def test_wrong_words_are_usage(bench: Bench, words: tuple[str, ...], error: str) -> None:
    ran = bench.overlay(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert error in ran.stderr
