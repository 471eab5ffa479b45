"""What a client may ask a node for through the control socket: one function a method, from JSON to NodeApi and back."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import trio

from overlay.app import wire_json as wire
from overlay.app.api import NodeApi
from overlay.app.telemetry.rows import report_parts
from overlay.errors import PeerUnreachable
from overlay.net.peer import Peer

Params = Mapping[str, Any]
Item = Callable[[Any], Awaitable[None]]
Method = Callable[[NodeApi, Params, Item], Awaitable[Any]]

READY: Final = None  # the first item of a subscription: from now on nothing is missed
NAME_MAX: Final = 255  # of a topic, a service, an entry type: our guess
LAST_MAX: Final = 1_000_000  # our guess


async def _status(node: NodeApi, params: Params, item: Item) -> Any:
    return (await node.status()).fields()


async def _call(node: NodeApi, params: Params, item: Item) -> Any:
    method, body, timeout = _call_of(params)
    return wire.base64_text(await _peer_of(node, params).call(method, body, timeout=timeout))


async def _call_stream(node: NodeApi, params: Params, item: Item) -> Any:
    method, body, timeout = _call_of(params)
    async with _peer_of(node, params).call_stream(method, body, timeout=timeout) as parts:
        async for part in parts:
            await item(wire.base64_text(part))


def _call_of(params: Params) -> tuple[str, bytes, float]:
    method = wire.text_of(params, "method", limit=NAME_MAX)
    return method, wire.bytes_of(params, "body"), wire.seconds_of(params, "timeout")


def _peer_of(node: NodeApi, params: Params) -> Peer:
    wanted = wire.node_id_of(params, "node")
    for peer in node.peers:
        if peer.node_id == wanted:
            return peer
    raise PeerUnreachable(f"there is no link to {wanted.short}", hint="`overlay status` shows who is linked")


async def _publish(node: NodeApi, params: Params, item: Item) -> Any:
    topic, body = wire.text_of(params, "topic", limit=NAME_MAX), wire.bytes_of(params, "body")
    return wire.published_fields(await node.publish(topic, body, transient=wire.truth_of(params, "transient")))


async def _subscribe(node: NodeApi, params: Params, item: Item) -> Any:
    async with node.subscribe(wire.text_of(params, "topic", limit=NAME_MAX)) as items:
        await item(READY)
        async for one in items:
            await item(wire.item_fields(one))


async def _expose(node: NodeApi, params: Params, item: Item) -> Any:
    """Until the client cancels it, or goes."""
    service, to, allow = (wire.text_of(params, "service"), wire.text_of(params, "to"), wire.texts_of(params, "allow"))
    async with node.expose(service, to, allow=allow):
        await item(READY)
        await trio.sleep_forever()


async def _forward(node: NodeApi, params: Params, item: Item) -> Any:
    """Until the client cancels it, or goes."""
    peer = None if params.get("peer") is None else wire.text_of(params, "peer", limit=NAME_MAX)
    service, listen = wire.text_of(params, "service"), wire.text_of(params, "listen")
    async with node.forward(service, listen, peer=peer, signed=wire.truth_of(params, "signed")) as address:
        await item(address)
        await trio.sleep_forever()


async def _telemetry_send(node: NodeApi, params: Params, item: Item) -> Any:
    """Until the client cancels it, or goes."""
    name, to = wire.text_of(params, "name", limit=NAME_MAX), wire.texts_of(params, "to")
    every, host = wire.seconds_of(params, "every"), wire.truth_of(params, "host")
    async with node.telemetry.send(name, to=to, every=every, host=host):
        await item(READY)
        await trio.sleep_forever()


async def _telemetry_collect(node: NodeApi, params: Params, item: Item) -> Any:
    """Until the client cancels it, or goes."""
    listen, otlp = (None if params.get(key) is None else wire.text_of(params, key) for key in ("listen", "otlp"))
    level, expect = wire.number_of(params, "level"), wire.texts_of(params, "expect")
    async with node.telemetry.collect(listen=listen, otlp=otlp, level=level, expect=expect) as address:
        await item(address)
        await trio.sleep_forever()


async def _telemetry_report(node: NodeApi, params: Params, item: Item) -> Any:
    """Row by row: all of them together may be too long for a line."""
    report = await node.telemetry.report(kept=wire.truth_of(params, "kept"))
    for kind, rows in report_parts(report):
        for row in rows:
            await item([kind, row])


async def _append(node: NodeApi, params: Params, item: Item) -> Any:
    kind = wire.text_of(params, "type", limit=NAME_MAX)
    return wire.receipt_fields(await node.audit.append(kind, params.get("value")))


async def _wait_replicated(node: NodeApi, params: Params, item: Item) -> Any:
    return await node.audit.wait_replicated(wire.read_receipt(params))


async def _wait_witnessed(node: NodeApi, params: Params, item: Item) -> Any:
    return await node.audit.wait_witnessed(wire.read_receipt(params))


async def _read(node: NodeApi, params: Params, item: Item) -> Any:
    wanted = None if params.get("node") is None else wire.text_of(params, "node", limit=NAME_MAX)
    last = None if params.get("last") is None else min(wire.number_of(params, "last"), LAST_MAX)
    for entry in await node.audit.read(node=wanted, last=last, only=wire.read_filter(params)):
        await item(wire.entry_fields(entry))


async def _follow(node: NodeApi, params: Params, item: Item) -> Any:
    async with node.audit.follow(only=wire.read_filter(params)) as entries:
        await item(READY)
        async for entry in entries:
            await item(wire.entry_fields(entry))


async def _authority(node: NodeApi, params: Params, item: Item) -> Any:
    options = params.get("options", {})
    if not isinstance(options, dict):
        wire.malformed("options")
    report = await node.authority.ask(wire.text_of(params, "command", limit=NAME_MAX), options)
    return {"said": list(report.said), "fields": dict(report.fields), "notes": list(report.notes)}


async def _work(node: NodeApi, params: Params, item: Item) -> Any:
    options = params.get("options", {})
    if not isinstance(options, dict):
        wire.malformed("options")
    return await node.work.ask(wire.text_of(params, "command", limit=NAME_MAX), options)


METHODS: Final[Mapping[str, Method]] = {
    "status": _status,
    "call": _call,
    "call_stream": _call_stream,
    "publish": _publish,
    "subscribe": _subscribe,
    "expose": _expose,
    "forward": _forward,
    "telemetry.send": _telemetry_send,
    "telemetry.collect": _telemetry_collect,
    "telemetry.report": _telemetry_report,
    "audit.append": _append,
    "audit.wait_replicated": _wait_replicated,
    "audit.wait_witnessed": _wait_witnessed,
    "audit.read": _read,
    "audit.follow": _follow,
    "authority": _authority,
    "work": _work,
}
