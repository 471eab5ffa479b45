"""The record of a roll-over, a new mesh key instead of the old one: what one node keeps, step by step.

Each `with_...` checks what came and gives the record after it, to be made durable before the next step begins. What comes
next says `rollover_actions.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum, unique
from typing import Final

from overlay.core.authority.contents import ClosingCheckpoint, Contents, check_members, next_contents
from overlay.core.authority.objects import Signatures, assemble, check_signature
from overlay.core.authority.roots import NextRoot, parse_next_root
from overlay.core.keys import IdentityKey, NodeId
from overlay.errors import Refused
from overlay.registry import Reason

ROOT_LIFE: Final = timedelta(days=20 * 365.25)  # as the founding root


@unique
class RolloverStep(IntEnum):
    """What is durable; each includes those before it."""

    PROPOSED = 1
    KEY_GENERATED = 2
    ROOT_SIGNED = 3  # by the new key itself, which shows that it works
    CROSS_SIGNED = 4  # and the logs of the old signers closed
    MEMBERS_SIGNED = 5
    NEW_ROOT_SIGNED = 6
    BOUND = 7  # of this node: to this successor and no other
    OLD_ROOT_SIGNED = 8
    PUBLISHED = 9  # the complete object stands in this node's chain
    OLD_SHARE_ERASED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the operators ordered."""

    before: Contents  # of object k-1
    members: tuple[IdentityKey, ...]  # by node id
    threshold: int
    proposed_at: datetime  # when the new root begins

    @classmethod
    def of(cls, before: Contents, members: Sequence[IdentityKey], threshold: int, at: datetime) -> "Proposal":
        """Raises Refused(BAD_AUTHORITY_OBJECT) for members or a threshold that no object may have."""
        ordered = tuple(sorted(members, key=lambda member: member.node_id))
        check_members(ordered, threshold)
        return cls(before=before, members=ordered, threshold=threshold, proposed_at=at.astimezone(UTC).replace(microsecond=0))

    @property
    def number(self) -> int:
        """k."""
        return self.before.number + 1

    def next_root(self, public_key: bytes) -> NextRoot:
        """The certificates of the new key; 32 bytes."""
        begin = self.proposed_at
        return NextRoot.of(self.before.root, public_key, begin, begin + ROOT_LIFE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollover:
    """One node's durable record of a roll-over. A share of the new key is kept before `public_key` is set."""

    proposal: Proposal
    public_key: bytes | None = None  # 32, of the new key
    transcript: bytes | None = None  # 32
    root: bytes | None = field(default=None, repr=False)  # DER
    contents: Contents | None = None  # of the object, once there are a cross-certificate and closing checkpoints
    members_signed: Mapping[int, bytes] = field(default_factory=dict, repr=False)  # by place among the members
    new_root_signed: bytes | None = field(default=None, repr=False)
    bound: bool = False
    old_root_signed: bytes | None = field(default=None, repr=False)
    given_up: bool = False
    promised: bool = False  # this node has signed some form of the object, which others may complete without asking again

    @property
    def payload(self) -> bytes:
        """What is to be signed, without label and mesh; empty until it is settled."""
        return b"" if self.contents is None else self.contents.pack()

    @property
    def object(self) -> bytes | None:
        """The complete object."""
        if self.contents is None or self.new_root_signed is None or self.old_root_signed is None:
            return None
        members = [signature for _, signature in sorted(self.members_signed.items())]
        return assemble(self.payload, Signatures(self.new_root_signed, members, self.old_root_signed))

    @property
    def step(self) -> RolloverStep:
        """How far it is by this record alone, which does not know of chain and shares."""
        marks = (
            (RolloverStep.KEY_GENERATED, self.public_key is not None),
            (RolloverStep.ROOT_SIGNED, self.root is not None),
            (RolloverStep.CROSS_SIGNED, self.contents is not None),
            (RolloverStep.MEMBERS_SIGNED, len(self.members_signed) == len(self.proposal.members)),
            (RolloverStep.NEW_ROOT_SIGNED, self.new_root_signed is not None),
            (RolloverStep.BOUND, self.bound or self.old_root_signed is not None),
            (RolloverStep.OLD_ROOT_SIGNED, self.old_root_signed is not None),
        )
        step = RolloverStep.PROPOSED
        for mark, durable in marks:
            if not durable:
                break
            step = mark
        return step

    # --- what becomes durable ---------------------------------------------------------------------------------------

    def with_key(self, public_key: bytes, transcript: bytes) -> "Rollover":
        """After the key generation, when this node's share is kept (if it is a member)."""
        self._expect(RolloverStep.PROPOSED)
        return replace(self, public_key=public_key, transcript=transcript)

    def with_root(self, signature: bytes) -> "Rollover":
        """The new key's signature of its own certificate; raises Refused(BAD_CERTIFICATE)."""
        self._expect(RolloverStep.KEY_GENERATED)
        assert self.public_key is not None
        return replace(self, root=self.proposal.next_root(self.public_key).seal_root(signature).der)

    def with_cross(self, signature: bytes, closing: tuple[ClosingCheckpoint, ...]) -> "Rollover":
        """The old key's signature of the cross-certificate; raises Refused."""
        self._expect(RolloverStep.ROOT_SIGNED)
        assert self.root is not None and self.public_key is not None and self.transcript is not None
        proposal = self.proposal
        contents = next_contents(
            proposal.before, parse_next_root(self.root, proposal.before.root), proposal.members, proposal.threshold,
            transcript=self.transcript, closing=closing, cross=proposal.next_root(self.public_key).seal_cross(signature),
        )
        return replace(self, contents=contents)

    def with_member(self, place: int, signature: bytes) -> "Rollover":
        """One member's signature of the object; raises Refused(BAD_AUTHORITY_OBJECT)."""
        self._expect(RolloverStep.CROSS_SIGNED)
        if place >= len(self.proposal.members):
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, "there is no such member")
        self._check(self.proposal.members[place], signature)
        return replace(self, members_signed={**self.members_signed, place: signature})

    def with_own(self, place: int, signature: bytes) -> "Rollover":
        """This node's signature as a member: from now on its share of the new key stays until the place is taken."""
        return replace(self.with_member(place, signature), promised=True)

    def with_new_root(self, signature: bytes) -> "Rollover":
        """The new key's signature of the object; raises Refused(BAD_AUTHORITY_OBJECT)."""
        self._expect(RolloverStep.MEMBERS_SIGNED)
        assert self.contents is not None
        self._check(self.contents.root.identity, signature)
        return replace(self, new_root_signed=signature)

    def with_binding(self) -> "Rollover":
        """From now on this node signs no other successor, and does not give up."""
        self._expect(RolloverStep.NEW_ROOT_SIGNED)
        return replace(self, bound=True)

    def with_old_root(self, signature: bytes) -> "Rollover":
        """The old key's signature of the object; raises Refused(BAD_AUTHORITY_OBJECT)."""
        if self.step not in (RolloverStep.NEW_ROOT_SIGNED, RolloverStep.BOUND):
            raise ValueError(f"the old root signs last, not after {self.step.name}")
        self._check(self.proposal.before.root.identity, signature)
        return replace(self, old_root_signed=signature)

    def give_up(self) -> "Rollover":
        """A member has lost its share of the new key, say. When all have signed nobody has, and it is too late for that."""
        return self if self.step >= RolloverStep.NEW_ROOT_SIGNED else replace(self, given_up=True)

    def merged(self, other: "Rollover", me: NodeId) -> "Rollover":
        """With another node's record, checked as our own: of two that differ the further one, else the smaller one, wins.

        What is this node's own stays: its binding, its promise and its key. A key that others have and this node has not is
        taken over by one that is to hold no share of it; a member cannot, see `lacks_share_of`.
        """
        if other.proposal != self.proposal:
            return self
        if self.public_key is None and me not in {member.node_id for member in self.proposal.members}:
            return replace(other, bound=False, promised=False, given_up=self.given_up or other.given_up)
        if other.public_key != self.public_key or other.public_key is None:
            return self.give_up() if other.given_up else self
        if (self.root, self.contents) != (other.root, other.contents):
            mine, theirs = ((-item.step, item.root or b"", item.payload) for item in (self, other))
            found = self if self.bound or mine <= theirs else replace(other, bound=False)
        else:
            found = replace(
                self, members_signed={**other.members_signed, **self.members_signed},
                new_root_signed=self.new_root_signed or other.new_root_signed,
                old_root_signed=self.old_root_signed or other.old_root_signed,
            )
        found = replace(found, given_up=self.given_up, promised=self.promised)
        return found.give_up() if other.given_up else found

    def lacks_share_of(self, other: "Rollover") -> bool:
        """Whether others have finished the key generation and this node, which runs none any more, has not."""
        return other.proposal == self.proposal and other.public_key is not None and other.public_key != self.public_key

    def _expect(self, step: RolloverStep) -> None:
        if self.step is not step:
            raise ValueError(f"this comes after {step.name}, not after {self.step.name}")

    def _check(self, key: IdentityKey, signature: bytes) -> None:
        check_signature(key, signature, self.proposal.before.mesh_id, self.payload)
