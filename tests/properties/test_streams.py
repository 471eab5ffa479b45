"""Properties of the streams of a link: what is sent is what arrives, credit holds, and any bytes are read or refused."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from overlay.core.limits import SEGMENT_AFTER, UNSIGNED_AFTER, WINDOW_FIRST, StreamLimits
from overlay.core.segments import SegmentReader, SignedStream
from overlay.core.stream_events import StreamBroken, StreamEnded, StreamOffered, StreamSigned
from overlay.core.stream_formats import pack_credit, pack_reset
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import FrameType, ReplyStatus
from tests.unit.core.stream_kit import CREDIT, DATA, END, H1, OPEN, RESET, SEGMENT, End, Frame, Pair, merged

BLOCK = bytes(range(256)) * 8192  # 2 MiB, of which pieces are sent
SIZES = st.sampled_from([1, 63, 4096, 65_511, 65_512, 262_144, 600_000]) | st.integers(1, 400_000)
KINDS = (OPEN, DATA, CREDIT, SEGMENT, END, RESET)


@dataclass
class Direction:
    """What one end says on one stream."""

    sent: bytearray = field(default_factory=bytearray)
    finished: bool = False
    aborted: bool = False  # either side broke it off: what arrives is a prefix


class Talk(RuleBasedStateMachine):
    """Two ends and a slow wire: whatever they do, in whatever order frames arrive in each direction."""

    @initialize(small=st.booleans())
    def begin(self, small: bool) -> None:
        few = StreamLimits(opens=3, windows=6 * WINDOW_FIRST, grown=5 * WINDOW_FIRST)
        self.limits = few if small else StreamLimits()
        self.pair = Pair(self.limits)
        self.said: dict[tuple[int, int], Direction] = {}  # (role, stream)
        self.offered: dict[int, set[int]] = {1: set(), 2: set()}
        self.usable: dict[int, set[int]] = {1: set(), 2: set()}
        self.seen: dict[int, int] = {1: 0, 2: 0}  # events that were looked at

    def end(self, role: int) -> End:
        return self.pair.alice if role == 1 else self.pair.bob

    def told(self, role: int) -> None:
        """The shell's part: remember what was offered, and that broken streams are over."""
        end = self.end(role)
        for event in end.events[self.seen[role] :]:
            if isinstance(event, StreamOffered):
                self.offered[role].add(event.stream)
                for side in (1, 2):
                    self.said.setdefault((side, event.stream), Direction())
            elif isinstance(event, StreamBroken):
                if event.stream in self.offered[role]:
                    end.unread[event.stream] = 0  # nobody had taken it
                self.abort(role, event.stream)
        self.seen[role] = len(end.events)

    def abort(self, role: int, stream: int) -> None:
        """This end broke it off, or knows that the other did."""
        for side in (1, 2):
            self.said.setdefault((side, stream), Direction()).aborted = True
        self.usable[role].discard(stream)
        self.offered[role].discard(stream)

    # --- what the two do

    @rule(role=st.sampled_from([1, 2]), signed=st.booleans())
    def open(self, role: int, signed: bool) -> None:
        end = self.end(role)
        if end.streams.count >= 3:
            return
        stream = self.pair.open(end, signed=signed)
        for side in (1, 2):
            self.said[side, stream] = Direction()
        self.usable[role].add(stream)

    @precondition(lambda self: any(self.offered.values()))
    @rule(data=st.data(), refuse=st.integers(0, 4))
    def answer(self, data: st.DataObject, refuse: int) -> None:
        role, stream = data.draw(st.sampled_from([(role, one) for role in (1, 2) for one in sorted(self.offered[role])]))
        end = self.end(role)
        self.offered[role].discard(stream)
        if refuse == 0:
            end.streams.refuse(stream, ReplyStatus.BUSY, "", self.pair.now)
            end.unread[stream] = 0
            self.abort(role, stream)
        else:
            end.streams.accept(stream, self.pair.now)
            self.usable[role].add(stream)
        end.flush()

    def pick(self, data: st.DataObject) -> tuple[int, int]:
        return data.draw(st.sampled_from([(role, one) for role in (1, 2) for one in sorted(self.usable[role])]))

    @precondition(lambda self: any(self.usable.values()))
    @rule(data=st.data(), size=SIZES, start=st.integers(0, 255))
    def write(self, data: st.DataObject, size: int, start: int) -> None:
        role, stream = self.pick(data)
        direction = self.said[role, stream]
        if not direction.finished:
            taken = self.pair.write(self.end(role), stream, BLOCK[start : start + size])
            direction.sent += BLOCK[start : start + taken]

    @precondition(lambda self: any(self.usable.values()))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        role, stream = self.pick(data)
        if not self.said[role, stream].finished:
            self.said[role, stream].finished = True
            self.pair.finish(self.end(role), stream)

    @precondition(lambda self: any(self.usable.values()))
    @rule(data=st.data(), sure=st.integers(0, 3))
    def reset(self, data: st.DataObject, sure: int) -> None:
        if sure == 0:
            role, stream = self.pick(data)
            self.pair.reset(self.end(role), stream)
            self.end(role).unread[stream] = 0
            self.abort(role, stream)

    @precondition(lambda self: any(any(end.unread.values()) for end in (self.pair.alice, self.pair.bob)))
    @rule(data=st.data(), part=st.integers(1, 4))
    def read(self, data: st.DataObject, part: int) -> None:
        waiting = [
            (role, stream)
            for role in (1, 2)
            for stream, size in sorted(self.end(role).unread.items())
            if size and stream not in self.offered[role]
        ]
        if waiting:
            role, stream = data.draw(st.sampled_from(waiting))
            end = self.end(role)
            self.pair.read(end, stream, -(-end.unread[stream] // part))

    @rule(seconds=st.sampled_from([0.01, 0.3, SEGMENT_AFTER]))
    def wait(self, seconds: float) -> None:
        self.pair.now += seconds
        for role in (1, 2):
            end = self.end(role)
            if end.streams.deadline <= self.pair.now:
                oldest_in = min(end.streams._unsigned_in.values(), default=self.pair.now)
                if self.pair.now < oldest_in + UNSIGNED_AFTER:
                    end.take(end.streams.tick(self.pair.now))
                    end.flush()

    @rule(role=st.sampled_from([1, 2]), count=st.integers(1, 30), merge=st.booleans())
    def deliver(self, role: int, count: int, merge: bool) -> None:
        """Some of what is under way arrives."""
        sender = self.end(role)
        frames = [sender.wire.popleft() for _ in range(min(count, len(sender.wire)))]
        for frame in merged(frames) if merge else frames:
            self.pair.deliver(frame, to=self.pair.other(sender))
        self.told(3 - role)
        self.pair.other(sender).flush()

    # --- what always holds

    @invariant()
    def what_arrived_is_the_beginning_of_what_was_sent(self) -> None:
        for (role, stream), direction in self.said.items():
            heard = self.end(3 - role).heard[stream]
            assert direction.sent.startswith(heard)

    @invariant()
    def what_waits_is_within_the_windows(self) -> None:
        for end in (self.pair.alice, self.pair.bob):
            assert sum(end.unread.values()) <= self.limits.windows

    def teardown(self) -> None:
        """Everything arrives and is read: all that was not broken off is there, signed where it should be."""
        if not hasattr(self, "pair"):
            return
        self.settle()
        for (role, stream), direction in list(self.said.items()):
            if not direction.aborted and stream in self.usable[role] and not direction.finished:
                self.push_rest(role, stream, direction)
        self.settle()
        for (role, stream), direction in self.said.items():
            if not direction.aborted:
                other = self.end(3 - role)
                assert bytes(other.heard[stream]) == bytes(direction.sent)
                ends = [one for one in other.told(StreamEnded) if one.stream == stream]
                assert ends == [StreamEnded(stream, truncated=False)]
                finals = [one.offset for one in other.told(StreamSigned) if one.stream == stream and one.final]
                assert finals in ([], [len(direction.sent)])
        assert self.pair.alice.streams.count == self.pair.bob.streams.count == 0

    def push_rest(self, role: int, stream: int, direction: Direction) -> None:
        """Some more, through full windows, and the end."""
        more, taken = BLOCK[: WINDOW_FIRST * 2], 0
        while taken < len(more):
            size = self.pair.write(self.end(role), stream, more[taken:])
            self.settle()
            taken += size
            direction.sent += more[taken - size : taken]
            assert size, "no room although everything was read"
        direction.finished = True
        self.pair.finish(self.end(role), stream)

    def settle(self) -> None:
        """The wire is emptied, offers are accepted, and all is read, until nothing moves."""
        for _ in range(1000):
            for role in (1, 2):
                self.deliver(role, 10**6, True)
            for role in (1, 2):
                for stream in sorted(self.offered[role]):
                    self.end(role).streams.accept(stream, self.pair.now)
                    self.usable[role].add(stream)
                self.offered[role].clear()
                for stream, size in self.end(role).unread.items():
                    if size:
                        self.pair.read(self.end(role), stream)
                self.end(role).flush()
            if not self.pair.alice.wire and not self.pair.bob.wire:
                return
        raise AssertionError("the talk does not settle")


TestTalk = Talk.TestCase
TestTalk.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- any bytes ------------------------------------------------------------------------------------------------------

small = st.binary(max_size=80)
maps = st.lists(st.integers(0, 300) | st.text(max_size=5) | st.binary(max_size=40) | st.booleans(), max_size=10)
bodies = st.one_of(
    small, maps.map(lambda fields: make_map(*fields)), st.integers(0, 2**64 - 1).map(pack_credit),
    st.sampled_from(ReplyStatus).map(lambda status: pack_reset(status, "why")), st.just(b""), st.just(bytes(70_000)),
)  # fmt: skip
frames = st.tuples(st.sampled_from(KINDS), st.integers(0, 9), bodies)


def signed_and_unsigned() -> Pair:
    """A signed stream, an unsigned one, one that waits for an answer, and one that is over."""
    pair = Pair()
    pair.opened()
    pair.opened(signed=False)
    over = pair.opened()
    pair.reset(pair.alice, over)
    pair.exchange()
    pair.open(pair.bob)
    pair.open(pair.alice)
    pair.exchange()
    return pair


@settings(max_examples=400)
@given(st.lists(frames, max_size=12), st.sampled_from(["alice", "bob"]))
def test_any_frames_are_taken_or_refused_and_never_raise_anything_else(said: list[Frame], whose: str) -> None:
    pair = signed_and_unsigned()
    end: End = getattr(pair, whose)
    try:
        for frame in said:
            pair.deliver(frame, to=end)
    except Refused:
        return
    end.streams.tick(pair.now)
    end.streams.frames_to_send()


@settings(max_examples=100)
@given(st.lists(st.integers(1, WINDOW_FIRST), min_size=1, max_size=12), st.integers(0, 11))
def test_a_peer_is_refused_exactly_when_it_exceeds_its_credit(sizes: list[int], reads_after: int) -> None:
    pair = Pair()
    stream = pair.opened(signed=False)
    sent, limit = 0, WINDOW_FIRST
    for index, size in enumerate(sizes):
        sent += size
        try:
            pair.deliver((DATA, stream, bytes(size)), to=pair.bob)
        except Refused:
            assert sent > limit
            return
        assert sent <= limit
        if index >= reads_after:
            pair.read(pair.bob, stream)
            for _, _, body in pair.bob.wire:
                limit = int.from_bytes(body, "big")


@settings(max_examples=100)
@given(st.lists(st.tuples(SIZES, st.integers(0, 2**18)), min_size=1, max_size=12))
def test_a_sender_never_exceeds_its_credit_and_pieces_fit_into_frames(steps: list[tuple[int, int]]) -> None:
    pair = Pair()
    stream = pair.opened()
    credit, sent = WINDOW_FIRST, 0
    for size, more in steps:
        room = pair.alice.streams.room(stream)
        assert room == credit - sent
        taken, pieces = pair.alice.streams.write(stream, memoryview(BLOCK)[:size], pair.now)
        assert taken == min(size, room, 512 * 1024)
        assert taken == sum(len(body) for kind, _, body in pieces if kind is DATA)
        assert all(0 < len(body) <= 65_511 for _, _, body in pieces)
        sent, credit = sent + taken, credit + more
        pair.deliver((CREDIT, stream, pack_credit(credit)), to=pair.alice)


@settings(max_examples=100)
@given(st.binary(max_size=400))
def test_any_bytes_as_a_segment_are_refused(raw: bytes) -> None:
    pair = Pair()
    reader = SegmentReader(SignedStream(mesh_id=bytes(32), first_h=H1, stream=1, opening=bytes(32)))
    try:
        reader.check(raw, own_id=pair.bob.member.node_id, peer=pair.alice.member.peer)
    except Refused:
        return
    raise AssertionError("taken")


@settings(max_examples=60)
@given(st.integers(0, 400), st.integers(0, 7), st.sampled_from([SEGMENT, DATA, FrameType.STREAM_OPEN]))
def test_a_signed_stream_on_which_one_bit_was_changed_is_refused(place: int, bit: int, kind: FrameType) -> None:
    pair = Pair()
    stream = pair.open(pair.alice)
    pair.write(pair.alice, stream, BLOCK[:500])
    pair.finish(pair.alice, stream)
    said = list(pair.alice.wire)
    index = next(index for index, frame in enumerate(said) if frame[0] is kind)
    damaged = bytearray(said[index][2])
    damaged[place % len(damaged)] ^= 1 << bit
    said[index] = kind, stream, bytes(damaged)
    try:
        for frame in said:
            pair.deliver(frame, to=pair.bob)
    except Refused:
        return
    raise AssertionError("taken")
