"""What key generation, resharing and repair have in common: they wait for everyone, fail for all, and say whom to blame."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from overlay.core.authority.run_events import Event, Failed, FailedElsewhere, Finished, Ignored
from overlay.core.authority.sharing import MEMBERS_MAX
from overlay.core.authority.statements import BODY_MAX, PROOF, Board, Equivocation, Statement
from overlay.core.keys import NodeId
from overlay.core.wire import Array, Bytes, Tuple, UInt, decode, encode, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind

THRESHOLD_MIN: Final = 2  # with one, each member would hold the mesh key
ROUND_TIMEOUT: Final = 30.0  # seconds for each round: our guess; a round takes milliseconds, a link is found dead sooner
FAILURE_MAX: Final = 4 * 1024  # the names of 64 members take 2.2 KiB

Message = tuple[NodeId, RoundKind, bytes]  # to whom, what, body

_PASSED_ON: Final = Array(Tuple((Bytes(32), Bytes(0, 1024), Bytes(64))), MEMBERS_MAX)  # author, content, signature


class Room:
    """One member's view of a run: its board, what it owes the others, and how the run ended."""

    def __init__(self, board: Board, own: NodeId, everyone: Sequence[NodeId], failed_kind: RoundKind) -> None:
        self.board = board
        self.own = own
        self.others = tuple(member for member in everyone if member != own)
        self.until = math.inf
        self.failed: Failed | None = None
        self.failed_kind = failed_kind
        self._outgoing: list[Message] = []
        self._sent: list[Message] = []

    def say(self, kind: RoundKind, content: bytes) -> None:
        """To everyone."""
        self.send(self.board.say(kind, content), self.others)

    def send(self, statement: Statement, to: Iterable[NodeId], extra: bytes | None = None) -> None:
        """A statement, perhaps with something along with it."""
        body = statement.pack(extra)
        self._outgoing += [(member, statement.kind, body) for member in to]

    def messages_to_send(self) -> list[Message]:
        """What is owed since the last call."""
        found, self._outgoing = self._outgoing, []
        self._sent += found
        return found

    def again(self, peer: NodeId) -> list[Message]:
        """Everything that was sent to that member so far, for a link that was lost: the same message twice is harmless."""
        return [message for message in self._sent if message[0] == peer]

    def hear(self, sender: NodeId, kind: RoundKind, body: bytes) -> tuple[Statement, bytes | None]:
        """Read and hold what came; raises Blamed, also if it is not what the same member said before."""
        with blaming(sender):
            statement, extra = self.board.read(sender, kind, body)
        raise_equivocation(self.board.hold(statement))
        return statement, extra

    def hear_others(self, sender: NodeId, kind: RoundKind, extra: bytes) -> None:
        """Hold the statements of others that a member passes on; raises Blamed."""
        with blaming(sender):
            passed = [self.board.verified(each) for each in unpack_statements(extra, kind)]
        for statement in passed:
            raise_equivocation(self.board.hold(statement))

    def pass_on(self, kind: RoundKind, authors: Iterable[NodeId]) -> None:
        """Our own statement once more, with all that we hold: whoever lacks some can finish, too."""
        held = [self.board.get(author, kind) for author in authors]
        own = self.board.get(self.own, kind)
        if own is not None:
            others = [each for each in held if each is not None and each is not own]
            self.send(own, self.others, pack_statements(others))

    def fail(self, failed: Failed, *, tell: bool = True) -> list[Event]:
        """End the run; what was not sent yet stays unsent, except word of the failure."""
        self.failed = failed
        self.until = math.inf
        self._outgoing, self._sent = [], []
        if tell:
            self.say(self.failed_kind, _pack_failure(failed))
        return [failed]

    def compare_echo(
        self, member: NodeId, content: bytes, kinds: Sequence[RoundKind], authors: Sequence[NodeId]
    ) -> None:
        """Raises Blamed if somebody told that member something else, or if the member says so and it is not true."""
        with blaming(member):
            found = self.board.compare_echo(content, kinds, authors)
        raise_equivocation(found)

    def reported(self, statement: Statement) -> Failed:
        """What a member's word of its failure means here; raises Refused for one that makes no sense."""
        reason, named, proof = open_failure(statement.content)
        if proof is None:
            return Failed(reason, named, f"said by {statement.author}", reporter=statement.author)
        proof.verify(self.board.terms)
        return Failed(Reason.EQUIVOCATION, (proof.author,), proof.kind.name, proof=proof)


class Machine(ABC):
    """What the members' machines share: receive / messages_to_send / deadline. Nothing that a member does raises."""

    def __init__(self, room: Room, kinds: Iterable[RoundKind], certificate: RoundKind | None = None) -> None:
        self._room = room
        self._kinds = frozenset(kinds)
        self._certificate = certificate  # the kind that comes with those of others
        self._done = False

    @property
    def deadline(self) -> float:
        """When tick is due; math.inf once the run is over."""
        return self._room.until

    def messages_to_send(self) -> list[Message]:
        """What we owe the others; ask after every other call."""
        return self._room.messages_to_send()

    def messages_again(self, peer: NodeId) -> list[Message]:
        """All that we have sent to that member, for a link that was lost and is back: the same message twice is harmless."""
        return self._room.again(peer)

    def receive(self, sender: NodeId, kind: RoundKind, body: bytes, now: float) -> list[Event]:
        """A message that certainly comes from that sender."""
        if sender not in self._room.others:
            return [Ignored(sender, Reason.NOT_A_SIGNER)]
        if kind is not self._room.failed_kind and not self._has_place(sender, kind):
            return [Ignored(sender, Reason.UNEXPECTED_FRAME)]
        if self._room.failed is not None or (self._done and kind is not self._room.failed_kind):
            return []  # there is nothing left to learn
        return self._guarded(lambda: self._take(sender, kind, body, now))

    def _has_place(self, sender: NodeId, kind: RoundKind) -> bool:
        """Whether that sender may say that; for subclasses."""
        return kind in self._kinds

    @abstractmethod
    def _heard(self, statement: Statement, extra: bytes | None, now: float) -> list[Event]:
        """A statement, verified and held; may raise Blamed."""

    @abstractmethod
    def _erase(self) -> None:
        """Let go of all secrets."""

    def _take(self, sender: NodeId, kind: RoundKind, body: bytes, now: float) -> list[Event]:
        statement, extra = self._room.hear(sender, kind, body)
        if kind is self._room.failed_kind:
            with blaming(sender):
                return self._hear_failure(self._room.reported(statement), sender)
        if kind is self._certificate and extra is not None:
            self._room.hear_others(sender, kind, extra)
        return self._heard(statement, extra, now)

    def _hear_failure(self, failed: Failed, sender: NodeId) -> list[Event]:
        return [FailedElsewhere(sender, failed.reason)] if self._done else self._fail(failed)

    def _guarded(self, what: Callable[[], list[Event]]) -> list[Event]:
        """A member's fault ends the run, unless it is done."""
        try:
            return what()
        except Blamed as error:
            failed = Failed(error.reason, (error.member,), error.detail, proof=error.proof)
            return [] if self._done else self._fail(failed)

    def _fail(self, failed: Failed, *, tell: bool = True) -> list[Event]:
        self._erase()
        return self._room.fail(failed, tell=tell)

    def _finish(self, missing: tuple[NodeId, ...] = ()) -> list[Event]:
        self._done = True
        self._room.until = math.inf
        self._erase()
        return [Finished(missing)]


class Blamed(Refused):
    """A check failed, and this member is why; perhaps with the proof that others can check."""

    def __init__(self, member: NodeId, reason: Reason, detail: str = "", proof: Equivocation | None = None) -> None:
        super().__init__(reason, detail)
        self.member = member
        self.proof = proof


@contextmanager
def blaming(member: NodeId) -> Iterator[None]:
    """What is refused inside is that member's fault."""
    try:
        yield
    except Blamed:
        raise
    except Refused as error:
        raise Blamed(member, error.reason, error.detail) from None


def raise_equivocation(proof: Equivocation | None) -> None:
    """Raises Blamed(EQUIVOCATION) if there is one."""
    if proof is not None:
        raise Blamed(proof.author, Reason.EQUIVOCATION, proof.kind.name, proof)


def pack_statements(statements: Iterable[Statement]) -> bytes:
    """Statements of one kind to be passed on with one's own."""
    return encode([[each.author, each.content, each.signature] for each in statements])


def unpack_statements(data: bytes, kind: RoundKind) -> list[Statement]:
    """Unverified; raises Refused(MALFORMED or TOO_LARGE)."""
    value = decode(data, limit=BODY_MAX)
    _PASSED_ON.check(value)
    return [Statement(NodeId(author), kind, content, signature) for author, content, signature in value]


def _pack_failure(failed: Failed) -> bytes:
    proof = None if failed.proof is None else failed.proof.pack()
    return make_map(int(failed.reason), list(failed.named), proof)


def _reason(number: int) -> Reason:
    try:
        return Reason(number)
    except ValueError:
        raise Refused(Reason.MALFORMED, f"reason {number}") from None


def open_failure(content: bytes) -> tuple[Reason, tuple[NodeId, ...], Equivocation | None]:
    """Why, who, and perhaps the proof, unverified; raises Refused(MALFORMED)."""
    number, named, proof = open_map(content, UInt(255), Array(Bytes(32), MEMBERS_MAX), PROOF, limit=FAILURE_MAX)
    names = tuple(NodeId(name) for name in named)
    if proof is None:
        return _reason(number), names, None
    if len(names) != 1:
        raise Refused(Reason.MALFORMED, "a proof names one member")
    return _reason(number), names, Equivocation.unpack(names[0], proof)
