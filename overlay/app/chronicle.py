"""What a node writes into its audit log by itself: its life, whom it let in, whom it turned away, whom it stopped trusting.

Events come at once and are written by a task, so that no link waits for the disk. What strangers do is counted, and summed
once a minute; a member's refusals are written once per reason and minute.
"""

import math
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final

import trio

from audit import bodies
from audit.log import AuditLog
from audit.work_bodies import work_placed_twice
from overlay.app.version import VERSION
from overlay.core.keys import NodeId
from overlay.errors import OverlayError
from overlay.events import (
    AuthorityChanged,
    CertificateSigned,
    ChainRejected,
    EndComes,
    ForkExposed,
    LinkRefused,
    NodeEvent,
    NodeStarted,
    NodeStopping,
    OrderTaken,
    PeerUp,
    PeerWarning,
    PolicyChanged,
    RevocationsChanged,
    RunPlacedTwice,
    ServiceRefused,
    TelemetryRefused,
    TrustLost,
)
from overlay.registry import EntryType, EvidenceKind, ForkKind, OrderKind, Reason

MINUTE: Final = 60.0
OTHERS: Final = 0  # in the place of a reason: all others together
ADMITTED: Final = "admitted "  # said again when a drift has been written since: it takes the drift back
WAITING_MAX: Final = 4096  # events that may wait for the disk; then the oldest are lost: our guess

Draft = tuple[EntryType, bodies.Body]


class Chronicle:
    """Turns events of a node into entries of its log."""

    def __init__(self, log: AuditLog, at: Callable[[], datetime]) -> None:
        self._log = log
        self._at = at
        self._strangers: Counter[Reason] = Counter()
        self._told: set[tuple[str, str, int]] = set()  # node, what was said, in which minute
        self._drafts_in, self._drafts = trio.open_memory_channel[Draft](WAITING_MAX)

    def observe(self, event: NodeEvent) -> None:
        """Take an event; what it means for the log is written soon."""
        draft = self._draft(event)
        if draft is not None:
            try:
                self._drafts_in.send_nowait(draft)
            except trio.WouldBlock:
                return  # a disk that does not keep up shows in the log's own warning

    async def run(self) -> None:
        """Write until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count_strangers)
            async for entry_type, body in self._drafts:
                await self._write(entry_type, body)

    async def farewell(self) -> None:
        """Write what still waits."""
        while True:
            try:
                draft = self._drafts.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return
            await self._write(*draft)

    async def _write(self, entry_type: EntryType, body: bodies.Body) -> None:
        try:
            await self._log.append(entry_type, body)
        except OverlayError:
            return  # the log keeps its warning, which every status shows

    async def _count_strangers(self) -> None:
        while True:
            await trio.sleep(MINUTE)
            counts, self._strangers = self._strangers, Counter()
            self._told = {one for one in self._told if one[2] >= self._minute() - 1}
            for reason, count in summed(counts):
                body = bodies.refusal(None, reason, minute=self._minute(), count=count)
                await self._write(EntryType.REFUSAL, body)

    def _draft(self, event: NodeEvent) -> Draft | None:
        match event:
            case NodeStarted():
                return EntryType.LIFECYCLE, bodies.lifecycle("started", version=VERSION)
            case NodeStopping():
                return EntryType.LIFECYCLE, bodies.lifecycle("stopped")
            case PeerUp() if self._is_news(event.node, f"{ADMITTED}{event.kid} {event.level}"):
                kind = EvidenceKind[event.evidence.upper()]  # there is a lease, and so an appraisal, while a link is open
                body = bodies.admission(NodeId.parse(event.node), bytes.fromhex(event.kid), level=event.level, evidence=kind)
                return EntryType.ADMISSION, body
            case TrustLost() if self._is_news(event.node, f"drift {event.reason}"):
                self._told = {one for one in self._told if one[0] != event.node or not one[1].startswith(ADMITTED)}
                return EntryType.DRIFT, bodies.drift(NodeId.parse(event.node), event.reason, detail=event.detail[:512])
            case PeerWarning() if not self._is_news(event.node, event.detail):
                pass
            case (
                PeerWarning() | OrderTaken() | CertificateSigned() | RevocationsChanged() | PolicyChanged() | AuthorityChanged()
                | EndComes() | ForkExposed() | RunPlacedTwice()
            ):
                return _of_mesh(event)
            case LinkRefused() if not event.by_peer:
                return self._refusal(event.node, event.reason)
            case ChainRejected() | ServiceRefused() | TelemetryRefused():
                return self._refusal(event.node, event.reason)
        return None

    def _refusal(self, node: str, reason: Reason) -> Draft | None:
        if not node:
            self._strangers[reason] += 1
            return None
        if not self._is_news(node, f"refusal {reason}"):
            return None
        return EntryType.REFUSAL, bodies.refusal(NodeId.parse(node), reason, minute=self._minute())

    def _is_news(self, node: str, what: str) -> bool:
        """Whether this was not said of a node in this minute: nobody fills our log by coming and going."""
        told = (node, what, self._minute())
        if told in self._told:
            return False
        self._told.add(told)
        return True

    def _minute(self) -> int:
        return math.floor(self._at().timestamp() / MINUTE)


def summed(counts: Counter[Reason]) -> list[tuple[int, int]]:
    """What strangers did in a minute: the most frequent reason, and all others together. Never more, whatever they try."""
    found = [(int(reason), count) for reason, count in counts.most_common(1)]
    rest = counts.total() - sum(count for _, count in found)
    return found + [(OTHERS, rest)] * bool(rest)


def _of_mesh(event: NodeEvent) -> Draft | None:
    """Who may be here has changed, or we have helped to change it, or it will by itself; or somebody passes with a warning."""
    match event:
        case PeerWarning():
            detail = f"{event.name} {event.node}: {event.detail}"[:512]
            return EntryType.LIFECYCLE, bodies.lifecycle("peer-warning", detail=detail)
        case EndComes():
            detail = f"{event.name}: {event.percent} %, ends {event.ends}"
            return EntryType.LIFECYCLE, bodies.lifecycle("end-comes", detail=detail)
        case OrderTaken():
            kind = OrderKind[event.kind.upper()]
            operator, digest = NodeId.parse(event.operator), bytes.fromhex(event.order)
            return EntryType.ORDER, bodies.order(operator, kind, event.number, digest)
        case CertificateSigned():
            digest = bytes.fromhex(event.leaf)
            return EntryType.ISSUANCE, bodies.issuance(NodeId.parse(event.node), int(event.serial, 16), digest, event.ends)
        case ForkExposed():
            proof, what = bytes.fromhex(event.proof), ForkKind[event.kind.upper()]
            return EntryType.FORK, bodies.fork(NodeId.parse(event.node), what, proof, detail=event.detail[:512])
        case RunPlacedTwice():
            return EntryType.WORK, work_placed_twice(bytes.fromhex(event.workload), event.run, event.schedulers, event.workers)
    return _in_force(event)


def _in_force(event: NodeEvent) -> Draft | None:
    """Another list, policy or authority."""
    match event:
        case RevocationsChanged():
            nodes = map(NodeId.parse, event.nodes)
            return EntryType.REVOCATION, bodies.revocation(event.number, bytes.fromhex(event.list), nodes)
        case PolicyChanged():
            return EntryType.POLICY, bodies.policy(event.version, bytes.fromhex(event.policy))
        case AuthorityChanged():
            return EntryType.AUTHORITY, bodies.authority(event.number, bytes.fromhex(event.object))
    return None
