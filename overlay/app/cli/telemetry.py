"""`overlay telemetry`: send this machine's metrics, collect those of others, and look at what counts and what does not."""

import click
import trio

from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.client import connect_local
from overlay.app.output import note, say, say_json, say_table
from overlay.app.telemetry.names import COLLECTOR, EVERY, NO_PAGE, STREAM, parse_endpoint
from overlay.app.telemetry.rows import Report, Row
from overlay.core.forwarding import parse_listen, parse_rule

PAGE = "127.0.0.1:9464"  # where OpenTelemetry's exporters for Prometheus listen, too
SHOWN = 12  # batches in quarantine


@click.group()
def telemetry() -> None:
    """Signed metrics: send, collect, show."""


@telemetry.command()
@click.option(
    "--to", multiple=True, default=(COLLECTOR,), show_default=True, metavar="RULE",
    help="Who may have them, as for expose. May be repeated.",
)  # fmt: skip
@click.option("--name", default=STREAM, show_default=True, metavar="NAME", help="Of the stream.")
@click.option("--every", default=EVERY, show_default=True, metavar="SECONDS", help="Between two readings.")
@click.option("--host/--no-host", default=True, help="Read this machine, by psutil, and not its node alone.")
@standard_options
def send(invocation: Invocation, to: tuple[str, ...], name: str, every: float, *, host: bool) -> None:
    """Send the metrics of this machine and its node to collectors, until Ctrl-C.

    `telemetry_send` in the node's settings does it for good.
    """
    for rule in to:
        parse_rule(rule)

    async def serve() -> None:
        async with connect_local(invocation.folder) as node, node.telemetry.send(
            name, to=to, every=every, host=host
        ):
            if invocation.json:
                say_json({"stream": name, "to": list(to), "every": every})
            else:
                say(f"{name} goes to {' or '.join(to)}, every {every:g} s")
                note("it ends with this command; Ctrl-C")
            await trio.sleep_forever()

    run(serve)


@telemetry.command()
@click.option(
    "--listen", default=PAGE, show_default=True, metavar="ADDRESS", help="Where /metrics is for Prometheus; - for nowhere."
)
@click.option("--otlp", metavar="URL", help="An OTLP/HTTP receiver to export to, such as http://127.0.0.1:4318.")
@click.option("--level", type=click.IntRange(0, 5), default=0, show_default=True, help="The least of an author that counts.")
@click.option(
    "--expect", multiple=True, metavar="RULE", help="Whose streams have to come here: if their logs say more, that is told."
)
@standard_options
def collect(invocation: Invocation, listen: str, otlp: str | None, level: int, expect: tuple[str, ...]) -> None:
    """Collect what members send to this node, until Ctrl-C.

    Only what is verified is counted and exported. `telemetry_collect` and `telemetry_otlp` in the node's settings do it for
    good.
    """
    place = None if listen == NO_PAGE else listen
    if place is not None:
        parse_listen(place)
    if otlp is not None:
        parse_endpoint(otlp)
    for rule in expect:
        parse_rule(rule)

    async def serve() -> None:
        async with (
            connect_local(invocation.folder) as node,
            node.telemetry.collect(listen=place, otlp=otlp, level=level, expect=expect) as address,
        ):
            if invocation.json:
                say_json({"page": address or None, "otlp": otlp, "level": level})
            else:
                say(f"collecting; for Prometheus at {address}" if address else "collecting")
                note("it ends with this command; Ctrl-C")
            await trio.sleep_forever()

    run(serve)


@telemetry.command()
@click.argument("name", default="")
@click.option("--author", metavar="NODE", help="Of this author only, by name.")
@standard_options
def show(invocation: Invocation, name: str, author: str | None) -> None:
    """What counts now: streams, and with a NAME the series whose names begin so."""
    report = _report(invocation, kept=False)
    rows = [row for row in report.rows if row.series.name.startswith(name) and author in (None, row.author)]
    streams = [one for one in report.streams if author in (None, one.author)]
    if invocation.json:
        say_json({"streams": [one.fields() for one in streams], "series": [row.fields() for row in rows]})
        return
    if not name:
        headings = ("AUTHOR", "LEVEL", "STREAM", "BATCHES", "MISSING", "DROPPED", "HEARD")
        say_table(headings, [
            (one.author, one.level, one.stream, one.batches, one.missing, one.dropped, f"{one.heard:.0f} s ago")
            for one in streams
        ])  # fmt: skip
        note(f"{len(rows)} series; a NAME shows those that begin so")
        return
    say_table(("AUTHOR", "LEVEL", "SERIES", "VALUE"), [(row.author, row.level, _series(row), f"{row.value:g}") for row in rows])


@telemetry.command()
@standard_options
def quarantine(invocation: Invocation) -> None:
    """What does not count: how often, from whom and why, and the newest of it."""
    report = _report(invocation, kept=True)
    counts = [*report.refused, *report.contradicted]
    if invocation.json:
        keys = ("from", "reason", "count")
        found = [dict(zip(keys, one, strict=True)) for one in counts]
        say_json({"counts": found, "batches": [one.fields() for one in report.kept]})
        return
    if not counts:
        say("nothing is in quarantine")
        return
    say_table(("FROM", "REASON", "COUNT"), counts)
    if report.kept:
        newest = report.kept[-SHOWN:]
        say()
        say_table(
            ("AT", "FROM", "SIGNED BY", "REASON", "WHAT IS WRONG"),
            [(f"{one.at:%H:%M:%S}", one.sender, one.author or "-", one.reason, one.detail) for one in newest],
        )


def _report(invocation: Invocation, *, kept: bool) -> Report:
    async def ask() -> Report:
        async with connect_local(invocation.folder) as node:
            return await node.telemetry.report(kept=kept)

    return run(ask)


def _series(row: Row) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in row.series.labels)
    return f"{row.series.name}{{{labels}}}" if labels else row.series.name
