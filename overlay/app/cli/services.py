"""`overlay expose` and `overlay forward`: existing services over the mesh, unchanged, for as long as the command runs."""

import click
import trio

from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.client import connect_local
from overlay.app.output import note, say, say_json
from overlay.core.forwarding import Exposed, check_service, parse_listen


@click.command()
@click.argument("service")
@click.option("--to", required=True, metavar="ADDRESS", help="Where the service is: host:port, [ipv6]:port or unix:/path.")
@click.option(
    "--allow", "rules", multiple=True, required=True, metavar="RULE",
    help="Who may use it: role:ROLE, node:NAME, level:N, joined by commas where all must hold; or member. May be repeated.",
)  # fmt: skip
@standard_options
def expose(invocation: Invocation, service: str, to: str, rules: tuple[str, ...]) -> None:
    """Let members use SERVICE of this host, until Ctrl-C.

    `expose` in the node's settings does it for good.
    """
    Exposed.of(service, to, rules)

    async def serve() -> None:
        async with connect_local(invocation.folder) as node, node.expose(service, to, allow=rules):
            if invocation.json:
                say_json({"service": service, "to": to, "allow": list(rules)})
            else:
                say(f"{service} at {to} is there for {' or '.join(rules)}")
                note("it ends with this command; Ctrl-C")
            await trio.sleep_forever()

    run(serve)


@click.command()
@click.argument("service")
@click.argument("listen", default="0")
@click.option("--from", "peer", metavar="PEER", help="The member to use, by name or id; else whoever offers the service.")
@click.option("--unsigned", is_flag=True, help="Let the link alone authenticate the bytes: faster, nothing to show to others.")
@standard_options
def forward(invocation: Invocation, service: str, listen: str, *, peer: str | None, unsigned: bool) -> None:
    """Bring SERVICE of a member to the local address LISTEN, until Ctrl-C.

    LISTEN is a port of 127.0.0.1, host:port, [ipv6]:port or unix:/path; without it any free port. Whoever can connect there
    uses the service in the name of this node. `forward` in the node's settings does it for good.
    """
    check_service(service)
    parse_listen(listen)

    async def serve() -> None:
        async with (
            connect_local(invocation.folder) as node,
            node.forward(service, listen, peer=peer, signed=not unsigned) as address,
        ):
            if invocation.json:
                say_json({"service": service, "listen": address, "from": peer})
            else:
                say(f"{service} is at {address}")
                note("it ends with this command; Ctrl-C")
            await trio.sleep_forever()

    run(serve)
