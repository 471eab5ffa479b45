"""What a link tells its driver. Frozen values; the peer's fault is the last one."""

from dataclasses import dataclass, field

from overlay.core.evidence import Appraisal, Binding
from overlay.core.liveness import Pong
from overlay.core.stream_events import StreamEvent
from overlay.core.trust import VerifiedPeer
from overlay.registry import FrameType, Reason


@dataclass(frozen=True, slots=True)
class PeerIdentified:
    """The peer's certificate and endorsement have verified. It is not admitted yet."""

    peer: VerifiedPeer


@dataclass(frozen=True, slots=True)
class EvidenceWanted:
    """Admission needs our evidence for this binding: answer with `supply_evidence` or `evidence_failed`."""

    binding: Binding


@dataclass(frozen=True, slots=True)
class NonceReceived:
    """A peer gave a nonce for a round of ours (0: it asks unasked)."""

    number: int
    binding: Binding


@dataclass(frozen=True, slots=True)
class Opened:
    """Both sides have said ok: application frames may go."""

    peer: VerifiedPeer
    appraisal: Appraisal
    peer_has_link: bool


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The peer's new evidence was good."""

    appraisal: Appraisal
    round: int


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """Both directions use the keys of this epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class CredentialsChanged:
    """The peer goes on with another endorsement or certificate."""

    peer: VerifiedPeer


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A complete application message, its parts put together."""

    type: FrameType
    stream: int
    body: bytes = field(repr=False)
    peer: VerifiedPeer = field(repr=False)  # under the credentials in force when it came: they may have changed since


@dataclass(frozen=True, slots=True)
class Ponged:
    """The peer answered our last ping: the round trip, and what its clock says."""

    pong: Pong


@dataclass(frozen=True, slots=True)
class Closed:
    """The link ended in order."""

    reason: Reason
    by_peer: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The link ended because of what the peer did, or did not do. `by_peer`: it is the peer who refused us."""

    reason: Reason
    detail: str = ""
    by_peer: bool = False


Event = (
    PeerIdentified | EvidenceWanted | NonceReceived | Opened | LeaseRenewed | Rekeyed | CredentialsChanged | MessageReceived
    | StreamEvent | Ponged | Closed | Failed
)
