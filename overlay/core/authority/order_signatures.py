"""One operator's signature under an order, and what shows whose it is.

Countersignatures are COSE_Sign1 over the same payload whose AAD ends in u64 made_at: none of them passes for an order.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from overlay.core.authority.order_payload import Order
from overlay.core.keys import MeshId
from overlay.core.limits import CHAIN_BYTES_MAX, CHAIN_DEPTH_MAX, ENDORSEMENT_MAX
from overlay.core.revocation_profile import TIME_MAX
from overlay.core.trust import Credentials
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, sha256, sign1, u64
from overlay.registry import COSE_EDDSA, Label

COUNTERSIGNATURES_MAX: Final = 3  # our guess: rules ask for one

_CREDENTIALS: Final = (
    Bytes(64), Bytes(1, ENDORSEMENT_MAX), Bytes(1, CHAIN_BYTES_MAX), Array(Bytes(1, CHAIN_BYTES_MAX), CHAIN_DEPTH_MAX),
)  # fmt: skip
SIGNATURE: Final = Tuple(_CREDENTIALS)
COUNTERSIGNATURES: Final = Maybe(Array(Tuple((UInt(TIME_MAX), *_CREDENTIALS)), COUNTERSIGNATURES_MAX))


@dataclass(frozen=True, slots=True)
class OrderSignature:
    """One operator's signature and what shows whose it is, not verified."""

    made_at: datetime
    signature: bytes = field(repr=False)  # 64
    credentials: Credentials

    @property
    def kid(self) -> bytes:
        """Hash of the endorsement, 32 bytes."""
        return sha256(self.credentials.endorsement)

    def row(self) -> list[Any]:
        """As in the carried form, without the time."""
        shown = self.credentials
        return [self.signature, shown.endorsement, shown.leaf, list(shown.chain)]


def read_signature(made_at: datetime, signature: bytes, endorsement: bytes, leaf: bytes, chain: list[bytes]) -> OrderSignature:
    """From a row of the carried form."""
    return OrderSignature(made_at, signature, Credentials(endorsement, leaf, tuple(chain)))


class _Made:
    """Stands in for a signer whose signature is there already."""

    algorithm: Final = COSE_EDDSA
    public_key: Final = b""
    spki: Final = b""

    def __init__(self, signature: bytes) -> None:
        self._signature = signature

    def sign(self, data: bytes) -> bytes:
        """What was given."""
        return self._signature


def assemble_order(order: Order, kid: bytes, signature: bytes) -> bytes:
    """The bare COSE_Sign1 of an order whose signature is known."""
    return sign1(order.pack(), signer=_Made(signature), aad=b"", kid=kid)


def counter_aad(mesh_id: MeshId, made_at: datetime) -> bytes:
    """Of a countersignature."""
    return Label.ORDER + mesh_id + u64(int(made_at.timestamp()))
