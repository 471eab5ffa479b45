"""Targets: orders, revocation lists, authority objects, tokens, what joiners and signers say, and runs of signers."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final

from overlay.core.authority.bindings import Bindings
from overlay.core.authority.objects import Signatures, assemble, to_be_signed, verify_next
from overlay.core.authority.order_payload import Order
from overlay.core.authority.orders import SignedOrder, parse_order
from overlay.core.authority.requests import pack_request, unpack_request
from overlay.core.authority.round_messages import verify_round_message
from overlay.core.authority.signing_bodies import Committed, Package, ShareSent, SignRequest, unpack_declined
from overlay.core.authority.stored_rollover import unpack_rollover
from overlay.core.certificate_profile import ED25519_OID, seal
from overlay.core.join_frames import Join, JoinChallenge, Renewal, unpack_answer
from overlay.core.join_result import JoinResult
from overlay.core.keys import NodeId
from overlay.core.revocations import verify_revocation_list
from overlay.core.token import parse_token
from overlay.core.trust_update import TrustUpdate
from overlay.core.wire import sha256, sign1
from overlay.errors import Refused
from overlay.registry import Label, RoundKind
from tests.fuzz.kit import cut, fork
from tests.unit.core.authority import generations_kit, order_kit, runs_kit
from tests.unit.core.authority.rollover_kit import BEFORE
from tests.unit.core.authority_kit import NOW

MESH: Final = order_kit.MESH
GENERATION: Final = generations_kit.founding()
KINDS: Final = sorted(RoundKind)


def order(data: bytes) -> None:
    """An order as it is carried, bare, and its payload under an operator's signature."""
    first, rest = cut(data)
    with suppress(Refused):
        SignedOrder.unpack(rest).verify_now(MESH.trust, NOW)
    with suppress(Refused):
        parse_order(rest)
    if first & 1:
        with suppress(Refused):
            alice = order_kit.ALICE
            raw = sign1(rest, signer=alice.message, aad=Label.ORDER + MESH.mesh_id, kid=sha256(alice.credentials.endorsement))
            found = parse_order(raw).with_credentials(alice.credentials).verify_now(MESH.trust, NOW)
            assert Order.unpack(found.order.pack()) == found.order


def revocations(data: bytes) -> None:
    """A list as it stands, and content that the root signed; an update of trust."""
    first, rest = cut(data)
    with suppress(Refused):
        verify_revocation_list(_by_root(rest) if first & 1 else rest, (MESH.root,))
    with suppress(Refused):
        TrustUpdate.unpack(rest).applied(MESH.trust)


def _by_root(content: bytes) -> bytes:
    try:
        return seal(content, ED25519_OID, MESH.authority.key.sign(content))
    except ValueError:
        return content


def authority(data: bytes) -> None:
    """An authority object as it stands, and a payload that everybody signed; the record of a roll-over; bindings."""
    first, rest = cut(data)
    before = GENERATION.contents
    with suppress(Refused):
        verify_next(_by_all(rest) if first & 1 else rest, before)
    with suppress(Refused):
        unpack_rollover(rest, BEFORE)
    with suppress(Refused):
        Bindings.unpack(rest)


def _by_all(payload: bytes) -> bytes:
    """Signed by the root and one member; whatever it says."""
    data = to_be_signed(GENERATION.contents.mesh_id, payload)
    signature = GENERATION.key.sign(data)
    return assemble(payload, Signatures(signature, [member.sign(data) for member in GENERATION.members], signature))


def join(data: bytes) -> None:
    """Tokens, and all that a joiner, a signer and who renews say to each other."""
    _, rest = cut(data)
    for parse in (Join.unpack, JoinChallenge.unpack, unpack_answer, Renewal.unpack, JoinResult.unpack):
        with suppress(Refused):
            parse(rest)
    with suppress(Refused):
        parse_token(rest.decode("latin-1"))


def signing(data: bytes) -> None:
    """What signers and a coordinator say about one signature, and requests; an envelope that a member has signed."""
    first, rest = cut(data)
    parsers: tuple[Callable[[bytes], Any], ...] = (
        SignRequest.unpack, Committed.unpack, Package.unpack, ShareSent.unpack, unpack_declined,
    )
    for parse in parsers:
        with suppress(Refused):
            parse(rest)
    with suppress(Refused):
        found = unpack_request(rest)
        assert pack_request(found) == rest
    alice, bob = order_kit.ALICE, order_kit.BOB
    raw = sign1(rest, signer=alice.message, aad=Label.AUTHORITY_ROUND + MESH.mesh_id, kid=alice.peer.kid) if first & 1 else rest
    with suppress(Refused):
        verify_round_message(raw, own_id=NodeId(bob.node_id), mesh_id=MESH.mesh_id, peer=alice.peer)


@cache
def under_way() -> tuple[Any, ...]:
    """The second member of a key generation, of a resharing and of a repair, all members, and what is on its way to it."""
    shares = runs_kit.generated(3, 2)
    members = tuple(shares)
    wires = (
        runs_kit.key_generation(3, 2), runs_kit.resharing(shares, runs_kit.plan(shares, members, 2)),
        runs_kit.repairing(shares, runs_kit.repair_plan(shares, members[0], members)),
    )
    return tuple(
        (wire.machines[second], found, [sent for sent in wire.queue if sent[1] == second])
        for wire in wires
        for found in [tuple(wire.machines)]
        for second in found[1:2]
    )


def runs(data: bytes) -> None:
    """Any message of any kind from any member to a machine that waits for the first one: it never raises."""
    first, rest = cut(data)
    machine, members, _ = under_way()[first % 3]
    kind = KINDS[(rest[0] if rest else 0) % len(KINDS)]
    copied = fork(machine, {})
    copied.receive(members[first // 3 % len(members)], kind, rest[1:], 1.0)
    copied.tick(1e6)
