"""Every input in every state: each frame type from an authentic peer, each verb of our own side, and time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.frames import Frame
from overlay.core.limits import KEM_CIPHERTEXT_SIZE, KEM_KEY_SIZE
from overlay.core.outbox import ROOM
from overlay.core.session import APPLICATION, REKEY, STREAM
from overlay.core.session_events import Closed, Event, Failed
from overlay.core.session_states import ADMISSION, State
from overlay.core.wire import make_map, u64
from overlay.errors import LocalProtocolError
from overlay.registry import RESERVED_FRAMES, FrameType, Reason
from tests.fuzz.kit import admitting_pair, copies, fresh_pair, open_pair
from tests.unit.core.authority_kit import make_member
from tests.unit.core.session_kit import ALICE, LAB, End, Pair, evidence_for, local

BOB_LATER = make_member(LAB, "bob", not_before=LAB.at)

# --- states of Bob ----------------------------------------------------------------------------------------------------


def greeted() -> Pair:
    pair = fresh_pair()
    pair.move(pair.alice)
    pair.bob.session.data_to_send()
    return pair


def dialling() -> Pair:
    """Bob's verbs are Alice's here: she has said hello."""
    pair = fresh_pair()
    pair.alice, pair.bob = pair.bob, pair.alice
    return pair


def agreed() -> Pair:
    """Bob has keys and no CHALLENGE."""
    pair = fresh_pair()
    pair.move(pair.alice)
    pair.move(pair.bob)
    pair.alice.swallow()
    data = pair.alice.session.data_to_send()
    pair.deliver(data[: 2 + int.from_bytes(data[:2], "big")], to=pair.bob)
    return pair


def half(prover: str) -> Pair:
    pair = admitting_pair()
    end = getattr(pair, prover)
    pair.prove(end, end.events)
    pair.exchange()
    return pair


def closed() -> Pair:
    pair = open_pair()
    pair.bob.take(pair.bob.session.close(Reason.SHUTDOWN))
    pair.bob.session.data_to_send()
    return pair


UNKEYED: dict[State, Callable[[], Pair]] = {
    State.AWAIT_HELLO: fresh_pair, State.AWAIT_MESSAGE_3: greeted, State.AWAIT_MESSAGE_2: dialling,
}  # fmt: skip
KEYED: dict[State, Callable[[], Pair]] = {
    State.AWAIT_CHALLENGE: copies(agreed), State.ADMITTING: admitting_pair,
    State.ADMITTED_PEER: copies(partial(half, "alice")), State.ADMITTED_US: copies(partial(half, "bob")),
    State.OPEN: open_pair,
}  # fmt: skip
STATES = UNKEYED | KEYED | {State.CLOSED: closed}


def test_every_state_has_a_way_into_it() -> None:
    assert set(STATES) == set(State)
    assert {state: make().bob.session.state for state, make in STATES.items()} == {state: state for state in State}


def well_behaved(end: End, before: State, events: list[Event]) -> None:
    """What holds after every verb: the reason is the last event, exactly when the link has ended."""
    ends = [isinstance(event, Failed | Closed) for event in events]
    after = end.session.state
    assert not any(ends[:-1])
    assert (after is State.CLOSED and before is not State.CLOSED) == any(ends)
    assert before is not State.CLOSED or not events
    assert (end.session.lease is None) or after is State.OPEN or after is State.ADMITTED_PEER


# --- frames -----------------------------------------------------------------------------------------------------------

BODIES = (
    b"", b"\0", make_map(0), make_map(1), make_map(1, 1), make_map(int(Reason.BUSY)), make_map(1, bytes(32)), u64(300_000),
    make_map(bytes(64), b"claims", b"evidence"), u64(2) + bytes(48), u64(2) + bytes(KEM_KEY_SIZE),
    u64(2) + bytes(KEM_CIPHERTEXT_SIZE + 48), bytes(200),
)  # fmt: skip
BEFORE_OPEN = {
    State.AWAIT_CHALLENGE: {FrameType.CHALLENGE},
    **{state: {FrameType.PROOF, FrameType.VERDICT, FrameType.GOODBYE} for state in ADMISSION - {State.AWAIT_CHALLENGE}},
}
BEFORE_OPEN[State.ADMITTED_US].add(FrameType.EVIDENCE_PART)  # we have shown evidence: the peer may ask for its logs


@pytest.mark.parametrize("state", KEYED, ids=lambda state: state.name)
def test_every_frame_in_every_state_is_taken_or_ends_the_link(state: State) -> None:
    for kind in FrameType:
        for body in BODIES:
            for stream in (0, 1, 2):
                pair = KEYED[state]()
                events = pair.forge(pair.alice, Frame(kind, stream=stream, body=body))
                well_behaved(pair.bob, state, events)
                if state is not State.OPEN and kind not in BEFORE_OPEN[state]:
                    assert isinstance(events[-1], Failed)
                    assert events[-1].reason in (Reason.UNEXPECTED_FRAME, Reason.MALFORMED)
                    assert pair.bob.session.lease is None


@pytest.mark.parametrize("state", UNKEYED, ids=lambda state: state.name)
def test_a_record_before_there_are_keys_is_a_handshake_message_or_the_end(state: State) -> None:
    for size in (1, 16, 48, 96, 4000):
        pair = UNKEYED[state]()
        pair.bob.session.data_to_send()
        hello = bytes(19) * (state is State.AWAIT_HELLO)
        events = pair.bob.session.receive(hello + size.to_bytes(2, "big") + bytes(size), pair.now)
        well_behaved(pair.bob, state, events)
        assert isinstance(events[-1], Failed)
        assert pair.bob.session.peer is None
        assert pair.bob.session.data_to_send() == b""  # a stranger hears nothing


# --- stages of a rekey ------------------------------------------------------------------------------------------------


def rekeying(steps: int, *, watched: str) -> Pair:
    """After so many of OFFER, INIT, RESP, DONE + CONFIRM; Alice drives. The watched end becomes Bob."""
    pair = open_pair()
    pair.now += 60.0
    pair.tick(pair.alice)
    ends = [pair.alice, pair.bob] * 2
    for sender in ends[:steps]:
        pair.move(sender)
    if watched == "alice":
        pair.alice, pair.bob = pair.bob, pair.alice
    pair.alice.session.data_to_send()  # what it would say honestly does not come
    return pair


STAGES: dict[str, tuple[Callable[[], Pair], FrameType]] = {
    "idle": (open_pair, FrameType.OFFER),
    "offered": (partial(rekeying, 0, watched="alice"), FrameType.INIT),
    "answered": (partial(rekeying, 1, watched="bob"), FrameType.RESP),
    "responded": (partial(rekeying, 2, watched="alice"), FrameType.DONE),
    "switched": (partial(rekeying, 3, watched="bob"), FrameType.DONE),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", sorted(REKEY), ids=lambda kind: kind.name)
def test_only_the_frame_that_is_due_is_taken_in_each_stage_of_a_rekey(stage: str, kind: FrameType) -> None:
    make, due = STAGES[stage]
    for body in (b"", *BODIES):
        pair = make()
        lower = pair.bob.member.node_id < pair.alice.member.node_id
        if kind is due or (stage == "offered" and kind is FrameType.OFFER):
            if kind is FrameType.OFFER and stage == "offered" and lower:
                continue  # both offered: ignored, if it is one
            events = pair.forge(pair.alice, Frame(kind, body=body))
            well_behaved(pair.bob, State.OPEN, events)
            continue
        events = pair.forge(pair.alice, Frame(kind, body=body))
        assert [type(event) for event in events] == [Failed]
        assert isinstance(events[0], Failed) and events[0].reason is Reason.STALE_EPOCH


@pytest.mark.parametrize("stage", STAGES)
def test_all_other_frames_are_taken_in_each_stage_as_without_a_rekey(stage: str) -> None:
    for kind in sorted((APPLICATION | RESERVED_FRAMES) - STREAM):
        pair = STAGES[stage][0]()
        pair.forge(pair.alice, Frame(kind, stream=1, body=b"body"))
        assert pair.bob.session.state is State.OPEN


# --- our own verbs ----------------------------------------------------------------------------------------------------

Verb = Callable[[End, float], Any]
VERBS: dict[str, Verb] = {
    "receive nothing": lambda end, now: end.session.receive(b"", now),
    "tick": lambda end, now: end.session.tick(now),
    "eof": lambda end, now: end.session.eof(now),
    "close": lambda end, _: end.session.close(Reason.SHUTDOWN),
    "fail": lambda end, _: end.session.fail(Reason.CHAIN_BROKEN, "test"),
    "data_to_send": lambda end, _: end.session.data_to_send(),
    "deadline": lambda end, _: end.session.deadline,
    "queued": lambda end, _: end.session.queued,
    "evidence_failed": lambda end, _: end.session.evidence_failed("no TPM"),
    "open_round": lambda end, _: end.session.open_round(1),
    "change_credentials": lambda end, _: end.session.change_credentials(local(BOB_LATER)),
    "probe": lambda end, now: end.session.probe(now, 2.0),
    "woke": lambda end, now: end.session.woke(now, 2.0),
    "stirred": lambda end, _: end.session.stirred(),
}
ONLY_OPEN: dict[str, Verb] = {
    "send": lambda end, now: end.session.send(FrameType.CALL, 2, b"body", now),
    "streams": lambda end, _: end.session.streams,
    "write_stream": lambda end, now: end.session.write_stream(2, memoryview(b"x"), now, memoryview(bytearray(ROOM))),
}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_may_be_used_in_every_state(state: State, verb: str) -> None:
    pair = STATES[state]()
    if pair.bob.member is ALICE and verb == "change_credentials":
        return  # of another node
    answer = VERBS[verb](pair.bob, pair.now)
    well_behaved(pair.bob, state, answer if isinstance(answer, list) else [])
    if verb in ("eof", "close", "fail", "evidence_failed"):
        assert pair.bob.session.state is State.CLOSED
        assert (answer == []) == (state is State.CLOSED)


@pytest.mark.parametrize("state", [state for state in STATES if state is not State.OPEN], ids=lambda state: state.name)
@pytest.mark.parametrize("verb", ["send", "streams"])
def test_what_belongs_to_an_open_link_is_our_own_bug_in_any_other_state(state: State, verb: str) -> None:
    pair = STATES[state]()
    with pytest.raises(LocalProtocolError):
        ONLY_OPEN[verb](pair.bob, pair.now)
    assert pair.bob.session.state is state


UNASKED = [state for state in STATES if state not in (State.ADMITTING, State.ADMITTED_PEER)]


@pytest.mark.parametrize("state", UNASKED, ids=lambda state: state.name)
def test_evidence_is_supplied_once_and_only_when_it_was_asked_for(state: State) -> None:
    pair = STATES[state]()
    if state is State.CLOSED:
        assert pair.bob.session.supply_evidence(evidence_for(admitting_pair().bob.wanted), pair.now) == []
        return
    with pytest.raises(LocalProtocolError):
        pair.bob.session.supply_evidence(evidence_for(admitting_pair().bob.wanted), pair.now)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [state for state in STATES if state is not State.CLOSED], ids=lambda state: state.name)
def test_every_state_ends_by_itself_when_nobody_says_anything(state: State) -> None:
    pair = STATES[state]()
    before, ticks = pair.now, 0
    while pair.bob.session.state is not State.CLOSED:
        assert pair.bob.session.deadline > pair.now or ticks == 0, "a tick at the deadline moves it on"
        pair.now = max(pair.now, pair.bob.session.deadline)
        pair.bob.take(pair.bob.session.tick(pair.now))
        pair.bob.session.data_to_send()
        ticks += 1
        assert ticks < 20
    assert isinstance(pair.bob.events[-1], Failed)
    assert pair.now - before <= 90.0


acts = st.lists(st.sampled_from(["ping", "call", "rekey", "round", "stream", "carry", "wait"]), max_size=8)


@settings(max_examples=60)
@given(acts, st.floats(0.0, 0.999))
def test_before_its_deadline_a_tick_does_nothing_and_at_it_the_deadline_moves(said: list[str], part: float) -> None:
    pair = open_pair()
    for act in said:
        if pair.bob.session.state is State.OPEN:
            _act(pair, act)
    pair.bob.session.data_to_send()
    for _ in range(12):
        due = pair.bob.session.deadline
        if pair.bob.session.state is State.CLOSED:
            break
        early = pair.now + (due - pair.now) * part
        if early < due:
            assert pair.bob.session.tick(early) == []
            assert pair.bob.session.data_to_send() == b""
            assert pair.bob.session.deadline == due
        pair.now = due
        pair.bob.take(pair.bob.session.tick(due))
        pair.bob.session.data_to_send()
        assert pair.bob.session.deadline > due


def _act(pair: Pair, act: str) -> None:
    alice, bob = pair.alice.session, pair.bob.session
    if act == "ping":
        bob.probe(pair.now, 2.0)
    elif act == "call":
        bob.send(FrameType.CALL, bob.next_stream(), b"body", pair.now)
    elif act == "rekey":
        alice.woke(pair.now, 2.0)
        pair.tick(pair.alice)
    elif act == "round":
        bob.open_round(1)
    elif act == "stream":
        stream = bob.streams.open("copy", b"", signed=True, deadline=0, now=pair.now)
        bob.stirred()
        bob.data_to_send()
        room = memoryview(bytearray(ROOM))
        bob.write_stream(stream, memoryview(b"some bytes"), pair.now, room)
    elif act == "carry":
        pair.move(pair.alice)
        pair.bob.session.data_to_send()
    else:
        pair.now += 1.0
        pair.tick(pair.bob)
