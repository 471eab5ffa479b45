"""Operators of a throw-away mesh, and orders by them."""

from datetime import timedelta

from overlay.core.authority.order_bodies import Body, Invite, Quarantine
from overlay.core.authority.order_payload import Order
from overlay.core.authority.order_rules import Standing
from overlay.core.authority.orders import SignedOrder, VerifiedOrder, countersign, sign_order
from overlay.core.certificate_profile import LeafFacts
from overlay.core.join_key import JoinKey
from overlay.core.keys import NodeId
from overlay.core.policy import Policy
from tests.unit.core.authority_kit import HOUR, NOW, Member, make_member, make_mesh, seed

MESH = make_mesh()
SEED = seed("token")
JOIN_KEY = JoinKey.of(SEED, MESH.mesh_id)


def operator(name: str, person: str | None = None, *, start: int = 1) -> Member:
    return make_member(MESH, name, facts=LeafFacts(roles=("operator",), person=person), start=start)


ALICE = operator("alice")
BOB = operator("bob")
CAROL = make_member(MESH, "carol", facts=LeafFacts(roles=("worker",)))
DAVE = NodeId(seed("dave"))
ERIN = NodeId(seed("erin"))


def make_order(
    body: Body, *, by: Member = ALICE, number: int = 1, life: timedelta = HOUR, begin: timedelta = timedelta()
) -> Order:
    return Order(
        operator=by.node_id, number=number, not_before=NOW + begin, not_after=NOW + begin + life, body=body
    )


def sign(order: Order, by: Member = ALICE) -> SignedOrder:
    return sign_order(order, signer=by.message, credentials=by.credentials, mesh_id=MESH.mesh_id)


def agree(signed: SignedOrder, by: Member = BOB) -> SignedOrder:
    return countersign(signed, signer=by.message, credentials=by.credentials, mesh_id=MESH.mesh_id, at=NOW)


def verified(body: Body, *others: Member, by: Member = ALICE, number: int = 1, life: timedelta = HOUR) -> VerifiedOrder:
    signed = sign(make_order(body, by=by, number=number, life=life), by)
    for other in others:
        signed = agree(signed, other)
    return signed.verify(MESH.trust)


def make_invite(*, roles: tuple[str, ...] = ("worker",), name: str | None = None, uses: int = 1) -> Invite:
    return Invite(invite_id=JOIN_KEY.invite_id, join_public=JOIN_KEY.public, roles=roles, name=name, uses=uses)


def quarantine(word: str = "dave") -> Quarantine:
    return Quarantine(NodeId(seed(word)))


def standing(*operators: Member, barred: tuple[Member, ...] = (), policy: Policy | None = None) -> Standing:
    """Who the operators are, with the persons of their certificates; carol and dave are known, erin is not."""
    return Standing(
        operators={one.node_id: one.peer.certificate.facts.person for one in operators},
        roles={CAROL.node_id: ("worker",), DAVE: ("signer",)} | {one.node_id: one.peer.roles for one in operators},
        policy=policy or Policy.default(),
        barred=frozenset(one.node_id for one in barred),
    )
