"""New shares that nobody has to order: when they are due one signer asks the others, and with their yes it leads the run.

Whoever says yes takes part in nothing else until the run is over or does not begin, so that there are never two at once.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Protocol

import trio

from overlay.app.authority.keeper import Keeper
from overlay.app.authority.resharing import Assignment, call_off, session_for
from overlay.app.authority.signing import Surroundings
from overlay.app.authority.upkeep import Upkeep
from overlay.core.authority.refresh_rules import (
    RefreshRules,
    pack_answer,
    pack_wanted,
    unpack_answer,
    unpack_wanted,
)
from overlay.core.authority.round_messages import Outgoing, RoundMessage
from overlay.core.authority.sharing import Share
from overlay.core.keys import NodeId
from overlay.errors import OverlayError, Refused
from overlay.net.background import spawn
from overlay.registry import Reason, RoundKind

LOOK_MAX: Final = 60.0  # seconds between two looks at the calendar: our guess
ANSWER_WITHIN: Final = 5.0  # seconds; whoever has said yes waits twice as long for the plan, or until it is called off
SESSIONS_KEPT: Final = 64  # our guess: one a week
UNORDERED: Final = 0  # orders are numbered from 1


class Performer(Protocol):
    """Ceremonies, of which there is one at a time."""

    @property
    def is_idle(self) -> bool:
        """Whether none is under way or has been begun."""
        ...

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """None other begins for the length of the block. Raises Refused(BUSY)."""
        ...

    async def hand_over(self, assignment: Assignment) -> None:
        """Carry it out. Raises OverlayError."""
        ...


class Refreshing:
    """Of one node, for as long as it runs."""

    def __init__(
        self, around: Surroundings, keeper: Keeper, performer: Performer, upkeep: Upkeep, every: float,
        kept_out: Callable[[], bool],
    ) -> None:
        self._around = around
        self._keeper = keeper
        self._performer = performer
        self._upkeep = upkeep
        self._rules = RefreshRules(timedelta(seconds=every))
        self._look = min(LOOK_MAX, every / 20)
        self._kept_out = kept_out
        self._used: tuple[bytes, ...] = ()  # sessions that others have begun

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self._look * (0.5 + self._around.chance.fraction()))  # else two that are late meet again and again
            if self._is_due():
                await self._begin()

    def heard(self, message: RoundMessage) -> None:
        """REFRESH_WANTED of another signer."""
        spawn(self._around.nursery, self._take_part, message)

    # --- beginning --------------------------------------------------------------------------------------------------

    def _share(self) -> Share | None:
        """Ours, if it is of a key in many hands, and the record knows since when we have it."""
        ledger, record = self._keeper.ledger, self._upkeep.record
        share = ledger.share
        if share is None or ledger.chain.newest.number == 0:
            return None
        if (record.root, record.generation) != (ledger.chain.newest_root.key_hash, share.generation):
            self._upkeep.look()
            return None
        return share

    def _there(self) -> tuple[NodeId, ...]:
        """The members that can be reached, and ourselves."""
        own, members = self._around.own_id, self._keeper.ledger.chain.newest.member_ids
        return tuple(one for one in members if one == own or self._around.linked(one))

    def _enough(self) -> int:
        newest = self._keeper.ledger.chain.newest
        return self._rules.enough(self._upkeep.record, len(newest.member_ids), newest.threshold, self._around.at())

    def _may_lead(self, answers: Collection[Reason | None]) -> bool:
        newest = self._keeper.ledger.chain.newest
        members, threshold = len(newest.member_ids), newest.threshold
        return self._rules.may_lead(self._upkeep.record, answers, members, threshold, self._around.at())

    def _is_due(self) -> bool:
        there = self._there()
        if self._share() is None or self._around.own_id not in there or not self._performer.is_idle or self._kept_out():
            return False
        begin = self._rules.begins_at(self._upkeep.record, self._around.own_id, there)
        return self._around.at() >= begin and len(there) >= self._enough()

    async def _begin(self) -> None:
        """Ask the others, and lead. What fails is tried again; whoever looks sees an alarm when a refresh is long overdue."""
        share, own = self._share(), self._around.own_id
        assert share is not None
        session = session_for(self._around.chance.token(16), b"refresh")
        try:
            with self._performer.claimed():
                said = await self._ask(session, share.generation)
                ready = tuple(sorted({own, *(one for one, reason in said.items() if reason is None)}))
                if self._may_lead(said.values()):
                    await self._performer.hand_over(_assignment(session, own, ready))
                else:
                    others = (one for one in ready if one != own)
                    self._keeper.carrier.send(call_off(_assignment(session, own, ()), others))
        except Refused as error:
            if error.reason is not Reason.BUSY:
                self._keeper.alarm(own, error.reason, f"refresh: {error}")
        except OverlayError as error:
            self._keeper.alarm(own, Reason.INTERNAL, f"refresh: {error}")
        self._upkeep.look()

    async def _ask(self, session: bytes, generation: int) -> dict[NodeId, Reason | None]:
        """What the others answer: None for yes."""
        own = self._around.own_id
        others = {one for one in self._there() if one != own}
        said: dict[NodeId, Reason | None] = {}
        woken = trio.Event()

        def hear(message: RoundMessage) -> None:
            if message.kind is RoundKind.REFRESH_ANSWER and message.sender in others:
                said[message.sender] = unpack_answer(message.body)
                woken.set()

        with self._keeper.carrier.listening(session, hear), trio.move_on_after(ANSWER_WITHIN):
            body = pack_wanted(generation)
            self._keeper.carrier.send(Outgoing(one, session, RoundKind.REFRESH_WANTED, body) for one in sorted(others))
            while set(said) < others:
                await woken.wait()
                woken = trio.Event()
        return said

    # --- taking part ------------------------------------------------------------------------------------------------

    async def _take_part(self, message: RoundMessage) -> None:
        try:
            self._check(message)
            with self._performer.claimed():
                self._answer(message, None)
                await self._performer.hand_over(_assignment(message.session, message.sender, ()))
        except Refused as error:
            if error.reason is Reason.TIMEOUT:
                return  # the leader has got too few answers
            self._answer(message, error.reason)
        except OverlayError:
            return  # the leader tells
        finally:
            self._upkeep.look()

    def _check(self, message: RoundMessage) -> None:
        """Raises Refused."""
        ledger, share = self._keeper.ledger, self._share()
        wanted = unpack_wanted(message.body)
        if not ledger.is_signer(message.sender):
            raise Refused(Reason.NOT_A_SIGNER, "only members begin a refresh")
        if share is None or not self._performer.is_idle:
            raise Refused(Reason.BUSY, "something else is under way, or there is no share")
        if message.session in self._used:
            raise Refused(Reason.NOT_ALLOWED, "a session that was used before: what we said in it would look like two stories")
        self._used = (*self._used[-SESSIONS_KEPT:], message.session)
        root = ledger.chain.newest_root.key_hash
        self._rules.check(self._upkeep.record, root, share.generation, wanted, self._around.at())

    def _answer(self, message: RoundMessage, reason: Reason | None) -> None:
        self._keeper.carrier.send(
            [Outgoing(message.sender, message.session, RoundKind.REFRESH_ANSWER, pack_answer(reason))]
        )


def _assignment(session: bytes, leader: NodeId, dealers: tuple[NodeId, ...]) -> Assignment:
    return Assignment(session=session_for(session, leader), number=UNORDERED, leader=leader, dealers=dealers)
