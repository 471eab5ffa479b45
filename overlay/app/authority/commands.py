"""What `overlay invite`, `revoke`, `ca ...` do on the node: from names and options to orders, and back to sentences."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import trio

from overlay.app.authority.api import Report
from overlay.app.authority.invite_commands import InviteCommands
from overlay.app.authority.keeper import Keeper
from overlay.app.authority.order_desk import Options, OrderDesk, read_hex
from overlay.app.authority.policy_commands import PolicyCommands
from overlay.app.authority.recovery_commands import RecoveryCommands, recovery_fields, recovery_lines
from overlay.app.authority.seat import Seat
from overlay.core.authority.group_orders import Distribute, Refresh, Reshare
from overlay.core.authority.order_bodies import (
    GrantRoles,
    Quarantine,
    Replace,
    Revoke,
)
from overlay.core.authority.orders import countersign
from overlay.core.certificates import show_time
from overlay.core.joining import SIGNER
from overlay.core.keys import NodeId
from overlay.core.members import Seen
from overlay.core.revocation_profile import RevocationReason
from overlay.errors import DeadlineExceeded, Refused, UsageError
from overlay.registry import Reason

SETTLE_WITHIN: Final = 20.0  # seconds until what was ordered is done: the signers' patience
CEREMONY_WITHIN: Final = 90.0  # longer than a round of a key generation that somebody does not answer
POLL: Final = 0.02

Command = Callable[[Options], Awaitable[Report]]


class Commands:
    """Of one node."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._desk = desk = OrderDesk(seat)
        self._commands: Mapping[str, Command] = {
            "status": self._status, "revoke": self._revoke,
            "quarantine": self._quarantine, "replace": self._replace, "renew": self._renew, "leave": self._leave,
            "distribute": self._distribute, "refresh": self._refresh, "reshare": self._reshare, "repair": self._repair,
            "audit": self._audit, "countersign": self._countersign, "grant": self._grant,
            **InviteCommands(seat, desk).commands, **RecoveryCommands(seat).commands, **PolicyCommands(seat).commands,
        }

    async def perform(self, command: str, options: Options) -> Report:
        """Raises UsageError for a command that there is not, or what each raises."""
        await trio.lowlevel.checkpoint()
        if command not in self._commands:
            raise UsageError(f"there is no command {command!r}")
        return await self._commands[command](options)

    # --- what all need ----------------------------------------------------------------------------------------------

    @property
    def _keeper(self) -> Keeper:
        return self._seat.keeper

    @property
    def _own(self) -> NodeId:
        return self._desk.own

    def _at(self) -> datetime:
        return self._desk.at()

    def _find(self, text: str) -> Seen:
        """A node by name or id. Raises UsageError."""
        found = self._keeper.ledger.members.find(text)
        if found is None:
            raise UsageError(f"no node {text!r} was ever seen here", hint="give its name or its whole id")
        return found

    async def _settle(self, done: Callable[[], bool], what: str, within: float = SETTLE_WITHIN) -> None:
        """Until it is so."""
        with trio.move_on_after(within):
            while not done():  # noqa: ASYNC110 (what moves trust tells nobody)
                await trio.sleep(POLL)
            return
        raise DeadlineExceeded(what, hint="`overlay ca status` shows which signers answer; the order stands, and is done later")

    # --- invites ----------------------------------------------------------------------------------------------------

    # --- nodes ------------------------------------------------------------------------------------------------------

    async def _revoke(self, options: Options) -> Report:
        self._desk.must_be_operator()
        nodes = [self._find(text) for text in options["nodes"]]
        reason = RevocationReason[str(options.get("reason", "privilege-withdrawn")).upper().replace("-", "_")]
        ids = tuple(sorted({node.node_id for node in nodes}))
        body = Revoke(nodes=ids, reason=reason, since=self._at(), ends=self._seat.log_ends(ids))
        names = ", ".join(node.name for node in nodes)
        report = await self._desk.simple(self._desk.order(body), options, f"{names} revoked: {reason.words}")
        if not options.get("dry_run") and report.fields["counts"]:
            revoked = self._keeper.ledger
            await self._settle(
                lambda: all(node in revoked.trust.revocations.nodes for node in ids), "the revocation is not signed yet"
            )
        return report

    async def _quarantine(self, options: Options) -> Report:
        self._desk.must_be_operator()
        node = self._find(options["node"])
        order = self._desk.order(Quarantine(node.node_id), timedelta(hours=24))
        return await self._desk.simple(order, options, f"{node.name} is kept out until {show_time(order.not_after)}")

    async def _replace(self, options: Options) -> Report:
        self._desk.must_be_operator()
        old, new = self._find(options["old"]), self._find(options["new"])
        body = Replace(old=old.node_id, new=new.node_id)
        done = f"{old.name} is revoked; {new.name} has its name and roles once you run `overlay renew` there"
        return await self._desk.simple(self._desk.order(body), options, done)

    async def _leave(self, options: Options) -> Report:
        own = self._find(str(self._own))
        body = Revoke(nodes=(self._own,), reason=RevocationReason.CESSATION, since=self._at())
        report = await self._desk.simple(self._desk.order(body), options, f"{own.name} leaves the mesh")
        if not options.get("dry_run") and report.fields["counts"]:
            trust = self._keeper.ledger
            await self._settle(lambda: self._own in trust.trust.revocations.nodes, "no signer has revoked this node yet")
        return report

    async def _renew(self, options: Options) -> Report:
        del options
        found = await self._seat.renewing.renew()
        return Report(
            (f"the certificate of {found.name} is renewed until {show_time(found.not_after)}",),
            {"name": found.name, "serial": f"{found.serial:040x}", "not_after": found.not_after.isoformat()},
        )

    # --- the authority ----------------------------------------------------------------------------------------------

    async def _status(self, options: Options) -> Report:
        del options
        keeper, at = self._keeper, self._at()
        ledger = keeper.ledger
        newest = ledger.chain.newest
        rows: list[dict[str, Any]] = []
        for node_id in newest.member_ids:
            seen = ledger.members.get(node_id)
            here = node_id == self._own
            rows.append({
                "node": str(node_id), "name": seen.name if seen else node_id.short,
                "linked": here or self._seat.linked(node_id), "here": here,
                "certificate_ends": seen.not_after.isoformat() if seen else None,
            })
        answering = sum(bool(row["linked"]) for row in rows)
        fields: dict[str, Any] = {
            "authority": newest.number, "kind": newest.kind.value, "threshold": newest.threshold, "members": rows,
            "answering": answering, "root": newest.root.key_hash.hex(), "root_ends": newest.root.life.not_after.isoformat(),
            "frozen": ledger.chain.frozen_at is not None, "founding": len(newest.members) == 1,
            "share_generation": None if ledger.share is None else ledger.share.generation,
            "revocation_list": ledger.trust.number,
            "revoked": sorted(str(NodeId(one)) for one in ledger.trust.revocations.nodes),
            "quarantined": sorted(str(one.node_id) for one in ledger.trust.quarantines if at < one.until),
            "policy": ledger.trust.policy.policy.version, "renewable_until": self._renewable_until(),
            **recovery_fields(self._seat),
            "alarms": list(self._seat.warnings),
            "waiting": [{"order": one.hash.hex(), "kind": one.kind.name.lower(), "operator": str(one.operator)}
                        for one in keeper.waiting_orders()],
        }  # fmt: skip
        return Report(tuple(_status_lines(fields)), fields)

    def _renewable_until(self) -> str | None:
        """Until when so many signers can come back as it takes to sign, should everything be off from now on."""
        ledger = self._keeper.ledger
        grace = ledger.trust.grace
        ends = sorted(
            (seen.not_after + grace.of_members for node in ledger.chain.newest.member_ids
             if (seen := ledger.members.get(node)) is not None), reverse=True,
        )  # fmt: skip
        threshold = ledger.chain.newest.threshold
        return ends[threshold - 1].isoformat() if len(ends) >= threshold else None

    async def _distribute(self, options: Options) -> Report:
        members, names = self._signers(options)
        body = Distribute(members=members, threshold=int(options["threshold"]))
        return await self._ceremony(body, options, f"a new mesh key is in the hands of {names}; {body.threshold} of them sign")

    async def _reshare(self, options: Options) -> Report:
        members, names = self._signers(options)
        body = Reshare(members=members, threshold=int(options["threshold"]))
        return await self._ceremony(body, options, f"the mesh key is in the hands of {names}; {body.threshold} of them sign")

    def _signers(self, options: Options) -> tuple[tuple[NodeId, ...], str]:
        """Who shall hold the key. Raises UsageError for a node without the role, which joiners would not believe."""
        found = {one.node_id: one for one in (self._find(text) for text in options["members"])}
        without = [one.name for one in found.values() if SIGNER not in one.roles]
        if without:
            hint = "give it with `overlay grant NODE --role signer`, then `overlay renew` there"
            raise UsageError(f"{', '.join(without)} has not the role signer", hint=hint)
        return tuple(sorted(found)), ", ".join(one.name for one in found.values())

    async def _grant(self, options: Options) -> Report:
        self._desk.must_be_operator()
        node = self._find(options["node"])
        roles = tuple(sorted({*options["roles"], *(() if options.get("only") else node.roles)}))
        body = GrantRoles(node=node.node_id, roles=roles, person=options.get("person"))
        done = f"{node.name} is {', '.join(roles) or 'nothing special'} from its next certificate on: `overlay renew` there"
        return await self._desk.simple(self._desk.order(body), options, done)

    async def _refresh(self, options: Options) -> Report:
        return await self._ceremony(Refresh(), options, "the shares are new")

    async def _ceremony(self, body: Distribute | Reshare | Refresh, options: Options, done: str) -> Report:
        """Give the order, and wait until it is carried out here. Raises Refused(KEY_GENERATION_FAILED) with why it was not."""
        self._desk.must_be_operator()
        order, outcomes = self._desk.order(body), self._seat.ceremonies.outcomes
        report = await self._desk.simple(order, options, done)
        if options.get("dry_run") or not report.fields["counts"]:
            return report
        await self._settle(lambda: order.hash in outcomes, f"{order.kind.name.lower()} is not done yet", CEREMONY_WITHIN)
        if outcomes[order.hash]:
            raise Refused(
                Reason.KEY_GENERATION_FAILED, outcomes[order.hash],
                hint="nothing has changed: see in `overlay status` that all are linked, then order it again",
            )
        newest = self._keeper.ledger.chain.newest
        return Report(report.said, {**report.fields, "authority": newest.number, "root": newest.root.key_hash.hex()})

    async def _repair(self, options: Options) -> Report:
        ledger = self._keeper.ledger
        if not ledger.is_signer(self._own):
            raise UsageError("this node is no member of the authority, so there is no share to repair")
        if options.get("dry_run"):
            return Report(("dry run: the other members would give this one its share back",), {"dry_run": True})
        await self._seat.ceremonies.repair()
        generation = None if ledger.share is None else ledger.share.generation
        return Report(("the share is repaired",), {"share_generation": generation})

    async def _audit(self, options: Options) -> Report:
        """Whether each certificate that is shown here stands in the logs of enough signers."""
        del options
        watching, newest = self._seat.watching, self._keeper.ledger.chain.newest
        wanted = watching.wanted
        await watching.loaded.wait()
        rows: list[dict[str, Any]] = [
            {"name": one.name, "serial": f"{one.serial:040x}", "logs": watching.logs(one)}
            for one in self._seat.certificates_of_newest_root()
        ]
        bad = [row for row in rows if row["logs"] < wanted]
        said = [f"{row['name']}: {row['serial'][:8]} stands in {row['logs']} of {wanted} logs" for row in bad]
        good = f"{len(rows) - len(bad)} of {len(rows)} certificates stand in the logs of {wanted} signers or more"
        if newest.number == 0:
            rows, bad, said = [], [], []
            good = "founding key: what it has signed stands in one log"
        fields = {"checked": rows, "threshold": wanted, "unlogged": [row["serial"] for row in bad]}
        if bad:
            raise Refused(Reason.UNLOGGED_CERTIFICATE, "; ".join(said), hint="signers that were away write later: look again")
        return Report((*said, good), fields)

    async def _countersign(self, options: Options) -> Report:
        self._desk.must_be_operator()
        ledger, wanted = self._keeper.ledger, read_hex(options["order"], 32, "an order")
        held = ledger.orders.held.get(wanted)
        if held is None:
            raise UsageError("no such order waits here", hint="`overlay ca status` lists those that wait")
        identity = self._seat.engine.identity
        signed = countersign(
            held.signed, signer=identity.message, credentials=identity.credentials, mesh_id=ledger.trust.mesh_id, at=self._at()
        )
        taken = self._keeper.take_order(signed)
        await ledger.flush()
        said = "it counts now" if taken.counts else f"it still lacks something: {taken.lacks}"
        return Report((said,), {"order": wanted.hex(), "counts": taken.counts})

def _status_lines(fields: Mapping[str, Any]) -> list[str]:
    members = fields["members"]
    lines = [
        "founding key: one machine holds the mesh" if fields["founding"]
        else f"the mesh key takes {fields['threshold']} of {len(members)} signers; no machine holds it",
        f"authority    {fields['authority']} ({fields['kind']}), root until {fields['root_ends'][:10]}",
    ]
    for row in members:
        state = "this node" if row["here"] else "linked" if row["linked"] else "does not answer"
        lines.append(f"signer       {row['name']}: {state}")
    if fields["answering"] < fields["threshold"]:
        lines.append(f"warning      {fields['answering']} of {fields['threshold']} signers answer: nothing can be signed")
    lines += recovery_lines(fields)
    if fields["frozen"]:
        lines.append("warning      two authorities claim to follow: nothing follows any more, see the guide")
    lines += [f"warning      {one}" for one in fields["alarms"]]
    lines += [f"quarantine   {node[:8]}" for node in fields["quarantined"]]
    lines.append(f"revocations  list {fields['revocation_list']}, {len(fields['revoked'])} nodes")
    if fields["renewable_until"]:
        until = fields["renewable_until"][:16].replace("T", " ")
        lines.append(f"switched off now, the mesh can renew itself until {until} UTC")
    lines += [f"waiting      {one['kind']} {one['order']}: another operator has to sign it" for one in fields["waiting"]]
    return lines
