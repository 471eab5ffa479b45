"""The body of JOIN_RESULT: what whoever was dialled says to a joiner, or to who renews (docs/protocol/joining.md)."""

from dataclasses import dataclass, field
from typing import Final

from overlay.core.admission import read_reason
from overlay.core.authority.objects import OBJECT_MAX
from overlay.core.enrolment_files import BUNDLE_MAX, Bundle
from overlay.core.join_frames import SIGNERS_MAX
from overlay.core.keys import NodeId
from overlay.core.limits import GUEST_ANSWER_MAX
from overlay.core.wire import Array, Bytes, Flag, Maybe, Text, Tuple, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import Reason

ADDRESSES_MAX: Final = 16  # of one signer: our guess
ADDRESS_MAX: Final = 256  # UTF-8 bytes: a DNS name has 253
OBJECTS_MAX: Final = 64  # our guess: a mesh changes its root every few years; protocol: 64 KiB in all

_ID: Final = Bytes(32)


@dataclass(frozen=True, slots=True)
class SignerHint:
    """Where a signer may be found. Only a hint: whoever answers there must show a signer's leaf."""

    node_id: NodeId
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinResult:
    """JOIN_RESULT{0 or reason, approved, signers, bundle?, authority?}: a welcome, a refusal, an approval, a certificate.

    The welcome is the first frame of whoever was dialled: who the signers are, and the objects that say so.
    """

    reason: Reason | None = None  # None: not refused
    approved: bool = False  # by this signer
    signers: tuple[SignerHint, ...] = ()
    bundle: Bundle | None = None  # issued
    authority: tuple[bytes, ...] = field(default=(), repr=False)  # authority objects, oldest first, not verified

    def pack(self) -> bytes:
        """JOIN_RESULT's body."""
        signers = [[bytes(one.node_id), list(one.addresses)] for one in self.signers]
        bundle = None if self.bundle is None else self.bundle.pack()
        code = 0 if self.reason is None else int(self.reason)
        return make_map(code, self.approved, signers, bundle, list(self.authority) or None)

    @classmethod
    def unpack(cls, body: bytes) -> "JoinResult":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        hint = Tuple((_ID, Array(Text(ADDRESS_MAX), ADDRESSES_MAX)))
        code, approved, signers, bundle, authority = open_map(
            body, UInt(255), Flag(), Array(hint, SIGNERS_MAX), Maybe(Bytes(1, BUNDLE_MAX)),
            Maybe(Array(Bytes(1, OBJECT_MAX), OBJECTS_MAX)), limit=GUEST_ANSWER_MAX,
        )
        if sum(map(len, authority or ())) > OBJECT_MAX:
            raise Refused(Reason.TOO_LARGE, "authority objects above 64 KiB")
        reason = None if code == 0 else read_reason(code)
        if reason is not None and (approved or bundle is not None):
            malformed("refused and granted at once")
        return cls(
            reason=reason, approved=approved, bundle=None if bundle is None else Bundle.unpack(bundle),
            signers=tuple(SignerHint(NodeId(node), tuple(addresses)) for node, addresses in signers),
            authority=tuple(authority or ()),
        )
