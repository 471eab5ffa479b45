"""`overlay call`, `publish` and `subscribe`: talk to peers through the node that runs here."""

import base64
import sys
from typing import Any

import click
import trio

from overlay.app import wire_json as wire
from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.client import RemoteNode, connect_local
from overlay.app.output import counted, plain, say, say_bytes, say_json
from overlay.core.limits import BODY_MAX
from overlay.errors import PeerUnreachable, UsageError
from overlay.net.peer import Peer

STREAM = "-"
body_argument = click.argument("body", default="")


@click.command()
@click.argument("peer")
@click.argument("method")
@body_argument
@click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS", help="How long to wait for the answer.")
@click.option("--wait", default=5.0, show_default=True, metavar="SECONDS", help="How long to wait for the peer.")
@standard_options
def call(invocation: Invocation, peer: str, method: str, body: str, timeout: float, wait: float) -> None:
    """Call METHOD of PEER with BODY, and print the answer. PEER is a name or an id; - stands for the input."""
    request = _body(body)
    for seconds in (timeout, wait):
        if not 0 < seconds <= 86_400:
            raise UsageError("--timeout and --wait are positive seconds, at most a day")

    async def ask() -> bytes:
        async with connect_local(invocation.folder) as node:
            found = await _find(node, peer, wait)
            return await found.call(method, request, timeout=timeout)

    answer = run(ask)
    if invocation.json:
        say_json({"peer": peer, "method": method, **_shown(answer)})
    else:
        say_bytes(answer)


async def _find(node: RemoteNode, name: str, wait: float) -> Peer:
    with trio.move_on_after(wait):
        return await node.wait_peer(name)
    raise PeerUnreachable(f"there is no link to {name}", hint='"overlay status" shows who is linked')


@click.command()
@click.argument("topic")
@body_argument
@click.option("--transient", is_flag=True, help="For those who listen now; it is not kept.")
@standard_options
def publish(invocation: Invocation, topic: str, body: str, *, transient: bool) -> None:
    """Publish BODY on TOPIC. A - stands for the input."""
    data = _body(body)

    async def ask() -> dict[str, Any]:
        async with connect_local(invocation.folder) as node:
            return wire.published_fields(await node.publish(topic, data, transient=transient))

    found = run(ask)
    if invocation.json:
        say_json(found)
    else:
        kept = "not kept" if found["seq"] is None else f"number {found['seq']}"
        say(f"published on {topic}, {kept}, pushed to {counted(found['peers'], 'peer')}")


@click.command()
@click.argument("topic")
@click.option("--count", type=click.IntRange(1), metavar="NUMBER", help="End after so many.")
@standard_options
def subscribe(invocation: Invocation, topic: str, count: int | None) -> None:
    """Print what is published on TOPIC. First what is kept of it, then what comes, until Ctrl-C."""

    async def listen() -> None:
        async with connect_local(invocation.folder) as node, node.subscribe(topic) as items:
            left = count
            async for item in items:
                if invocation.json:
                    fields = wire.item_fields(item)
                    say_json({**fields, **_shown(item.body)})
                else:
                    text = plain(item.body.decode("utf-8", "replace"))
                    say(f"{item.at:%H:%M:%S} {item.author.name} (level {item.author.level}): {text}")
                left = None if left is None else left - 1
                if left == 0:
                    return

    run(listen)


def _body(text: str) -> bytes:
    data = sys.stdin.buffer.read(BODY_MAX + 1) if text == STREAM else text.encode("utf-8", "surrogateescape")
    if len(data) > BODY_MAX:
        raise UsageError(f"a body has at most {BODY_MAX} bytes")
    return data


def _shown(data: bytes) -> dict[str, Any]:
    """For JSON: base64 always, and text where it is text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    return {"body": base64.b64encode(data).decode(), "text": text}
