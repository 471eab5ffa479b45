"""Who puts shares together: attempts, patience, repetition, and what it believes of signers."""

import math
from dataclasses import replace

import pytest

from overlay.core.authority import coordinator as machine
from overlay.core.authority.record_requests import AuthorityTest
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.signing_bodies import Committed, ShareSent, pack_declined
from overlay.core.authority.signing_events import Failed, Misbehaved, OutOfStep, Signed
from overlay.core.certificate_profile import Issuer
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind
from tests.unit.core.authority.signing_kit import GENERATION, ISSUER, OPERATOR, SESSION, Network, leaf
from tests.unit.core.authority_kit import seed

TEST = AuthorityTest(bytes(32))


def kinds(messages: list[Outgoing]) -> list[RoundKind]:
    return [message.kind for message in messages]


def until(network: Network, kind: RoundKind) -> None:
    """Deliver in order until a message of that kind is next."""
    while network.wire[0][1].kind is not kind:
        network.deliver(0)


@pytest.mark.parametrize("mistake", ["members", "session", "issuer"])
def test_what_does_not_fit_together_is_our_own_mistake(mistake: str) -> None:
    network = Network()
    issuer = Issuer(ISSUER.mesh_id, ISSUER.name, Ed25519Signer(seed("x")).spki) if mistake == "issuer" else ISSUER
    members = network.names[1:] if mistake == "members" else network.names
    session = b"short" if mistake == "session" else SESSION
    with pytest.raises(ValueError, match="fit together"):
        machine.Coordinator(TEST, issuer, network.group, members, generation=1, session=session, now=0.0)


def test_a_request_that_gives_no_message_is_not_asked_for() -> None:
    with pytest.raises(Refused, match="bad certificate"):
        Network().ask(leaf(csr=b"nothing"))


def test_all_are_asked_and_the_first_t_are_an_attempt() -> None:
    network = Network()
    network.ask(TEST)
    assert [message.to for _, message in network.wire] == list(network.names)
    until(network, RoundKind.PACKAGE)
    assert [message.to for _, message in network.wire if message.kind is RoundKind.PACKAGE] == list(network.names[:3])


def test_who_is_silent_is_asked_again_and_the_share_that_was_lost_comes_again() -> None:
    network = Network(3, 3)
    lost = {RoundKind.SIGN_REQUEST, RoundKind.COMMITMENT, RoundKind.PACKAGE, RoundKind.SIGNATURE_SHARE}

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if network.names[0] in (sender, message.to) and message.kind in lost:
            lost.remove(message.kind)
            return []
        return [(sender, message)]

    network.tamper = tamper
    network.ask(TEST)
    network.run(seconds=15)
    assert not lost
    assert isinstance(network.said[-1], Signed)


def test_a_signer_is_asked_so_often_and_then_no_more() -> None:
    network = Network()
    network.dead = set(network.names)
    found = network.ask(TEST)
    asked = len(network.wire)
    network.wire.clear()
    while not network.said:
        network.advance(found.deadline - network.now)
        asked += len(network.wire)
        network.wire.clear()
    assert asked == len(network.names) * machine.ASKS_MAX
    assert network.said == [Failed(Reason.NOT_ENOUGH_SIGNERS, dict.fromkeys(network.names, Reason.TIMEOUT))]
    assert found.deadline == math.inf
    assert found.tick(network.now + 99) == []


def test_after_the_end_nothing_is_heard() -> None:
    network = Network()
    network.sign(TEST)
    found = network.coordinators[OPERATOR, SESSION]
    body = pack_declined(Reason.NOT_ALLOWED)
    assert found.receive(network.names[0], RoundKind.DECLINED, body, network.now) == []
    assert found.lost(network.names[0], network.now) == []
    assert found.deadline == math.inf


def test_a_stranger_is_not_heard() -> None:
    network = Network()
    found = network.ask(TEST)
    assert found.receive(OPERATOR, RoundKind.COMMITMENT, b"", network.now) == []
    assert found.lost(OPERATOR, network.now) == []


@pytest.mark.parametrize(("kind", "body", "reason"), [
    (RoundKind.COMMITMENT, b"", Reason.MALFORMED), (RoundKind.SIGNATURE_SHARE, b"", Reason.MALFORMED),
    (RoundKind.DECLINED, b"", Reason.MALFORMED), (RoundKind.SIGN_REQUEST, b"", Reason.UNEXPECTED_FRAME),
])  # fmt: skip
def test_what_no_signer_says_is_misbehaviour(kind: RoundKind, body: bytes, reason: Reason) -> None:
    network = Network()
    found, liar = network.ask(TEST), network.names[0]
    assert found.receive(liar, kind, body, network.now) == [Misbehaved(liar, reason, (body,))]
    assert found.receive(liar, kind, body, network.now) == []
    network.dead = {liar}
    network.run()
    assert isinstance(network.said[-1], Signed)


def test_a_commitment_that_is_no_point_is_misbehaviour() -> None:
    network = Network()
    found, liar = network.ask(TEST), network.names[0]
    body = Committed(GENERATION, sha256(found.message), bytes(64)).pack()
    [event] = found.receive(liar, RoundKind.COMMITMENT, body, network.now)
    assert event == Misbehaved(liar, Reason.BAD_SHARE, (body,))


def test_a_commitment_of_another_generation_is_left_out() -> None:
    network = Network()
    found, other = network.ask(TEST), network.names[0]
    body = Committed(GENERATION + 1, sha256(found.message), bytes(64)).pack()
    assert found.receive(other, RoundKind.COMMITMENT, body, network.now) == []
    network.dead = {other, network.names[1]}
    network.run(seconds=30)
    out_of_step, failed = network.said
    assert failed.said[other] is Reason.WRONG_GENERATION
    assert out_of_step == OutOfStep(other, ours=False)


def test_a_signer_of_another_generation_is_named_though_the_others_sign() -> None:
    network = Network()
    found, other = network.ask(TEST), network.names[0]
    assert found.receive(other, RoundKind.DECLINED, pack_declined(Reason.WRONG_GENERATION), network.now) == []
    network.dead = {other}
    network.run(seconds=30)
    out_of_step, signed = network.said
    assert out_of_step == OutOfStep(other, ours=False)
    assert isinstance(signed, Signed)


def test_when_too_many_are_of_another_generation_it_is_ours_that_is_old() -> None:
    network = Network()
    found, others = network.ask(TEST), network.names[:2]
    said = [found.receive(one, RoundKind.DECLINED, pack_declined(Reason.WRONG_GENERATION), network.now) for one in others]
    assert said[0] == []
    assert said[1][:2] == [OutOfStep(one, ours=True) for one in others]
    assert isinstance(said[1][2], Failed)


def test_a_share_that_comes_after_its_author_was_asked_anew_still_counts() -> None:
    network = Network(3, 3)
    network.ask(TEST)
    until(network, RoundKind.SIGNATURE_SHARE)
    found, first = network.coordinators[OPERATOR, SESSION], network.names[0]
    assert found.receive(first, RoundKind.DECLINED, pack_declined(Reason.LOST), network.now) == []
    network.run()
    signed = network.said[-1]
    assert isinstance(signed, Signed)
    assert len([one for _, one in network.sent if one.kind is RoundKind.PACKAGE]) == 3


def test_when_too_few_have_a_link_it_fails_at_once() -> None:
    network = Network()
    found = network.ask(TEST)
    assert found.lost(network.names[0], network.now) == []
    [failed] = found.lost(network.names[1], network.now)
    assert isinstance(failed, Failed)
    assert failed.said[network.names[0]] is Reason.LOST


def test_a_signer_that_declines_is_left_out_and_one_that_is_busy_is_asked_later() -> None:
    network = Network(3, 3)
    network.approve = lambda signer, request: Reason.TOO_MANY if signer == network.names[0] else None
    network.ask(TEST)
    network.run()
    assert network.said == []
    network.approve = lambda signer, request: None
    network.run(seconds=3)
    assert isinstance(network.said[-1], Signed)


def test_a_signer_that_declines_for_good_is_left_out_at_once() -> None:
    network = Network(3, 3)
    network.approve = lambda signer, request: Reason.NOT_ALLOWED if signer == network.names[0] else None
    failed = network.sign(TEST)
    assert isinstance(failed, Failed)
    assert failed.said[network.names[0]] is Reason.NOT_ALLOWED


def test_a_share_of_somebody_who_is_not_in_the_attempt_is_not_heard() -> None:
    network = Network()
    network.ask(TEST)
    until(network, RoundKind.SIGNATURE_SHARE)
    sender, message = network.wire[0]
    found, outsider = network.coordinators[OPERATOR, SESSION], network.names[3]
    assert found.receive(outsider, message.kind, message.body, network.now) == []
    unknown = replace(ShareSent.unpack(message.body), package_hash=bytes(32)).pack()
    assert found.receive(sender, message.kind, unknown, network.now) == []
    network.run()
    assert isinstance(network.said[-1], Signed)


def test_a_share_without_another_commitment_counts_all_the_same() -> None:
    network = Network(3, 3)

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if message.kind is not RoundKind.SIGNATURE_SHARE:
            return [(sender, message)]
        return [(sender, replace(message, body=replace(ShareSent.unpack(message.body), following=None).pack()))]

    network.tamper = tamper
    assert isinstance(network.sign(TEST), Signed)


def test_a_good_share_with_a_bad_commitment_behind_it_counts_and_its_author_is_named() -> None:
    network = Network(2, 3)
    liar = network.names[0]

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if sender != liar or message.kind is not RoundKind.SIGNATURE_SHARE:
            return [(sender, message)]
        return [(sender, replace(message, body=replace(ShareSent.unpack(message.body), following=bytes(64)).pack()))]

    network.tamper = tamper
    signed = network.sign(TEST)
    assert [event.node_id for event in network.said if isinstance(event, Misbehaved)] == [liar]
    assert liar in signed.signers


def test_a_repeated_message_changes_nothing() -> None:
    network = Network(3, 3)
    network.tamper = lambda sender, message: [(sender, message)] * 2
    signed = network.sign(TEST)
    assert isinstance(signed, Signed)
    assert [event for event in network.said if isinstance(event, Misbehaved)] == []


def test_the_slow_one_is_waited_for_so_long_and_then_another_signs() -> None:
    network = Network()
    slow = network.names[0]
    network.tamper = lambda sender, message: (
        [] if sender == slow and message.kind is RoundKind.SIGNATURE_SHARE else [(sender, message)]
    )
    found = network.ask(TEST)
    network.run()
    assert found.deadline == network.now + machine.PATIENCE
    network.advance(machine.PATIENCE)
    assert kinds([message for _, message in network.wire]) == [RoundKind.PACKAGE] * 3
    network.run()
    assert isinstance(network.said[-1], Signed)


def test_a_tick_at_the_deadline_moves_the_deadline_on() -> None:
    """Else whoever waits for it never sleeps."""
    network = Network(3, 8)
    slow = set(network.names[:2])
    kept = {RoundKind.SIGNATURE_SHARE}
    network.tamper = lambda sender, message: [] if sender in slow and message.kind in kept else [(sender, message)]
    found = network.ask(TEST)
    for _ in range(200):
        while network.wire:
            network.deliver(0)
        due = found.deadline
        if due == math.inf:
            break
        network.advance(max(due - network.now, 0.0))
        assert found.deadline > network.now, "it is due again at once"
    assert isinstance(network.said[-1], Signed | Failed)
