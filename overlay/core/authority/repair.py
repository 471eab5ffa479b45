"""One participant's side of giving a member its lost share back: t others compute it, and none of them learns it.

    REPAIR_REQUEST   loser to helpers           generation and hash of the key
    REPAIR_DELTA     helper i to all others     D_i1 to D_it, where D_ij = d_ij * B; along with it d_ij, for j only
    REPAIR_SUM       helper j to the loser      what it holds of all deltas: digest and signature; along with it its sum

Helper i splits l_i * s_i, l_i its Lagrange coefficient at the loser's index, into t random parts d_i1 + ... + d_it. Helper j
adds up the d_ij of all i, and these sums together are the loser's share. (Stinson and Wei, "Combinatorial repairability for
threshold schemes", 2018, the enrolment protocol; ZcashFoundation's frost has it as `repairable`.) The D are ours: they add up
to l_i * Y_i, so whoever sends a wrong part or a wrong sum is named. A part or a sum is in the clear in its message: send each
over the link to its receiver only, which is encrypted end to end, and keep none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from overlay.core.authority.cocktail_primitives import add_points, add_scalars, random_scalar, read_point
from overlay.core.authority.dealing import group_hash
from overlay.core.authority.group import BASE, Point, Scalar
from overlay.core.authority.run_events import Event, Failed
from overlay.core.authority.runs import ROUND_TIMEOUT, Blamed, Machine, Room, blaming
from overlay.core.authority.sharing import MEMBERS_MAX, GroupKey, Share
from overlay.core.authority.statements import BODY_MAX, Board, Statement, Terms
from overlay.core.chance import Chance
from overlay.core.keys import MeshId, NodeId, Signer
from overlay.core.wire import Array, Bytes, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import Label, Reason, RoundKind

ECHOED: Final = (RoundKind.REPAIR_DELTA,)
KINDS: Final = (RoundKind.REPAIR_REQUEST, RoundKind.REPAIR_DELTA, RoundKind.REPAIR_SUM)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """Whose share, of which generation, and who helps: t members, no fewer and no more, in the order of their node ids."""

    mesh_id: MeshId
    session: bytes
    generation: int
    group: GroupKey
    members: tuple[NodeId, ...]
    helpers: tuple[NodeId, ...]
    lost: NodeId
    message_keys: Mapping[NodeId, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)) or list(self.helpers) != sorted(set(self.helpers)):
            raise ValueError("members stand in the order of their ids, each once")
        if not {*self.helpers, self.lost} <= set(self.members) or self.lost in self.helpers:
            raise ValueError("members help another member")
        if len(self.helpers) != self.group.threshold or len(self.members) != len(self.group.shares):
            raise ValueError("as many help as sign")

    @property
    def participants(self) -> tuple[NodeId, ...]:
        """Helpers and loser."""
        return tuple(sorted((*self.helpers, self.lost)))

    def index(self, member: NodeId) -> int:
        """Its identifier."""
        return self.members.index(member) + 1

    def factor(self, helper: NodeId) -> Scalar:
        """l_i: what the helper's share counts at the loser's index."""
        return _lagrange_at(self.index(self.lost), self.index(helper), [self.index(each) for each in self.helpers])

    def terms(self) -> Terms:
        """Who helps whom."""
        return Terms(
            label=Label.SHARE_REPAIR, mesh_id=self.mesh_id, session=self.session,
            parameters=[list(self.members), list(self.helpers), self.lost],
            message_keys={member: self.message_keys[member] for member in self.participants},
        )  # fmt: skip


class Repair(Machine):
    """receive / tick / messages_to_send / deadline. The loser's `result` is its share; a helper finishes without one."""

    def __init__(
        self, plan: RepairPlan, own: NodeId, share: Share | None, chance: Chance, now: float, *,
        signer: Signer, round_timeout: float = ROUND_TIMEOUT,
    ) -> None:  # fmt: skip
        """Helpers bring their share.

        Raises:
            Refused: WRONG_GENERATION if it is not of the generation and key of the plan.
            ValueError: if we take no part.
        """
        if own not in plan.participants or (own in plan.helpers) != (share is not None):
            raise ValueError("a helper brings a share, the loser has none")
        if share is not None and (share.generation != plan.generation or group_hash(share.group) != group_hash(plan.group)):
            raise Refused(Reason.WRONG_GENERATION, "our share is not of that generation and key")
        room = Room(Board(plan.terms(), own, signer), own, plan.participants, RoundKind.REPAIR_FAILED)
        super().__init__(room, KINDS)
        self.result: Share | None = None
        self._plan, self._share, self._chance = plan, share, chance
        self._timeout = round_timeout
        self._parts: dict[NodeId, Scalar] = {}  # for a helper its d_ij, for the loser the sums
        room.until = now + round_timeout
        if share is None:
            request = make_map(plan.generation, group_hash(plan.group))
            room.send(room.board.say(RoundKind.REPAIR_REQUEST, request), plan.helpers)

    def tick(self, now: float) -> list[Event]:
        """Whoever is silent for too long ends the run."""
        if now < self._room.until:
            return []
        return self._fail(Failed(Reason.TIMEOUT, self._awaited(), "repair"))

    def _has_place(self, sender: NodeId, kind: RoundKind) -> bool:
        """The loser asks, helpers answer, and sums are for the loser."""
        if kind not in self._kinds or (kind is RoundKind.REPAIR_SUM and self._is_helper):
            return False
        return (sender == self._plan.lost) == (kind is RoundKind.REPAIR_REQUEST)

    @property
    def _is_helper(self) -> bool:
        return self._room.own != self._plan.lost

    def _heard(self, statement: Statement, extra: bytes | None, now: float) -> list[Event]:
        with blaming(statement.author):
            if statement.kind is RoundKind.REPAIR_REQUEST:
                self._answer(statement.content)
            elif statement.kind is RoundKind.REPAIR_DELTA:
                self._take_delta(statement.author, statement.content, extra)
            else:
                self._parts.setdefault(statement.author, _read_scalar(extra))
        self._room.until = now + self._timeout
        return self._advance()

    # --- A helper's part ---

    def _answer(self, request: bytes) -> None:
        generation, old = open_map(request, UInt(), Bytes(32), limit=256)
        if generation != self._plan.generation or old != group_hash(self._plan.group):
            raise Refused(Reason.WRONG_GENERATION, f"a share of generation {generation} is wanted")
        if self._room.board.get(self._room.own, RoundKind.REPAIR_DELTA) is None:
            self._split()

    def _split(self) -> None:
        """l_i * s_i in t random parts."""
        assert self._share is not None
        helpers, own = self._plan.helpers, self._room.own
        parts = [random_scalar(self._chance) for _ in helpers[1:]]
        parts.append(self._plan.factor(own) * self._share.secret - add_scalars(parts))
        said = self._room.board.say(RoundKind.REPAIR_DELTA, make_map([(BASE * part).encode() for part in parts]))
        for helper, part in zip(helpers, parts, strict=True):
            if helper == own:
                self._parts[own] = part
            else:
                self._room.send(said, [helper], part.encode())
        self._room.send(said, [self._plan.lost])

    def _take_delta(self, sender: NodeId, content: bytes, extra: bytes | None) -> None:
        points = _parse_delta(content, self._plan, sender)
        if not self._is_helper:
            return
        part = _read_scalar(extra)
        if (BASE * part).encode() != points[self._plan.helpers.index(self._room.own)].encode():
            raise Refused(Reason.BAD_SHARE, "a part does not fit its commitment")
        self._parts[sender] = part

    def _awaited(self) -> tuple[NodeId, ...]:
        """Who owes us something."""
        board, plan = self._room.board, self._plan
        if self._is_helper:
            return board.missing(RoundKind.REPAIR_REQUEST, [plan.lost]) or board.missing(RoundKind.REPAIR_DELTA, plan.helpers)
        silent = {*board.missing(RoundKind.REPAIR_DELTA, plan.helpers), *board.missing(RoundKind.REPAIR_SUM, plan.helpers)}
        return tuple(sorted(silent))

    def _advance(self) -> list[Event]:
        if self._awaited():
            return []
        if self._is_helper:
            said = self._room.board.say(RoundKind.REPAIR_SUM, self._room.board.echo(ECHOED, self._plan.helpers))
            self._room.send(said, [self._plan.lost], add_scalars(list(self._parts.values())).encode())
        else:
            self.result = self._combine()
        return self._finish()

    # --- The loser's part ---

    def _combine(self) -> Share:
        """The share, from sums that fit the commitments, which are the same for everyone."""
        plan, board = self._plan, self._room.board
        for helper, content in zip(plan.helpers, board.contents(RoundKind.REPAIR_SUM, plan.helpers), strict=True):
            self._room.compare_echo(helper, content, ECHOED, plan.helpers)
        said = board.contents(RoundKind.REPAIR_DELTA, plan.helpers)
        rows = [_parse_delta(content, plan, helper) for helper, content in zip(plan.helpers, said, strict=True)]
        for helper, column in zip(plan.helpers, zip(*rows, strict=True), strict=True):
            if (BASE * self._parts[helper]).encode() != add_points(column).encode():
                raise Blamed(helper, Reason.BAD_SHARE, "a sum does not fit the commitments")
        secret = add_scalars([self._parts[helper] for helper in plan.helpers])
        return Share(plan.index(plan.lost), plan.generation, secret, plan.group)  # it checks the share against the group

    def _erase(self) -> None:
        self._share, self._parts = None, {}


def _lagrange_at(place: int, identifier: int, identifiers: Sequence[int]) -> Scalar:
    """The Lagrange coefficient of one of them at a place that is none of them: public numbers."""
    above, below = Scalar.of(1), Scalar.of(1)
    for other in identifiers:
        if other != identifier:
            above = above * (Scalar.of(place) - Scalar.of(other))
            below = below * (Scalar.of(identifier) - Scalar.of(other))
    return above * below.invert()


def _parse_delta(content: bytes, plan: RepairPlan, helper: NodeId) -> Sequence[Point]:
    """D_i1 to D_it, which add up to l_i * Y_i; raises Refused(MALFORMED or BAD_SHARE)."""
    (found,) = open_map(content, Array(Bytes(32), MEMBERS_MAX), limit=BODY_MAX)
    if len(found) != len(plan.helpers):
        raise Refused(Reason.MALFORMED, "parts of a repair")
    points = [read_point(data) for data in found]
    whole = read_point(plan.group.shares[plan.index(helper)]) * plan.factor(helper)
    if add_points(points).encode() != whole.encode():
        raise Refused(Reason.BAD_SHARE, "parts that are not of its share")
    return points


def _read_scalar(data: bytes | None) -> Scalar:
    if data is None:
        raise Refused(Reason.MALFORMED, "nothing came along")
    try:
        return Scalar.from_bytes(data)
    except ValueError:
        raise Refused(Reason.MALFORMED, "not a scalar") from None
