"""A lab of nine whose mesh key changes hands, by its command, and `openssl verify` over every certificate that was issued."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import combinations
from pathlib import Path

import pytest
from cryptography import x509

from overlay.app.lab import namespaces
from overlay.app.lab.catalogue import ACTS
from tests.network.lab_kit import Ran, run, short_folder, traces

pytestmark = [pytest.mark.network, pytest.mark.tpm, pytest.mark.slow]

NAMES = [act.name for act in ACTS]
STAY = ["alice", "bob", "carol", "dave", "frank", "grace", "heidi", "judy", "erin"]  # erin, who was dead, is back last
OK = "OK"
REVOKED = "certificate revoked"
NO_ISSUER = "unable to get local issuer certificate"


@pytest.fixture(autouse=True)
def host_can() -> None:
    if (lacking := namespaces.available()) is not None:
        pytest.skip(lacking)
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not here: apt-get install openssl")


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.mark.parametrize("evidence", ["tpm", "software"])
async def test_a_mesh_of_nine_lives_through_all_that_operators_do(folder: Path, evidence: str) -> None:
    words = ("--evidence", evidence, "--network", "namespaces", "--scenes", "authority", "--json", "--keep", "kept")
    ran = await run(*words, folder=folder, patience=600)
    assert ran.code == 0, ran
    check_report(ran, evidence)
    check_certificates(folder / "kept" / "certificates", issued(folder / "kept"))
    assert traces(folder / "kept") == []


def check_report(ran: Ran, evidence: str) -> None:
    """Every act has passed, and the machines that stay are a mesh."""
    report = ran.report
    assert [(scene["name"], scene["status"], scene["why"]) for scene in report["scenes"]] == [
        (name, "passed", "") for name in NAMES
    ]
    assert all(scene["observed"] == scene["expected"] for scene in report["scenes"])
    assert report["ok"] is True
    after = report["after"]
    assert [node["name"] for node in after["nodes"]] == STAY
    assert {node["level"] for node in after["nodes"]} == {2 if evidence == "tpm" else 1}
    assert [(link["a"], link["b"]) for link in after["links"]] == list(combinations(sorted(STAY), 2))
    assert after["heads_equal"] is True
    assert len(report["nodes"]) == 9


def issued(kept: Path) -> set[str]:
    """Serials of all certificates for which a signer has given its share, out of the events of all machines."""
    text = "".join(path.read_text() for path in kept.glob("*/*-events.jsonl"))
    return set(re.findall(r'"certificate-signed".*?"serial": "([0-9a-f]{40})"', text))


def check_certificates(folder: Path, signed: set[str]) -> None:
    """Every one that the signers issued is good under the distributed root, but for that of the node that was revoked."""
    verdicts = {path: verify(path, folder) for path in sorted((folder / "leaves").iterdir())}
    serial_of = {path: path.stem.rpartition("-")[2] for path in verdicts}
    assert signed <= set(serial_of.values()), "a certificate was issued that nobody has kept"
    later = {path: verdict for path, verdict in verdicts.items() if serial_of[path] in signed}
    earlier = {path: verdict for path, verdict in verdicts.items() if path not in later}
    assert len(earlier) == 9
    assert set(earlier.values()) == {NO_ISSUER}  # the control: openssl knows the two roots apart
    check_verdicts(later)
    assert {verify(path, folder, lists=False) for path in later} == {OK}  # the control of the list


def check_verdicts(verdicts: Mapping[Path, str]) -> None:
    """Ivan's last certificate is revoked, and no other one."""
    assert len(verdicts) >= 9 + 8 + 9
    bad = {path: verdict for path, verdict in verdicts.items() if verdict != OK}
    assert [(path.name.partition("-")[0], verdict) for path, verdict in bad.items()] == [("ivan", REVOKED)]


def verify(path: Path, folder: Path, *, lists: bool = True) -> str:
    """What openssl says of a leaf under the distributed root, five minutes after its life has begun."""
    life = x509.load_pem_x509_certificate(path.read_bytes())
    at = life.not_valid_before_utc + timedelta(minutes=6)
    newest = max((folder / "lists").iterdir())
    later = max(at, x509.load_pem_x509_crl(newest.read_bytes()).last_update_utc) if lists else at
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", str(folder / "root.pem")]
    command += ["-attime", f"{later.timestamp():.0f}"]
    if lists:
        command += ["-crl_check", "-CRLfile", str(newest)]
    ran = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False, env=plain_environment())
    if ran.returncode == 0:
        return OK
    return ran.stderr.partition("lookup: ")[2].partition("\n")[0]


def plain_environment() -> dict[str, str]:
    """Without settings of openssl."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OPENSSL", "SSL"))}
