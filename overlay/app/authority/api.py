"""What is behind `node.authority`: orders, certificates and the state of those who together hold the mesh key.

Each method says what it did, in sentences for people and in fields for programs. What changes trust takes `dry_run`: then
everything is checked, and nothing is signed.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, or found."""

    said: tuple[str, ...]  # sentences for people
    fields: Mapping[str, Any]  # the same for programs: JSON-like
    notes: tuple[str, ...] = ()  # beside the result


Ask = Callable[[str, Mapping[str, Any]], Awaitable[Report]]


class Authority:
    """The same for a node in this process and for one behind the control socket. Nodes are named by name or id.

    Every method raises NotAllowed or Refused(NOT_ALLOWED) for a node without the role, Refused(NOT_ENOUGH_SIGNERS) while too
    few signers answer, UsageError for what makes no sense.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def ask(self, command: str, options: Mapping[str, Any]) -> Report:
        """Any of them, by name."""
        return await self._ask(command, options)

    async def status(self) -> Report:
        """Who holds the mesh key, who of them is linked, and for how long the mesh can renew itself."""
        return await self._ask("status", {})

    async def invite(
        self, *, roles: Sequence[str] = (), name: str | None = None, ttl: timedelta = HOUR, uses: int = 1,
        addresses: Sequence[str] = (), dry_run: bool = False,
    ) -> Report:
        """A token for `overlay join`: field `token`, a secret. `addresses`: where to ask if multicast does not reach."""
        return await self._ask(
            "invite",
            {
                "roles": list(roles), "name": name, "ttl": ttl.total_seconds(), "uses": uses, "addresses": list(addresses),
                "dry_run": dry_run,
            },
        )

    async def invites(self) -> Report:
        """By which invites somebody could still join."""
        return await self._ask("invites", {})

    async def withdraw(self, invite: str, *, dry_run: bool = False) -> Report:
        """Nobody joins by this invite any more: its id, or the token."""
        return await self._ask("withdraw", {"invite": invite, "dry_run": dry_run})

    async def revoke(self, nodes: Sequence[str], *, reason: str = "privilege-withdrawn", dry_run: bool = False) -> Report:
        """For ever: their links are closed on every node, and their logs end."""
        return await self._ask("revoke", {"nodes": list(nodes), "reason": reason, "dry_run": dry_run})

    async def quarantine(self, node: str, *, dry_run: bool = False) -> Report:
        """For 24 hours, at once, with no signer up."""
        return await self._ask("quarantine", {"node": node, "dry_run": dry_run})

    async def replace(self, old: str, new: str, *, dry_run: bool = False) -> Report:
        """The new node takes the name and the roles of the old one, which is revoked."""
        return await self._ask("replace", {"old": old, "new": new, "dry_run": dry_run})

    async def grant(
        self, node: str, roles: Sequence[str], *, only: bool = False, person: str | None = None, dry_run: bool = False
    ) -> Report:
        """More roles for a node, or `only` these, from its next certificate on; whose node it is."""
        options = {"node": node, "roles": list(roles), "only": only, "person": person, "dry_run": dry_run}
        return await self._ask("grant", options)

    async def renew(self) -> Report:
        """A new certificate for this node, now."""
        return await self._ask("renew", {})

    async def leave(self, *, dry_run: bool = False) -> Report:
        """This node asks to be revoked, because it goes for good."""
        return await self._ask("leave", {"dry_run": dry_run})

    async def distribute(self, members: Sequence[str], threshold: int, *, dry_run: bool = False) -> Report:
        """A new mesh key that no machine holds, or ever held; the one in force ends."""
        return await self._ask(
            "distribute", {"members": list(members), "threshold": threshold, "dry_run": dry_run}
        )

    async def refresh(self, *, dry_run: bool = False) -> Report:
        """New shares of the same key: what was stolen before is worth nothing."""
        return await self._ask("refresh", {"dry_run": dry_run})

    async def reshare(self, members: Sequence[str], threshold: int, *, dry_run: bool = False) -> Report:
        """The same key in other hands."""
        return await self._ask("reshare", {"members": list(members), "threshold": threshold, "dry_run": dry_run})

    async def countersign(self, order: str) -> Report:
        """Agree, as another operator, to an order that takes two; `status` lists those that wait."""
        return await self._ask("countersign", {"order": order})

    async def repair(self, *, dry_run: bool = False) -> Report:
        """This member has lost its share, and gets it back from the others."""
        return await self._ask("repair", {"dry_run": dry_run})

    async def recover(self, *, dry_run: bool = False) -> Report:
        """That this node alone is the new authority: field `proposal`, for recovery keys to sign.

        Raises UsageError where the mesh has no recovery keys, or enough signers answer.
        """
        return await self._ask("recover", {"dry_run": dry_run})

    async def submit_recovery(self, proposal: str, *, dry_run: bool = False) -> Report:
        """A proposal that enough recovery keys have signed: everybody hears of it, and it waits."""
        return await self._ask("submit-recovery", {"proposal": proposal, "dry_run": dry_run})

    async def policy(self, text: str, *, dry_run: bool = False) -> Report:
        """Put a policy in force, TOML; a looser one takes two operators."""
        return await self._ask("policy", {"policy": text, "dry_run": dry_run})

    async def audit(self) -> Report:
        """Whether every certificate that we have seen stands in enough logs of signers."""
        return await self._ask("audit", {})
