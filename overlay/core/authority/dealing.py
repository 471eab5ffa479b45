"""How t old members give n' new ones shares of the same secret: the plan, what a dealer says, and what all deals come to.

Dealer i hides its share s_i in a new polynomial g_i of degree t' - 1 with g_i(0) = s_i and gives g_i(j) to new member j. Its
commitment begins with s_i * B, which everybody knows as its verification share: so it can deal nothing else. With the Lagrange
coefficients l_i of the dealers at 0, j's new share is the sum of l_i * g_i(j), and the secret stays what it was. (Desmedt and
Jajodia, 1997; Wong, Wang and Wing, 2002, for the check against the old commitments.) Refresh is the same with the same members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from overlay.core.authority.cocktail import check_share
from overlay.core.authority.cocktail_primitives import (
    CIPHERTEXT_SIZE,
    SealKey,
    add_points,
    add_scalars,
    random_scalar,
    read_point,
)
from overlay.core.authority.group import BASE, Point, Scalar
from overlay.core.authority.runs import THRESHOLD_MIN
from overlay.core.authority.sharing import MEMBERS_MAX, GroupKey, Share, commit_to, evaluate, evaluate_commitment, lagrange
from overlay.core.authority.statements import BODY_MAX, Terms
from overlay.core.chance import Chance
from overlay.core.keys import MeshId, NodeId
from overlay.core.wire import Array, Bytes, UInt, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One refresh or resharing, as the order and who carries it out lay it down. Members in the order of their node ids."""

    mesh_id: MeshId
    session: bytes
    order_number: int
    generation: int  # of the shares that are dealt from; the new ones are of the next
    group: GroupKey  # as it is now
    old_members: tuple[NodeId, ...]
    dealers: tuple[NodeId, ...]  # those old ones who are there, t at least
    new_members: tuple[NodeId, ...]
    threshold: int
    message_keys: Mapping[NodeId, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        lists = (self.old_members, self.dealers, self.new_members)
        if any(list(members) != sorted(set(members)) for members in lists):
            raise ValueError("members stand in the order of their ids, each once")
        if not set(self.dealers) <= set(self.old_members) or len(self.dealers) < self.group.threshold:
            raise ValueError("as many old members must deal as sign")
        if len(self.group.shares) != len(self.old_members):
            raise ValueError("not the members of that key")
        if not THRESHOLD_MIN <= self.threshold <= len(self.new_members) <= MEMBERS_MAX:
            raise ValueError("a threshold from two to all new members")

    @property
    def participants(self) -> tuple[NodeId, ...]:
        """Everyone who says something."""
        return tuple(sorted({*self.dealers, *self.new_members}))

    @property
    def is_refresh(self) -> bool:
        """Nothing but new shares."""
        return self.old_members == self.new_members and self.threshold == self.group.threshold

    def dealer_index(self, dealer: NodeId) -> int:
        """Its identifier under the old key."""
        return self.old_members.index(dealer) + 1

    def terms(self) -> Terms:
        """Generation and old key are left out: who has other ones is to be told so, not to be taken for a forger."""
        members = [list(self.old_members), list(self.dealers), list(self.new_members)]
        keys = {member: self.message_keys[member] for member in self.participants}
        return Terms(
            label=Label.RESHARING, mesh_id=self.mesh_id, session=self.session,
            parameters=[self.order_number, *members, self.threshold], message_keys=keys,
        )  # fmt: skip


def group_hash(group: GroupKey) -> bytes:
    """32 bytes that stand for a key and everyone's verification share: shares of one number that differ here do not mix."""
    return sha256(group.pack())


@dataclass(frozen=True, slots=True)
class Opening:
    """RESHARE_BEGIN: the key for this run's shares, and from which shares this member starts."""

    key: Point
    generation: int
    group_hash: bytes

    def pack(self) -> bytes:
        """The content of the statement."""
        return make_map(self.key.encode(), self.generation, self.group_hash)

    @classmethod
    def parse(cls, content: bytes) -> "Opening":
        """Raises Refused(MALFORMED)."""
        key, generation, old = open_map(content, Bytes(32), UInt(), Bytes(32), limit=256)
        return cls(read_point(key), generation, old)

    def check(self, plan: Plan) -> None:
        """Raises Refused(WRONG_GENERATION)."""
        if self.generation != plan.generation or self.group_hash != group_hash(plan.group):
            raise Refused(Reason.WRONG_GENERATION, f"shares of generation {self.generation}, or of another key")


@dataclass(frozen=True, slots=True)
class Deal:
    """RESHARE_DEAL: C_i, E_i and one sealed share for each new member; an empty one for a member that did not begin."""

    commitment: tuple[Point, ...]
    ephemeral: Point
    ciphertexts: tuple[bytes, ...]

    def pack(self) -> bytes:
        """The content of the statement."""
        return make_map(
            [point.encode() for point in self.commitment], self.ephemeral.encode(), list(self.ciphertexts)
        )

    @classmethod
    def parse(cls, content: bytes, plan: Plan, dealer: NodeId) -> "Deal":
        """A deal of exactly t' points that hides the dealer's own share; raises Refused(MALFORMED or BAD_SHARE)."""
        points, ephemeral, ciphertexts = open_map(
            content, Array(Bytes(32), MEMBERS_MAX), Bytes(32), Array(Bytes(0, CIPHERTEXT_SIZE), MEMBERS_MAX),
            limit=BODY_MAX,
        )  # fmt: skip
        if len(points) != plan.threshold or len(ciphertexts) != len(plan.new_members):
            raise Refused(Reason.MALFORMED, "points or shares of a deal")
        if points[0] != plan.group.shares[plan.dealer_index(dealer)]:
            raise Refused(Reason.BAD_SHARE, "it deals something else than its share")
        return cls(tuple(read_point(point) for point in points), read_point(ephemeral), tuple(ciphertexts))

    def left_out(self, plan: Plan) -> set[NodeId]:
        """For whom there is no share."""
        return {member for member, sealed in zip(plan.new_members, self.ciphertexts, strict=True) if not sealed}


def make_deal(
    plan: Plan, share: Share, static: Scalar, receivers: Mapping[NodeId, Point], context: bytes, chance: Chance
) -> Deal:
    """Deal to the new members whose keys are there."""
    coefficients = [share.secret, *[random_scalar(chance) for _ in range(plan.threshold - 1)]]
    ephemeral = random_scalar(chance)
    ciphertexts = [
        SealKey.of_sender(context, static, ephemeral, receivers[member]).seal(evaluate(coefficients, index))
        if member in receivers else b""
        for index, member in enumerate(plan.new_members, 1)
    ]  # fmt: skip
    return Deal(commit_to(coefficients), BASE * ephemeral, tuple(ciphertexts))


def open_deal(deal: Deal, index: int, static: Scalar, sender: Point, context: bytes) -> Scalar:
    """g_i(j) for new member j, checked; raises Refused(BAD_SHARE)."""
    share, _ = SealKey.of_receiver(context, static, deal.ephemeral, sender).open(deal.ciphertexts[index - 1])
    check_share(deal.commitment, index, share)
    return share


def combine_shares(plan: Plan, shares: Mapping[NodeId, Scalar]) -> Scalar:
    """The new share from what each dealer gave."""
    return add_scalars([factor * shares[dealer] for dealer, factor in _factors(plan).items()])


def combine_deals(plan: Plan, deals: Mapping[NodeId, Deal]) -> GroupKey:
    """The same key with the new verification shares. Raises ValueError if the key were another, which parse has ruled out."""
    factors = _factors(plan)
    columns = zip(*[[point * factors[dealer] for point in deals[dealer].commitment] for dealer in plan.dealers], strict=True)
    total = [add_points(column) for column in columns]
    if total[0].encode() != plan.group.public:
        raise ValueError("the mesh key would change")
    shares = {index: evaluate_commitment(total, index).encode() for index in range(1, len(plan.new_members) + 1)}
    return GroupKey(plan.threshold, plan.group.public, shares)


def _factors(plan: Plan) -> dict[NodeId, Scalar]:
    indexes: Sequence[int] = [plan.dealer_index(dealer) for dealer in plan.dealers]
    return {dealer: lagrange(plan.dealer_index(dealer), indexes) for dealer in plan.dealers}
