"""What a node does with the keys in its TPM: prove its software, sign as itself, and show both keys to a signer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attest.areas import parse_area
from attest.enrol import TpmRequest, certify_data
from attest.evidence import Claims, Proof, prove_all
from attest.key_blob import KeyBlob
from attest.tpm import Tpm
from overlay.core.evidence import Binding, Evidence
from overlay.core.wire import sha256
from overlay.errors import LocalProtocolError
from overlay.registry import COSE_ES256, EvidenceKind

TRIES: Final = 3  # quotes, while the boot log grows under them: our guess


def no_logs() -> None:
    """Of a machine that has none to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmProver:
    """A Prover; replaced as a whole when the policy changes. The claims name the PCRs that are quoted.

    `logs` looks at the logs of this machine anew and gives the hash of the boot log, None if it has no logs. They are looked at
    before the quote, which vouches for that hash, and after it, so that what they say is never behind what was quoted.
    """

    tpm: Tpm = field(repr=False)
    ak: KeyBlob
    claims: Claims
    logs: Callable[[], bytes | None] = field(default=no_logs, repr=False)

    def __post_init__(self) -> None:
        if self.claims.kind is not EvidenceKind.TPM:
            raise LocalProtocolError("claims of another kind of evidence")

    @property
    def kind(self) -> EvidenceKind:
        """What it makes."""
        return EvidenceKind.TPM

    def prove(self, bindings: Sequence[Binding]) -> list[Evidence]:
        """One quote for all bindings; evidence in their order. Blocks; raises OverlayError when the TPM fails."""
        for _ in range(TRIES):
            boot_log = self.logs()
            evidence = prove_all(bindings, replace(self.claims, boot_log_hash=boot_log).pack(), self._quote)
            if self.logs() == boot_log:
                break
        return evidence

    def _quote(self, data: bytes) -> Proof:
        attested, signature = self.tpm.quote(self.ak, data, self.claims.pcr_bitmap)
        return Proof(ak_public=self.ak.public, quote=attested, signature=signature)


class TpmIdentitySigner:
    """A Signer whose key never leaves the TPM. `sign` blocks and raises OverlayError when the TPM fails."""

    algorithm = COSE_ES256

    def __init__(self, tpm: Tpm, identity: KeyBlob) -> None:
        self._tpm = tpm
        self._identity = identity
        self.public_key = identity.area.point

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo DER."""
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.public_key)
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data: bytes) -> bytes:
        """r || s over SHA-256 of the data, 64 bytes, s lowered."""
        return self._tpm.sign(self._identity, sha256(data))


def show_tpm(tpm: Tpm, *, ak: KeyBlob, identity: KeyBlob, request: bytes) -> TpmRequest:
    """What goes with the CSR `request` of this identity key. Blocks; raises OverlayError when the TPM fails."""
    ek_public = tpm.endorsement_public()
    data = certify_data(request, ak.area.name, parse_area(ek_public).name)
    attested, signature = tpm.certify(ak, identity, data)
    return TpmRequest(
        ek_public=ek_public, ak_public=ak.public, identity_public=identity.public,
        parent_name=parse_area(tpm.storage_public()).name, attested=attested, signature=signature,
    )
