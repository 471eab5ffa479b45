"""Seeds for `evidence_targets.py`: good evidence and structures of a TPM."""

from collections.abc import Iterator

from attest.areas import EK_POLICY, EK_TEMPLATE
from attest.binding import bound_data
from attest.evidence import Proof, prove_all
from attest.key_blob import KeyBlob
from attest.structures import ALG_RSA, sized
from overlay.core.certificate_profile import LeafFacts
from overlay.core.log_parts import LogPart, LogWanted, pack_part, pack_wanted
from overlay.core.rounds import pack_evidence, pack_nonce, pack_round
from overlay.core.wire import make_map, sign1
from overlay.registry import EvidenceLog, Label
from tests.fuzz.evidence_targets import QUOTED
from tests.unit.attest import software_tpm
from tests.unit.attest.event_log_kit import BOOT, Measured, locality, log, separator
from tests.unit.attest.software_tpm import (
    AK,
    EK,
    PCR_14,
    Machine,
    a_binding,
    a_peer,
    show,
    software_claims,
    tpm_claims,
)

AS_IT_IS, SIGNED = b"\0", b"\1"


def evidence() -> Iterator[bytes]:
    def by_message_key(data: bytes) -> Proof:
        aad = Label.SOFTWARE_EVIDENCE + a_binding().mesh_id
        return Proof(quote=sign1(make_map(data), signer=software_tpm.MESSAGE, aad=aad, kid=a_peer(LeafFacts()).kid))

    software = prove_all([a_binding()], b"claims", by_message_key)[0]
    quoted = Machine().evidence(a_binding(), a_binding(1), a_binding(2), claims=b"claims")
    yield AS_IT_IS + software.pack()
    yield AS_IT_IS + pack_evidence(1, software)
    yield bytes([PCR_14 >> 8]) + quoted.pack()
    yield AS_IT_IS + pack_evidence(2, quoted)
    yield AS_IT_IS + tpm_claims().pack()
    yield AS_IT_IS + software_claims().pack()
    yield AS_IT_IS + pack_nonce(1, bytes(32))
    yield AS_IT_IS + pack_round(1)


def boot_log() -> Iterator[bytes]:
    yield AS_IT_IS + log(*BOOT[:6])
    yield SIGNED + b"".join(event.pack() for event in (locality(3), *BOOT[-4:]))
    yield SIGNED + separator(7).pack()


def measurements() -> Iterator[bytes]:
    yield AS_IT_IS + Measured("/bin/sh").pack() + Measured("/bin/ls", template=b"ima-sig").pack()
    yield AS_IT_IS + Measured("/etc/shadow", template=b"ima").pack()
    yield AS_IT_IS + Measured("/var/log/x", violation=True).pack()


def log_parts() -> Iterator[bytes]:
    yield AS_IT_IS + pack_wanted(LogWanted(EvidenceLog.FILES, 4096))
    yield AS_IT_IS + pack_part(LogPart(EvidenceLog.BOOT, 0, 5, b"parts"))
    yield SIGNED + log(*BOOT[:4])
    yield AS_IT_IS + Measured("boot_aggregate").pack() + Measured("/bin/ls", template=b"ima-sig").pack()


def tpm() -> Iterator[bytes]:
    shown = show()
    yield bytes([PCR_14 >> 8]) + Machine().attested(bound_data(QUOTED, a_binding()))
    yield AS_IT_IS + shown.attested
    yield AS_IT_IS + shown.signature
    yield AS_IT_IS + EK.area.raw
    yield AS_IT_IS + AK.area.raw
    yield AS_IT_IS + _rsa_area()
    yield AS_IT_IS + KeyBlob(private=b"private", public=AK.area.raw).pack()


def _rsa_area() -> bytes:
    """An endorsement key on RSA-2048 (TCG EK Credential Profile, template L-1), with any modulus."""
    head = ALG_RSA.to_bytes(2, "big") + EK_TEMPLATE[2:8] + sized(EK_POLICY)
    return head + bytes.fromhex("0006 0080 0043 0010 0800 00000000") + sized(b"\xc1" * 256)
