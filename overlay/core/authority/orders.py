"""Orders: what an operator wants done, signed, and as it is carried with all that it takes to check it at any time.

    order   = COSE_Sign1 by the operator's message key: kid = H(endorsement), AAD = "overlay/1 order\\0" || mesh_id
    carried = {0:1, 1:payload, 2:[signature64, endorsement, leaf, [chain]],
               3:[[made_at, signature64, endorsement, leaf, [chain]], ...]?}

Field 3 holds countersignatures: COSE_Sign1 over the same payload by other operators, whose AAD ends in u64 made_at, so that
none of them passes for an order. Rules:

- credentials are judged at the moment at which the signature says it was made, so an order can be checked for ever
- to act on it is another matter: then the order and all its credentials are in force now, too (`verify_now`)
- everyone who signs has the role `operator`; a node that leaves may revoke itself, and nobody else
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, NoReturn

from overlay.core.authority.order_payload import PAYLOAD_MAX, Order, read_time
from overlay.core.authority.order_signatures import (
    COUNTERSIGNATURES,
    COUNTERSIGNATURES_MAX,
    SIGNATURE,
    OrderSignature,
    assemble_order,
    counter_aad,
    read_signature,
)
from overlay.core.certificates import TOLERANCE, show_time
from overlay.core.keys import MeshId, NodeId, Signer
from overlay.core.limits import CHAIN_BYTES_MAX, ENDORSEMENT_MAX
from overlay.core.trust import Credentials, TrustSet, VerifiedPeer
from overlay.core.wire import (
    Bytes,
    UnverifiedSign1,
    make_map,
    malformed,
    open_map,
    parse_sign1,
    sha256,
    sign1,
)
from overlay.errors import Refused, UsageError
from overlay.registry import Label, Reason

OPERATOR: Final = "operator"
ORDER_MAX: Final = PAYLOAD_MAX + 256
CARRIED_MAX: Final = PAYLOAD_MAX + (1 + COUNTERSIGNATURES_MAX) * (CHAIN_BYTES_MAX + ENDORSEMENT_MAX + 256)


@dataclass(frozen=True, slots=True)
class SignedOrder:
    """An order as it is carried, stored and passed on: it says something, and nothing of it is verified."""

    says: Order
    signature: OrderSignature
    countersignatures: tuple[OrderSignature, ...] = ()  # sorted by kid

    @property
    def hash(self) -> bytes:
        """Of the order, 32 bytes."""
        return self.says.hash

    @property
    def signatures(self) -> tuple[OrderSignature, ...]:
        """The operator's, then the others'."""
        return (self.signature, *self.countersignatures)

    @property
    def cose(self) -> bytes:
        """The bare COSE_Sign1, for who knows the operator."""
        return assemble_order(self.says, self.signature.kid, self.signature.signature)

    def pack(self) -> bytes:
        """The carried form."""
        others = [[int(one.made_at.timestamp()), *one.row()] for one in self.countersignatures]
        return make_map(self.says.pack(), self.signature.row(), others or None)

    @classmethod
    def unpack(cls, raw: bytes) -> "SignedOrder":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        payload, first, rows = open_map(raw, Bytes(1, PAYLOAD_MAX), SIGNATURE, COUNTERSIGNATURES, limit=CARRIED_MAX)
        says = Order.unpack(payload)
        if rows == []:
            malformed("an empty list of countersignatures")
        others = tuple(read_signature(read_time(made_at), *row) for made_at, *row in rows or ())
        kids = [one.kid for one in others]
        if kids != sorted(set(kids)):
            malformed("countersignatures are sorted and different")
        return cls(says, read_signature(says.not_before, *first), others)

    def verify(self, trust: TrustSet) -> "VerifiedOrder":
        """Check that operators signed it, at the time that it says. A trust set without revocations tells of the past.

        Raises:
            Refused: NOT_ALLOWED, WRONG_AUTHOR, BAD_SIGNATURE, BAD_ORDER, or any reason of `TrustSet.verify`.
        """
        peers = tuple(self._verify_one(one, trust) for one in self.signatures)
        if peers[0].node_id != self.says.operator:
            raise Refused(Reason.WRONG_AUTHOR, "an order in the name of another operator")
        if len({peer.node_id for peer in peers}) != len(peers):
            _bad("signed twice by one operator")
        return VerifiedOrder(self, peers)

    def verify_now(self, trust: TrustSet, at: datetime) -> "VerifiedOrder":
        """Check that it may be acted on: in force now, with credentials that are in force now. So whoever found the keys of
        an operator that was, cannot order anything by dating it back.

        Raises:
            Refused: any reason of `verify`, `Order.check_time` or `TrustSet.judge`; ENDORSEMENT_EXPIRED.
        """
        found = self.verify(trust)
        self.says.check_time(at)
        for peer in found.operators:
            trust.judge(peer, at)
            if at - TOLERANCE > peer.not_after:
                ended = f"{peer.name}'s keys of that order ended on {show_time(peer.not_after)}"
                raise Refused(Reason.ENDORSEMENT_EXPIRED, ended, hint="give the order again")
        return found

    def _verify_one(self, one: OrderSignature, trust: TrustSet) -> VerifiedPeer:
        if not self.says.not_before - TOLERANCE <= one.made_at <= self.says.not_after + TOLERANCE:
            _bad("countersigned outside its life")
        peer = trust.verify(one.credentials, one.made_at)
        if OPERATOR not in peer.roles and not self.says.is_leaving:
            raise Refused(Reason.NOT_ALLOWED, f"{peer.name} is no operator")
        raw = assemble_order(self.says, one.kid, one.signature)
        aad = Label.ORDER + trust.mesh_id
        parse_sign1(raw, limit=ORDER_MAX).verify(
            peer.message_public, aad=aad if one is self.signature else counter_aad(trust.mesh_id, one.made_at)
        )
        return peer


@dataclass(frozen=True, slots=True)
class VerifiedOrder:
    """An order that operators have signed: who gives it, then those who agree. Whether they may: `order_rules.judge`."""

    signed: SignedOrder
    operators: tuple[VerifiedPeer, ...]

    @property
    def order(self) -> Order:
        """What is ordered."""
        return self.signed.says

    @property
    def hash(self) -> bytes:
        """32 bytes."""
        return self.signed.hash

    @property
    def signers(self) -> tuple[NodeId, ...]:
        """Who signed, the operator first."""
        return tuple(peer.node_id for peer in self.operators)


@dataclass(frozen=True, slots=True)
class UnverifiedOrder:
    """A bare COSE_Sign1: what it says must not be believed, and nobody can without its author's credentials."""

    says: Order
    signed: UnverifiedSign1 = field(repr=False)

    @property
    def kid(self) -> bytes:
        """Hash of the endorsement that verifies it, 32 bytes."""
        assert self.signed.kid is not None  # parsed with one
        return self.signed.kid

    def with_credentials(self, credentials: Credentials) -> SignedOrder:
        """The form that can be verified. Raises Refused(WRONG_AUTHOR) for credentials that it does not name."""
        if sha256(credentials.endorsement) != self.kid:
            raise Refused(Reason.WRONG_AUTHOR, "signed under another endorsement")
        return SignedOrder(self.says, OrderSignature(self.says.not_before, self.signed.signature, credentials))


def parse_order(raw: bytes) -> UnverifiedOrder:
    """Read a bare COSE_Sign1. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    signed = parse_sign1(raw, limit=ORDER_MAX)
    return UnverifiedOrder(Order.unpack(signed.payload), signed)


def sign_order(order: Order, *, signer: Signer, credentials: Credentials, mesh_id: MeshId) -> SignedOrder:
    """Sign with the message key that `credentials` endorse.

    Raises:
        UsageError: the order is not of the right form.
    """
    try:
        right = Order.unpack(order.pack()) == order
    except (Refused, TypeError, ValueError) as error:
        raise UsageError(f"this cannot be an order: {error}") from None
    if not right:
        raise UsageError("this cannot be an order: times are whole seconds, in UTC")
    raw = sign1(order.pack(), signer=signer, aad=Label.ORDER + mesh_id, kid=sha256(credentials.endorsement))
    return parse_order(raw).with_credentials(credentials)


def countersign(
    signed: SignedOrder, *, signer: Signer, credentials: Credentials, mesh_id: MeshId, at: datetime
) -> SignedOrder:
    """Agree, as another operator, to an order that one has verified.

    Raises:
        UsageError: there are as many countersignatures already as an order can have, or this very one.
    """
    made_at = at.astimezone(UTC).replace(microsecond=0)
    kid = sha256(credentials.endorsement)
    raw = sign1(signed.says.pack(), signer=signer, aad=counter_aad(mesh_id, made_at), kid=kid)
    mine = OrderSignature(made_at, parse_sign1(raw, limit=ORDER_MAX).signature, credentials)
    others = {one.kid: one for one in signed.countersignatures} | {kid: mine}
    if len(others) == len(signed.countersignatures) or len(others) > COUNTERSIGNATURES_MAX:
        raise UsageError("this order needs no other signature of yours")
    return replace(signed, countersignatures=tuple(others[kid] for kid in sorted(others)))


def _bad(detail: str) -> NoReturn:
    raise Refused(Reason.BAD_ORDER, detail)
