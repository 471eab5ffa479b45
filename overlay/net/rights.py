"""What a node lets others do, by the policy in force: who may use which service, who may publish on which topic."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from overlay.core.needs import check_need
from overlay.core.policy_parts import Needs
from overlay.core.trust import TrustSet
from overlay.errors import Refused
from overlay.net.ports import Standings
from overlay.net.request import PeerInfo


@dataclass(frozen=True, slots=True)
class Rights:
    """Asked anew for each call, stream and publication: policy, levels and limits change while the node runs."""

    trust: Callable[[], TrustSet]
    standings: Standings

    def limited(self, info: PeerInfo) -> PeerInfo:
        """With the level that counts: no higher than what others have found leaves it."""
        limit = self.standings.limit(info.node_id)
        return info if info.level <= limit else replace(info, level=limit)

    def refusal(self, caller: PeerInfo, service: str) -> Refused | None:
        """Why this caller may not use a service or stream now: LEVEL_TOO_LOW or NOT_ALLOWED; None if it may."""
        try:
            check_need(self._needs, self._needs.service(service), caller.level, caller.roles)
        except Refused as error:
            return error
        return None

    def check_publishes(self, author: PeerInfo, topic: str) -> None:
        """Raises Refused(LEVEL_TOO_LOW or NOT_ALLOWED) if this author may not publish on this topic now."""
        check_need(self._needs, self._needs.topic(topic), author.level, author.roles)

    def may_publish(self, author: PeerInfo, topic: str) -> bool:
        """The same as a question."""
        try:
            self.check_publishes(author, topic)
        except Refused:
            return False
        return True

    @property
    def _needs(self) -> Needs:
        return self.trust().policy.policy.needs
