"""What `overlay invite` and `overlay withdraw` do on the node."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import trio

from overlay.app.authority.api import Report
from overlay.app.authority.order_desk import Options, OrderDesk, read_hex
from overlay.app.authority.seat import Seat
from overlay.core.authority.order_bodies import INVITE_ID_SIZE, Invite, WithdrawInvite
from overlay.core.authority.order_payload import LIFE_MAX
from overlay.core.certificates import show_time
from overlay.core.join_key import JoinKey
from overlay.core.keys import MeshId
from overlay.core.mesh.found import Address
from overlay.core.token import Token, parse_token
from overlay.errors import Refused, UsageError
from overlay.registry import OrderKind

SEED_SIZE: Final = 32


class InviteCommands:
    """Of one node."""

    def __init__(self, seat: Seat, desk: OrderDesk) -> None:
        self._seat = seat
        self._desk = desk
        self.commands: dict[str, Callable[[Options], Awaitable[Report]]] = {
            "invite": self._invite, "invites": self._invites, "withdraw": self._withdraw,
        }

    async def _invite(self, options: Options) -> Report:
        self._desk.must_be_operator()
        ledger, ttl = self._seat.keeper.ledger, timedelta(seconds=float(options.get("ttl", 3600)))
        addresses = tuple(_address(text) for text in options.get("addresses", ()))
        if not timedelta(0) < ttl <= LIFE_MAX[OrderKind.INVITE]:
            raise UsageError(f"a token is good for at most {LIFE_MAX[OrderKind.INVITE].days} days")
        seed = self._seat.engine.parts.chance.token(SEED_SIZE)
        key = JoinKey.of(seed, ledger.trust.mesh_id)
        body = Invite(
            invite_id=key.invite_id, join_public=key.public, roles=tuple(sorted(set(options.get("roles", ())))),
            name=options.get("name"), uses=int(options.get("uses", 1)),
        )
        order = self._desk.order(body, ttl)
        fields = {"invite": key.invite_id.hex(), "roles": list(body.roles), "name": body.name, "uses": body.uses,
                  "not_after": order.not_after.isoformat()}  # fmt: skip
        if options.get("dry_run"):
            return Report((f"would make a token that is good until {show_time(order.not_after)}",), fields)
        taken = await self._desk.give(order)
        signed = ledger.orders.held[order.hash].signed
        token = Token.of(
            signed, mesh_id=ledger.trust.mesh_id, root_hash=ledger.chain.newest_root.key_hash,
            gate=self._seat.parts.gate(), seed=seed, addresses=addresses,
        ).to_text()
        shown = {**fields, "token": token, "counts": taken.counts, "order": order.hash.hex()}
        waits = f"it does not count yet: {taken.lacks}; another operator runs `overlay ca countersign {order.hash.hex()}`"
        return Report((token,), shown, () if taken.counts else (waits,))

    async def _invites(self, _options: Options) -> Report:
        """Those that somebody could still join by."""
        await trio.lowlevel.checkpoint()
        book, at, rows = self._seat.keeper.ledger.invites, self._desk.at(), list[dict[str, Any]]()
        for held in self._seat.keeper.ledger.orders.held.values():
            order, body = held.order, held.order.body
            if not isinstance(body, Invite) or order.not_after <= at or body.invite_id in book.withdrawn:
                continue
            used = book.used.get(body.invite_id)
            rows.append({
                "invite": body.invite_id.hex(), "name": body.name, "roles": list(body.roles), "uses": body.uses,
                "used": 0 if used is None else len(used.nodes), "not_after": order.not_after.isoformat(),
                "operator": str(order.operator),
            })
        rows.sort(key=lambda row: row["not_after"])
        lines = [
            f"{row['invite']}  until {row['not_after'][:16].replace('T', ' ')} UTC  used {row['used']} of {row['uses']}  "
            f"{row['name'] or 'any name'}  {' '.join(row['roles']) or 'no role'}" for row in rows
        ]  # fmt: skip
        return Report(tuple(lines) or ("nobody can join: no invite is open",), {"invites": rows})

    async def _withdraw(self, options: Options) -> Report:
        self._desk.must_be_operator()
        invite_id = _invite_id(str(options["invite"]), self._seat.keeper.ledger.trust.mesh_id)
        if invite_id in self._seat.keeper.ledger.invites.withdrawn:
            raise UsageError(f"the invite {invite_id.hex()} was withdrawn before")
        done = f"nobody joins by the invite {invite_id.hex()} any more"
        return await self._desk.simple(self._desk.order(WithdrawInvite(invite_id)), options, done)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UsageError(f"{text!r} is no address", hint="host:port, for example 192.0.2.7:4711 or [2001:db8::1]:4711")
    return host.strip("[]"), int(port)


def _invite_id(text: str, mesh_id: MeshId) -> bytes:
    """From a token, or the id that `overlay invite --json` has shown. Raises UsageError."""
    if len(text) == 2 * INVITE_ID_SIZE:
        return read_hex(text, INVITE_ID_SIZE, "an invite")
    try:
        token = parse_token(text)
    except Refused as error:
        said = f"neither a token nor the id of an invite: {error.detail}"
        raise UsageError(said, hint="`overlay withdraw` lists open invites") from None
    if token.mesh_id != mesh_id:
        raise UsageError("the token is for another mesh")
    return JoinKey.of(token.seed, mesh_id).invite_id
