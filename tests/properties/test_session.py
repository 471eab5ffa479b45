"""Properties of a link: any bytes are read or refused, cuts do not matter, and what is sent is what arrives."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.frames import Frame
from overlay.core.limits import KEM_CIPHERTEXT_SIZE, KEM_KEY_SIZE, NONCE_LIFE, AttestTimes, RekeyTimes
from overlay.core.session_events import (
    Closed,
    CredentialsChanged,
    Event,
    EvidenceWanted,
    Failed,
    LeaseRenewed,
    PeerIdentified,
    Rekeyed,
)
from overlay.core.session_states import State
from overlay.core.wire import encode, make_map, sha256, u64
from overlay.registry import FrameFlag, FrameType, Reason
from tests.unit.core.authority_kit import make_member
from tests.unit.core.session_kit import (
    ALICE,
    BOB,
    LAB,
    End,
    Pair,
    SeededChance,
    context,
    evidence_for,
    local,
    raw_frame,
    records,
)

PATIENT = AttestTimes(lease=1e6, overdue=1e6)
LATER = make_member(LAB, "alice", not_before=LAB.at)

some = settings(max_examples=60)
many = settings(max_examples=150)


# --- any bytes ------------------------------------------------------------------------------------------------------


def fresh() -> Pair:
    return Pair(answer_evidence=False)


def greeted() -> Pair:
    pair = fresh()
    pair.move(pair.alice)
    pair.bob.session.data_to_send()
    return pair


def half() -> Pair:
    """Bob has proven and Alice has not."""
    pair = Pair.admitting()
    pair.bob.session.supply_evidence(evidence_for(pair.bob.wanted), pair.now)
    pair.exchange()
    return pair


def rekeying() -> Pair:
    """Bob waits for RESP."""
    pair = Pair.established(attest=PATIENT)
    pair.now += 60.0
    pair.tick(pair.alice)
    pair.move(pair.alice)
    pair.bob.session.data_to_send()
    return pair


UNKEYED: list[Callable[[], Pair]] = [fresh, greeted]
KEYED: list[Callable[[], Pair]] = [lambda: Pair.agreed()[0], Pair.admitting, half, Pair.established, rekeying]
points = st.sampled_from([*UNKEYED, *KEYED])
ends = st.sampled_from(["alice", "bob"])

lengths = st.sampled_from([b"\0\0", b"\0\x20", b"\0\x60", b"\x40\x01", b"\xff\xff"])
noise = st.binary(max_size=200) | st.builds(lambda length, rest: length + rest, lengths, st.binary(max_size=200))


def ended_or_unchanged(end: End, before: State, events: list[Event]) -> None:
    """The contract of every verb: no event and the same state, or the reason last and nothing taken after it."""
    if end.session.state is State.CLOSED:
        assert isinstance(events[-1], Failed | Closed)
        assert end.session.lease is None
        assert end.session.receive(b"\0\x10" + bytes(16), 2000.0) == []
    else:
        assert not any(isinstance(event, Failed | Closed) for event in events)
        assert before is not State.CLOSED


@many
@given(points, ends, noise)
def test_any_bytes_at_any_point_fail_or_change_nothing(point: Callable[[], Pair], whose: str, data: bytes) -> None:
    pair = point()
    end: End = getattr(pair, whose)
    state, peer, lease = end.session.state, end.session.peer, end.session.lease
    events = end.session.receive(data, pair.now)
    if events:
        assert isinstance(events[-1], Failed) and len(events) == 1
        assert end.session.state is State.CLOSED
        assert end.session.lease is None
    else:
        assert (end.session.state, end.session.peer, end.session.lease) == (state, peer, lease)
    ended_or_unchanged(end, state, events)


scalars = st.integers(0, 2**64 - 1) | st.integers(0, 3) | st.booleans() | st.text(max_size=5) | st.sampled_from(
    [b"", bytes(16), bytes(32), bytes(64), ALICE.credentials.endorsement, ALICE.credentials.leaf, BOB.credentials.leaf]
)  # fmt: skip
maps = st.lists(scalars | st.lists(scalars, max_size=3), max_size=9).map(lambda values: make_map(*values))
bodies = st.one_of(
    st.binary(max_size=100),
    maps,
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=20).map(encode),
    st.builds(lambda epoch, rest: u64(epoch) + rest, st.integers(0, 3), st.sampled_from(
        [bytes(48), bytes(KEM_KEY_SIZE), b"\xff" * KEM_KEY_SIZE, bytes(KEM_CIPHERTEXT_SIZE + 48)])),
)  # fmt: skip
frames = st.builds(
    Frame, type=st.sampled_from(list(FrameType)), flags=st.sampled_from([FrameFlag.NONE] * 4 + [FrameFlag.MORE]),
    stream=st.sampled_from([0, 0, 0, 1, 2, 7]), body=bodies,
)  # fmt: skip
junk = st.binary(min_size=1, max_size=30) | st.builds(
    lambda kind, flags, body: raw_frame(kind, body, flags=flags), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=20)
)


@settings(max_examples=400)
@given(st.sampled_from(KEYED), st.lists(st.lists(frames | junk, min_size=1, max_size=3), min_size=1, max_size=3))
def test_whatever_a_member_says_never_raises_and_the_reason_is_the_last_event(
    point: Callable[[], Pair], said: list[list[Frame | bytes]]
) -> None:
    pair = point()
    before = pair.bob.session.state
    for record in said:
        if pair.bob.session.state is State.CLOSED:
            break
        events = pair.forge(pair.alice, *record)
        ended_or_unchanged(pair.bob, before, events)
        before = pair.bob.session.state
    pair.bob.session.data_to_send()
    pair.bob.session.tick(pair.now + 1000.0)
    assert pair.bob.session.state is State.CLOSED


@some
@given(st.data())
def test_one_bit_anywhere_in_a_conversation_is_noticed_at_the_record_it_is_in(data: st.DataObject) -> None:
    pair = Pair.established()
    for number in range(3):
        pair.alice.session.send(FrameType.CALL, 2 * number + 1, b"call %d" % number, pair.now)
    wire = bytearray(pair.alice.session.data_to_send())
    place = data.draw(st.integers(2, len(wire) - 1))
    wire[place] ^= 1 << data.draw(st.integers(0, 7))
    *before, last = pair.deliver(bytes(wire), to=pair.bob)
    assert isinstance(last, Failed) and last.reason is Reason.BAD_RECORD
    assert before == []


# --- cuts -----------------------------------------------------------------------------------------------------------


class ToyKey:
    """A KemKey that keeps no secret, the same from the same seed."""

    def __init__(self, seed: bytes) -> None:
        self.public = sha256(b"public", seed).ljust(KEM_KEY_SIZE, b"\0")

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return sha256(self.public, ciphertext)


class ToyKem:
    """ML-KEM without its randomness, so that a recorded talk can be held again."""

    def __init__(self) -> None:
        self._made = 0

    def _next(self) -> bytes:
        self._made += 1
        return u64(self._made)

    def generate(self) -> ToyKey:
        return ToyKey(self._next())

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        ciphertext = self._next().ljust(KEM_CIPHERTEXT_SIZE, b"\0")
        return sha256(public, ciphertext), ciphertext


def repeatable() -> Pair:
    return Pair(
        answer_evidence=False, attest=PATIENT, alice_config=context(chance=SeededChance(1, ToyKem())),
        bob_config=context(chance=SeededChance(2, ToyKem())),
    )  # fmt: skip


def finish_admission(pair: Pair) -> None:
    pair.answer_evidence = True
    for end in pair.ends:
        pair.prove(end, end.events)
    pair.exchange()


@cache
def recorded() -> tuple[bytes, bytes]:
    """All that Alice says to Bob: up to her CHALLENGE, and on the open link (calls, parts, a round, new papers, a rekey)."""
    pair = repeatable()
    said = bytearray()

    def listen() -> None:
        for _ in range(12):
            data = pair.alice.session.data_to_send()
            said.extend(data)
            if data:
                pair.deliver(data, to=pair.bob)
            pair.move(pair.bob)

    listen()
    handshake = bytes(said)
    finish_admission(pair)
    said.clear()
    for number, size in enumerate((0, 5, 70_000)):
        pair.alice.session.send(FrameType.CALL, 2 * number + 1, b"x" * size, pair.now)
    pair.alice.session.open_round(1)
    listen()
    pair.alice.session.change_credentials(local(LATER))
    pair.alice.session.send(FrameType.TRANSIENT_BATCH, 0, b"news", pair.now)
    pair.now += 60.0
    pair.tick(pair.alice)
    listen()
    pair.alice.session.send(FrameType.REPLY, 2, b"under the new key", pair.now)
    listen()
    pair.alice.take(pair.alice.session.close(Reason.SHUTDOWN))
    listen()
    return handshake, bytes(said)


def hear(data: bytes, places: list[int], *, opened: bool) -> tuple[list[Event], State, int]:
    """What Bob makes of Alice's bytes, cut there: his events, his state, his epoch."""
    pair = repeatable()
    if opened:
        for end in (pair.alice, pair.bob, pair.alice, pair.bob):
            pair.move(end)
        finish_admission(pair)
        pair.now += 60.0
    heard: list[Event] = []
    for start, stop in pairwise([0, *sorted(places), len(data)]):
        heard += pair.bob.session.receive(data[start:stop], pair.now)
    return heard, pair.bob.session.state, pair.bob.session.epoch


def cuts(which: int) -> Any:
    size = len(recorded()[which])
    borders = [0]
    if which:
        for record in records(recorded()[1]):
            borders.append(borders[-1] + len(record))
    near = st.sampled_from(borders).flatmap(lambda border: st.integers(max(0, border - 2), min(size, border + 2)))
    return st.lists(st.integers(0, size) | near, max_size=12)


def test_the_recorded_talk_holds_what_it_should() -> None:
    heard, state, epoch = hear(recorded()[0], [], opened=False)
    assert [type(event) for event in heard] == [PeerIdentified, EvidenceWanted]
    assert state is State.ADMITTING
    heard, state, epoch = hear(recorded()[1], [], opened=True)
    kinds = [type(event) for event in heard]
    assert {LeaseRenewed, CredentialsChanged, Rekeyed} <= set(kinds)
    assert (kinds[-1], state, epoch) == (Closed, State.CLOSED, 2)


@some
@given(st.data())
def test_a_handshake_in_any_pieces_gives_the_same_events(data: st.DataObject) -> None:
    whole = hear(recorded()[0], [], opened=False)
    assert hear(recorded()[0], data.draw(cuts(0)), opened=False) == whole


@some
@given(st.data())
def test_an_open_link_in_any_pieces_gives_the_same_events(data: st.DataObject) -> None:
    whole = hear(recorded()[1], [], opened=True)
    assert hear(recorded()[1], data.draw(cuts(1)), opened=True) == whole


def test_byte_by_byte_gives_the_same_events() -> None:
    for which, opened in ((0, False), (1, True)):
        data = recorded()[which]
        assert hear(data, list(range(len(data))), opened=opened) == hear(data, [], opened=opened)


# --- interleavings --------------------------------------------------------------------------------------------------

UNHURRIED = RekeyTimes(
    after=3.0, jitter=0.0, backstop=4.0, close=1e6, silence=1e6, give_up=1e6, pause=0.0, records=12, volume=200_000
)
said = st.tuples(st.just("say"), ends, st.sampled_from([0, 1, 100, 40_000, 140_000]))
carried = st.tuples(st.just("carry"), ends, st.integers(1, 100_000))
passed = st.tuples(st.just("pass"), ends, st.sampled_from([0.0, 0.5, 2.0]))
rounds = st.tuples(st.just("round"), ends, st.just(0))
papers = st.tuples(st.just("papers"), st.just("alice"), st.just(0))
woken = st.tuples(st.just("wake"), ends, st.just(0))


class Wire:
    """A link whose bytes arrive late and in pieces, and what was said on it."""

    def __init__(self) -> None:
        self.pair = Pair.established(rekey=UNHURRIED, attest=PATIENT)
        self.under_way = {"alice": bytearray(), "bob": bytearray()}
        self.said: dict[str, list[bytes]] = {"alice": [], "bob": []}
        self.rounds = 0
        self.carried_at = self.pair.now

    def do(self, act: str, name: str, amount: Any) -> None:
        end: End = getattr(self.pair, name)
        if act == "say":
            body = len(self.said[name]).to_bytes(4, "big") * (1 + amount // 4)
            end.session.send(FrameType.CALL, end.session.next_stream(), body, self.pair.now)
            self.said[name].append(body)
        elif act == "carry":
            self.carry(end, name, amount)
        elif act == "pass":
            if self.pair.now + amount > self.carried_at + NONCE_LIFE - 1.0:  # nothing is under way for that long
                self.carry_all()
            self.pair.now += amount
            end.take(end.session.tick(self.pair.now))
        elif act == "round" and self.rounds < 7:
            self.rounds += 1
            end.session.open_round(self.rounds)
        elif act == "papers":
            end.session.change_credentials(local(LATER))
        elif act == "wake":
            end.session.woke(self.pair.now, within=1e6)

    def carry(self, end: End, name: str, amount: int) -> None:
        """Some of what this end owes arrives."""
        wire = self.under_way[name]
        wire += end.session.data_to_send()
        self.pair.deliver(bytes(wire[:amount]), to=self.pair.other(end))
        del wire[:amount]

    def carry_all(self) -> None:
        self.carried_at = self.pair.now
        for _ in range(30):
            for name in ("alice", "bob"):
                self.carry(getattr(self.pair, name), name, 10**9)


@settings(max_examples=120)
@given(st.lists(said | carried | carried | passed | rounds | papers | woken, max_size=60))
def test_random_calls_rekeys_rounds_and_ticks_deliver_exactly_what_was_sent(acts: list[tuple[str, str, Any]]) -> None:
    wire = Wire()
    for act in acts:
        wire.do(*act)
    wire.carry_all()
    pair = wire.pair
    assert pair.states == (State.OPEN, State.OPEN), pair.alice.events[-1:] + pair.bob.events[-1:]
    assert (pair.bob.heard, pair.alice.heard) == (wire.said["alice"], wire.said["bob"])
    assert pair.alice.session.epoch == pair.bob.session.epoch
    assert pair.alice.keys == pair.bob.keys
