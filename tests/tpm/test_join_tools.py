"""tpm2-tools, which share no code with ours, open what our MakeCredential wraps, for their own keys under their own EK.

The other way round stands in test_tools.py: our TPM actor opens what `tpm2_makecredential` wraps.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from attest.areas import Attributes, parse_area
from attest.credential import Credential, make_credential, parse_endorsement_key
from attest.enrol import attestation_qualified_name
from attest.quote import check_attestation_key
from attest.structures import sized
from overlay.core.wire import sha256
from tests.tpm.conftest import Swtpm

pytestmark = pytest.mark.tpm

SECRET = sha256(b"secret")
FILE_MAGIC = bytes.fromhex("badcc0de00000001")  # tpm2-tools, tpm2_makecredential.c: what stands before both parts


class Tools:
    """The programs, against one emulator, in one folder."""

    def __init__(self, folder: Path, tcti: str) -> None:
        self.folder, self._tcti = folder, tcti

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments, "-T", self._tcti], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )

    def must(self, program: str, *arguments: str) -> None:
        done = self.run(program, *arguments)
        assert done.returncode == 0, f"{program}: {done.stderr}"

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def activate(self, credential: Credential) -> bytes | None:
        """What tpm2_activatecredential makes of it."""
        wrapped = FILE_MAGIC + sized(credential.blob) + sized(credential.encrypted_seed)
        (self.folder / "credential").write_bytes(wrapped)
        self.must("tpm2_flushcontext", "-t")
        self.must("tpm2_startauthsession", "--policy-session", "-S", "session")
        self.must("tpm2_policysecret", "-S", "session", "-c", "e")
        done = self.run(
            "tpm2_activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "opened", "-P",
            "session:session",
        )  # fmt: skip
        self.must("tpm2_flushcontext", "session")
        return self.read("opened") if done.returncode == 0 else None


@pytest.fixture(params=["ecc", "rsa"])
def tools(request: pytest.FixtureRequest, tmp_path: Path, swtpm: Swtpm) -> Tools:
    """An EK of that kind and an attestation key under it, made by tpm2-tools alone."""
    if shutil.which("tpm2_activatecredential") is None:
        pytest.skip("this host lacks tpm2-tools")
    made = Tools(tmp_path, swtpm.tcti)
    made.must("tpm2_createek", "-c", "ek.ctx", "-G", request.param, "-u", "ek.pub")
    made.must("tpm2_flushcontext", "-t")
    made.must(
        "tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub", "-n",
        "ak.name", "-q", "ak.qualified",
    )  # fmt: skip
    return made


def test_activatecredential_opens_what_we_wrap(tools: Tools) -> None:
    ek = parse_endorsement_key(tools.read("ek.pub")[2:])
    assert tools.activate(make_credential(ek, tools.read("ak.name"), SECRET)) == SECRET


def test_activatecredential_does_not_open_what_we_wrap_for_another_key(tools: Tools) -> None:
    ek = parse_endorsement_key(tools.read("ek.pub")[2:])
    other = b"\x00\x0b" + sha256(b"another key")
    assert tools.activate(make_credential(ek, other, SECRET)) is None


def test_the_names_of_the_tools_keys_are_those_that_we_compute(tools: Tools) -> None:
    ek, ak = parse_endorsement_key(tools.read("ek.pub")[2:]), parse_area(tools.read("ak.pub")[2:])
    assert ak.name == tools.read("ak.name")
    assert attestation_qualified_name(ek, ak) == tools.read("ak.qualified")
    assert ak.is_kind(Attributes.RESTRICTED | Attributes.SIGN)
    check_attestation_key(ak)
