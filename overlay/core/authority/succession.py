"""The chain of authority objects, from the founder to those who hold the mesh key today. Rules:

- object 0 is the one under the root that we trust; every other was verified against the one before it
- each object has one successor. A second one by the old authority is a fork: what stands stays in force, because going back
  would put the key that signed twice in force again, and choosing between the two would let its thief choose; but nothing
  follows any more. Both are kept and shown to others, until the recovery keys name another authority
- a recovery is no fork: `recovery.py`
- a key never comes back
- a chain never changes: what adds to it gives a new one, and in whatever order objects come, the result is the same, but for
  which of two forked successors came first
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from overlay.core.authority.contents import NUMBER_MAX, OBJECT_MAX, ObjectKind, hash_of, number_of, refuse
from overlay.core.authority.objects import AuthorityObject, payload_of, verify_next, verify_object_zero
from overlay.core.authority.recovery import RECOVERY_WAIT, Candidate, settled, with_candidate
from overlay.core.certificates import Recovered, Root
from overlay.core.keys import NodeId
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason

OVERLAP: Final = timedelta(hours=48)  # protocol: leaves under the root before are good for so long


class Outcome(Enum):
    """What an object did."""

    KNOWN = "known"
    APPENDED = "appended"  # a recovery that waited is void
    FORKED = "forked"  # an alarm, and nothing follows any more
    RECOVERY_WAITS = "recovery waits"  # an alarm
    RECOVERY_CONTESTED = "recovery contested"  # an alarm
    VOID = "void"  # a recovery after its time, or a successor after a recovery


@dataclass(frozen=True, slots=True)
class Change:
    """The chain after an object."""

    chain: "AuthorityChain"
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Merge:
    """The chain after another node's objects, and what was wrong with some of them."""

    chain: "AuthorityChain"
    outcomes: tuple[Outcome, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class AuthorityChain:
    """Who has held the mesh key, generation by generation; all of it verified."""

    objects: tuple[AuthorityObject, ...]
    fork: tuple[AuthorityObject, AuthorityObject] | None = None  # two successors in one place, by hash
    candidates: tuple[Candidate, ...] = ()
    recovered: tuple[tuple[int, datetime], ...] = ()  # which objects are recoveries, and since when they are in force

    @classmethod
    def begin(cls, raw: bytes, root: Root) -> "AuthorityChain":
        """From object 0; raises what `verify_object_zero` raises."""
        return cls((verify_object_zero(raw, root),))

    # --- what holds today -------------------------------------------------------------------------------------------

    @property
    def newest(self) -> AuthorityObject:
        """The generation in force."""
        return self.objects[-1]

    @property
    def newest_root(self) -> Root:
        """What new leaves stand under, and what a token pins."""
        return self.newest.root

    @property
    def frozen_at(self) -> int | None:
        """The number of which there are two."""
        return None if self.fork is None else self.fork[0].number

    @property
    def digest(self) -> bytes:
        """Two nodes with the same digest have nothing to tell each other. 32 bytes."""
        every = [*self.objects, *(self.fork or ()), *(item.object for item in self.candidates)]
        return sha256(Label.AUTHORITY_OBJECT, *(item.hash for item in every))

    def is_signer(self, node_id: NodeId) -> bool:
        """Whether it is a member of the authority in force."""
        return node_id in self.newest.member_ids

    def identifier(self, node_id: NodeId) -> int:
        """Of a member's share, from 1 up; raises Refused(NOT_A_SIGNER)."""
        if not self.is_signer(node_id):
            raise Refused(Reason.NOT_A_SIGNER, f"{node_id.short} is no member of authority {self.newest.number}")
        return self.newest.member_ids.index(node_id) + 1

    def roots_in_force(self, at: datetime) -> tuple[Root, ...]:
        """Under which a leaf may stand on a link of members: the newest, and for 48 hours those before it."""
        roots, since = [self.newest_root], dict(self.recovered)
        for after, before in zip(reversed(self.objects[1:]), reversed(self.objects[:-1]), strict=True):
            if after.root == before.root:
                continue
            if at >= max(after.root.life.not_before, since.get(after.number, after.root.life.not_before)) + OVERLAP:
                break
            roots.append(before.root)
        return tuple(roots)

    @property
    def all_roots(self) -> tuple[Root, ...]:
        """Under which a leaf may stand in mode 3, newest first; also whose older signatures are believed."""
        return tuple(dict.fromkeys(item.root for item in reversed(self.objects)))

    @property
    def recovered_roots(self) -> Recovered:
        """Those in force, or once in force, that no root has signed."""
        pairs = zip(self.objects[:-1], self.objects[1:], strict=True)
        return {
            after.root.der: (before.root.key_hash, after.root) for before, after in pairs if after.kind is ObjectKind.RECOVERY
        }

    @property
    def to_be_recovered(self) -> AuthorityObject | None:
        """The object that a recovery follows: the newest, or the one before a fork; none where object 0 is forked."""
        return self.objects[self._place_of_recovery - 1] if self._place_of_recovery else None

    @property
    def _place_of_recovery(self) -> int:
        return len(self.objects) if self.frozen_at is None else self.frozen_at

    @classmethod
    def leading_to(cls, raws: Sequence[bytes], root: Root, newest: bytes, at: datetime) -> "AuthorityChain":
        """What a member shows to somebody who knows the hash of the key of the newest root: recoveries up to it have waited.

        Raises:
            Refused: OTHER_MESH if it goes on to another root, or what `verify_object_zero` and `with_object` raise.
        """
        chain = cls.begin(raws[0], root)
        for raw in raws[1:]:
            chain = chain.with_object(raw, at).chain
            if chain.newest_root.key_hash != newest:
                chain = chain.settle(at, timedelta(0))
        if chain.newest_root.key_hash != newest:
            raise Refused(Reason.OTHER_MESH, "the authority goes on to another root than the token's")
        return chain

    # --- what others show -------------------------------------------------------------------------------------------

    @property
    def to_show(self) -> tuple[bytes, ...]:
        """All that another node needs for the same chain, in the order in which it can take them."""
        waiting = (item.object for item in self.candidates)
        every = dict.fromkeys(item.raw for item in (*self.objects, *(self.fork or ()), *waiting))
        return tuple(every)

    def merged(self, raws: Iterable[bytes], at: datetime, *, limit: int = OBJECT_MAX * (NUMBER_MAX + 1)) -> Merge:
        """Take what another node shows, one by one; of what is refused, only that is lost.

        Args:
            limit: bytes in all; OBJECT_MAX where they come in mode 3 before the certificate. What is beyond it is not read.
        """
        chain, outcomes, refused = self, [], []
        for raw in raws:
            limit -= len(raw)
            try:
                if limit < 0:
                    raise Refused(Reason.TOO_LARGE, "more authority objects than are taken at once")
                change = chain.with_object(raw, at)
            except Refused as error:
                refused.append(error)
                if limit < 0:
                    break
                continue
            chain = change.chain
            outcomes.append(change.outcome)
        return Merge(chain, tuple(outcomes), tuple(refused))

    def with_object(self, raw: bytes, at: datetime) -> Change:
        """The chain with one more object.

        Raises:
            Refused: AUTHORITY_FROZEN for a successor after a fork; WRONG_GENERATION if those between are missing; or what
                `verify_next` raises.
        """
        payload = payload_of(raw)
        number, known = number_of(payload), hash_of(payload)
        if any(known == item.hash for item in (*self.objects, *(self.fork or ()), *(item.object for item in self.candidates))):
            return Change(self, Outcome.KNOWN)
        if number > len(self.objects):
            raise Refused(Reason.WRONG_GENERATION, f"object {number} where {len(self.objects)} comes next")
        if number == 0:
            return self._with_fork(verify_object_zero(raw, self.objects[0].root))
        found = verify_next(raw, self.objects[number - 1].contents)
        if found.kind is not ObjectKind.RESHARING and found.root.spki in {item.root.spki for item in self.objects[:number]}:
            refuse("a key never comes back")
        return self._with_candidate(found, at) if found.kind is ObjectKind.RECOVERY else self._with_successor(found)

    def settle(self, at: datetime, wait: timedelta = RECOVERY_WAIT) -> "AuthorityChain":
        """The chain in which a recovery that has waited long enough is in force.

        To be called now and then, and after a start only when other nodes' chains were merged: what the old authority
        answered while this node was off must be heard first.
        """
        found = settled(self.candidates, at, wait)
        if found is None:
            return self
        earlier = tuple(item for item in self.recovered if item[0] < found.number)
        return AuthorityChain((*self.objects[: found.number], found), recovered=(*earlier, (found.number, at)))

    def _with_successor(self, found: AuthorityObject) -> Change:
        if found.number < len(self.objects):
            late = self.objects[found.number].kind is ObjectKind.RECOVERY
            return Change(self, Outcome.VOID) if late else self._with_fork(found)
        if self.fork is not None:
            raise Refused(Reason.AUTHORITY_FROZEN, f"there are two authority objects {self.frozen_at}")
        return Change(replace(self, objects=(*self.objects, found), candidates=()), Outcome.APPENDED)

    def _with_fork(self, found: AuthorityObject) -> Change:
        """Of several proofs the earliest is kept, of those the one with the lowest hashes: the same on every node."""
        rivals = {item.hash: item for item in (self.objects[found.number], found)}
        if self.fork is not None and self.frozen_at == found.number:
            rivals |= {item.hash: item for item in self.fork}
        first, second = (rivals[key] for key in sorted(rivals)[:2])
        if self.frozen_at is not None and self.frozen_at < found.number:
            return Change(self, Outcome.KNOWN)
        candidates = self.candidates if self.frozen_at == found.number else ()
        return Change(replace(self, fork=(first, second), candidates=candidates), Outcome.FORKED)

    def _with_candidate(self, found: AuthorityObject, at: datetime) -> Change:
        if found.number != self._place_of_recovery:
            return Change(self, Outcome.VOID)
        candidates = with_candidate(self.candidates, found, at)
        outcome = Outcome.RECOVERY_WAITS if len(candidates) == 1 else Outcome.RECOVERY_CONTESTED
        return Change(replace(self, candidates=candidates), outcome)
