"""What passes between a link and whoever proves or appraises software: values and two ports. The formats are `attest/`'s."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from overlay.core.limits import CLOCK_TOLERANCE, NONCE_SIZE
from overlay.core.log_parts import LogPart, LogWanted
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import Array, Bytes, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What evidence must be bound to, all but the claims: this link, this epoch, this direction, this nonce."""

    mesh_id: bytes
    h: bytes  # 32 bytes: transcript hash of the key epoch
    role: Role  # the attester's
    attester_leaf: bytes  # 32 bytes: SHA-256 of the attester's certificate
    verifier_leaf: bytes
    nonce: bytes  # 32 bytes, made by the verifier
    epoch: int

    def __post_init__(self) -> None:
        if len(self.nonce) != NONCE_SIZE or len(self.h) != 32:
            raise ValueError("nonce and h have 32 bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One leaf of a quote, or of a software signature: then `ak_public` and `signature` are empty and `quote` is COSE."""

    count: int
    index: int
    path: tuple[bytes, ...]
    claims: bytes = field(repr=False)
    ak_public: bytes = field(repr=False)
    quote: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def pack(self) -> bytes:
        """PROOF's `evidence`: {n, index, path, AK public, quote, signature}, without claims."""
        return make_map(self.count, self.index, list(self.path), self.ak_public, self.quote, self.signature)

    @classmethod
    def unpack(cls, data: bytes, claims: bytes, *, limit: int) -> "Evidence":
        """Raises Refused(MALFORMED or TOO_LARGE)."""
        count, index, path, ak_public, quote, signature = open_map(data, *_KINDS, limit=limit)
        return cls(
            count=count, index=index, path=tuple(path), claims=claims, ak_public=ak_public, quote=quote, signature=signature
        )


_KINDS = (
    UInt(65_536), UInt(65_535), Array(Bytes(32), 16), Bytes(0, 1024), Bytes(0, 2048), Bytes(0, 1024),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """What a verifier concluded: the level (0 to 5) and what it must remember to judge the next evidence."""

    level: int
    kind: EvidenceKind
    software_version: str
    pcr_digest: bytes = b""
    clock: tuple[int, int, int] | None = None  # TPM reset count, restart count, clock in ms
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """Trust in the peer, with an end and the reason that it will end for. Monotonic times."""

    ends: float
    why: Reason
    appraisal: Appraisal
    since: float

    @classmethod
    def grant(
        cls, appraisal: Appraisal, peer: VerifiedPeer, *, since: float, life: float, now: float, at: datetime
    ) -> "Lease":
        """A lease for evidence taken at `since`, cut short by the end of the peer's certificate or endorsement."""
        left = (peer.not_after - at).total_seconds() + CLOCK_TOLERANCE
        if since + life <= now + left:
            return cls(since + life, Reason.LEASE_EXPIRED, appraisal, since)
        first = peer.endorsement.not_after <= peer.certificate.not_after
        return cls(now + left, Reason.ENDORSEMENT_EXPIRED if first else Reason.CERTIFICATE_EXPIRED, appraisal, since)

    def check(self, now: float) -> None:
        """Raises Refused with the reason once it has ended."""
        if now >= self.ends:
            raise Refused(self.why, "the trust in the peer has ended")


class Inquiry(Protocol):
    """Evidence that is genuine and not judged yet: parts of the peer's logs are lacking, asked for one by one."""

    @property
    def wanted(self) -> LogWanted:
        """The part that is lacking now."""
        ...

    def take(self, part: LogPart) -> "Appraisal | Inquiry":
        """The part that was wanted: some milliseconds of work. Raises as `Appraiser.appraise` does."""
        ...


class Appraiser(Protocol):
    """Judges a peer's evidence. Fast: called from the core."""

    def appraise(
        self, evidence: Evidence, binding: Binding, peer: VerifiedPeer, previous: Appraisal | None
    ) -> Appraisal | Inquiry:
        """Raises Refused with the reason; any other exception refuses too."""
        ...

    @property
    def accepted(self) -> tuple[EvidenceKind, ...]:
        """The kinds that the policy accepts, for CHALLENGE."""
        ...


class Prover(Protocol):
    """Makes our evidence. Slow: the shell calls it in a thread."""

    @property
    def kind(self) -> EvidenceKind:
        """What it makes."""
        ...

    def prove(self, bindings: Sequence[Binding]) -> list[Evidence]:
        """One signature or quote for all bindings; evidence in their order. Raises OverlayError when the device fails."""
        ...
