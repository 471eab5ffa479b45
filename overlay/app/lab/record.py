"""Keeps what the authority of a lab has signed, as PEM files that any X.509 tool reads: leaves, roots, revocation lists.

    founding.pem    the root that `init` made            root.pem    the root that no machine has the key of
    leaves/NAME-SERIAL.pem                               lists/NUMBER-HASH.pem
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from overlay.app.authority.ledger import Ledger
from overlay.app.identity import load_membership
from overlay.app.lab.machine import Machine
from overlay.core.wire import sha256
from overlay.store.membership import StoredCertificate, load_certificate
from overlay.store.state import StateFolder

FOUNDING: Final = "founding.pem"
ROOT: Final = "root.pem"
LEAVES: Final = "leaves"
LISTS: Final = "lists"


class Record:
    """In a folder. Blocks for as long as it takes to read a few small files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.serials: set[str] = set()  # of the leaves that are kept
        for name in (LEAVES, LISTS):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def look(self, machines: Sequence[Machine]) -> None:
        """Keep the certificate that each of them has now."""
        for machine in machines:
            found = _certificate(machine.state)
            if found is not None:
                self._keep(found.leaf, machine.name)

    def _keep(self, leaf: bytes, name: str) -> None:
        certificate = x509.load_der_x509_certificate(leaf)
        serial = f"{certificate.serial_number:040x}"
        if serial not in self.serials:
            (self.folder / LEAVES / f"{name}-{serial}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
            self.serials.add(serial)

    def keep_roots_and_lists(self, machine: Machine) -> None:
        """As that machine knows them."""
        with StateFolder.open(machine.state, exclusive=False) as folder:
            mesh = load_membership(folder).mesh
            ledger = Ledger(folder, mesh)
        for name, der in ((FOUNDING, mesh.root.der), (ROOT, ledger.chain.newest_root.der)):
            (self.folder / name).write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
        for one in ledger.trust.lists:
            path = self.folder / LISTS / f"{one.number:06d}-{one.hash.hex()[:16]}.pem"
            path.write_bytes(x509.load_der_x509_crl(one.der).public_bytes(Encoding.PEM))


def serial_of(state: Path) -> str:
    """The serial of the certificate in that folder, hex; empty before there is one."""
    found = _certificate(state)
    return "" if found is None else f"{x509.load_der_x509_certificate(found.leaf).serial_number:040x}"


def root_of(state: Path) -> str:
    """SHA-256 of the key of the root that issued that certificate, hex; empty for the founding root."""
    found = _certificate(state)
    if found is None or not found.chain:
        return ""
    key = x509.load_der_x509_certificate(found.chain[0]).public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hex()


def _certificate(state: Path) -> StoredCertificate | None:
    with StateFolder.open(state, exclusive=False) as folder:
        return load_certificate(folder)
