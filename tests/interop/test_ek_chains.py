"""Chains of EK certificates: what gives level 4 here `openssl verify` accepts, and what openssl refuses never gives it."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from attest.endorsement_chain import DEPTH_MAX
from tests.unit.attest.software_tpm import NOW
from tests.unit.attest.test_endorsement_chain import BETWEEN, FOREVER, ROOT, Maker, level_of, start

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="this host lacks openssl")


@dataclass(frozen=True, slots=True)
class Case:
    """A chain, what openssl says of it, and which level it gives."""

    chain: tuple[bytes, ...]
    is_valid: bool
    level: int


def pem(*certificates: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


def accepts(folder: Path, chain: tuple[bytes, ...]) -> bool:
    """Whether openssl finds a way from the first certificate to our root, whatever it is for."""
    (folder / "ek.pem").write_bytes(pem(chain[0]))
    (folder / "between.pem").write_bytes(pem(*chain[1:]))
    (folder / "root.pem").write_bytes(pem(ROOT.der))
    command = ["openssl", "verify", "-purpose", "any", "-attime", str(int(NOW.timestamp())), "-CAfile", "root.pem"]
    more = ["-untrusted", "between.pem"] if chain[1:] else []
    done = subprocess.run([*command, *more, "ek.pem"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0


def below(**changes: object) -> tuple[bytes, ...]:
    """A chain by way of an authority that is not as it should be."""
    between = Maker.make("between", 102, ROOT, **changes)  # type: ignore[arg-type]
    return between.certify(), between.der


def bare() -> tuple[bytes, ...]:
    """By an authority that does not say that it is one."""
    maker = Maker("between", BETWEEN.key, ROOT.sign(start("between", ROOT, BETWEEN.key.public_key(), FOREVER)))
    return maker.certify(), maker.der


def too_deep() -> tuple[bytes, ...]:
    """An authority below one that allows none."""
    upper = Maker.make("upper", 105, ROOT, path_length=0)
    lower = Maker.make("lower", 106, upper)
    return lower.certify(), lower.der, upper.der


def long(count: int) -> tuple[bytes, ...]:
    """So many authorities below the root."""
    makers = [ROOT]
    for number in range(count):
        makers.append(Maker.make(f"maker-{number}", 110 + number, makers[-1]))
    return makers[-1].certify(), *(maker.der for maker in reversed(makers[1:]))


HOUR = timedelta(hours=1)
CASES: dict[str, Callable[[], Case]] = {
    "by the root": lambda: Case((ROOT.certify(),), is_valid=True, level=4),
    "with one between": lambda: Case((BETWEEN.certify(), BETWEEN.der), is_valid=True, level=4),
    "as long as may be": lambda: Case(long(DEPTH_MAX), is_valid=True, level=4),
    "longer than makers' chains": lambda: Case(long(DEPTH_MAX + 1), is_valid=True, level=2),
    "an authority as EK": lambda: Case((ROOT.certify(ca=True),), is_valid=True, level=2),
    "for browsers": lambda: Case((ROOT.certify(purpose=ExtendedKeyUsageOID.SERVER_AUTH),), is_valid=True, level=2),
    "one link missing": lambda: Case((BETWEEN.certify(),), is_valid=False, level=2),
    "unknown root": lambda: Case((Maker.make("stranger", 103).certify(),), is_valid=False, level=2),
    "false root": lambda: Case((Maker.make("root", 104).certify(),), is_valid=False, level=2),
    "expired": lambda: Case((ROOT.certify(until=NOW - HOUR),), is_valid=False, level=2),
    "expired between": lambda: Case(below(until=NOW - HOUR), is_valid=False, level=2),
    "no authority between": lambda: Case(below(ca=False), is_valid=False, level=2),
    "signs nothing": lambda: Case(below(signs=False), is_valid=False, level=2),
    "does not say that it signs": lambda: Case(bare(), is_valid=False, level=2),
    "path too long": lambda: Case(too_deep(), is_valid=False, level=2),
}


@pytest.mark.parametrize("name", CASES)
def test_we_and_openssl_agree_on_chains_of_ek_certificates(tmp_path: Path, name: str) -> None:
    case = CASES[name]()
    assert (accepts(tmp_path, case.chain), level_of(*case.chain)) == (case.is_valid, case.level)


def test_a_chain_with_a_changed_byte_is_never_accepted_where_openssl_refuses_it(tmp_path: Path) -> None:
    own, between = BETWEEN.certify(), BETWEEN.der
    for place in range(8, len(between), 23):
        changed = bytearray(between)
        changed[place] ^= 1
        chain = own, bytes(changed)
        try:
            pem(*chain)
        except ValueError:
            assert level_of(*chain) == 2
            continue
        assert level_of(*chain) == 2 or accepts(tmp_path, chain)
