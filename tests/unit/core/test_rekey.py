"""Fresh keys under a live link: who leads, what each step demands, and what ends the link."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest

from overlay.core import limits
from overlay.core.epochs import MlKem768
from overlay.core.frames import Frame
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.records import Sealer
from overlay.core.session_events import Closed, Failed, MessageReceived, Rekeyed
from overlay.core.session_states import State
from overlay.core.wire import make_map, u64
from overlay.registry import FrameType, Reason
from tests.unit.core.session_kit import ALICE, BOB, End, Pair, SeededChance, context, flip, raw_frame, records, refusal

CALL = FrameType.CALL
LOWER, HIGHER = sorted((ALICE, BOB), key=lambda member: member.node_id)
PATIENT = AttestTimes(lease=1e6, overdue=1e6)  # rekeys alone
EK = MlKem768().generate().public
CIPHERTEXT = MlKem768().encapsulate(EK)[1]


def patient(**options: Any) -> Pair:
    return Pair.established(attest=PATIENT, **options)


def almost(**options: Any) -> Pair:
    """The last moment before sixty seconds, with signs of life of both: no ping is due."""
    pair = patient(**options)
    pair.sleep(59.9)
    pair.alice.session.probe(pair.now, within=2.0)
    pair.exchange()
    return pair


def offered(**options: Any) -> Pair:
    """Sixty seconds on; Alice owes Bob an OFFER."""
    pair = almost(**options)
    pair.now += 0.1
    assert pair.tick(pair.alice) == []
    return pair


def step(pair: Pair, sender: End, kind: FrameType) -> list[Any]:
    """This end says just this frame."""
    assert [frame[0] for frame in sender.queued_frames] == [kind]
    return pair.move(sender)


def answered(**options: Any) -> Pair:
    """Bob owes Alice an INIT."""
    pair = offered(**options)
    assert step(pair, pair.alice, FrameType.OFFER) == []
    return pair


def responded(**options: Any) -> Pair:
    """Alice owes Bob a RESP."""
    pair = answered(**options)
    assert step(pair, pair.bob, FrameType.INIT) == []
    return pair


def switched(**options: Any) -> tuple[Pair, bytes, bytes]:
    """Bob has changed his sending key: his last record under the old one, and the first frame under the new one, not sealed."""
    pair = responded(**options)
    assert step(pair, pair.alice, FrameType.RESP) == []
    [confirm] = pair.bob.swallow()
    return pair, pair.bob.session.data_to_send(), confirm


# --- what goes well -------------------------------------------------------------------------------------------------


def test_the_opener_drives_after_sixty_seconds_and_both_get_fresh_keys() -> None:
    pair = patient()
    before = pair.alice.keys
    pair.sleep(59.9)
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (1, 1)
    pair.sleep(0.2)
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (2, 2)
    assert pair.alice.keys == pair.bob.keys
    assert pair.alice.keys.h != before.h
    assert not {pair.alice.keys.i2r, pair.alice.keys.r2i, pair.alice.keys.export} & {before.i2r, before.r2i, before.export}
    assert [event for event in pair.alice.events if isinstance(event, Rekeyed)] == [Rekeyed(2)]
    assert pair.alice.session.epoch_began == pair.bob.session.epoch_began == 1060.0


def test_the_five_steps_in_their_order() -> None:
    pair = responded()
    assert step(pair, pair.alice, FrameType.RESP) == []
    assert pair.bob.queued_frames[0][0] == FrameType.CONFIRM
    done, confirm = records(pair.bob.session.data_to_send())
    assert pair.deliver(done, to=pair.alice) == []
    assert pair.alice.session.epoch == 1
    assert pair.deliver(confirm, to=pair.alice) == [Rekeyed(2)]
    assert pair.bob.session.epoch == 1
    assert pair.move(pair.alice) == [Rekeyed(2)]
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (2, 2)


def reachable(root: object) -> Iterator[object]:
    """Everything that the object holds, directly or not; code and modules are not followed."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType | MethodType):
            seen.add(id(one))
            yield one
            waiting += gc.get_referents(one)


def test_keys_that_are_no_longer_needed_are_held_nowhere() -> None:
    pair = patient()
    old = pair.alice.keys
    secrets = {old.i2r, old.r2i, old.export}
    for end in pair.ends:
        assert secrets <= {one for one in reachable(end.session) if isinstance(one, bytes)}
    pair.sleep(61.0)
    for end in pair.ends:
        held = {one for one in reachable(end.session) if isinstance(one, bytes)}
        assert end.keys.export in held
        assert not held & secrets


def test_counters_restart_with_the_keys() -> None:
    pair = patient()
    pair.say(pair.alice, b"before")
    assert pair.alice.sealer.records > 1
    pair.sleep(60.0)
    assert pair.alice.sealer.records == pair.bob.sealer.records == 1  # CONFIRM
    again = Sealer(pair.alice.keys.i2r)
    again.seal(b"in the place of CONFIRM")
    call = again.seal(raw_frame(CALL, b"by the book", stream=1))
    assert pair.deliver(call, to=pair.bob) == [MessageReceived(CALL, 1, b"by the book", ALICE.peer)]


def test_the_jitter_makes_the_driver_earlier() -> None:
    class AllOfIt(SeededChance):
        def fraction(self) -> float:
            return 1.0

    pair = patient(alice_config=context(chance=AllOfIt(1)))
    pair.sleep(55.0)
    assert pair.bob.session.epoch == 2


def test_messages_flow_while_the_keys_change() -> None:
    pair = patient()
    said: dict[str, list[bytes]] = {"alice": [], "bob": []}
    pair.now += 60.0
    pair.tick(pair.alice)
    for number in range(12):
        for name, bodies in said.items():
            end: End = getattr(pair, name)
            body = b"%s %d " % (name.encode(), number) * (1 + number * 3000)
            end.session.send(CALL, end.session.next_stream(), body, pair.now)
            bodies.append(body)
            pair.move(end)
    pair.exchange()
    assert pair.alice.session.epoch == pair.bob.session.epoch == 2
    assert (pair.alice.heard, pair.bob.heard) == (said["bob"], said["alice"])


def test_a_message_in_parts_may_begin_under_one_key_and_end_under_the_next() -> None:
    pair = patient()
    pair.now += 60.0
    pair.tick(pair.alice)
    pair.forge(pair.bob, raw_frame(CALL, b"half ", stream=2, flags=1))
    pair.exchange()
    assert pair.bob.session.epoch == 2
    pair.forge(pair.bob, raw_frame(CALL, b"and half", stream=2))
    assert pair.alice.heard == [b"half and half"]


# --- who leads ------------------------------------------------------------------------------------------------------


def test_the_other_side_is_the_backstop_when_the_opener_does_not_offer() -> None:
    pair = patient(alice_config=lambda config: replace(config, rekey=RekeyTimes(after=1000.0)))
    pair.sleep(74.9)
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (1, 1)
    pair.sleep(0.2)
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (2, 2)


@pytest.mark.parametrize(("alice", "bob"), [(LOWER, HIGHER), (HIGHER, LOWER)], ids=["opener lower", "opener higher"])
def test_when_both_offer_at_once_the_lower_node_id_leads(alice: Any, bob: Any) -> None:
    pair = almost(alice=alice, bob=bob, rekey=RekeyTimes(backstop=60.0))
    pair.now += 0.1
    pair.tick(pair.alice)
    pair.tick(pair.bob)
    leader, follower = pair.ends if alice is LOWER else (pair.bob, pair.alice)
    from_leader, from_follower = leader.session.data_to_send(), follower.session.data_to_send()
    assert pair.deliver(from_follower, to=leader) == []
    assert leader.is_silent
    assert pair.deliver(from_leader, to=follower) == []
    assert step(pair, follower, FrameType.INIT) == []
    pair.exchange()
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (2, 2)
    assert pair.alice.keys == pair.bob.keys


@pytest.mark.parametrize("times", [RekeyTimes(records=5, pause=1.0), RekeyTimes(volume=1000, pause=1.0)])
def test_a_key_that_has_carried_enough_is_changed_but_not_too_soon(times: RekeyTimes) -> None:
    pair = patient(rekey=times)
    pair.now += 1.5
    for _ in range(6):
        pair.say(pair.bob, bytes(300))
    assert pair.bob.session.deadline == 1002.0
    pair.sleep(1.0)
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (2, 2)


def test_a_key_that_has_carried_enough_during_a_rekey_is_no_reason_for_another() -> None:
    pair = offered(rekey=RekeyTimes(records=3))
    for _ in range(4):
        pair.alice.session.send(CALL, pair.alice.session.next_stream(), b"x", pair.now)
        pair.alice.session.data_to_send()
    assert pair.alice.session.deadline == pair.now + 5.0


# --- after a sleep of the machine -----------------------------------------------------------------------------------


def test_a_machine_that_has_slept_changes_keys_at_once() -> None:
    pair = patient()
    pair.now += 11.0
    pair.alice.session.woke(pair.now, within=2.0)
    assert pair.alice.session.deadline == pair.now
    pair.tick(pair.alice)
    pair.exchange()
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (2, 2)
    assert pair.alice.session.deadline > pair.now + 10.0


def test_one_early_offer_is_taken_after_a_sleep_and_no_second_one() -> None:
    pair = patient()
    for end in pair.ends:
        end.session.woke(pair.now, within=2.0)
    pair.tick(pair.alice)
    pair.exchange()
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (2, 2)
    assert refusal(pair.forge(pair.alice, Frame(FrameType.OFFER, body=u64(3) + EK))) is Reason.REKEY_TOO_SOON


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 1, 3, 2**64 - 1])
def test_an_offer_of_any_epoch_but_the_next_is_refused(epoch: int) -> None:
    pair = patient()
    pair.now += 20.0
    assert refusal(pair.forge(pair.alice, Frame(FrameType.OFFER, body=u64(epoch) + EK))) is Reason.STALE_EPOCH


def test_a_replayed_offer_is_refused_while_it_is_answered_and_after() -> None:
    during = offered()
    [offer] = during.alice.queued_frames
    assert during.move(during.alice) == []
    assert refusal(during.forge(during.alice, offer)) is Reason.STALE_EPOCH

    after = offered()
    [offer] = after.alice.queued_frames
    after.exchange()
    after.now += 20.0
    assert refusal(after.forge(after.alice, offer)) is Reason.STALE_EPOCH


@pytest.mark.parametrize("seconds", [0.0, 9.9, 10.0])
def test_an_offer_within_ten_seconds_of_the_last_epoch_is_refused(seconds: float) -> None:
    pair = patient()
    pair.now += seconds
    events = pair.forge(pair.alice, Frame(FrameType.OFFER, body=u64(2) + EK))
    if seconds < 10.0:
        assert refusal(events) is Reason.REKEY_TOO_SOON
    else:
        assert events == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FrameType.OFFER, u64(2) + EK[:-1]), (FrameType.OFFER, b""), (FrameType.INIT, u64(2) + CIPHERTEXT + bytes(47)),
        (FrameType.RESP, u64(2) + bytes(49)),
    ],
    ids=["short offer", "no offer", "short init", "long resp"],
)  # fmt: skip
def test_a_rekey_frame_of_another_size_is_refused(kind: FrameType, body: bytes) -> None:
    pair = {FrameType.OFFER: patient, FrameType.INIT: answered, FrameType.RESP: responded}[kind]()
    sender = pair.bob if kind is FrameType.INIT else pair.alice
    sender.swallow()
    pair.now += 20.0
    assert refusal(pair.forge(sender, Frame(kind, body=body))) is Reason.MALFORMED


def test_an_offer_that_is_no_encapsulation_key_is_refused() -> None:
    pair = patient()
    pair.now += 20.0
    body = u64(2) + b"\xff" * limits.KEM_KEY_SIZE
    assert refusal(pair.forge(pair.alice, Frame(FrameType.OFFER, body=body))) is Reason.BAD_HANDSHAKE


def changed(pair: Pair, sender: End, index: int) -> list[Any]:
    """The one frame that this end owes, with one bit of its body changed before it is sealed."""
    [frame] = sender.swallow()
    return pair.forge(sender, flip(8 + index, bit=index % 8)(frame))


@pytest.mark.parametrize("index", [8, 600, 1095, 1096, 1127, 1128, 1143])
def test_a_bit_changed_in_init_is_noticed(index: int) -> None:
    pair = answered()
    assert refusal(changed(pair, pair.bob, index)) is Reason.REKEY_FAILED


@pytest.mark.parametrize("index", [0, 7])
def test_another_epoch_in_init_or_resp_is_refused(index: int) -> None:
    pair = answered()
    assert refusal(changed(pair, pair.bob, index)) is Reason.STALE_EPOCH
    pair = responded()
    assert refusal(changed(pair, pair.alice, index)) is Reason.STALE_EPOCH


@pytest.mark.parametrize("index", [8, 39, 40, 55])
def test_a_bit_changed_in_resp_is_noticed(index: int) -> None:
    pair = responded()
    assert refusal(changed(pair, pair.alice, index)) is Reason.REKEY_FAILED


def test_a_bit_changed_in_offer_is_noticed_by_the_driver() -> None:
    pair = offered()
    assert changed(pair, pair.alice, 8 + 1170) == []
    assert refusal(step(pair, pair.bob, FrameType.INIT)) is Reason.REKEY_FAILED


STEPS = {FrameType.OFFER, FrameType.INIT, FrameType.RESP, FrameType.DONE, FrameType.CONFIRM}


@pytest.mark.parametrize("kind", sorted(STEPS - {FrameType.OFFER}))
def test_no_step_of_a_rekey_comes_without_an_offer(kind: FrameType) -> None:
    pair = patient()
    pair.now += 20.0
    assert refusal(pair.forge(pair.alice, Frame(kind, body=make_map(2)))) is Reason.STALE_EPOCH


@pytest.mark.parametrize("kind", sorted(STEPS - {FrameType.INIT, FrameType.OFFER}))
def test_the_driver_waits_for_init(kind: FrameType) -> None:
    pair = offered()
    assert refusal(pair.forge(pair.bob, Frame(kind, body=make_map(2)))) is Reason.STALE_EPOCH


@pytest.mark.parametrize("kind", sorted(STEPS - {FrameType.RESP}))
def test_the_answerer_waits_for_resp(kind: FrameType) -> None:
    pair = answered()
    assert refusal(pair.forge(pair.alice, Frame(kind, body=make_map(2)))) is Reason.STALE_EPOCH


@pytest.mark.parametrize("kind", sorted(STEPS - {FrameType.DONE}))
def test_after_resp_comes_done(kind: FrameType) -> None:
    pair = responded()
    pair.alice.session.data_to_send()
    assert refusal(pair.forge(pair.bob, Frame(kind, body=make_map(2)))) is Reason.STALE_EPOCH


# --- DONE and CONFIRM -----------------------------------------------------------------------------------------------


def test_done_is_the_last_frame_of_its_record() -> None:
    pair = responded()
    pair.alice.session.data_to_send()
    events = pair.forge(pair.bob, Frame(FrameType.DONE), Frame(CALL, stream=2, body=b"one more"))
    assert refusal(events) is Reason.UNEXPECTED_FRAME
    assert pair.alice.heard == []


def test_done_may_close_a_record_of_other_frames() -> None:
    pair = responded()
    pair.alice.session.data_to_send()
    pair.forge(pair.bob, Frame(CALL, stream=2, body=b"before"), Frame(FrameType.DONE))
    assert pair.alice.heard == [b"before"]


def test_done_has_no_body() -> None:
    pair = responded()
    pair.alice.session.data_to_send()
    assert refusal(pair.forge(pair.bob, Frame(FrameType.DONE, body=b"x"))) is Reason.MALFORMED


@pytest.mark.parametrize(
    "instead",
    [raw_frame(CALL, b"hi", stream=2), raw_frame(FrameType.PING, make_map(1, 1)), raw_frame(0x90),
     raw_frame(CALL, b"hi", stream=2) + raw_frame(FrameType.CONFIRM, make_map(2)),
     raw_frame(FrameType.GOODBYE, make_map(1))],
    ids=["call", "ping", "unknown", "call and confirm", "goodbye"],
)  # fmt: skip
def test_confirm_is_the_first_frame_under_the_new_key(instead: bytes) -> None:
    pair, done, _ = switched()
    assert pair.deliver(done, to=pair.alice) == []
    assert refusal(pair.forge(pair.bob, instead)) is Reason.UNEXPECTED_FRAME
    assert pair.alice.heard == []


@pytest.mark.parametrize("epoch", [1, 3])
def test_confirm_names_the_epoch_of_its_key(epoch: int) -> None:
    pair, done, _ = switched()
    pair.deliver(done, to=pair.alice)
    confirm = Frame(FrameType.CONFIRM, body=make_map(epoch))
    assert refusal(pair.forge(pair.bob, confirm)) is Reason.STALE_EPOCH


def test_the_driver_s_confirm_is_demanded_too() -> None:
    pair, done, confirm = switched()
    pair.deliver(done, to=pair.alice)
    pair.forge(pair.bob, confirm)
    pair.alice.swallow()
    assert pair.move(pair.alice) == []
    assert refusal(pair.forge(pair.alice, Frame(CALL, stream=1, body=b"hi"))) is Reason.UNEXPECTED_FRAME


def test_a_record_under_the_old_key_after_done_is_refused() -> None:
    pair = responded()
    old = pair.bob.sealer
    pair.exchange()
    assert (pair.alice.session.epoch, pair.bob.session.epoch) == (2, 2)
    assert refusal(pair.deliver(old.seal(raw_frame(CALL, b"late", stream=2)), to=pair.alice)) is Reason.BAD_RECORD


def test_a_record_under_the_old_key_right_behind_done_is_refused() -> None:
    pair = responded()
    old = pair.bob.sealer
    step(pair, pair.alice, FrameType.RESP)
    done, _ = records(pair.bob.session.data_to_send())
    pair.deliver(done, to=pair.alice)
    assert refusal(pair.deliver(old.seal(raw_frame(CALL, b"late", stream=2)), to=pair.alice)) is Reason.BAD_RECORD


def test_a_record_under_the_new_key_before_done_is_refused() -> None:
    pair, _, confirm = switched()
    assert refusal(pair.deliver(pair.bob.sealer.seal(confirm), to=pair.alice)) is Reason.BAD_RECORD


def test_another_rekey_may_follow_and_not_while_one_is_under_way() -> None:
    pair, done, confirm = switched()
    pair.deliver(done, to=pair.alice)
    pair.forge(pair.bob, confirm)
    assert refusal(pair.forge(pair.bob, Frame(FrameType.OFFER, body=u64(3) + EK))) is Reason.REKEY_TOO_SOON


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_five_seconds_of_silence_end_a_rekey(who: str) -> None:
    pair = answered() if who == "bob" else offered()
    end: End = getattr(pair, who)
    end.session.data_to_send()
    assert end.session.deadline == pair.now + 5.0
    pair.now += 5.0
    assert refusal(pair.tick(end)) is Reason.REKEY_FAILED


def test_a_peer_that_talks_has_thirty_seconds() -> None:
    pair = offered(rekey=RekeyTimes(close=1000.0))
    pair.alice.session.data_to_send()
    began = pair.now
    while pair.now < began + 29.0:
        pair.now += 1.0
        pair.say(pair.bob, b"still here")
        assert pair.tick(pair.alice) == []
    assert pair.alice.session.deadline == began + 30.0
    pair.now = began + 30.0
    assert isinstance(pair.tick(pair.alice)[-1], Failed)
    assert pair.alice.events[-1] == Failed(Reason.REKEY_FAILED, "no answer")


def test_keys_of_ninety_seconds_end_the_link() -> None:
    pair = patient(rekey=RekeyTimes(after=1000.0, backstop=1000.0))
    pair.sleep(89.9)
    assert pair.states == (State.OPEN, State.OPEN)
    pair.now = 1090.0
    assert pair.alice.session.deadline == 1090.0
    assert refusal(pair.tick(pair.alice)) is Reason.REKEY_OVERDUE
    assert pair.move(pair.alice) == [Closed(Reason.REKEY_OVERDUE, by_peer=True)]


def test_a_rekey_that_drags_on_does_not_outlive_ninety_seconds() -> None:
    pair = patient(rekey=RekeyTimes(after=88.0, jitter=0.0, backstop=100.0))
    pair.sleep(87.9)
    pair.now = 1088.0
    pair.tick(pair.alice)
    assert pair.alice.session.deadline == 1090.0
    pair.now = 1090.0
    assert refusal(pair.tick(pair.alice)) is Reason.REKEY_OVERDUE


def test_ten_epochs_later_the_link_still_carries() -> None:
    pair = patient(rekey=RekeyTimes.every(5.0))
    pair.sleep(60.0)
    assert pair.alice.session.epoch == pair.bob.session.epoch > 10
    assert pair.say(pair.alice, b"hi") != []
