"""What two ends say to each other before anything else: CHALLENGE, PROOF, VERDICT, GOODBYE. Formats and the proof's signature.

The order of the talk is `session.py`'s; what counts as good evidence is decided behind the port in `evidence.py`.
"""

from dataclasses import dataclass, field

from overlay.core import limits
from overlay.core.evidence import Evidence
from overlay.core.keys import Signer, verify_ed25519
from overlay.core.wire import Array, Bytes, Flag, UInt, lv, make_map, malformed, open_map, sha256
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Label, Reason, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """First record of each side, which confirms the keys."""

    nonce: bytes  # 32
    start_id: bytes  # 16: which start of the node this is
    kinds: tuple[int, ...]  # evidence that its policy accepts
    trust_number: int
    trust_hash: bytes  # 32
    policy_version: int
    has_link: bool  # to the node it speaks to, already

    def pack(self) -> bytes:
        """CHALLENGE's body."""
        return make_map(
            self.nonce, self.start_id, sorted(self.kinds), self.trust_number, self.trust_hash, self.policy_version,
            self.has_link,
        )

    @classmethod
    def unpack(cls, body: bytes) -> "Challenge":
        """Raises Refused(MALFORMED or TOO_LARGE)."""
        nonce, start_id, kinds, number, digest, version, has_link = open_map(
            body, Bytes(32), Bytes(16), Array(UInt(255), 16), UInt(), Bytes(32), UInt(), Flag(), limit=limits.CHALLENGE_MAX
        )
        return cls(
            nonce=nonce, start_id=start_id, kinds=tuple(kinds), trust_number=number, trust_hash=digest,
            policy_version=version, has_link=has_link,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFacts:
    """All that the signature in PROOF covers. Hashes have 32 bytes."""

    mesh_id: bytes
    h: bytes
    role: Role  # the prover's
    own_leaf: bytes
    own_endorsement: bytes
    peer_leaf: bytes
    peer_endorsement: bytes
    nonce: bytes

    def to_sign(self, evidence: bytes) -> bytes:
        """The signed string (docs/protocol/admission.md)."""
        return Label.PROOF + lv(
            self.mesh_id, self.h, bytes([self.role]), self.own_leaf, self.own_endorsement, self.peer_leaf,
            self.peer_endorsement, self.nonce, sha256(evidence),
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """PROOF{signature, claims, evidence}."""

    signature: bytes = field(repr=False)
    evidence: Evidence

    @classmethod
    def make(cls, facts: ProofFacts, evidence: Evidence, message_key: Signer) -> bytes:
        """PROOF's body, signed by our message key."""
        packed = evidence.pack()
        return make_map(message_key.sign(facts.to_sign(packed)), evidence.claims, packed)

    @classmethod
    def verify(cls, body: bytes, facts: ProofFacts, message_public: bytes) -> Evidence:
        """Check the signature and give the evidence, which nobody has appraised yet.

        Raises:
            Refused: MALFORMED, TOO_LARGE, BAD_PROOF.
        """
        signature, claims, packed = open_map(
            body, Bytes(64), Bytes(0, 1024), Bytes(0, limits.PROOF_MAX), limit=limits.PROOF_MAX
        )
        try:
            verify_ed25519(message_public, signature, facts.to_sign(packed))
        except Refused:
            raise Refused(Reason.BAD_PROOF, "the proof is not signed by the endorsed message key for this link") from None
        return Evidence.unpack(packed, claims, limit=limits.PROOF_MAX)


VERDICT_OK = 0


def pack_verdict(reason: Reason | None) -> bytes:
    """VERDICT{0 for ok, else the reason}."""
    return make_map(VERDICT_OK if reason is None else int(reason))


def unpack_verdict(body: bytes) -> Reason | None:
    """None for ok; raises Refused(MALFORMED)."""
    (code,) = open_map(body, UInt(255), limit=limits.VERDICT_MAX)
    return None if code == VERDICT_OK else read_reason(code)


def pack_goodbye(reason: Reason) -> bytes:
    """GOODBYE{reason}."""
    return make_map(int(reason))


def unpack_goodbye(body: bytes) -> Reason:
    """Raises Refused(MALFORMED)."""
    (code,) = open_map(body, UInt(255), limit=limits.GOODBYE_MAX)
    return read_reason(code)


def read_reason(code: int) -> Reason:
    """The reason behind a number; raises Refused(MALFORMED) for one that the registry does not hold."""
    try:
        return Reason(code)
    except ValueError:
        malformed(f"reason {code}")


def common_kind(own: EvidenceKind, accepted: tuple[int, ...]) -> None:
    """Raises Refused(EVIDENCE_NOT_ACCEPTED) if the peer does not take the evidence that we can show."""
    if own not in accepted:
        raise Refused(Reason.EVIDENCE_NOT_ACCEPTED, f"the peer does not accept {own.name.lower()} evidence")
