"""Makes signatures of the mesh key: our share, if we have one, and the coordinator of what we want signed.

The machines decide (`core/authority/signer.py`, `coordinator.py`); here they get their clock, their links and their disk.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import trio

from overlay.app.authority.carrier import Carrier
from overlay.app.authority.ledger import Ledger
from overlay.core.authority.coordinator import Coordinator
from overlay.core.authority.requests import Request, seal
from overlay.core.authority.round_messages import RoundMessage
from overlay.core.authority.sharing import Share
from overlay.core.authority.signer import Signer
from overlay.core.authority.signing_events import (
    ApprovalWanted,
    Declined,
    Equivocated,
    Failed,
    GivenUp,
    MakeDurable,
    Misbehaved,
    OutOfStep,
    Signed,
    SignerEvent,
    Signing,
)
from overlay.core.certificate_profile import Issuer
from overlay.core.chance import Chance
from overlay.core.keys import NodeId
from overlay.errors import OverlayError, Refused
from overlay.net.background import spawn
from overlay.registry import Reason, RoundKind

NEXT_KEY: Final = 0x80
SESSION_SIZE: Final = 16
OF_SIGNERS: Final = frozenset({RoundKind.SIGN_REQUEST, RoundKind.PACKAGE})

Approve = Callable[[Request, NodeId], None]  # raises Refused; the second is who coordinates
Note = Callable[[SignerEvent | Misbehaved | OutOfStep], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What everything in this folder needs of the node that runs."""

    own_id: NodeId
    chance: Chance
    at: Callable[[], datetime]
    linked: Callable[[NodeId], bool]
    nursery: trio.Nursery


@dataclass(frozen=True, slots=True)
class Hand:
    """A share, and among whom."""

    share: Share = field(repr=False)
    issuer: Issuer
    members: tuple[NodeId, ...]  # by node id


def hand_in_force(ledger: Ledger) -> Hand | None:
    """Our share of the mesh key of today."""
    share, newest = ledger.share, ledger.chain.newest
    if share is None or share.group.public != newest.root.public_key or len(share.group.shares) != len(newest.member_ids):
        return None
    return Hand(share, newest.root.issuer, newest.member_ids)


def is_of_next_key(session: bytes) -> bool:
    """Whether a signature is wanted of a key that is not in force yet: the first bit of its session."""
    return bool(session[0] & NEXT_KEY)


class SigningDesk:
    """Of one node, for as long as it runs."""

    def __init__(
        self, surroundings: Surroundings, ledger: Ledger, carrier: Carrier, *, approve: Approve, note: Note,
        hand: Callable[[], Hand | None], next_key: bool = False,
    ) -> None:
        """`hand` gives the share to sign with; `next_key`: it is of a key that is not in force yet."""
        self._hand = hand
        self._mark = NEXT_KEY if next_key else 0
        self._ledger = ledger
        self._carrier = carrier
        self._approve = approve
        self._note = note
        self._around = surroundings
        self._held: Hand | None = None
        self._signer: Signer | None = None
        self._wake = trio.Event()
        self.share_changed()

    # --- as one of the signers --------------------------------------------------------------------------------------

    def share_changed(self) -> None:
        """Another share, or none: whatever was under way with the old one is over."""
        hand = self._hand()
        if hand == self._held:
            return
        self._held = hand
        self._signer = None if hand is None else Signer(hand.share, hand.issuer, self._ledger.bindings, self._around.chance)
        self._wake.set()

    def heard(self, message: RoundMessage) -> None:
        """A message of a coordinator."""
        signer = self._signer
        if signer is None or message.kind not in OF_SIGNERS:
            return
        now = trio.current_time()
        self._act(signer, signer.receive(message.sender, message.session, message.kind, message.body, now, self._around.at()))

    async def run(self) -> None:
        """Let time pass for the signer, until cancelled."""
        while True:
            signer = self._signer
            with trio.move_on_at(math.inf if signer is None else signer.deadline):
                await self._wake.wait()
            if signer is not None:
                self._act(signer, signer.tick(trio.current_time()))
            self._wake = trio.Event()  # what the tick has moved is seen in the next turn

    def _act(self, signer: Signer, events: list[SignerEvent]) -> None:
        waiting = list(events)
        while waiting:
            event = waiting.pop(0)
            match event:
                case ApprovalWanted():
                    waiting += self._judge(signer, event)
                case MakeDurable():
                    spawn(self._around.nursery, self._make_durable, signer, event)
                case GivenUp(rows=rows):
                    self._ledger.bindings = self._ledger.bindings.less(rows)
                case Declined() | Signing() | Equivocated():
                    self._note(event)
        self._carrier.send(signer.messages_to_send())
        self._wake.set()

    def _judge(self, signer: Signer, wanted: ApprovalWanted) -> list[SignerEvent]:
        """A judgement that fails says no."""
        try:
            self._approve(wanted.request, wanted.session.coordinator)
        except Refused as error:
            return [Declined(wanted.session, error.reason, error.detail), *signer.decline(wanted.session, error.reason)]
        except Exception as error:  # noqa: BLE001
            return [
                Declined(wanted.session, Reason.INTERNAL, f"{type(error).__name__}: {error}"),
                *signer.decline(wanted.session, Reason.INTERNAL),
            ]
        return signer.approve(wanted.session, trio.current_time())

    async def _make_durable(self, signer: Signer, wanted: MakeDurable) -> None:
        """First the disk, then the commitment; a disk that fails is a signer that is silent."""
        try:
            self._ledger.bindings = self._ledger.bindings.adding(wanted.added)
            await self._ledger.flush()
        except OverlayError as error:
            self._act(signer, [Declined(wanted.session, Reason.INTERNAL, str(error))])
            return
        self._act(signer, signer.durable(wanted.session, trio.current_time()))

    # --- as a coordinator -------------------------------------------------------------------------------------------

    async def sign(self, request: Request) -> bytes:
        """Have it signed by whoever of the signers agrees: what others verify (DER, COSE, or the bare signature).

        Raises:
            Refused: NOT_A_SIGNER on a node without a share; NOT_ENOUGH_SIGNERS with what was wrong with whom; or the request
                cannot be derived.
        """
        signed = await self.signature(request)
        return seal(request, signed.message, signed.signature)

    async def signature(self, request: Request) -> Signed:
        """The same, before it is sealed."""
        hand = self._hand()
        if hand is None or self._signer is None:
            raise Refused(Reason.NOT_A_SIGNER, "this node has no share of the mesh key")
        token = self._around.chance.token(SESSION_SIZE)
        session = bytes([token[0] & ~NEXT_KEY & 0xFF | self._mark]) + token[1:]
        share = hand.share
        coordinator = Coordinator(
            request, hand.issuer, share.group, hand.members, generation=share.generation, session=session,
            now=trio.current_time(),
        )
        return await self._coordinate(coordinator, session, hand.members)

    async def _coordinate(self, coordinator: Coordinator, session: bytes, members: tuple[NodeId, ...]) -> Signed:
        results: list[Signed | Failed] = []
        woken = trio.Event()

        def take(events: "list[Signed | Failed | Misbehaved | OutOfStep]") -> None:
            for event in events:
                if isinstance(event, Misbehaved | OutOfStep):
                    self._note(event)
                else:
                    results.append(event)
            self._carrier.send(coordinator.messages_to_send())

        def hear(message: RoundMessage) -> None:
            if message.kind in OF_SIGNERS:  # to ourselves, as a signer
                self.heard(message)
            else:
                take(coordinator.receive(message.sender, message.kind, message.body, trio.current_time()))
                woken.set()  # another time may be due now

        with self._carrier.listening(session, hear):
            self._carrier.send(coordinator.messages_to_send())
            for member in members:
                if member != self._around.own_id and not self._around.linked(member):
                    take(coordinator.lost(member, trio.current_time()))
            while not results:
                with trio.move_on_at(coordinator.deadline):
                    await woken.wait()
                woken = trio.Event()
                take(coordinator.tick(trio.current_time()))
        [result] = results[:1]
        if isinstance(result, Failed):
            said = ", ".join(f"{node.short} {reason.name.lower()}" for node, reason in result.said.items())
            raise Refused(result.reason, f"too few signers agree: {said}", hint="`overlay ca status` shows who answers")
        return result
