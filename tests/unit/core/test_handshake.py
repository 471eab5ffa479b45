"""The first three messages: who is let in, who is believed, and who hears nothing."""

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from overlay.core import limits
from overlay.core.epochs import MlKem768
from overlay.core.gate import SeenEphemerals, make_hello, prologue
from overlay.core.handshake import HandshakeContext, Responder, as_record, refuse_downgrade
from overlay.core.identity import LocalIdentity
from overlay.core.keys import X25519Pair
from overlay.core.noise import XX
from overlay.core.session_events import EvidenceWanted, Failed, PeerIdentified
from overlay.core.session_states import State
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import SUITES, Mode, Reason
from tests.unit.core.authority_kit import HOUR, Member, make_member
from tests.unit.core.session_kit import (
    ALICE,
    BOB,
    GATE,
    LAB,
    OTHER_LAB,
    TAG,
    ChangeConfig,
    Pair,
    SeededChance,
    context,
    flip,
    local,
    records,
    refusal,
)  # fmt: skip

STRANGER = X25519Pair.from_private(bytes([7]) * 32)
EPHEMERAL = X25519Pair.from_private(bytes([9]) * 32)


def shake(pair: Pair) -> tuple[list[Any], list[Any], list[Any]]:
    """The events of the three messages."""
    return pair.move(pair.alice), pair.move(pair.bob), pair.move(pair.alice)


def silent_refusal(pair: Pair, events: list[Any]) -> Reason:
    """The reason of a refusal by an end that then says nothing, not even that it refuses."""
    assert pair.alice.is_silent and pair.bob.is_silent
    assert not any(isinstance(event, PeerIdentified) for event in events)
    return refusal(events)


# --- what goes well -------------------------------------------------------------------------------------------------


def test_two_members_agree_on_keys_and_on_who_they_are() -> None:
    pair = Pair(answer_evidence=False)
    nothing, of_bob, of_alice = shake(pair)
    assert nothing == []
    assert of_bob == [PeerIdentified(BOB.peer)]
    assert [type(event) for event in of_alice] == [PeerIdentified, EvidenceWanted]
    assert of_alice[0].peer == ALICE.peer
    assert pair.alice.keys == pair.bob.keys
    assert pair.alice.keys.epoch == 1
    assert pair.alice.session.first_h == pair.bob.session.first_h == pair.alice.keys.h


def test_nobody_is_known_and_no_key_is_in_force_before_the_handshake_has_ended() -> None:
    pair = Pair()
    assert pair.alice.session.peer is None and pair.bob.session.peer is None
    assert pair.alice.session.epoch == 0
    assert pair.alice.session.epoch_began == pair.now
    assert pair.states == (State.AWAIT_MESSAGE_2, State.AWAIT_HELLO)


def test_a_responder_is_reached_without_its_tag() -> None:
    pair = Pair.established(tag=bytes(8))
    assert pair.alice.session.peer == BOB.peer


@pytest.mark.parametrize(("alice", "bob"), [("tpm", "file"), ("file", "tpm")])
def test_both_kinds_of_identity_key_shake_hands(alice: str, bob: str) -> None:
    ends = [make_member(LAB, name, tpm_like=kind == "tpm") for name, kind in (("alice", alice), ("bob", bob))]
    Pair.established(alice=ends[0], bob=ends[1])


def test_the_first_bytes_may_come_in_pieces() -> None:
    pair = Pair()
    data = pair.alice.session.data_to_send()
    for start in range(0, len(data), 5):
        assert pair.deliver(data[start : start + 5], to=pair.bob) == []
    assert pair.bob.session.state is State.AWAIT_MESSAGE_3


# --- the gate -------------------------------------------------------------------------------------------------------


def test_a_wrong_gate_key_hears_nothing() -> None:
    pair = Pair(gate=bytes(32))
    assert silent_refusal(pair, pair.move(pair.alice)) is Reason.BAD_GATE


def test_a_wrong_tag_hears_nothing() -> None:
    pair = Pair(tag=b"carl-tag")
    assert silent_refusal(pair, pair.move(pair.alice)) is Reason.BAD_GATE


def test_a_replayed_hello_hears_nothing() -> None:
    seen = SeenEphemerals()
    first, second = Pair(bob_config=context(seen=seen)), Pair(bob_config=context(seen=seen))
    hello = first.alice.session.data_to_send()
    assert first.deliver(hello, to=first.bob) == []
    second.alice.session.data_to_send()
    assert silent_refusal(second, second.deliver(hello, to=second.bob)) is Reason.REPLAYED_HELLO


@pytest.mark.parametrize("mode", [Mode.JOIN, Mode.RENEW])
def test_the_modes_of_later_versions_are_not_supported(mode: Mode) -> None:
    pair = Pair()
    pair.alice.session.data_to_send()
    first = make_hello(GATE, mode, TAG, EPHEMERAL.public) + as_record(EPHEMERAL.public)
    assert silent_refusal(pair, pair.deliver(first, to=pair.bob)) is Reason.UNSUPPORTED


@pytest.mark.parametrize("size", [31, 33])
def test_message_1_is_one_key_and_nothing_else(size: int) -> None:
    pair = Pair()
    pair.alice.session.data_to_send()
    message = EPHEMERAL.public.ljust(size, b"\0")[:size]
    first = make_hello(GATE, Mode.MEMBER, TAG, EPHEMERAL.public) + as_record(message)
    assert silent_refusal(pair, pair.deliver(first, to=pair.bob)) is Reason.MALFORMED


def test_an_ephemeral_key_of_low_order_is_refused() -> None:
    pair = Pair()
    pair.alice.session.data_to_send()
    first = make_hello(GATE, Mode.MEMBER, TAG, bytes(32)) + as_record(bytes(32))
    assert silent_refusal(pair, pair.deliver(first, to=pair.bob)) is Reason.BAD_HANDSHAKE


def test_a_handshake_message_above_its_limit_is_refused_before_it_has_come() -> None:
    pair = Pair()
    length = (limits.HANDSHAKE_MESSAGE_MAX + 1).to_bytes(2, "big")
    assert pair.move(pair.alice) == []
    assert refusal(pair.deliver(length, to=pair.bob)) is Reason.TOO_LARGE
    assert refusal(pair.deliver(length, to=pair.alice)) is Reason.TOO_LARGE


# --- tampering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "reason"),
    [(0, Reason.UNSUPPORTED), (1, Reason.UNSUPPORTED), (2, Reason.UNSUPPORTED)]
    + [(index, Reason.BAD_GATE) for index in (3, 10, 18, 21, 37, 52)],
)  # fmt: skip
def test_a_bit_changed_in_the_hello_or_in_message_1_is_refused(index: int, reason: Reason) -> None:
    pair = Pair()
    assert silent_refusal(pair, pair.move(pair.alice, flip(index))) is reason


def test_the_mode_is_under_the_mac_of_the_gate() -> None:
    pair = Pair()
    to_renew = flip(2, bit=1)  # 1 becomes 3
    assert silent_refusal(pair, pair.move(pair.alice, to_renew)) is Reason.BAD_GATE


def places(count: int) -> list[int]:
    """Bytes of a handshake message behind its length: the ends, the borders of keys and tags, and some between."""
    return [2, 33, 34, 81, 82, *range(130, count, 211), -17, -16, -1]


@pytest.mark.parametrize("index", places(2100))
def test_a_bit_changed_in_message_2_is_refused(index: int) -> None:
    pair = Pair()
    pair.move(pair.alice)
    assert silent_refusal(pair, pair.move(pair.bob, flip(index, bit=index % 8))) is Reason.BAD_HANDSHAKE


@pytest.mark.parametrize("index", places(1900))
def test_a_bit_changed_in_message_3_is_refused(index: int) -> None:
    pair = Pair()
    pair.move(pair.alice)
    pair.move(pair.bob)
    message_3, _challenge = records(pair.alice.session.data_to_send())
    events = pair.deliver(flip(index, bit=index % 8)(message_3), to=pair.bob)
    assert silent_refusal(pair, events) is Reason.BAD_HANDSHAKE


def test_a_cut_off_message_2_is_refused() -> None:
    pair = Pair()
    pair.move(pair.alice)
    assert silent_refusal(pair, pair.move(pair.bob, lambda data: as_record(data[2:60]))) is Reason.BAD_HANDSHAKE


# --- whom we believe ------------------------------------------------------------------------------------------------


def test_a_node_of_another_mesh_behind_the_same_gate_is_refused() -> None:
    pair = Pair(bob_mesh=OTHER_LAB)
    pair.move(pair.alice)
    assert silent_refusal(pair, pair.move(pair.bob)) is Reason.BAD_HANDSHAKE


def shows(alice: Member | None = None, bob: Member | None = None) -> tuple[Pair, list[Any]]:
    """A handshake with these members, and the events of the end that judges the one that was given."""
    pair = Pair(alice=alice, bob=bob)
    _, of_bob, of_alice = shake(pair)
    return pair, of_bob if bob else of_alice


@pytest.mark.parametrize("whose", ["alice", "bob"])
def test_a_certificate_by_another_root_is_refused(whose: str) -> None:
    pair, events = shows(**{whose: make_member(OTHER_LAB, whose)})
    assert silent_refusal(pair, events) is Reason.OTHER_MESH


@pytest.mark.parametrize("whose", ["alice", "bob"])
def test_an_expired_certificate_is_refused_at_a_dial(whose: str) -> None:
    begin = LAB.at - 2 * HOUR
    pair, events = shows(**{whose: make_member(LAB, whose, not_before=begin, life=HOUR)})
    assert silent_refusal(pair, events) is Reason.CERTIFICATE_EXPIRED


@pytest.mark.parametrize("whose", ["alice", "bob"])
def test_an_expired_endorsement_is_refused_at_a_dial(whose: str) -> None:
    begin = LAB.at - 2 * HOUR
    pair, events = shows(**{whose: make_member(LAB, whose, not_before=begin, endorsement_life=HOUR)})
    assert silent_refusal(pair, events) is Reason.ENDORSEMENT_EXPIRED


@pytest.mark.parametrize("whose", ["alice", "bob"])
def test_a_certificate_of_tomorrow_is_refused(whose: str) -> None:
    pair, events = shows(**{whose: make_member(LAB, whose, not_before=LAB.at + timedelta(minutes=6))})
    assert silent_refusal(pair, events) is Reason.CERTIFICATE_NOT_YET_VALID


@pytest.mark.parametrize("whose", ["alice", "bob"])
def test_an_endorsement_under_another_certificate_is_refused(whose: str) -> None:
    member = make_member(LAB, whose)
    older = make_member(LAB, whose, not_before=LAB.at - HOUR)
    mixed = replace(member, credentials=replace(member.credentials, endorsement=older.credentials.endorsement))
    pair, events = shows(**{whose: mixed})
    assert silent_refusal(pair, events) is Reason.BAD_ENDORSEMENT


def thief_of(victim: Member) -> LocalIdentity:
    """Has the victim's certificate and endorsement, which anybody may copy, and not its Noise key."""
    thief = copy.copy(local(victim))
    object.__setattr__(thief, "static", STRANGER)
    return thief


def test_a_responder_with_stolen_credentials_is_refused() -> None:
    pair = Pair(bob_config=context(identity=thief_of(BOB)))
    pair.move(pair.alice)
    assert silent_refusal(pair, pair.move(pair.bob)) is Reason.STATIC_MISMATCH


def test_an_opener_with_stolen_credentials_is_refused() -> None:
    pair = Pair(alice_config=context(identity=thief_of(ALICE)))
    *_, events = shake(pair)
    assert silent_refusal(pair, events) is Reason.STATIC_MISMATCH


def test_a_node_that_dials_itself_notices() -> None:
    pair = Pair(alice=ALICE, bob=ALICE)
    pair.move(pair.alice)
    assert silent_refusal(pair, pair.move(pair.bob)) is Reason.SELF_DIAL


def test_a_node_that_is_dialled_under_its_own_identity_notices() -> None:
    other = make_member(LAB, "alice", start=2)
    rogue = Rogue(Pair(bob=ALICE), other)
    assert rogue.finish() is Reason.SELF_DIAL


class BrokenTrust:
    """A guard that fails."""

    mesh_id = LAB.mesh_id

    def verify(self, *_: object) -> None:
        raise RuntimeError("disk on fire")


@pytest.mark.parametrize("whose", ["alice_config", "bob_config"])
def test_a_guard_that_raises_refuses(whose: str) -> None:
    change: ChangeConfig = context(trust=BrokenTrust)
    pair = Pair(**{whose: change})  # type: ignore[arg-type]
    _, of_bob, of_alice = shake(pair)
    assert silent_refusal(pair, of_bob if whose == "alice_config" else of_alice) is Reason.INTERNAL


# --- ML-KEM ---------------------------------------------------------------------------------------------------------


def test_a_ciphertext_for_another_key_gives_keys_that_do_not_fit() -> None:
    class Careless(MlKem768):
        def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
            secret, _ = super().encapsulate(public)
            return secret, super().encapsulate(self.generate().public)[1]

    pair = Pair(alice_config=context(chance=SeededChance(1, Careless())))
    *_, events = shake(pair)
    assert refusal(events) is Reason.BAD_RECORD


def test_an_encapsulation_key_that_is_none_is_refused() -> None:
    class Careless(MlKem768):
        def generate(self) -> Any:
            return SimpleNamespace(public=b"\xff" * limits.KEM_KEY_SIZE)

    pair = Pair(bob_config=context(chance=SeededChance(2, Careless())))
    pair.move(pair.alice)
    assert silent_refusal(pair, pair.move(pair.bob)) is Reason.BAD_HANDSHAKE


# --- payloads -------------------------------------------------------------------------------------------------------


def payload(member: Member, kem: bytes, changes: dict[str, object]) -> bytes:
    """Payload 2 or 3 with these fields changed."""
    own = member.credentials
    fields: dict[str, object] = {
        "endorsement": own.endorsement, "leaf": own.leaf, "chain": [], "kem": kem, "suites": [list(pair) for pair in SUITES],
    }  # fmt: skip
    return make_map(*(fields | changes).values())


def answer_of_a_rogue(pair: Pair, **changes: object) -> Reason:
    """A responder that does Noise right and says what it likes in message 2; why it is refused."""
    first = pair.alice.session.data_to_send()
    noise = XX.responder(prologue(LAB.mesh_id, first[:3]), BOB.noise, EPHEMERAL)
    noise.read(first[limits.HELLO_SIZE + 2 :])
    kem = MlKem768().generate().public
    return silent_refusal(pair, pair.deliver(as_record(noise.write(payload(BOB, kem, changes))), to=pair.alice))


class Rogue:
    """An opener that does Noise right and says what it likes in message 3."""

    def __init__(self, pair: Pair, member: Member = ALICE) -> None:
        self.pair, self.member = pair, member
        hello = make_hello(GATE, Mode.MEMBER, TAG, EPHEMERAL.public)
        self._noise = XX.initiator(prologue(LAB.mesh_id, hello[:3]), member.noise, EPHEMERAL)
        pair.alice.session.data_to_send()
        pair.deliver(hello + as_record(self._noise.write()), to=pair.bob)
        self._noise.read(pair.bob.session.data_to_send()[2:])

    def finish(self, **changes: object) -> Reason:
        """Message 3 with these fields changed; why it is refused."""
        kem = bytes(limits.KEM_CIPHERTEXT_SIZE)
        message = as_record(self._noise.write(payload(self.member, kem, changes)))
        return silent_refusal(self.pair, self.pair.deliver(message, to=self.pair.bob))


@pytest.mark.parametrize(
    "changes",
    [
        {"endorsement": b""}, {"leaf": 7}, {"chain": b""}, {"chain": [b"x"] * 13}, {"kem": bytes(1087)}, {"kem": bytes(1089)},
        {"suites": []} | {"more": 1}, {"suites": [[1]]}, {"suites": [[1, 256]]}, {"suites": [[1, 1]] * 17}, {"suites": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_payload_of_another_form_is_refused(changes: dict[str, object]) -> None:
    assert Rogue(Pair()).finish(**changes) is Reason.MALFORMED
    assert answer_of_a_rogue(Pair(), **changes) is Reason.MALFORMED


def test_a_chain_that_nobody_asked_for_is_refused() -> None:
    assert Rogue(Pair()).finish(chain=[LAB.root.der]) is Reason.BAD_CERTIFICATE
    assert answer_of_a_rogue(Pair(), chain=[LAB.root.der]) is Reason.BAD_CERTIFICATE


@pytest.mark.parametrize("suites", [[], [[1, 2]], [[2, 1]]], ids=str)
def test_a_peer_that_does_not_list_what_it_speaks_is_refused(suites: list[list[int]]) -> None:
    assert Rogue(Pair()).finish(suites=suites) is Reason.UNSUPPORTED
    assert answer_of_a_rogue(Pair(), suites=suites) is Reason.UNSUPPORTED


def test_a_suite_that_only_the_peer_knows_changes_nothing() -> None:
    refuse_downgrade([[1, 1], [1, 9], [2, 1]])


@pytest.mark.parametrize("better", [(1, 2), (2, 1)])
def test_both_ends_know_better_so_somebody_has_changed_the_hello(better: tuple[int, int]) -> None:
    with pytest.raises(Refused) as caught:
        refuse_downgrade([[1, 1], list(better)], known=[(1, 1), better])
    assert caught.value.reason is Reason.DOWNGRADE


# --- time and misuse ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [0, 1])
def test_a_handshake_has_five_seconds(messages: int) -> None:
    pair = Pair()
    if messages:
        pair.move(pair.alice)
        pair.bob.session.data_to_send()
    pair.alice.session.data_to_send()
    assert pair.alice.session.deadline == pair.bob.session.deadline == pair.now + 5.0
    pair.now += 4.9
    assert pair.tick(pair.alice) == pair.tick(pair.bob) == []
    pair.now += 0.1
    assert silent_refusal(pair, pair.tick(pair.alice)) is Reason.TIMEOUT
    assert silent_refusal(pair, pair.tick(pair.bob)) is Reason.TIMEOUT


def test_a_connection_that_ends_in_the_handshake_is_lost() -> None:
    pair = Pair()
    events = pair.bob.session.eof(pair.now)
    assert events == [Failed(Reason.LOST, "the connection ended without GOODBYE in state await_hello")]


def responder(change: Callable[[HandshakeContext], HandshakeContext] = lambda found: found) -> Responder:
    shaking = HandshakeContext(
        identity=local(BOB), trust=lambda: LAB.trust, calendar=lambda: LAB.at, chance=SeededChance(2), gate_keys=(GATE,),
        seen=SeenEphemerals(),
    )
    found = change(shaking)
    return Responder(found.entrance, lambda _mode: found.side())


def test_a_responder_used_wrongly_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="message 1 comes first"):
        responder().message_3(b"")
    with pytest.raises(ValueError, match="remembers the hellos"):
        responder(lambda found: replace(found, seen=None)).message_1(b"", b"")


def test_a_message_of_ours_above_the_limit_is_never_sent() -> None:
    assert as_record(b"x") == b"\0\x01x"
    with pytest.raises(Refused) as caught:
        as_record(bytes(limits.HANDSHAKE_MESSAGE_MAX + 1))
    assert caught.value.reason is Reason.TOO_LARGE
