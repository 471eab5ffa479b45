"""The key that a token's seed gives, and the proof that a joiner holds it, for this link, signer and request only."""

from dataclasses import dataclass, field
from typing import Final

from overlay.core.epochs import hkdf_expand, hkdf_extract
from overlay.core.keys import Ed25519Signer, MeshId, NodeId, verify_ed25519
from overlay.core.wire import lv, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason

SEED_SIZE: Final = 32
KEY_SIZE: Final = 32
ID_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class JoinKey:
    """HKDF-SHA256(salt = mesh_id, seed, info = "overlay/1 join\\0", 48): the key's own seed, then the invite's id."""

    signer: Ed25519Signer = field(repr=False)
    invite_id: bytes  # 16; says nothing of the seed

    @classmethod
    def of(cls, seed: bytes, mesh_id: MeshId) -> "JoinKey":
        """Raises ValueError unless the seed has 32 bytes."""
        if len(seed) != SEED_SIZE:
            raise ValueError("a seed has 32 bytes")
        found = hkdf_expand(hkdf_extract(salt=mesh_id, ikm=seed), Label.JOIN, KEY_SIZE + ID_SIZE)
        return cls(Ed25519Signer(found[:KEY_SIZE]), found[KEY_SIZE:])

    @property
    def public(self) -> bytes:
        """What the invite names, 32 bytes."""
        return self.signer.public_key

    def prove(self, *, mesh_id: MeshId, h: bytes, signer: NodeId, csr: bytes) -> bytes:
        """64 bytes for JOIN. `h`: h(1) of the link, 32 bytes; `signer`: who is asked; `csr`: PKCS#10 DER."""
        return self.signer.sign(_proven(mesh_id, h, signer, self.invite_id, csr))


def verify_join_proof(
    proof: bytes, join_public: bytes, *, mesh_id: MeshId, h: bytes, signer: NodeId, invite_id: bytes, csr: bytes
) -> None:
    """Whether whoever is at the other end holds the token. Raises Refused(BAD_PROOF)."""
    try:
        verify_ed25519(join_public, proof, _proven(mesh_id, h, signer, invite_id, csr))
    except Refused:
        raise Refused(Reason.BAD_PROOF, "not by the key of the invite, for this link, signer and request") from None


def _proven(mesh_id: bytes, h: bytes, signer: bytes, invite_id: bytes, csr: bytes) -> bytes:
    return Label.JOIN + lv(mesh_id, h, signer, invite_id, sha256(csr))
