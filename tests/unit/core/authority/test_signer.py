"""One signer by itself: its limits, its times, and each check before a share leaves."""

import math
from dataclasses import replace
from typing import Any

import pytest

from overlay.core.authority import frost
from overlay.core.authority import signer as machine
from overlay.core.authority.bindings import Bindings
from overlay.core.authority.record_requests import AuthorityTest
from overlay.core.authority.requests import Request, pack_request
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.signer import Signer
from overlay.core.authority.signing_bodies import (
    Committed,
    Package,
    ShareSent,
    SignRequest,
    pack_commitment,
    read_commitment,
    unpack_declined,
)
from overlay.core.authority.signing_events import ApprovalWanted, Declined, MakeDurable, SessionKey, SignerEvent, Signing
from overlay.core.certificate_profile import Issuer
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind
from tests.unit.core.authority.signing_kit import GENERATION, ISSUER, OPERATOR, SESSION, leaf, shares
from tests.unit.core.authority_kit import DAY, NOW, seed
from tests.unit.core.session_kit import SeededChance

SHARES = shares(2, 3)
KEY = SessionKey(OPERATOR, SESSION)


class Bench:
    """Signer 1 of a group of 2 of 3, and somebody who coordinates by hand."""

    def __init__(self) -> None:
        self.signer = Signer(SHARES[0], ISSUER, Bindings(), SeededChance(1))
        self.now = 10.0

    def give(self, kind: RoundKind, body: bytes, *, key: SessionKey = KEY) -> list[SignerEvent]:
        return self.signer.receive(key.coordinator, key.session, kind, body, self.now, NOW)

    def ask(self, request: Request, *, key: SessionKey = KEY, generation: int = GENERATION) -> list[SignerEvent]:
        return self.give(RoundKind.SIGN_REQUEST, SignRequest(generation, pack_request(request)).pack(), key=key)

    def commit(self, request: Request, *, key: SessionKey = KEY) -> Committed:
        """All the way to a commitment."""
        self.ask(request, key=key)
        self.signer.approve(key, self.now)
        self.signer.durable(key, self.now)
        return Committed.unpack(self.sent(RoundKind.COMMITMENT).body)

    def sent(self, kind: RoundKind) -> Outgoing:
        [message] = self.signer.messages_to_send()
        assert message.kind is kind
        return message

    def declined(self) -> Reason:
        return unpack_declined(self.sent(RoundKind.DECLINED).body)

    def package(self, committed: Committed, **changes: Any) -> Package:
        """One with signer 2."""
        _, other = frost.commit(SHARES[1], SeededChance(len(changes) + committed.commitment[0]))
        rows = ((1, committed.commitment), (2, pack_commitment(other)))
        return replace(Package(GENERATION, committed.message_hash, rows), **changes)

    def sign(self, package: Package) -> list[SignerEvent]:
        return self.give(RoundKind.PACKAGE, package.pack())


TEST = AuthorityTest(bytes(32))


def reasons(events: list[SignerEvent]) -> list[Reason]:
    return [event.reason for event in events if isinstance(event, Declined)]


def test_a_share_of_another_root_is_our_own_mistake() -> None:
    other = Issuer(ISSUER.mesh_id, ISSUER.name, Ed25519Signer(seed("other")).spki)
    with pytest.raises(ValueError, match="another root"):
        Signer(SHARES[0], other, Bindings(), SeededChance(1))


def test_a_share_leaves_for_a_good_package_with_a_commitment_for_the_next() -> None:
    bench = Bench()
    package = bench.package(bench.commit(TEST))
    assert [type(event) for event in bench.sign(package)] == [Signing]
    sent = ShareSent.unpack(bench.sent(RoundKind.SIGNATURE_SHARE).body)
    assert sent.package_hash == package.hash
    assert sent.following not in (None, package.commitments[0][1])


@pytest.mark.parametrize(("changes", "reason"), [
    ({"generation": GENERATION + 1}, Reason.WRONG_GENERATION),
    ({"message_hash": sha256(b"x")}, Reason.EQUIVOCATION),
], ids=["generation", "message"])  # fmt: skip
def test_a_package_that_is_not_ours_gets_no_share(changes: dict[str, Any], reason: Reason) -> None:
    bench = Bench()
    package = bench.package(bench.commit(TEST))
    assert reasons(bench.sign(replace(package, **changes))) == [reason]
    assert bench.declined() is reason
    assert [type(event) for event in bench.sign(package)] == [Signing]  # nothing was used up


def test_our_commitment_stands_in_the_list_as_we_have_shown_it() -> None:
    bench = Bench()
    package = bench.package(bench.commit(TEST))
    (_, own), (_, other) = package.commitments
    for rows in (((1, other), (2, own)), ((2, other), (3, own))):
        assert reasons(bench.sign(replace(package, commitments=rows))) == [Reason.LOST]


def test_more_or_fewer_than_t_do_not_sign_together() -> None:
    bench = Bench()
    package = bench.package(bench.commit(TEST))
    (_, own), (_, other) = package.commitments
    for rows in (((1, own),), ((1, own), (2, other), (3, other))):
        assert reasons(bench.sign(replace(package, commitments=rows))) == [Reason.MALFORMED]


def test_a_commitment_that_is_no_point_costs_no_nonce() -> None:
    bench = Bench()
    package = bench.package(bench.commit(TEST))
    rows = (package.commitments[0], (2, bytes(64)))
    assert reasons(bench.sign(replace(package, commitments=rows))) == [Reason.BAD_SHARE]
    assert [type(event) for event in bench.sign(package)] == [Signing]


def test_a_package_with_a_member_that_does_not_exist_ends_the_session() -> None:
    bench = Bench()
    package = bench.package(bench.commit(TEST))
    rows = (package.commitments[0], (9, package.commitments[1][1]))
    assert reasons(bench.sign(replace(package, commitments=rows))) == [Reason.BAD_SHARE]
    assert reasons(bench.sign(package)) == [Reason.LOST]


def test_the_next_attempt_uses_the_next_commitment() -> None:
    bench = Bench()
    first = bench.commit(TEST)
    bench.sign(bench.package(first))
    following = ShareSent.unpack(bench.sent(RoundKind.SIGNATURE_SHARE).body).following
    assert following is not None
    bench.sign(bench.package(replace(first, commitment=following)))
    assert ShareSent.unpack(bench.sent(RoundKind.SIGNATURE_SHARE).body).share


def test_a_session_gives_so_many_shares_and_no_more() -> None:
    bench = Bench()
    committed = bench.commit(TEST)
    for number in range(machine.ATTEMPTS_MAX):
        bench.sign(bench.package(committed))
        following = ShareSent.unpack(bench.sent(RoundKind.SIGNATURE_SHARE).body).following
        assert (following is None) is (number == machine.ATTEMPTS_MAX - 1)
        committed = replace(committed, commitment=following or committed.commitment)
    assert reasons(bench.ask(TEST)) == [Reason.TOO_MANY]


def test_no_nonce_lies_in_a_session_once_its_share_has_left() -> None:
    bench = Bench()
    committed = bench.commit(TEST)
    [session] = bench.signer._sessions.values()
    nonces = session.nonces
    assert nonces is not None
    bench.sign(bench.package(committed))
    with pytest.raises(ValueError, match="used up"):
        nonces.take()


def test_nothing_secret_shows() -> None:
    bench = Bench()
    bench.commit(TEST)
    assert "nonces=" not in repr(bench.signer._sessions)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_that_comes_twice_gets_the_same_commitment() -> None:
    bench = Bench()
    committed = bench.commit(TEST)
    assert bench.ask(TEST) == []
    assert Committed.unpack(bench.sent(RoundKind.COMMITMENT).body) == committed


def test_a_request_that_comes_twice_is_approved_once() -> None:
    bench = Bench()
    assert [type(event) for event in bench.ask(TEST)] == [ApprovalWanted]
    assert bench.ask(TEST) == []
    assert len(bench.signer.approve(KEY, bench.now)) == 1
    assert bench.signer.approve(KEY, bench.now) == []
    assert bench.ask(TEST) == []
    assert bench.signer.messages_to_send() == []


@pytest.mark.parametrize(("kind", "body", "reason"), [
    (RoundKind.SIGN_REQUEST, b"", Reason.MALFORMED), (RoundKind.PACKAGE, b"", Reason.LOST),
    (RoundKind.COMMITMENT, b"", Reason.UNEXPECTED_FRAME), (RoundKind.KEY_ECHO, b"", Reason.UNEXPECTED_FRAME),
])  # fmt: skip
def test_what_no_coordinator_says_is_declined(kind: RoundKind, body: bytes, reason: Reason) -> None:
    bench = Bench()
    assert reasons(bench.give(kind, body)) == [reason]
    assert bench.declined() is reason


def test_a_request_of_another_generation_is_declined() -> None:
    assert reasons(Bench().ask(TEST, generation=GENERATION - 1)) == [Reason.WRONG_GENERATION]


def test_a_certificate_of_yesterday_is_declined() -> None:
    request = leaf(not_before=NOW - 3 * DAY, not_after=NOW - DAY)
    assert reasons(Bench().ask(request)) == [Reason.CERTIFICATE_EXPIRED]


def test_the_shell_is_not_asked_about_what_is_bound_otherwise() -> None:
    bench = Bench()
    bench.commit(leaf())
    assert reasons(bench.ask(leaf("bob"), key=SessionKey(OPERATOR, b"o" * 16))) == [Reason.BOUND_OTHERWISE]


def test_of_two_requests_for_one_name_under_way_the_one_that_is_approved_first_is_bound() -> None:
    bench, other = Bench(), SessionKey(OPERATOR, b"o" * 16)
    bench.ask(leaf())
    bench.ask(leaf(key="mallory", use=1), key=other)
    assert isinstance(bench.signer.approve(other, bench.now)[0], MakeDurable)
    assert reasons(bench.signer.approve(KEY, bench.now)) == [Reason.BOUND_OTHERWISE]


def test_bindings_under_way_are_in_what_the_next_one_makes_durable() -> None:
    bench, other = Bench(), SessionKey(OPERATOR, b"o" * 16)
    bench.ask(leaf())
    bench.ask(leaf("bob", use=1), key=other)
    bench.signer.approve(KEY, bench.now)
    [make] = bench.signer.approve(other, bench.now)
    assert isinstance(make, MakeDurable)
    assert make.bindings.holder("alice") is not None
    assert len(make.added) == 3


def test_what_the_shell_does_not_approve_is_declined() -> None:
    bench = Bench()
    bench.ask(TEST)
    assert reasons(bench.signer.decline(KEY, Reason.NOT_ALLOWED)) == [Reason.NOT_ALLOWED]
    assert bench.declined() is Reason.NOT_ALLOWED
    assert bench.signer.approve(KEY, bench.now) == []
    assert bench.signer.decline(KEY, Reason.NOT_ALLOWED) == []


def test_durable_without_approval_commits_nothing() -> None:
    bench = Bench()
    bench.ask(TEST)
    assert bench.signer.durable(KEY, bench.now) == []
    assert bench.signer.messages_to_send() == []


# --- limits -----------------------------------------------------------------------------------------------------------


def key(number: int, coordinator: NodeId = OPERATOR) -> SessionKey:
    return SessionKey(coordinator, number.to_bytes(16, "big"))


def test_a_coordinator_with_too_many_sessions_loses_its_oldest_one() -> None:
    bench, other = Bench(), SessionKey(NodeId(seed("other")), SESSION)
    bench.ask(TEST, key=other)
    for number in range(machine.SESSIONS_PER_COORDINATOR):
        bench.ask(TEST, key=key(number))
    assert reasons(bench.ask(TEST, key=key(99))) == [Reason.SUPERSEDED]
    assert bench.signer.approve(key(0), bench.now) == []
    assert len(bench.signer.approve(other, bench.now)) == 1


def test_all_coordinators_together_have_so_many_sessions() -> None:
    bench = Bench()
    for number in range(machine.SESSIONS_MAX):
        assert isinstance(bench.ask(TEST, key=key(0, NodeId(seed(str(number)))))[0], ApprovalWanted)
    assert reasons(bench.ask(TEST)) == [Reason.TOO_MANY]


def certificate(bench: Bench, number: int) -> list[SignerEvent]:
    bench.ask(leaf(f"node-{number}", use=number), key=key(number % 4))
    events = bench.signer.approve(key(number % 4), bench.now)
    bench.signer.decline(key(number % 4), Reason.NOT_ALLOWED)
    return events


def test_certificates_have_a_rate() -> None:
    bench = Bench()
    for number in range(int(machine.LEAF_BURST)):
        assert isinstance(certificate(bench, number)[0], MakeDurable)
    assert reasons(certificate(bench, 900)) == [Reason.TOO_MANY]
    assert isinstance(certificate(bench, 3)[0], MakeDurable)  # a retry costs nothing
    bench.now += 1 / machine.LEAF_RATE
    assert isinstance(certificate(bench, 900)[0], MakeDurable)
    assert reasons(certificate(bench, 901)) == [Reason.TOO_MANY]


def test_what_was_not_bound_for_its_rate_may_be_bound_later_to_somebody_else() -> None:
    bench = Bench()
    bench.signer._leaves, bench.signer._counted = 0.0, bench.now
    certificate(bench, 1)
    assert bench.signer.bindings == Bindings()


# --- time -------------------------------------------------------------------------------------------------------------


def test_nonces_expire() -> None:
    bench = Bench()
    assert bench.signer.deadline == math.inf
    package = bench.package(bench.commit(TEST))
    assert bench.signer.deadline == bench.now + machine.NONCE_LIFE
    assert bench.signer.tick(bench.signer.deadline - 0.1) == []
    assert reasons(bench.signer.tick(bench.signer.deadline)) == [Reason.TIMEOUT]
    assert reasons(bench.sign(package)) == [Reason.LOST]


def test_nonces_expire_also_if_nobody_ticks() -> None:
    bench = Bench()
    package = bench.package(bench.commit(TEST))
    bench.now += machine.NONCE_LIFE
    assert reasons(bench.sign(package)) == [Reason.TIMEOUT, Reason.LOST]


def test_a_shell_that_never_answers_is_waited_for_so_long() -> None:
    bench = Bench()
    bench.ask(TEST)
    assert reasons(bench.signer.tick(bench.now + machine.ANSWER_WITHIN)) == [Reason.TIMEOUT]
    assert bench.signer.approve(KEY, bench.now) == []


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [((2, bytes(64)), (1, bytes(64))), ((1, bytes(64)), (1, bytes(64))), ((0, bytes(64)),)])
def test_the_identifiers_of_a_package_rise_from_one(rows: tuple[tuple[int, bytes], ...]) -> None:
    with pytest.raises(Refused, match="rise"):
        Package.unpack(Package(1, bytes(32), rows).pack())


def test_an_unknown_reason_is_malformed() -> None:
    with pytest.raises(Refused, match="reason 255"):
        unpack_declined(b"\xa2\x00\x01\x01\x18\xff")


def test_a_commitment_to_nothing_is_refused() -> None:
    identity = b"\x01" + bytes(31)
    _, good = frost.commit(SHARES[1], SeededChance(3))
    with pytest.raises(Refused, match="bad share"):
        read_commitment(2, pack_commitment(good)[:32] + identity)
    assert read_commitment(2, pack_commitment(good)) == good


def test_a_few_coordinators_do_not_keep_all_others_out() -> None:
    bench, few = Bench(), [NodeId(seed("few", str(number))) for number in range(machine.SESSIONS_MAX // 8)]
    for number in range(machine.SESSIONS_MAX):
        bench.ask(AuthorityTest(bytes(32)), key=key(number, few[number % len(few)]))
    events = bench.ask(AuthorityTest(bytes(32)), key=key(1000))
    [declined] = [event for event in events if isinstance(event, Declined)]
    assert declined.reason is Reason.SUPERSEDED and declined.session.coordinator in few
    assert any(isinstance(event, ApprovalWanted) and event.session == key(1000) for event in events)
