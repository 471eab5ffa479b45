"""Whatever happens on the wire, and whoever lies: a signature is valid or there is none, and never two for one binding."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.authority.requests import Request
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.signing_bodies import ShareSent
from overlay.core.authority.signing_events import Failed, Misbehaved, Signed
from overlay.core.authority.x509_requests import RevocationList
from overlay.core.keys import NodeId, verify_ed25519
from overlay.core.revocation_profile import ListFacts, Revocations
from overlay.registry import RoundKind
from tests.unit.core.authority.signing_kit import MESH, Network, leaf, names
from tests.unit.core.authority_kit import DAY, NOW, seed

FIRST, SECOND = NodeId(seed("first")), NodeId(seed("second"))
GROUPS = [(1, 1), (2, 3), (3, 4), (4, 5), (5, 7)]


def revocations(number: int, days: int) -> RevocationList:
    """Lists of one number differ in their ends."""
    facts = ListFacts(number=number, this_update=NOW, next_update=NOW + days * DAY, revocations=Revocations())
    return RevocationList(facts)


RIVALS: list[tuple[Request, Request]] = [
    (leaf(), leaf(key="mallory", use=1)),
    (leaf(), leaf("bob")),
    (leaf(), leaf(not_after=NOW + 2 * DAY)),
    (revocations(1, 1), revocations(1, 2)),
]


def shuffled(network: Network, random: Random, *, loss: float, steps: int) -> None:
    """Deliver in any order, lose and repeat some, restart signers, and let time pass."""
    for _ in range(steps):
        if not network.wire or random.random() < 0.02:
            network.advance(random.choice([0.1, 0.3, 2.5]))
        if random.random() < 0.01:
            network.restart(random.choice(network.names))
        if not network.wire:
            continue
        place = random.randrange(len(network.wire))
        if random.random() < loss:
            network.wire.pop(place)
            continue
        if random.random() < loss:
            network.wire.append(network.wire[place])
        network.deliver(place)
    network.run(seconds=60)


def check(network: Network) -> list[Signed]:
    """All signatures are good."""
    signed = [event for event in network.said if isinstance(event, Signed)]
    for one in signed:
        verify_ed25519(MESH.root.public_key, one.signature, one.message)
    return signed


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(GROUPS), st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]))
def test_any_order_loss_and_repetition_gives_a_signature_or_fails(group: tuple[int, int], seed_: int, loss: float) -> None:
    network = Network(*group)
    network.ask(leaf())
    shuffled(network, Random(seed_), loss=loss, steps=200)
    ends = [event for event in network.said if isinstance(event, Signed | Failed)]
    assert len(ends) == 1
    assert not [event for event in network.said if isinstance(event, Misbehaved)]
    assert len(check(network)) == 1 or loss


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(2, 3, 0), (3, 4, 1), (4, 5, 2), (5, 7, 2), (3, 5, 0)]), st.sampled_from(RIVALS), st.integers(0, 2**32),
    st.sampled_from([0.0, 0.2]),
)
def test_of_two_messages_for_one_binding_one_at_most_is_ever_signed(
    group: tuple[int, int, int], rivals: tuple[Request, Request], seed_: int, loss: float
) -> None:
    threshold, count, liars = group
    assert liars <= 2 * threshold - count - 1
    random = Random(seed_)
    network = Network(threshold, count, liars=set(random.sample(names(count), liars)))
    network.ask(rivals[0], who=FIRST)
    network.ask(rivals[1], who=SECOND)
    random.shuffle(network.wire)
    shuffled(network, random, loss=loss, steps=300)
    for number, request in enumerate([*rivals, *rivals]):  # who failed tries once more
        network.ask(request, who=FIRST, session=bytes([number]) * 16)
    shuffled(network, random, loss=0.0, steps=300)
    assert len({one.message for one in check(network)}) <= 1


def test_one_liar_too_many_and_both_are_signed() -> None:
    """The control of the test above: it can see what it looks for."""
    network = Network(3, 4, liars=set(names(4)[:2]))
    first, second = RIVALS[0]
    honest = network.names[2:]
    network.dead = {honest[1]}
    network.sign(first)
    network.dead = {honest[0]}
    network.sign(second, session=b"o" * 16)
    assert len({one.message for one in check(network)}) == 2


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(2, 3), (3, 4), (4, 5), (3, 5)]), st.integers(0, 2**32), st.sampled_from(["silent", "share", "commitment"])
)
def test_with_n_less_t_liars_there_is_a_signature_all_the_same(group: tuple[int, int], seed_: int, lie: str) -> None:
    threshold, count = group
    random = Random(seed_)
    liars = set(random.sample(names(count), count - threshold))
    network = Network(threshold, count)

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if sender not in liars or message.kind is not RoundKind.SIGNATURE_SHARE:
            return [(sender, message)]
        sent = ShareSent.unpack(message.body)
        lies = {"silent": None, "share": replace(sent, share=bytes(32)), "commitment": replace(sent, following=bytes(64))}
        told = lies[lie]
        return [] if told is None else [(sender, replace(message, body=told.pack()))]

    network.tamper = tamper
    network.ask(leaf())
    shuffled(network, random, loss=0.0, steps=200)
    assert len(check(network)) == 1
    assert {event.node_id for event in network.said if isinstance(event, Misbehaved)} <= liars


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_bytes_make_a_machine_raise(data: st.DataObject) -> None:
    network = Network(2, 3)
    network.ask(leaf())
    for _ in range(data.draw(st.integers(0, 8))):
        if network.wire:
            network.deliver(0)
    kind, body = data.draw(st.sampled_from(RoundKind)), data.draw(st.binary(max_size=200))
    if data.draw(st.booleans()) and network.sent:
        body = bytearray(data.draw(st.sampled_from(network.sent))[1].body)  # type: ignore[assignment]
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))  # type: ignore[index]
    for name in network.names:
        network.to_signer(FIRST, Outgoing(name, b"s" * 16, kind, bytes(body)))
        for coordinator in network.coordinators.values():
            coordinator.receive(name, kind, bytes(body), network.now)
