"""Requests for what the mesh key signs apart from certificates: authority objects, policies, rosters, tests.

Each begins with a label, or is a Sig_structure with one in it, so none of them can pass for the DER of a certificate.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from overlay.core.authority.contents import OBJECT_MAX
from overlay.core.authority.objects import to_be_signed
from overlay.core.authority.request_kinds import HASH, REQUEST_MAX, TIME_MAX, RequestKind
from overlay.core.certificate_profile import Issuer
from overlay.core.policy import POLICY_MAX, Policy
from overlay.core.wire import Array, Bytes, UInt, decode, make_map, malformed, open_map, sign1, u64
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, Label, Reason

ORDERS_MAX: Final = 64  # our guess: as many as there are operators


class Detached:
    """A Signer that does not sign: it notes what it was asked to, and answers with what was signed elsewhere."""

    algorithm = COSE_EDDSA
    public_key = b""
    spki = b""

    def __init__(self, signature: bytes = bytes(64)) -> None:
        self.asked = b""
        self._signature = signature

    def sign(self, data: bytes) -> bytes:
        """The signature that is there already."""
        self.asked = data
        return self._signature


@dataclass(frozen=True, slots=True)
class AuthorityObjectRequest:
    """{1:payload of an authority object}. The root before it and its own root sign the same bytes."""

    kind: ClassVar = RequestKind.AUTHORITY_OBJECT
    payload: bytes = field(repr=False)

    @property
    def number(self) -> int:
        """k; raises Refused(MALFORMED)."""
        return self._head()[1]

    def fields(self) -> bytes:
        """As above."""
        return make_map(self.payload)

    @classmethod
    def read(cls, data: bytes) -> "AuthorityObjectRequest":
        """From fields."""
        return cls(*open_map(data, Bytes(1, OBJECT_MAX), limit=REQUEST_MAX))

    def derive(self, issuer: Issuer) -> bytes:
        """Label, mesh and payload; what else the payload says is for the shell to check before it approves."""
        if self._head()[0] != issuer.mesh_id:
            raise Refused(Reason.OTHER_MESH, "an authority object of another mesh")
        return to_be_signed(issuer.mesh_id, self.payload)

    def _head(self) -> tuple[bytes, int]:
        value = decode(self.payload, limit=OBJECT_MAX)
        if not isinstance(value, dict):
            malformed("an authority object is a map")
        mesh_id, number = value.get(1), value.get(2)
        if not isinstance(mesh_id, bytes) or isinstance(number, bool) or not isinstance(number, int):
            malformed("an authority object names its mesh and its number")
        return mesh_id, number


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """{1:payload of a policy, 2:[hash of each order that asks for it]}."""

    kind: ClassVar = RequestKind.POLICY
    payload: bytes = field(repr=False)
    orders: tuple[bytes, ...] = ()

    @property
    def version(self) -> int:
        """Raises Refused(MALFORMED)."""
        return Policy.unpack(self.payload).version

    def fields(self) -> bytes:
        """As above."""
        return make_map(self.payload, list(self.orders))

    @classmethod
    def read(cls, data: bytes) -> "PolicyRequest":
        """From fields."""
        payload, orders = open_map(data, Bytes(1, POLICY_MAX), Array(HASH, ORDERS_MAX), limit=REQUEST_MAX)
        return cls(payload, tuple(orders))

    def derive(self, issuer: Issuer) -> bytes:
        """The Sig_structure under `policy.verify_policy`."""
        if Policy.unpack(self.payload).pack() != self.payload:
            raise Refused(Reason.BAD_POLICY, "not as a policy is packed")
        noted = Detached()
        sign1(self.payload, signer=noted, aad=Label.POLICY + issuer.mesh_id, kid=None)
        return noted.asked


@dataclass(frozen=True, slots=True)
class Roster:
    """{1:day since 1970, 2:hash}: who are members on that day."""

    kind: ClassVar = RequestKind.ROSTER
    day: int
    hash: bytes

    def fields(self) -> bytes:
        """As above."""
        return make_map(self.day, self.hash)

    @classmethod
    def read(cls, data: bytes) -> "Roster":
        """From fields."""
        return cls(*open_map(data, UInt(TIME_MAX // 86_400), HASH, limit=REQUEST_MAX))

    def derive(self, issuer: Issuer) -> bytes:
        """Label, mesh, u64 day, hash."""
        return Label.ROSTER + issuer.mesh_id + u64(self.day) + self.hash


@dataclass(frozen=True, slots=True)
class AuthorityTest:
    """{1:nonce32}: shows that t signers answer, and nothing else."""

    kind: ClassVar = RequestKind.TEST
    nonce: bytes

    def fields(self) -> bytes:
        """As above."""
        return make_map(self.nonce)

    @classmethod
    def read(cls, data: bytes) -> "AuthorityTest":
        """From fields."""
        return cls(*open_map(data, HASH, limit=REQUEST_MAX))

    def derive(self, issuer: Issuer) -> bytes:
        """Label, mesh, nonce."""
        return Label.AUTHORITY_TEST + issuer.mesh_id + self.nonce
