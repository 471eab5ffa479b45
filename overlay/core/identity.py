"""Who we are on a link: credentials that others verify, and the keys that the endorsement speaks for."""

from dataclasses import dataclass, field

from overlay.core.keys import Ed25519Signer, NodeId, X25519Pair
from overlay.core.trust import Credentials, VerifiedPeer


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalIdentity:
    """Our own certificate and endorsement, verified as a peer would, with the keys of this start."""

    credentials: Credentials
    verified: VerifiedPeer
    static: X25519Pair = field(repr=False)  # Noise
    message: Ed25519Signer = field(repr=False)  # signs what we say
    witness: Ed25519Signer | None = field(default=None, repr=False)  # cosigns what others have logged, and nothing else

    def __post_init__(self) -> None:
        if self.verified.noise_public != self.static.public or self.verified.message_public != self.message.public_key:
            raise ValueError("these are not the keys of the endorsement")
        if self.witness is not None and self.verified.endorsement.witness_public != self.witness.public_key:
            raise ValueError("this is not the witness key of the endorsement")

    @property
    def node_id(self) -> NodeId:
        """Our node id."""
        return self.verified.node_id

    @property
    def kid(self) -> bytes:
        """H(endorsement), the key id of our messages."""
        return self.verified.kid
