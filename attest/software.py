"""Evidence without a TPM: the message key signs the same bindings. It proves who says so, not that it is so."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from attest.binding import bound_data
from attest.evidence import Claims, Proof, prove_all
from overlay.core.evidence import Binding, Evidence
from overlay.core.keys import Signer
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import make_map, parse_sign1, sign1
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import EvidenceKind, Label, Reason

SIGNED_MAX: Final = 256  # a COSE_Sign1 over 32 bytes takes 154


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareProver:
    """A Prover; replaced as a whole when the message key or the policy changes."""

    signer: Signer = field(repr=False)
    kid: bytes  # 32 bytes: hash of the endorsement of the signer's key
    mesh_id: bytes
    claims: Claims

    def __post_init__(self) -> None:
        if self.claims.kind is not EvidenceKind.SOFTWARE:
            raise LocalProtocolError("claims of another kind of evidence")

    @property
    def kind(self) -> EvidenceKind:
        """What it makes."""
        return EvidenceKind.SOFTWARE

    def prove(self, bindings: Sequence[Binding]) -> list[Evidence]:
        """One signature for all bindings; evidence in their order."""
        return prove_all(bindings, self.claims.pack(), self._sign)

    def _sign(self, data: bytes) -> Proof:
        aad = Label.SOFTWARE_EVIDENCE + self.mesh_id
        return Proof(quote=sign1(make_map(data), signer=self.signer, aad=aad, kid=self.kid))


def check_software(evidence: Evidence, binding: Binding, peer: VerifiedPeer) -> None:
    """Check the signature and what it binds.

    Raises:
        Refused: BAD_EVIDENCE, MALFORMED or TOO_LARGE for its form, EVIDENCE_SIGNATURE, EVIDENCE_NOT_BOUND.
    """
    if evidence.ak_public or evidence.signature:
        raise Refused(Reason.BAD_EVIDENCE, "software evidence with parts of a quote")
    signed = parse_sign1(evidence.quote, limit=SIGNED_MAX)
    if signed.kid != peer.kid:
        raise Refused(Reason.EVIDENCE_SIGNATURE, "not under the endorsement of this link")
    try:
        payload = signed.verify(peer.message_public, aad=Label.SOFTWARE_EVIDENCE + binding.mesh_id)
    except Refused as error:
        raise Refused(Reason.EVIDENCE_SIGNATURE, error.detail) from None
    if payload != make_map(bound_data(evidence, binding)):
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "the signature is about something else")
