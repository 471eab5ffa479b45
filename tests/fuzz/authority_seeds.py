"""Seeds for `authority_targets.py`: good messages of operators, signers and joiners."""

from collections.abc import Iterator

from overlay.core.authority.order_bodies import GrantRoles, Revoke, WithdrawInvite
from overlay.core.authority.requests import pack_request
from overlay.core.authority.signing_bodies import SignRequest, pack_declined
from overlay.core.join_frames import Finish, Renewal, pack_answer
from overlay.core.join_result import JoinResult
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import RevocationReason, Revocations, revocation_list_to_be_signed
from overlay.core.trust_update import TrustUpdate
from overlay.core.wire import make_map
from overlay.registry import Reason, RoundKind
from tests.fuzz.authority_targets import GENERATION, KINDS, MESH, under_way
from tests.unit.core.authority import order_kit, signing_kit
from tests.unit.core.authority_kit import NOW
from tests.unit.core.revocation_kit import facts_of, make_list, revoked

AS_IT_IS, SIGNED = b"\0", b"\1"


def order() -> Iterator[bytes]:
    bodies = (
        order_kit.make_invite(), order_kit.quarantine(), WithdrawInvite(b"i" * 16),
        GrantRoles(node=order_kit.DAVE, roles=("worker",), person=None),
        Revoke(nodes=(order_kit.DAVE,), reason=RevocationReason.CESSATION, since=NOW),
    )  # fmt: skip
    for body in bodies:
        made = order_kit.make_order(body)
        yield SIGNED + made.pack()
    signed = order_kit.sign(order_kit.make_order(bodies[0]))
    yield AS_IT_IS + signed.cose
    yield AS_IT_IS + signed.pack()


def revocations() -> Iterator[bytes]:
    what = revoked(order_kit.CAROL)
    yield SIGNED + revocation_list_to_be_signed(MESH.root.issuer, facts_of(what))
    yield SIGNED + revocation_list_to_be_signed(MESH.root.issuer, facts_of(Revocations()))
    yield AS_IT_IS + make_list(MESH, what)
    yield AS_IT_IS + TrustUpdate((make_list(MESH, what),)).pack()


def authority() -> Iterator[bytes]:
    yield AS_IT_IS + GENERATION.raw
    yield AS_IT_IS + GENERATION.rollover("fuzz", "ab").raw
    yield SIGNED + GENERATION.rollover("fuzz", "ab").contents.pack()
    yield SIGNED + GENERATION.recovered("fuzz", "xy").contents.pack()


def join() -> Iterator[bytes]:
    yield AS_IT_IS + pack_answer(Finish((NodeId(bytes(32)), NodeId(b"\1" * 32))))
    yield AS_IT_IS + JoinResult(reason=Reason.INVITE_SPENT).pack()
    yield AS_IT_IS + Renewal(csr=b"csr", serial=1 << 158, not_before=NOW, finish=None).pack()


def signing() -> Iterator[bytes]:
    request = pack_request(signing_kit.leaf())
    yield AS_IT_IS + request
    yield AS_IT_IS + SignRequest(signing_kit.GENERATION, request).pack()
    yield AS_IT_IS + pack_declined(Reason.WRONG_GENERATION)
    alice, bob = order_kit.ALICE, order_kit.BOB
    for kind in (RoundKind.SIGN_REQUEST, RoundKind.DECLINED):
        yield SIGNED + make_map(alice.node_id, bob.node_id, bytes(16), int(kind), b"body")


def runs() -> Iterator[bytes]:
    for place, (_, members, queue) in enumerate(under_way()):
        for sender, _, kind, body in queue[:2]:
            yield bytes([place + 3 * members.index(sender), KINDS.index(kind)]) + body
