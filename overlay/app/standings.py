"""What this node knows of others beyond their links: certificates and findings out of audit logs."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from audit.bodies import read_body
from audit.entry import Entry
from audit.log import AuditLog
from audit.query import Query
from overlay.app.authority.ledger import Ledger
from overlay.core.drift_limits import ENOUGH, REPORTER_LEVEL, WORDS_MAX, DriftLimits
from overlay.core.keys import NodeId
from overlay.core.policy_parts import LEVEL_MAX
from overlay.errors import Refused
from overlay.events import NodeEvent, PeerAttested, PeerUp, TrustLost
from overlay.net.node import Node
from overlay.net.request import PeerInfo
from overlay.registry import EntryType, Reason

SPEAKING: Final = frozenset({"drift", "admission"})  # types of entries that say something of others' evidence


class Standings:
    """Keeps `Standings` (net/ports.py) for one node. It knows nothing of stored entries until `load`."""

    def __init__(self, own_id: NodeId, ledger: Ledger, at: Callable[[], datetime]) -> None:
        self.engine: Node | None = None
        self._own_id = own_id
        self._ledger = ledger
        self._at = at
        self._log: AuditLog | None = None
        self._limits = DriftLimits(self._weight)

    async def load(self, log: AuditLog) -> None:
        """Learn what is stored, and from now on what comes."""
        self._log = log
        log.listen(self._take)
        self._take(await log.select(Query(types=SPEAKING, last=WORDS_MAX)))

    def observe(self, event: NodeEvent) -> None:
        """What we find ourselves counts at once."""
        match event:
            case PeerUp() | PeerAttested():
                self._heard(self._own_id, NodeId.parse(event.node), None, self._at())
            case TrustLost():
                self._heard(self._own_id, NodeId.parse(event.node), event.reason, self._at())

    def limit(self, node_id: NodeId) -> int:
        """The highest level that counts of it; our own level is for others to limit."""
        return LEVEL_MAX if node_id == self._own_id else self._limits.limit(node_id)

    def member(self, node_id: NodeId) -> PeerInfo | None:
        """What its certificate says, as its audit log has shown it, while that is in force."""
        found = None if self._log is None else self._log.replica.certificate_of(node_id)
        if found is None or self._is_barred(node_id) or not found.not_before <= self._at() <= found.not_after:
            return None
        return PeerInfo(node_id, found.name, found.roles, found.facts.level)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Who is limited, and by whom."""
        return tuple(self._warning(node_id) for node_id in self._limits.limited if not self._is_barred(node_id))

    def _warning(self, node_id: NodeId) -> str:
        against = self._limits.against(node_id)
        said = ", ".join(f"{self._name(one)}: {reason.name.lower()}" for one, reason in sorted(against.items()))
        return f"{self._name(node_id)} counts as level 1 until its evidence is good again ({said})"

    def _name(self, node_id: NodeId) -> str:
        if node_id == self._own_id:
            return "this node"
        seen, known = self._ledger.members.get(node_id), self.member(node_id)
        return seen.name if seen is not None else known.name if known is not None else node_id.short

    def _take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.type in (EntryType.DRIFT, EntryType.ADMISSION):
                self._take_one(entry)

    def _take_one(self, entry: Entry) -> None:
        try:
            body = read_body(EntryType(entry.type), entry.body)
        except Refused:
            return  # another release may write more in it
        reason = body.get("reason")
        if reason is None:
            self._heard(entry.node_id, NodeId(body["peer"]), None, entry.at)
        elif reason in Reason._value2member_map_:
            self._heard(entry.node_id, NodeId(body["peer"]), Reason(reason), entry.at)

    def _heard(self, reporter: NodeId, about: NodeId, reason: Reason | None, at: datetime) -> None:
        if reporter != about:
            self._limits.heard(reporter, about, reason, at, self._at())

    def _weight(self, reporter: NodeId) -> int:
        """What a node's word is worth: our own and a signer's two, that of a well attested one one."""
        if reporter == self._own_id:
            return ENOUGH
        if self._is_barred(reporter):
            return 0
        if self._ledger.is_signer(reporter):
            return ENOUGH
        return 1 if self._level(reporter) >= REPORTER_LEVEL else 0

    def _level(self, node_id: NodeId) -> int:
        """As its link has shown, else as its certificate says; what others find of it does not count here."""
        shown = None if self.engine is None else self.engine.shown_level(node_id)
        if shown is not None:
            return shown
        known = self.member(node_id)
        return 0 if known is None else known.level

    def _is_barred(self, node_id: NodeId) -> bool:
        trust = self._ledger.trust
        return trust.revocation_of(node_id) is not None or trust.quarantine_end(node_id, self._at()) is not None
