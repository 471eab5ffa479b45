"""X: what everything that a TPM says while it joins is bound to. One joiner, one link, one signer, one nonce.

The same bytes are made on both sides, each from what it knows itself and never from what the other claims.
"""

import hmac
from dataclasses import dataclass, field

from overlay.core.keys import MeshId, NodeId
from overlay.core.limits import NONCE_SIZE
from overlay.core.wire import lv, sha256
from overlay.registry import Label


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinBinding:
    """All of X but the names of EK and AK, which are computed where their public areas are read."""

    mesh_id: MeshId
    h: bytes  # 32: h(1) of the link
    signer: NodeId
    nonce: bytes = field(repr=False)  # 32, made by the signer for this conversation
    csr_hash: bytes  # 32
    invite_id: bytes
    boot_log_hash: bytes  # 32, or none

    def __post_init__(self) -> None:
        """No part that ties the answer to this conversation may be missing."""
        if len(self.nonce) != NONCE_SIZE or len(self.h) != 32 or len(self.csr_hash) != 32 or not self.invite_id:
            raise ValueError("nonce, h and the hash of the request have 32 bytes, an invite has an id")

    def pack(self, *, ak_name: bytes, ek_name: bytes) -> "BoundJoin":
        """X for these two keys."""
        return BoundJoin(
            lv(
                self.mesh_id, self.h, self.signer, self.nonce, self.csr_hash, ak_name, ek_name, self.invite_id,
                self.boot_log_hash,
            )
        )


@dataclass(frozen=True, slots=True)
class BoundJoin:
    """X, and the three things that are made of it."""

    x: bytes = field(repr=False)

    def activation(self, secret: bytes) -> bytes:
        """32 bytes that show that the TPM has opened the credential. `secret`: what it gave out."""
        return hmac.digest(secret, Label.ATTEST_ACTIVATE + self.x, "sha256")

    @property
    def quoted(self) -> bytes:
        """32 bytes: the qualifying data of the quote."""
        return sha256(Label.ATTEST_ENROL, self.x)

    @property
    def certified(self) -> bytes:
        """32 bytes: the qualifying data of the certification."""
        return sha256(Label.ATTEST_CERTIFY, self.x)
