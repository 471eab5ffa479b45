"""What a signer has bound for a renewal is given up while no share of it has left, and never afterwards."""

from collections.abc import Iterable
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.authority import frost
from overlay.core.authority.bindings import Bindings, Bound
from overlay.core.authority.requests import pack_request
from overlay.core.authority.signer import NONCE_LIFE, Signer
from overlay.core.authority.signing_bodies import Committed, Package, ShareSent, SignRequest, pack_commitment
from overlay.core.authority.signing_events import Declined, GivenUp, MakeDurable, SessionKey, Signed, SignerEvent, Signing
from overlay.core.authority.x509_requests import IssueLeaf
from overlay.core.certificates import VerifiedCertificate
from overlay.core.join_frames import Renewal
from overlay.core.keys import NodeId
from overlay.core.renewal_book import RenewalBook
from overlay.core.revocation_profile import serial_bytes
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind
from tests.unit.core.authority.signing_kit import GENERATION, ISSUER, MESH, OPERATOR, SESSION, Network, leaf, renewal, shares
from tests.unit.core.authority_kit import DAY, HOUR, NOW, make_member
from tests.unit.core.session_kit import SeededChance

SHARES = shares(2, 3)
SERIAL = b"\x41" + bytes(19)
ONE, OTHER = renewal(SERIAL), renewal(SERIAL, not_before=NOW - HOUR, not_after=NOW - HOUR + DAY)
KEY, SECOND = SessionKey(OPERATOR, SESSION), SessionKey(OPERATOR, b"t" * 16)


class Bench:
    """Signer 1 of 2 of 3, whose shell agrees to everything and writes down what it is told."""

    def __init__(self, stored: Bindings = Bindings()) -> None:  # noqa: B008 - immutable
        self.stored = stored
        self.signer = Signer(SHARES[0], ISSUER, stored, SeededChance(1))
        self.now = 10.0
        self.signed: set[bytes] = set()
        self.out: dict[SessionKey, Committed] = {}

    def take(self, events: Iterable[SignerEvent]) -> list[SignerEvent]:
        found = list(events)
        for event in found:
            if isinstance(event, GivenUp):
                self.stored = self.stored.less(event.rows)
            elif isinstance(event, MakeDurable):
                self.stored = self.stored.adding(event.added)
            elif isinstance(event, Signing):
                self.signed.add(event.message)
        for message in self.signer.messages_to_send():
            key = SessionKey(message.to, message.session)
            if message.kind is RoundKind.COMMITMENT:
                self.out[key] = Committed.unpack(message.body)
            elif message.kind is RoundKind.SIGNATURE_SHARE:
                following = ShareSent.unpack(message.body).following or bytes(64)
                self.out[key] = Committed(GENERATION, self.out[key].message_hash, following)
        return found

    def commits(self, request: IssueLeaf, key: SessionKey = KEY) -> list[SignerEvent]:
        body = SignRequest(GENERATION, pack_request(request)).pack()
        events = self.take(self.signer.receive(key.coordinator, key.session, RoundKind.SIGN_REQUEST, body, self.now, NOW))
        events += self.take(self.signer.approve(key, self.now))
        return events + self.take(self.signer.durable(key, self.now))

    def signs(self, key: SessionKey = KEY, *, with_: bytes | None = None) -> list[SignerEvent]:
        out = self.out[key]
        other = with_ or pack_commitment(frost.commit(SHARES[1], SeededChance(out.commitment[0]))[1])
        package = Package(GENERATION, out.message_hash, ((1, out.commitment), (2, other)))
        return self.take(self.signer.receive(
            key.coordinator, key.session, RoundKind.PACKAGE, package.pack(), self.now, NOW
        ))  # fmt: skip

    def waits(self, seconds: float = NONCE_LIFE) -> list[SignerEvent]:
        self.now += seconds
        return self.take(self.signer.tick(self.now))


def reasons(events: list[SignerEvent]) -> list[Reason]:
    return [event.reason for event in events if isinstance(event, Declined)]


def test_a_renewal_that_too_few_have_agreed_to_is_given_up() -> None:
    bench = Bench()
    bench.commits(ONE)
    assert bench.stored.is_renewed(SERIAL, [ISSUER.spki])
    assert reasons(bench.commits(OTHER, SECOND)) == [Reason.CLONED_IDENTITY]
    assert [type(event) for event in bench.waits()] == [Declined, GivenUp]
    assert bench.stored.rows.keys() == bench.signer.bindings.rows.keys() == {Bound.NAME}
    assert reasons(bench.commits(OTHER, SECOND)) == []


def test_a_renewal_of_which_a_share_has_left_is_bound_for_ever() -> None:
    bench = Bench()
    bench.commits(ONE)
    bench.signs()
    assert reasons(bench.waits()) == [Reason.TIMEOUT]
    bench.waits(100 * NONCE_LIFE)
    assert reasons(bench.commits(OTHER)) == [Reason.CLONED_IDENTITY]
    assert bench.stored.is_renewed(SERIAL, [ISSUER.spki])


def test_as_long_as_another_session_needs_it_nothing_is_given_up() -> None:
    bench = Bench()
    bench.commits(ONE)
    bench.now += NONCE_LIFE / 2
    bench.commits(ONE, SECOND)
    assert reasons(bench.waits(NONCE_LIFE / 2)) == [Reason.TIMEOUT]
    bench.signs(SECOND)
    bench.waits()
    assert reasons(bench.commits(OTHER)) == [Reason.CLONED_IDENTITY]


def test_a_signature_that_does_not_come_about_gives_up_at_once() -> None:
    bench = Bench()
    bench.commits(ONE)
    assert [type(event) for event in bench.signs(with_=bytes(64))] == [Declined]  # nothing was used up
    body = Package(GENERATION, bench.out[KEY].message_hash, ((1, bench.out[KEY].commitment), (9, bytes(64)))).pack()
    events = bench.take(bench.signer.receive(OPERATOR, SESSION, RoundKind.PACKAGE, body, bench.now, NOW))
    assert GivenUp in map(type, events) or GivenUp in map(type, bench.waits())
    assert reasons(bench.commits(OTHER)) == []


def test_a_name_and_a_use_are_given_once_whatever_becomes_of_it() -> None:
    bench = Bench()
    bench.commits(leaf())
    before = bench.stored
    assert [type(event) for event in bench.waits()] == [Declined]
    assert bench.stored == before


def test_what_was_bound_before_the_start_stays_bound() -> None:
    first = Bench()
    first.commits(ONE)
    again = Bench(first.stored)
    again.commits(ONE)
    assert [type(event) for event in again.waits()] == [Declined]
    assert reasons(again.commits(OTHER)) == [Reason.CLONED_IDENTITY]


STEPS = st.lists(st.one_of(
    st.tuples(st.sampled_from(["commit", "commit and sign"]), st.sampled_from([ONE, OTHER]), st.sampled_from([KEY, SECOND])),
    st.tuples(st.sampled_from(["sign", "wait", "restart"]), st.just(ONE), st.sampled_from([KEY, SECOND])),
), max_size=20)  # fmt: skip


@settings(max_examples=200)
@given(STEPS)
def test_whatever_happens_shares_of_one_renewal_only_leave(steps: list[tuple[str, IssueLeaf, SessionKey]]) -> None:
    bench = Bench()
    for step, request, key in steps:
        if step.startswith("commit"):
            bench.commits(request, key)
        if step.endswith("sign") and key in bench.out:
            bench.signs(key)
        if step == "wait":
            bench.waits(2 * NONCE_LIFE)
        if step == "restart":
            bench.signer = Signer(SHARES[0], ISSUER, Bindings.unpack(bench.stored.pack()), SeededChance(2))
    assert len(bench.signed) <= 1


# --- five signers, four of which sign -----------------------------------------------------------------------------------


class Office:
    """A mesh of 4 of 5, with the book of each signer."""

    def __init__(self) -> None:
        self.net = Network(threshold=4, count=5)
        self.books = {name: RenewalBook() for name in self.net.names}

    def approved(self, asked: Renewal, old: VerifiedCertificate, at: datetime, *away: NodeId) -> list[NodeId]:
        """Who says yes."""
        found = []
        for name in self.net.names:
            promised = self.net.stored[name].is_renewed(serial_bytes(old.serial), [ISSUER.spki])
            try:
                if name not in away:
                    self.books[name] = self.books[name].bind(old, asked, at, promised=promised)
                    found.append(name)
            except Refused as error:
                assert error.reason is Reason.CLONED_IDENTITY
        return found


BOB = make_member(MESH, "bob").peer.certificate


def asks(at: datetime, csr: bytes = b"csr") -> Renewal:
    return Renewal(csr=csr, serial=BOB.serial, not_before=at)


def test_a_node_whose_attempt_of_a_day_ago_too_few_answered_renews_when_they_are_back() -> None:
    office = Office()
    first, second, *_ = office.net.names
    assert len(office.approved(asks(NOW), BOB, NOW, first, second)) == 3
    assert len(office.approved(asks(NOW + DAY), BOB, NOW + DAY)) == 5


def test_so_does_one_whose_signers_had_agreed_and_then_too_few_have_signed() -> None:
    office = Office()
    office.net.dead = set(office.net.names[:2])
    assert len(office.approved(asks(NOW), BOB, NOW)) == 5
    request = renewal(serial_bytes(BOB.serial))
    assert not isinstance(office.net.sign(request), Signed)
    office.net.run(seconds=2 * NONCE_LIFE)
    office.net.advance(2 * NONCE_LIFE)
    assert len(office.approved(asks(NOW + DAY), BOB, NOW + DAY)) == 5


@pytest.mark.parametrize("days", [0, 1, 20])
def test_two_machines_that_renew_one_certificate_are_noticed_also_days_later(days: int) -> None:
    office, at = Office(), NOW + days * DAY + HOUR
    assert len(office.approved(asks(NOW), BOB, NOW)) == 5
    assert isinstance(office.net.sign(renewal(serial_bytes(BOB.serial))), Signed)
    office.net.run(seconds=2 * NONCE_LIFE)
    office.net.advance(2 * NONCE_LIFE)
    assert len(office.approved(asks(at), BOB, at)) < 4
    assert len(office.approved(asks(at, b"another csr"), BOB, at)) < 4
