"""Recovery on a node that runs: a candidate is made known to everybody, waits, and then takes effect or is void.

Rules, beside those of `core/authority/recovery.py`:
- every node says when a recovery begins to wait, when it is void, and at each start in between
- after a start it takes effect only once other nodes were heard, or the whole wait is over again: what the old authority
  answered in the meantime must come first
- the chain is durable first, then our share of the new key, and then others are told
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import trio

from overlay.app.authority.keeper import Keeper
from overlay.app.authority.recovery_proposals import Prepared, Proposer, check_recoverable, forget, load_prepared, make, prepare
from overlay.app.authority.shares import Shares
from overlay.app.authority.signing import Surroundings
from overlay.core.authority.contents import ClosingCheckpoint
from overlay.core.authority.recovery import Candidate
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificates import show_time
from overlay.core.identity import LocalIdentity
from overlay.core.join_ports import LEAF_LIFE
from overlay.core.keys import NodeId
from overlay.core.recovery_files import RecoveryProposal
from overlay.core.renewal import Attempt
from overlay.errors import Refused, UsageError
from overlay.registry import Reason
from overlay.store.state import RENEWAL_ATTEMPT, StateFolder

LOOK: Final = 1.0  # seconds between two looks at the calendar, which may jump
HEARD_AFTER: Final = 5.0  # seconds on a link until its other end has shown its chain: our guess, a hundred times what it takes
SEED_SIZE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPorts:
    """What recovery needs of the node."""

    folder: StateFolder
    identity: Callable[[], LocalIdentity]
    sign: Callable[[bytes], bytes] = field(repr=False)  # by our identity key; blocks, for a TPM
    heads: Callable[[tuple[NodeId, ...]], tuple[ClosingCheckpoint, ...]]
    linked_ids: Callable[[], tuple[NodeId, ...]]
    look: Callable[[], None]  # there may be something to renew
    wait: timedelta


class Recovering:
    """Of one node."""

    def __init__(self, around: Surroundings, keeper: Keeper, shares: Shares, ports: RecoveryPorts) -> None:
        self._around = around
        self._keeper = keeper
        self._shares = shares
        self._ports = ports
        self._began_at = around.at()
        self._began = trio.current_time()
        self._linked_since: float | None = None
        self._said: set[bytes] = set()
        keeper.on_recovery = self._chain_moved

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        self._remind()
        while True:
            await self._finish()
            await self._take_effect()
            await trio.sleep(LOOK)

    def _remind(self) -> None:
        for candidate in self._keeper.ledger.chain.candidates:
            self._alarm(self._words(candidate), candidate.object.member_ids[0])

    def _chain_moved(self, before: AuthorityChain) -> None:
        """The keeper has taken an object that is a recovery, or that came while one waited."""
        chain = self._keeper.ledger.chain
        for candidate in chain.candidates:
            if candidate not in before.candidates:
                self._alarm(self._words(candidate), candidate.object.member_ids[0])
        if len(chain.candidates) > 1:
            self._alarm("two recoveries contest each other: neither takes effect, until the authority signs a successor")
        if before.candidates and not chain.candidates:
            self._alarm("the recovery is void: the authority that was to be replaced has signed a successor")

    def _words(self, candidate: Candidate) -> str:
        found, ends = candidate.object, show_time(candidate.waits_until(self._ports.wait))
        name = self._keeper.ledger.members.get(found.member_ids[0])
        who = found.member_ids[0].short if name is None else name.name
        return (
            f"{found.recovery.threshold} of {len(found.recovery.keys)} recovery keys make {who} authority {found.number} "
            f"on {ends}, unless the authority of today signs a successor before: `overlay ca distribute`"
        )

    def _alarm(self, words: str, about: NodeId | None = None) -> None:
        self._keeper.alarm(about or self._around.own_id, Reason.RECOVERY, words)

    # --- taking effect ----------------------------------------------------------------------------------------------

    async def _take_effect(self) -> None:
        ledger, at = self._keeper.ledger, self._around.at()
        before = ledger.chain
        after = before.settle(at, self._ports.wait)
        if after is before or not self._may_settle(before.candidates[0], at):
            return
        found = after.newest
        try:
            trust = ledger.trust.with_recovered_root(found.root, at, after.objects[found.number - 1].root)
        except Refused as error:  # whoever has the keys can name a root that is not in force; it never will be here
            self._say_once(found.hash, f"the recovery cannot take effect: {error}")
            return
        ledger.freeze_old_leaves()
        ledger.renewals = ledger.renewals.without({int.from_bytes(one.serials[-1], "big") for one in ledger.members})
        ledger.chain = after
        self._keeper.move(replace(trust, old_serials=ledger.members.frozen))
        await ledger.flush()
        await trio.to_thread.run_sync(_forget_attempt, self._ports.folder, at)
        await self._finish()
        self._keeper.now_in_force()
        self._ports.look()

    def _say_once(self, about: bytes, words: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._alarm(words)

    def _may_settle(self, candidate: Candidate, at: datetime) -> bool:
        """Whether what the old authority has answered while we were off would have come."""
        now = trio.current_time()
        if not self._ports.linked_ids():
            self._linked_since = None
        elif self._linked_since is None:
            self._linked_since = now
        heard = self._linked_since is not None and now >= self._linked_since + HEARD_AFTER
        whole = now >= self._began + self._ports.wait.total_seconds()
        return candidate.first_seen >= self._began_at or heard or whole

    async def _finish(self) -> None:
        """What we have proposed has its place, or never will."""
        prepared = await trio.to_thread.run_sync(load_prepared, self._ports.folder)
        if prepared is None:
            return
        chain = self._keeper.ledger.chain
        if chain.newest.hash == prepared.proposal.hash:
            await self._shares.take(prepared.share)
            self._keeper.desk.share_changed()
        elif chain.to_be_recovered is not None and chain.to_be_recovered.hash == prepared.proposal.contents.previous:
            return
        await trio.to_thread.run_sync(forget, self._ports.folder)

    # --- what people ask for ----------------------------------------------------------------------------------------

    async def propose(self, *, dry_run: bool = False) -> RecoveryProposal:
        """That this machine alone is the new authority. Raises UsageError, StateDamaged."""
        chain, at = self._keeper.ledger.chain, self._around.at()
        self._check_needed(chain)
        by = Proposer(
            identity=self._ports.identity().verified.certificate.identity, sign=self._ports.sign,
            heads=lambda members: self._ports.heads(tuple(NodeId(member) for member in members)),
            seed=self._around.chance.token(SEED_SIZE),
        )
        prepared: Prepared
        if dry_run:
            prepared = await trio.to_thread.run_sync(make, chain, by, at)
        else:
            prepared = await trio.to_thread.run_sync(prepare, self._ports.folder, chain, by, at)
        return prepared.proposal

    async def submit(self, proposal: RecoveryProposal, *, dry_run: bool = False) -> Candidate:
        """Let everybody know of a proposal that enough keys have signed; it waits from now on.

        Raises:
            UsageError: too few keys have signed, or the authority is not lost.
            Refused: it is not of this mesh, or does not follow its chain.
        """
        ledger = self._keeper.ledger
        raw = complete(proposal, ledger.chain)
        self._check_needed(ledger.chain)
        change = ledger.chain.with_object(raw, self._around.at())
        if not dry_run:
            self._keeper.take_object(raw)
            await ledger.flush()
        found = next((one for one in change.chain.candidates if one.object.hash == proposal.hash), None)
        if found is None:
            raise Refused(Reason.BAD_AUTHORITY_OBJECT, f"the recovery does not count here: {change.outcome.value}")
        return found

    def _check_needed(self, chain: AuthorityChain) -> None:
        """A recovery is for an authority that is lost: one that is there makes it void, and says so everywhere."""
        check_recoverable(chain)
        newest = chain.newest
        there = [one for one in newest.member_ids if self._around.linked(one) or self._has_share(one)]
        if chain.frozen_at is None and len(there) >= newest.threshold:
            raise UsageError(
                f"{len(there)} of {len(newest.member_ids)} signers answer, and {newest.threshold} are enough: nothing is lost",
                hint="`overlay ca distribute` makes a new mesh key, `overlay ca reshare` lets others hold it",
            )

    def _has_share(self, node: NodeId) -> bool:
        return node == self._around.own_id and self._keeper.ledger.share is not None


def _forget_attempt(folder: StateFolder, at: datetime) -> None:
    """A renewal that the old authority never answered, and whose certificate would have ended: no signer binds it any more."""
    content = folder.read(RENEWAL_ATTEMPT)
    try:
        if content is not None and Attempt.unpack(content).not_before + LEAF_LIFE <= at:
            folder.remove(RENEWAL_ATTEMPT)
    except Refused:
        return


def complete(proposal: RecoveryProposal, chain: AuthorityChain) -> bytes:
    """The object, if it may be shown to others. Raises UsageError, Refused(OTHER_MESH or BAD_AUTHORITY_OBJECT)."""
    if proposal.contents.mesh_id != chain.newest.root.mesh_id:
        raise Refused(Reason.OTHER_MESH, "the proposal is of another mesh")
    raw = proposal.object
    if raw is None:
        recovery = proposal.contents.recovery
        raise UsageError(
            f"{len(proposal.recovery)} of {recovery.threshold} recovery keys have signed",
            hint="`overlay ca recover --sign PROPOSAL --key FILE` adds a signature, on any machine",
        )
    return raw
