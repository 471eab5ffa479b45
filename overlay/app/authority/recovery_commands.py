"""What `overlay ca recover` does on the node, and what `overlay ca status` says of recovery."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from overlay.app.authority.api import Report
from overlay.app.authority.seat import Seat
from overlay.core.certificates import show_time
from overlay.core.recovery_files import RecoveryProposal

Options = Mapping[str, Any]


class RecoveryCommands:
    """Of one node. Who may recover is shown by signatures, not by a role: perhaps no operator is left."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.commands: dict[str, Callable[[Options], Awaitable[Report]]] = {
            "recover": self._recover, "submit-recovery": self._submit,
        }

    async def _recover(self, options: Options) -> Report:
        proposal = await self._seat.recovering.propose(dry_run=bool(options.get("dry_run")))
        return Report(proposal_lines(proposal), proposal_fields(proposal))

    async def _submit(self, options: Options) -> Report:
        proposal = RecoveryProposal.from_text(str(options["proposal"]))
        dry = bool(options.get("dry_run"))
        found = await self._seat.recovering.submit(proposal, dry_run=dry)
        ends = found.waits_until(timedelta(seconds=self._seat.parts.recovery_wait))
        said = f"authority {proposal.contents.number} takes effect on {show_time(ends)}, on each node by its own clock"
        fields = {**proposal_fields(proposal), "takes_effect": ends.isoformat(), "dry_run": dry}
        return Report((f"dry run: {said}" if dry else said,), fields)


def proposal_lines(proposal: RecoveryProposal) -> tuple[str, ...]:
    """For people who are about to sign: what they agree to."""
    contents = proposal.contents
    keys = contents.recovery
    members = ", ".join(member.node_id.short for member in contents.members)
    return (
        f"mesh         {contents.root.name}, {contents.mesh_id}",
        f"replaces     authority {contents.number - 1}: {len(proposal.chain[-1].members)} signers, of whom too few are left",
        f"authority    {contents.number}: {members}, a new mesh key of {contents.root.life.not_before:%Y-%m-%d %H:%M} UTC",
        f"node         {', '.join(str(member.node_id) for member in contents.members)}",
        f"proposal     {proposal.hash.hex()[:16]}",
        f"signed by    {len(proposal.recovery)} of {keys.threshold} recovery keys that it takes; there are {len(keys.keys)}",
    )


def proposal_fields(proposal: RecoveryProposal) -> dict[str, Any]:
    """The same for programs."""
    contents = proposal.contents
    return {
        "proposal": proposal.to_text(), "hash": proposal.hash.hex(),
        "mesh": str(contents.mesh_id), "mesh_name": contents.root.name,
        "authority": contents.number, "members": [str(member.node_id) for member in contents.members],
        "root": contents.root.key_hash.hex(), "signed_by": [place + 1 for place in sorted(proposal.recovery)],
        "needed": contents.recovery.threshold, "keys": len(contents.recovery.keys),
    }


def recovery_fields(seat: Seat) -> dict[str, Any]:
    """For `ca status`."""
    chain, wait = seat.ledger.chain, timedelta(seconds=seat.parts.recovery_wait)
    keys = chain.newest.recovery
    waiting = [
        {
            "authority": one.object.number, "members": [str(node) for node in one.object.member_ids],
            "takes_effect": one.waits_until(wait).isoformat(), "object": one.object.hash.hex(),
        }
        for one in chain.candidates
    ]
    return {"recovery": {"keys": len(keys.keys), "needed": keys.threshold, "waiting": waiting}}


def recovery_lines(fields: Mapping[str, Any]) -> list[str]:
    """For people."""
    recovery = fields["recovery"]
    waiting = recovery["waiting"]
    if not recovery["keys"]:
        return ["recovery     no recovery keys: if too many signers are lost, so is the mesh"]
    lines = [f"recovery     {recovery['needed']} of {recovery['keys']} keys, kept offline"]
    if len(waiting) > 1:
        return [*lines, "warning      two recoveries contest each other: neither takes effect"]
    for one in waiting:
        until = one["takes_effect"][:16].replace("T", " ")
        lines.append(f"warning      recovery keys make {one['members'][0][:8]} the authority on {until} UTC; "
                     "`overlay ca distribute` by the authority of today makes that void")  # fmt: skip
    return lines
