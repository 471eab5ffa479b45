"""A signature by many: what goes well, and whatever a coordinator or a signer may do wrong, each as a sentence."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core.authority.coordinator import ASKS_MAX
from overlay.core.authority.record_requests import AuthorityTest
from overlay.core.authority.requests import Request, pack_request, seal
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.signing_bodies import Package, ShareSent, SignRequest, pack_declined
from overlay.core.authority.signing_events import Declined, Equivocated, Failed, Misbehaved, Signed, Signing
from overlay.core.authority.x509_requests import IssueLeaf, RevocationList
from overlay.core.certificate_profile import LeafFacts, serial_number
from overlay.core.certificates import verify_leaf
from overlay.core.keys import Ed25519Signer, NodeId, verify_ed25519
from overlay.core.revocation_profile import ListFacts, Revocations
from overlay.core.revocations import verify_revocation_list
from overlay.core.wire import sha256
from overlay.registry import Label, Reason, RoundKind
from tests.unit.core.authority.signing_kit import GENERATION, MESH, OPERATOR, Network, asked_for, leaf, renewal
from tests.unit.core.authority_kit import DAY, NOW, seed

OTHER = b"o" * 16


def revocation_list(number: int, **changes: object) -> RevocationList:
    fields = {"this_update": NOW, "next_update": NOW + DAY, "revocations": Revocations()} | changes
    return RevocationList(ListFacts(number=number, **fields))  # type: ignore[arg-type]


# --- what goes well ---------------------------------------------------------------------------------------------------


def test_three_of_four_sign_a_certificate_that_verifies_under_the_root() -> None:
    network = Network()
    signed = network.sign(leaf())
    assert isinstance(signed, Signed)
    assert len(signed.signers) == 3
    certificate = verify_leaf(seal(signed.request, signed.message, signed.signature), (), MESH.root, NOW)
    assert certificate.name == "alice"


def test_a_group_of_one_signs_alone() -> None:
    signed = Network(1, 1).sign(leaf())
    verify_ed25519(MESH.root.public_key, signed.signature, signed.message)


def test_all_signers_sign_if_all_are_needed() -> None:
    assert isinstance(Network(3, 3).sign(leaf()), Signed)


def test_a_revocation_list_by_many_verifies() -> None:
    signed = Network().sign(revocation_list(1))
    assert verify_revocation_list(seal(signed.request, signed.message, signed.signature), [MESH.root]).number == 1


def test_a_test_signs_nothing_that_means_anything() -> None:
    signed = Network().sign(AuthorityTest(bytes(32)))
    assert signed.message == Label.AUTHORITY_TEST + MESH.mesh_id + bytes(32)
    assert seal(signed.request, signed.message, signed.signature) == signed.signature


def test_the_same_request_again_is_signed_again_and_binds_nothing_more() -> None:
    network = Network()
    first = network.sign(leaf())
    stored = dict(network.stored)
    second = network.sign(leaf(), session=OTHER)
    assert first.message == second.message
    assert network.stored == stored


def test_two_coordinators_may_use_one_session_number() -> None:
    network = Network()
    network.ask(leaf())
    network.ask(leaf("bob", use=1), who=NodeId(seed("another")))
    network.run()
    assert [type(event) for event in network.said] == [Signed, Signed]


# --- what a coordinator may do ----------------------------------------------------------------------------------------


def change(kind: RoundKind, body: bytes, *, to: Sequence[NodeId] = ()) -> object:
    """On the wire: another body for messages of that kind."""

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        wanted = message.kind is kind and (not to or message.to in to)
        return [(sender, replace(message, body=body) if wanted else message)]

    return tamper


def packages(network: Network) -> list[Outgoing]:
    return [message for _, message in network.sent if message.kind is RoundKind.PACKAGE]


def test_a_coordinator_that_changes_a_byte_of_the_message_gets_no_share() -> None:
    network = Network()

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if message.kind is not RoundKind.PACKAGE:
            return [(sender, message)]
        package = Package.unpack(message.body)
        wrong = bytes([package.message_hash[0] ^ 1]) + package.message_hash[1:]
        return [(sender, replace(message, body=replace(package, message_hash=wrong).pack()))]

    network.tamper = tamper
    assert isinstance(network.sign(leaf()), Failed)
    assert not network.events(Signing)
    assert {event.reason for event in network.events(Declined)} == {Reason.EQUIVOCATION}


def test_a_coordinator_that_changes_a_byte_of_the_request_gets_another_message_and_no_certificate() -> None:
    network = Network()
    network.tamper = change(  # type: ignore[assignment]
        RoundKind.SIGN_REQUEST, SignRequest(GENERATION, pack_request(leaf(name="mallory", key="alice"))).pack()
    )
    failed = network.sign(leaf())
    assert isinstance(failed, Failed)
    assert [failed.said[name] for name in network.names[:2]] == [Reason.EQUIVOCATION] * 2
    assert not network.events(Signing)


def test_two_packages_under_one_nonce_show_the_coordinator_and_end_the_session() -> None:
    network = Network()
    network.sign(leaf())
    first = packages(network)[0]
    package = Package.unpack(first.body)
    second = replace(first, body=replace(package, message_hash=sha256(b"another message")).pack())
    events = network.to_signer(OPERATOR, second)
    assert isinstance(events[0], Equivocated)
    assert events[0].bodies == (first.body, second.body)
    assert [message.kind for message in network.signers[first.to].messages_to_send()] == [RoundKind.DECLINED]
    again = network.to_signer(OPERATOR, first)
    assert [event.reason for event in again] == [Reason.LOST]  # type: ignore[union-attr]


def test_one_nonce_never_signs_with_two_lists_of_commitments() -> None:
    network = Network()
    network.sign(leaf())
    first = packages(network)[0]
    package = Package.unpack(first.body)
    own = network.shares[first.to].identifier
    others = [(number, one) for number, one in package.commitments if number != own]
    changed = sorted([(own, dict(package.commitments)[own]), (4, others[0][1]), others[1]])
    second = replace(first, body=replace(package, commitments=tuple(changed)).pack())
    assert isinstance(network.to_signer(OPERATOR, second)[0], Equivocated)


def test_the_same_package_again_gets_the_same_share() -> None:
    network = Network()
    network.sign(leaf())
    first = packages(network)[0]
    shares = [message for sender, message in network.sent if sender == first.to and message.kind is RoundKind.SIGNATURE_SHARE]
    assert network.to_signer(OPERATOR, first) == []
    assert network.signers[first.to].messages_to_send() == shares


def test_a_commitment_of_ours_that_was_changed_gets_no_share() -> None:
    network = Network()
    victim = network.names[0]

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if message.kind is RoundKind.PACKAGE and message.to == victim:
            package = Package.unpack(message.body)
            moved = tuple((number, package.commitments[-1][1]) for number, _ in package.commitments)
            return [(sender, replace(message, body=replace(package, commitments=moved).pack()))]
        return [(sender, message)]

    network.tamper = tamper
    network.sign(leaf())
    assert [event for name, event in network.told if name == victim and isinstance(event, Signing)] == []
    assert any(isinstance(event, Declined) and event.reason is Reason.LOST for name, event in network.told if name == victim)


def test_another_request_under_the_same_session_is_refused() -> None:
    network = Network()
    network.ask(leaf())
    network.deliver(0)
    name = network.names[0]
    body = SignRequest(GENERATION, pack_request(leaf("bob", use=1))).pack()
    events = network.to_signer(OPERATOR, Outgoing(name, b"s" * 16, RoundKind.SIGN_REQUEST, body))
    assert [event.reason for event in events] == [Reason.EQUIVOCATION]  # type: ignore[union-attr]


# --- what a signer may do ---------------------------------------------------------------------------------------------


def test_a_signature_needs_no_signer_that_is_dead() -> None:
    network = Network()
    network.dead = {network.names[1]}
    assert isinstance(network.sign(leaf()), Signed)


def test_with_one_signer_too_few_it_fails_and_says_who_was_silent() -> None:
    network = Network()
    network.dead = {network.names[1], network.names[2]}
    network.ask(leaf())
    network.run(seconds=30)
    [failed] = network.said
    assert failed.reason is Reason.NOT_ENOUGH_SIGNERS
    assert failed.said[network.names[1]] is failed.said[network.names[2]] is Reason.TIMEOUT


def silent_about(kind: RoundKind, *names: NodeId) -> object:
    return lambda sender, message: [] if sender in names and message.kind is kind else [(sender, message)]


def test_a_signer_that_commits_and_then_says_nothing_is_replaced() -> None:
    network = Network()
    network.tamper = silent_about(RoundKind.SIGNATURE_SHARE, network.names[0])  # type: ignore[assignment]
    network.ask(leaf())
    network.run(seconds=1)
    [signed] = network.said
    assert isinstance(signed, Signed)
    assert network.names[0] not in signed.signers


def test_nobody_signs_twice_while_all_answer_in_time() -> None:
    network = Network()
    network.sign(leaf())
    assert len(packages(network)) == 3


def test_a_slow_signer_may_still_complete_the_attempt_that_waits_for_it() -> None:
    network = Network(3, 3)
    slow = network.names[0]
    held: list[tuple[NodeId, Outgoing]] = []

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if sender == slow and message.kind is RoundKind.SIGNATURE_SHARE:
            held.append((sender, message))
            return []
        return [(sender, message)]

    network.tamper = tamper
    assert network.sign(leaf()) is None
    network.tamper = lambda sender, message: [(sender, message)]
    network.wire += held
    network.run()
    assert isinstance(network.said[-1], Signed)


def shares_of(network: Network, liar: NodeId, lie: object) -> object:
    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if sender == liar and message.kind is RoundKind.SIGNATURE_SHARE:
            return [(sender, replace(message, body=lie(ShareSent.unpack(message.body)).pack()))]  # type: ignore[operator]
        return [(sender, message)]

    return tamper


def test_a_bad_share_names_its_author_and_the_others_sign_without_it() -> None:
    network = Network()
    liar = network.names[1]
    network.tamper = shares_of(network, liar, lambda sent: replace(sent, share=bytes(32)))  # type: ignore[assignment]
    signed = network.sign(leaf())
    [named] = [event for event in network.said if isinstance(event, Misbehaved)]
    assert (named.node_id, named.reason) == (liar, Reason.BAD_SHARE)
    package, share = Package.unpack(named.evidence[0]), ShareSent.unpack(named.evidence[1])
    assert share.package_hash == package.hash
    assert isinstance(signed, Signed)
    assert liar not in signed.signers


def test_a_signer_that_answers_with_another_ones_share_is_named() -> None:
    network = Network()
    honest, liar = network.names[0], network.names[1]
    seen: list[bytes] = []

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if message.kind is RoundKind.SIGNATURE_SHARE and sender == honest:
            seen.append(ShareSent.unpack(message.body).share)
        if message.kind is RoundKind.SIGNATURE_SHARE and sender == liar and seen:
            stolen = replace(ShareSent.unpack(message.body), share=seen[0])
            return [(sender, replace(message, body=stolen.pack()))]
        return [(sender, message)]

    network.tamper = tamper
    assert isinstance(network.sign(leaf()), Signed)
    assert [event.node_id for event in network.said if isinstance(event, Misbehaved)] == [liar]


def test_too_many_liars_are_all_named() -> None:
    network = Network()
    liars = set(network.names[:2])

    def tamper(sender: NodeId, message: Outgoing) -> list[tuple[NodeId, Outgoing]]:
        if sender in liars and message.kind is RoundKind.SIGNATURE_SHARE:
            return [(sender, replace(message, body=replace(ShareSent.unpack(message.body), share=bytes(32)).pack()))]
        return [(sender, message)]

    network.tamper = tamper
    failed = network.sign(leaf())
    assert isinstance(failed, Failed)
    assert {one for one, reason in failed.said.items() if reason is Reason.BAD_SHARE} == liars


def test_a_signer_that_restarts_in_the_middle_is_asked_again_and_commits_anew() -> None:
    network = Network(3, 3)
    name = network.names[0]
    network.ask(leaf())
    while not any(message.kind is RoundKind.PACKAGE for _, message in network.wire):
        network.deliver(0)
    network.restart(name)
    network.run()
    assert isinstance(network.said[-1], Signed)
    assert [event.reason for _, event in network.told if isinstance(event, Declined)] == [Reason.LOST]
    assert len([one for sender, one in network.sent if sender == name and one.kind is RoundKind.COMMITMENT]) == 2


def test_what_a_signer_bound_holds_after_a_restart() -> None:
    network = Network(1, 1)
    network.sign(leaf())
    network.restart(network.names[0])
    failed = network.sign(leaf(key="mallory", use=1), session=OTHER)
    assert set(failed.said.values()) == {Reason.BOUND_OTHERWISE}


def test_a_signer_that_loses_its_nonces_for_ever_is_left_out_in_the_end() -> None:
    network = Network(3, 3)
    lost = pack_declined(Reason.LOST)
    first = network.names[0]
    network.tamper = lambda sender, message: [
        (sender, replace(message, kind=RoundKind.DECLINED, body=lost) if sender == first else message)
    ]
    assert isinstance(network.sign(leaf()), Failed)
    assert len([one for _, one in network.sent if one.to == first and one.kind is RoundKind.SIGN_REQUEST]) == ASKS_MAX


def test_a_group_of_another_generation_takes_no_part() -> None:
    network = Network()
    for name in network.names[:2]:
        network.shares[name] = replace(network.shares[name], generation=GENERATION + 1)
        network.restart(name)
    failed = network.sign(leaf())
    assert isinstance(failed, Failed)
    assert [failed.said[name] for name in network.names[:2]] == [Reason.WRONG_GENERATION] * 2


# --- never two values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("second", "reason"), [
    (leaf(key="mallory", use=1), Reason.BOUND_OTHERWISE),
    (leaf("bob"), Reason.BOUND_OTHERWISE),
    (leaf(facts=LeafFacts(roles=("operator",))), Reason.BOUND_OTHERWISE),
], ids=["name", "invite use", "serial"])
def test_what_is_bound_is_not_given_to_another(second: Request, reason: Reason) -> None:
    network = Network()
    assert isinstance(network.sign(leaf()), Signed)
    failed = network.sign(second, session=OTHER)
    assert isinstance(failed, Failed)
    assert set(failed.said.values()) <= {reason, Reason.TIMEOUT}


def test_a_serial_is_renewed_once_and_a_second_renewal_is_a_clone() -> None:
    network = Network()
    assert isinstance(network.sign(leaf()), Signed)
    node_id = NodeId.of_key(Ed25519Signer(seed("identity", "alice")).spki)
    serial = serial_number(MESH.mesh_id, node_id, NOW).to_bytes(20, "big")
    assert isinstance(network.sign(renewal(serial), session=OTHER), Signed)
    later = timedelta(seconds=1)
    clone = network.sign(renewal(serial, not_before=NOW + later, not_after=NOW + DAY), session=b"c" * 16)
    assert Reason.CLONED_IDENTITY in clone.said.values()


def test_a_list_number_is_used_for_one_list() -> None:
    network = Network()
    assert isinstance(network.sign(revocation_list(1)), Signed)
    failed = network.sign(revocation_list(1, next_update=NOW + 2 * DAY), session=OTHER)
    assert Reason.BOUND_OTHERWISE in failed.said.values()


def test_a_revocation_list_does_not_go_backwards() -> None:
    network = Network()
    assert isinstance(network.sign(revocation_list(7)), Signed)
    failed = network.sign(revocation_list(6), session=OTHER)
    assert Reason.BAD_REVOCATION_LIST in failed.said.values()


@pytest.mark.parametrize("other", [
    leaf(key="mallory"), leaf("mallory", key="alice"), leaf(facts=LeafFacts(roles=("signer",))),
    leaf(facts=LeafFacts(level=4)),
], ids=["key", "name", "role", "extension"])
def test_signers_that_were_asked_for_different_certificates_sign_none(other: IssueLeaf) -> None:
    network = Network()
    body = SignRequest(GENERATION, pack_request(other)).pack()
    network.tamper = change(RoundKind.SIGN_REQUEST, body, to=network.names[:2])  # type: ignore[assignment]
    failed = network.sign(leaf())
    assert isinstance(failed, Failed)
    assert [failed.said[name] for name in network.names[:2]] == [Reason.EQUIVOCATION] * 2
    assert not network.events(Signing)


def test_a_signer_that_has_approved_another_certificate_declines() -> None:
    network = Network()
    mine = {name: leaf() for name in network.names}
    mine[network.names[0]] = leaf(facts=LeafFacts(roles=("worker",)))
    network.approve = lambda signer, request: None if request == mine[signer] else Reason.NOT_ALLOWED
    signed = network.sign(leaf())
    assert isinstance(signed, Signed)
    assert network.names[0] not in signed.signers


def test_nothing_is_shown_before_the_bindings_are_durable() -> None:
    network = Network()
    network.ask(leaf())
    name = network.names[0]
    [(sender, message), *_] = network.wire
    signer = network.signers[name]
    [wanted] = signer.receive(sender, message.session, message.kind, message.body, network.now, NOW)
    assert asked_for(message) == wanted.request  # type: ignore[union-attr]
    assert signer.messages_to_send() == []
    [make] = signer.approve(wanted.session, network.now)
    assert signer.messages_to_send() == []
    assert make.bindings.holder("alice") is not None  # type: ignore[union-attr]
    assert signer.durable(wanted.session, network.now) == []
    assert [one.kind for one in signer.messages_to_send()] == [RoundKind.COMMITMENT]
