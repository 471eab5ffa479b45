"""Leads the rounds of evidence: one proof at a time serves all links, and credentials change only between two proofs."""

import math
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Protocol

import trio

from overlay.core import limits
from overlay.core.chance import Chance
from overlay.core.evidence import Binding, Prover
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.limits import AttestTimes
from overlay.core.rounds import OpenRound, ProofWanted, RoundLeader
from overlay.core.session_states import State
from overlay.errors import OverlayError
from overlay.net.link import Link
from overlay.registry import EvidenceKind

ADMISSION_PROOF = -1  # stands for the CHALLENGE's nonce among the round numbers
RENEW_LOOK_EVERY = 60.0  # seconds: a machine that slept, or a TPM that failed, costs a minute


class AttesterOwner(Protocol):
    """What the attester asks and tells the node."""

    def links(self) -> Iterable[Link]:
        """All connections, half-open ones too."""
        ...

    def evidence_failed(self, detail: str, hint: str) -> None:
        """The prover, or a renewal, could not."""
        ...

    def credentials_renewed(self) -> None:
        """Every link goes on under new credentials."""
        ...


class Attester:
    """The attesting side of a node. `identity` is the one in force."""

    def __init__(
        self, identity: LocalIdentity, *, prover: Callable[[LocalIdentity], Prover],
        renew: Callable[[], Awaitable[LocalIdentity]],
        renewal_due: Callable[[LocalIdentity], bool], owner: AttesterOwner, times: AttestTimes, chance: Chance,
    ) -> None:
        self.identity = identity
        self.warning = ""
        self._make_prover = prover
        self._prover = prover(identity)
        self._renew = renew
        self._renewal_due = renewal_due
        self._owner = owner
        # between two proofs for CHALLENGEs of one peer: as often as it may ask on an open link
        self._pause = min(limits.UNASKED_NONCE_EVERY / 2, times.every / 12)
        self._asked: dict[NodeId, float] = {}  # when each peer's CHALLENGE had, or will have, its proof
        self._later, self._late = trio.open_memory_channel[tuple[Link, Binding, float]](math.inf)  # half-open links: bounded
        self._leader = RoundLeader(times=times, chance=chance, now=trio.current_time())
        self._wake = trio.Event()
        self._proving = trio.Lock()

    @property
    def prover(self) -> Prover:
        """What makes our evidence now."""
        return self._prover

    def look_at_policy(self) -> None:
        """Another policy may ask for other measurements: from the next proof on."""
        self._prover = self._make_prover(self.identity)

    def admission(self, link: Link, binding: Binding) -> None:
        """A peer's CHALLENGE asks for evidence. What is a signature in memory is made at once; a TPM is asked for many."""
        if self._prover.kind is EvidenceKind.SOFTWARE:
            self._admit(link, binding)
            return
        now, peer = trio.current_time(), link.peer.node_id
        self._asked = {one: at for one, at in self._asked.items() if at > now - self._pause}
        since = self._asked.get(peer)
        if since is None:
            self._asked[peer] = now
            self._join(link, binding)
        else:
            self._asked[peer] = due = since if since > now else since + self._pause
            self._later.send_nowait((link, binding, due))

    def _join(self, link: Link, binding: Binding) -> None:
        self._leader.join(link, ADMISSION_PROOF, binding, trio.current_time())
        self._wake.set()

    async def _join_later(self, nursery: trio.Nursery) -> None:
        """Whoever connects again and again has its proof when its pause is over: a TPM is there for all."""

        async def wait(link: Link, binding: Binding, at: float) -> None:
            await trio.sleep_until(at)
            if link.session.state is not State.CLOSED:
                self._join(link, binding)

        async for link, binding, at in self._late:
            nursery.start_soon(wait, link, binding, at)

    def nonce(self, link: Link, number: int, binding: Binding) -> None:
        """A peer answered a round of ours, or asks unasked."""
        self._leader.nonce(link, number, binding, trio.current_time())
        self._wake.set()

    def _admit(self, link: Link, binding: Binding) -> None:
        try:
            (evidence,) = self._prover.prove([binding])
        except OverlayError as error:
            self._give_up(ProofWanted(ADMISSION_PROOF, ((link, ADMISSION_PROOF, binding),)), error)
        else:
            self.warning = ""
            link.supply_evidence(evidence)

    async def run(self) -> None:
        """Lead rounds and renew the endorsement, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_endorsed)
            nursery.start_soon(self._join_later, nursery)
            while True:
                self._wake = trio.Event()
                with trio.move_on_at(self._leader.deadline):
                    await self._wake.wait()
                self._lead(nursery)

    def _lead(self, nursery: trio.Nursery) -> None:
        links = frozenset[Hashable](link for link in self._owner.links() if link.is_open)
        for event in self._leader.tick(trio.current_time(), links):
            match event:
                case OpenRound(number=number):
                    for link in self._owner.links():
                        link.open_round(number)
                case ProofWanted():
                    nursery.start_soon(self._prove, event)

    async def _prove(self, wanted: ProofWanted) -> None:
        """One quote for all; a prover that fails ends no open link by itself, the leases do."""
        async with self._proving:
            try:
                found = await trio.to_thread.run_sync(self._prover.prove, [binding for _, _, binding in wanted.bindings])
            except OverlayError as error:
                self._give_up(wanted, error)
            else:
                self.warning = ""
                for (link, number, _), evidence in zip(wanted.bindings, found, strict=True):
                    if isinstance(link, Link) and number == ADMISSION_PROOF:
                        link.supply_evidence(evidence)
                    elif isinstance(link, Link):
                        link.send_evidence(number, evidence)
        self._leader.proven()
        self._wake.set()

    def _give_up(self, wanted: ProofWanted, error: OverlayError) -> None:
        self.warning = str(error)
        self._owner.evidence_failed(str(error), error.hint)
        for link, number, _ in wanted.bindings:
            if isinstance(link, Link) and number == ADMISSION_PROOF:
                link.evidence_failed(str(error))

    async def _keep_endorsed(self) -> None:
        """A new endorsement every 12 h by the calendar, told to every peer before the first message under it."""
        while True:
            await trio.sleep(RENEW_LOOK_EVERY)
            if self._renewal_due(self.identity):
                try:
                    await self.renew()
                except OverlayError as error:
                    self._owner.evidence_failed(f"the endorsement was not renewed: {error}", error.hint)

    async def renew(self) -> None:
        """Between two proofs, because a proof is judged under the credentials that the peer knows."""
        async with self._proving:
            identity = await self._renew()
            self._prover = self._make_prover(identity)
            for link in self._owner.links():
                link.change_credentials(identity)
            self.identity = identity
        self._owner.credentials_renewed()


def renewal_due(identity: LocalIdentity, now: float) -> bool:
    """Whether the endorsement has had half of its life, at most 12 h; `now` in Unix seconds."""
    own = identity.verified.endorsement
    half = (own.not_after - own.not_before).total_seconds() / 2
    return now - own.not_before.timestamp() >= min(limits.ENDORSEMENT_RENEW, half)
