"""One participant's side of refresh and resharing: new shares of the same mesh key, for the same members or for others.

    RESHARE_BEGIN        dealers and new members   the key for this run's shares; generation and hash of the old key
    RESHARE_DEAL         dealers                   commitment, ephemeral key, one sealed share for each new member
    RESHARE_ECHO         new members               what we hold of the deals: digest and signature
    RESHARE_CERTIFICATE  new members               hash of what all deals come to; with all of them held: again, with theirs
    RESHARE_FAILED       anyone                    why, who, and the proof if there is one

Each goes to every other participant. Who deals is laid down beforehand, at least t old members: a dead one is left out; if
one dies in the middle the run fails, and the next leaves it out. The new share is there only when the certificates of all new
members are held; a refresh may be given `patience`, after which one that is silent is named and left behind, to be repaired.
Until then nothing has happened: this machine only reads the old share, and the caller keeps it, for 24 hours more (trust.md).

Two runs at once: the one with the lower (order number, session id) survives, as long as the other has not been certified
here; after that the certified one goes on, and the lower is refused. All of it is in memory: a participant that restarts has
left the run. If the others finish without it, its share is of the old generation, and is repaired.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from overlay.core.authority.cocktail_primitives import random_scalar
from overlay.core.authority.dealing import (
    Deal,
    Opening,
    Plan,
    combine_deals,
    combine_shares,
    group_hash,
    make_deal,
    open_deal,
)  # fmt: skip
from overlay.core.authority.group import BASE, Point, Scalar
from overlay.core.authority.run_events import Event, Failed
from overlay.core.authority.runs import ROUND_TIMEOUT, Blamed, Machine, Room, blaming
from overlay.core.authority.sharing import GroupKey, Share
from overlay.core.authority.statements import Board, Statement
from overlay.core.chance import Chance
from overlay.core.keys import NodeId, Signer
from overlay.core.wire import sha256, u64
from overlay.errors import Refused
from overlay.registry import Label, Reason, RoundKind

ROUNDS: Final = (
    RoundKind.RESHARE_BEGIN, RoundKind.RESHARE_DEAL, RoundKind.RESHARE_ECHO, RoundKind.RESHARE_CERTIFICATE,
)  # fmt: skip
ECHOED: Final = (RoundKind.RESHARE_DEAL,)


@dataclass(frozen=True, slots=True)
class Reshared:
    """What a run comes to."""

    share: Share | None = field(repr=False)  # None for a dealer who is no member any more
    group: GroupKey  # the key is the old one
    generation: int
    transcript_hash: bytes  # what every certificate says, 32 bytes
    certificates: tuple[Statement, ...] = field(repr=False)
    missing: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    share: Share | None = field(repr=False)
    group: GroupKey
    hash: bytes


class Resharing(Machine):
    """receive / tick / messages_to_send / deadline. Nothing that a participant does raises; `result` is None until commit."""

    def __init__(
        self, plan: Plan, own: NodeId, share: Share | None, chance: Chance, now: float, *,
        signer: Signer, patience: float | None = None, round_timeout: float = ROUND_TIMEOUT,
    ) -> None:  # fmt: skip
        """`share` is ours if we deal. `patience`: seconds after which a refresh goes on without one member.

        Raises:
            Refused: WRONG_GENERATION if our share is not of the generation and key that the plan starts from.
            ValueError: if we do not take part, or if patience is given for more than a refresh.
        """
        if own not in plan.participants or (own in plan.dealers) != (share is not None):
            raise ValueError("a dealer brings a share, a new member takes part, nobody else does")
        if patience is not None and not plan.is_refresh:
            raise ValueError("all new members of a resharing are there")
        if share is not None and (share.generation != plan.generation or group_hash(share.group) != group_hash(plan.group)):
            raise Refused(Reason.WRONG_GENERATION, "our share is not what this run starts from")
        room = Room(Board(plan.terms(), own, signer), own, plan.participants, RoundKind.RESHARE_FAILED)
        super().__init__(room, ROUNDS, RoundKind.RESHARE_CERTIFICATE)
        self.result: Reshared | None = None
        self._plan, self._share, self._chance = plan, share, chance
        self._timeout = round_timeout
        self._enough = math.inf if patience is None else now + patience
        self._static: Scalar | None = random_scalar(chance)
        self._outcome: _Outcome | None = None
        self._excused: NodeId | None = None
        self._round = 0
        self._room.say(RoundKind.RESHARE_BEGIN, Opening(BASE * self._static, plan.generation, group_hash(plan.group)).pack())
        self._room.until = now + round_timeout

    @property
    def has_certified(self) -> bool:
        """Whether the others may commit to this run with our word."""
        return self._room.board.get(self._room.own, RoundKind.RESHARE_CERTIFICATE) is not None

    def meet(self, order_number: int, session: bytes) -> list[Event]:
        """Another resharing asks for us. If ours ends by this, take part in the other; else refuse it."""
        over = self._done or self._room.failed is not None
        if over or self.has_certified or (order_number, session) >= (self._plan.order_number, self._plan.session):
            return []
        return self._fail(Failed(Reason.SUPERSEDED, (), f"by order {order_number}"))

    def tick(self, now: float) -> list[Event]:
        """Whoever is silent for too long ends the run, or is left behind by a refresh."""
        if now < self._room.until:
            return []
        silent = self._missing()
        if self._may_do_without(silent) and now < self._enough:
            self._room.until = self._enough
            return []
        if self._may_do_without(silent) and self._excused is None and len(silent) == 1:
            self._excused = silent[0]
            return self._guarded(lambda: self._advance(now))
        return self._fail(Failed(Reason.TIMEOUT, silent, ROUNDS[self._round].name))

    def _heard(self, statement: Statement, extra: bytes | None, now: float) -> list[Event]:
        if statement.kind is RoundKind.RESHARE_BEGIN:
            with blaming(statement.author):
                Opening.parse(statement.content).check(self._plan)
        return self._advance(now)

    def _hear_failure(self, failed: Failed, sender: NodeId) -> list[Event]:
        left_behind = sender == self._excused and not self._done  # the others go on without it
        return [] if left_behind else super()._hear_failure(failed, sender)

    # --- Rounds ---

    def _speakers(self) -> tuple[NodeId, ...]:
        """From whom this round's statement is due, whether excused or not."""
        kind = ROUNDS[self._round]
        if kind is RoundKind.RESHARE_BEGIN:
            return self._plan.participants
        return self._plan.dealers if kind is RoundKind.RESHARE_DEAL else self._plan.new_members

    def _missing(self) -> tuple[NodeId, ...]:
        silent = self._room.board.missing(ROUNDS[self._round], self._speakers())
        return tuple(member for member in silent if member != self._excused)

    def _may_do_without(self, silent: Sequence[NodeId]) -> bool:
        """Never without a deal."""
        if math.isinf(self._enough) or ROUNDS[self._round] is RoundKind.RESHARE_DEAL:
            return False
        begun = ROUNDS[self._round] is not RoundKind.RESHARE_BEGIN
        return begun or not set(silent) & set(self._plan.dealers)

    def _advance(self, now: float) -> list[Event]:
        """As many rounds as are complete."""
        while self.result is None and self._room.failed is None and not self._missing():
            left_behind = self._complete(ROUNDS[self._round], now)
            if left_behind:
                return left_behind
            self._round += 1
            self._room.until = now + self._timeout
        return [] if self.result is None else self._finish(self.result.missing)

    def _complete(self, kind: RoundKind, now: float) -> list[Event]:
        if kind is RoundKind.RESHARE_BEGIN:
            self._deal()
        elif kind is RoundKind.RESHARE_DEAL:
            return self._combine(now)
        elif kind is RoundKind.RESHARE_ECHO:
            self._certify()
        else:
            self._conclude()
        return []

    def _keys(self) -> dict[NodeId, Point]:
        """Of all who have begun."""
        said = {each: self._room.board.get(each, RoundKind.RESHARE_BEGIN) for each in self._plan.participants}
        return {member: Opening.parse(each.content).key for member, each in said.items() if each is not None}

    def _deal(self) -> None:
        if self._share is None:
            return
        assert self._static is not None
        context = self._room.board.terms.run
        deal = make_deal(self._plan, self._share, self._static, self._keys(), context, self._chance)
        self._room.say(RoundKind.RESHARE_DEAL, deal.pack())

    def _combine(self, now: float) -> list[Event]:
        deals: dict[NodeId, Deal] = {}
        for dealer, content in self._said(RoundKind.RESHARE_DEAL, self._plan.dealers):
            with blaming(dealer):
                deals[dealer] = Deal.parse(content, self._plan, dealer)
                self._check_left_out(deals[dealer], now)
        left_out = sorted(set().union(*[deal.left_out(self._plan) for deal in deals.values()]))
        if self._room.own in left_out or len(left_out) > 1:
            return self._fail(Failed(Reason.TIMEOUT, tuple(left_out), "left out"), tell=len(left_out) > 1)
        self._excused = left_out[0] if left_out else None
        group = combine_deals(self._plan, deals)
        share = self._open(deals, group) if self._room.own in self._plan.new_members else None
        self._outcome = _Outcome(share, group, self._hash(group))
        if share is not None:
            self._room.say(RoundKind.RESHARE_ECHO, self._room.board.echo(ECHOED, self._plan.dealers))
        return []

    def _check_left_out(self, deal: Deal, now: float) -> None:
        """Clocks of two members need not agree on when patience ends: by one round, not by more."""
        if deal.left_out(self._plan) and now < self._enough - self._timeout:
            raise Refused(Reason.BAD_SHARE, "it deals to fewer than all")

    def _open(self, deals: dict[NodeId, Deal], group: GroupKey) -> Share:
        """Our new share, from a checked share of each dealer."""
        assert self._static is not None
        index = self._plan.new_members.index(self._room.own) + 1
        keys, context, shares = self._keys(), self._room.board.terms.run, {}
        for dealer, deal in deals.items():
            with blaming(dealer):
                shares[dealer] = open_deal(deal, index, self._static, keys[dealer], context)
        return Share(index, self._plan.generation + 1, combine_shares(self._plan, shares), group)

    def _hash(self, group: GroupKey) -> bytes:
        said = self._room.board.contents(RoundKind.RESHARE_DEAL, self._plan.dealers)
        parts = [u64(self._plan.generation), group_hash(self._plan.group), group_hash(group)]
        return sha256(Label.RESHARING, self._room.board.terms.run, *parts, *[sha256(content) for content in said])

    def _certify(self) -> None:
        assert self._outcome is not None
        for member, content in self._said(RoundKind.RESHARE_ECHO, self._plan.new_members):
            self._room.compare_echo(member, content, ECHOED, self._plan.dealers)
        if self._outcome.share is not None:
            self._room.say(RoundKind.RESHARE_CERTIFICATE, self._outcome.hash)

    def _conclude(self) -> None:
        plan, outcome = self._plan, self._outcome
        assert outcome is not None
        for member, content in self._said(RoundKind.RESHARE_CERTIFICATE, plan.new_members):
            if content != outcome.hash:
                raise Blamed(member, Reason.KEY_GENERATION_FAILED, "it certified another outcome")
        missing = self._room.board.missing(RoundKind.RESHARE_CERTIFICATE, plan.new_members)
        certified = [member for member in plan.new_members if member not in missing]
        certificates = self._room.board.statements(RoundKind.RESHARE_CERTIFICATE, certified)
        self._room.pass_on(RoundKind.RESHARE_CERTIFICATE, plan.new_members)
        self.result = Reshared(
            outcome.share, outcome.group, plan.generation + 1, outcome.hash, tuple(certificates), missing
        )

    # --- The end ---

    def _said(self, kind: RoundKind, authors: Sequence[NodeId]) -> list[tuple[NodeId, bytes]]:
        held = [(author, self._room.board.get(author, kind)) for author in authors]
        return [(author, statement.content) for author, statement in held if statement is not None]

    def _erase(self) -> None:
        """What was for this run only. The old share is the caller's."""
        self._static = self._share = self._outcome = None
