"""`overlay invite`, `revoke`, `quarantine`, `replace`, `renew`, `leave` and `ca`: orders, through the node that runs here."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import click

from overlay.app.authority.api import Authority, Report
from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.cli.recovery import recover
from overlay.app.cli.tokens import read_token
from overlay.app.client import connect_local
from overlay.app.output import note, plain, say, say_json
from overlay.errors import UsageError

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
REASONS: Final = ("key-compromise", "superseded", "cessation", "privilege-withdrawn")

dry_run_option = click.option("--dry-run", is_flag=True, help="Check everything, and change nothing.")
members_argument = click.argument("members", nargs=-1, required=True, metavar="NODE...")


def span(text: str) -> timedelta:
    """`90s`, `15m`, `1h`, `7d`; raises UsageError."""
    found = _SPAN.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(f"{text!r} is no time", hint="for example 15m, 1h or 7d")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


def ask(invocation: Invocation, question: Callable[[Authority], Awaitable[Report]]) -> None:
    """Ask the node that runs here, and say what it did."""

    async def work() -> Report:
        async with connect_local(invocation.folder) as node:
            return await question(node.authority)

    report = run(work)
    for line in report.notes:
        note(line)
    if invocation.json:
        say_json(dict(report.fields))
        return
    for line in report.said:
        say(plain(line))


@click.command()
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="What the new node may be; may be repeated.")
@click.option("--name", metavar="NAME", help="Its name; else it says one itself.")
@click.option("--ttl", default="1h", show_default=True, metavar="TIME", help="How long the token is good.")
@click.option("--uses", default=1, show_default=True, type=click.IntRange(1, 1000), help="For how many nodes.")
@click.option("--address", "addresses", metavar="HOST:PORT", multiple=True, help="Where to ask if multicast does not reach.")
@dry_run_option
@standard_options
def invite(
    invocation: Invocation, roles: tuple[str, ...], name: str | None, ttl: str, uses: int, addresses: tuple[str, ...],
    *, dry_run: bool,
) -> None:
    """Let a machine join: prints a token for `overlay join`. Whoever has it can join: treat it as a password."""
    life = span(ttl)
    ask(invocation, lambda authority: authority.invite(
        roles=roles, name=name, ttl=life, uses=uses, addresses=addresses, dry_run=dry_run
    ))


@click.command()
@click.argument("invite", metavar="[INVITE]", required=False)
@dry_run_option
@standard_options
def withdraw(invocation: Invocation, invite: str | None, *, dry_run: bool) -> None:
    """Let nobody join by INVITE any more.

    INVITE is a token, @FILE with one, - for the input, or an id. Without it the open ones are listed.
    """
    if invite is None:
        ask(invocation, lambda authority: authority.invites())
        return
    wanted = read_token(invite)
    ask(invocation, lambda authority: authority.withdraw(wanted, dry_run=dry_run))


@click.command()
@members_argument
@click.option("--reason", default="privilege-withdrawn", show_default=True, type=click.Choice(REASONS), help="Why.")
@dry_run_option
@standard_options
def revoke(invocation: Invocation, members: tuple[str, ...], reason: str, *, dry_run: bool) -> None:
    """Throw nodes out, for ever. Their links are closed on every node within a second."""
    ask(invocation, lambda authority: authority.revoke(members, reason=reason, dry_run=dry_run))


@click.command()
@click.argument("node")
@dry_run_option
@standard_options
def quarantine(invocation: Invocation, node: str, *, dry_run: bool) -> None:
    """Keep a node out for 24 hours, at once. It needs one operator and no signer."""
    ask(invocation, lambda authority: authority.quarantine(node, dry_run=dry_run))


@click.command()
@click.argument("old")
@click.argument("new")
@dry_run_option
@standard_options
def replace(invocation: Invocation, old: str, new: str, *, dry_run: bool) -> None:
    """Let the node NEW take name and roles of OLD, which is revoked. For a machine that lost its TPM or its disk."""
    ask(invocation, lambda authority: authority.replace(old, new, dry_run=dry_run))


@click.command()
@click.argument("node")
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="What it may be; may be repeated.")
@click.option("--only", is_flag=True, help="Take away all other roles.")
@click.option("--person", metavar="PERSON", help="Whose node it is: two nodes of one person are one operator.")
@dry_run_option
@standard_options
def grant(
    invocation: Invocation, node: str, roles: tuple[str, ...], *, only: bool, person: str | None, dry_run: bool
) -> None:
    """Give a node roles. They stand in its next certificate."""
    ask(invocation, lambda authority: authority.grant(node, roles, only=only, person=person, dry_run=dry_run))


@click.command()
@standard_options
def renew(invocation: Invocation) -> None:
    """Renew the certificate of this node now. It does so by itself at two thirds of its life."""
    ask(invocation, lambda authority: authority.renew())


@click.command()
@dry_run_option
@standard_options
def leave(invocation: Invocation, *, dry_run: bool) -> None:
    """Leave the mesh for good: this node asks to be revoked, then ends."""
    ask(invocation, lambda authority: authority.leave(dry_run=dry_run))
    if not dry_run:
        run(lambda: _stop(invocation))


async def _stop(invocation: Invocation) -> None:
    async with connect_local(invocation.folder) as node:
        await node.stop()


@click.group()
def ca() -> None:
    """Those who together hold the key of the mesh."""


ca.add_command(recover)


@ca.command("status")
@standard_options
def ca_status(invocation: Invocation) -> None:
    """Show who holds the mesh key, who of them answers, and for how long the mesh can renew itself."""
    ask(invocation, lambda authority: authority.status())


@ca.command()
@members_argument
@click.option("-t", "--threshold", type=click.IntRange(1, 64), required=True, help="How many of them it takes to sign.")
@dry_run_option
@standard_options
def distribute(invocation: Invocation, members: tuple[str, ...], threshold: int, *, dry_run: bool) -> None:
    """Make a new mesh key that no machine holds, or ever held, shared among these nodes."""
    ask(invocation, lambda authority: authority.distribute(members, threshold, dry_run=dry_run))


@ca.command()
@dry_run_option
@standard_options
def refresh(invocation: Invocation, *, dry_run: bool) -> None:
    """Give every signer a new share of the same key. What was stolen before is worth nothing then."""
    ask(invocation, lambda authority: authority.refresh(dry_run=dry_run))


@ca.command()
@members_argument
@click.option("-t", "--threshold", type=click.IntRange(1, 64), required=True, help="How many of them it takes to sign.")
@dry_run_option
@standard_options
def reshare(invocation: Invocation, members: tuple[str, ...], threshold: int, *, dry_run: bool) -> None:
    """Give the same key into the hands of these nodes."""
    ask(invocation, lambda authority: authority.reshare(members, threshold, dry_run=dry_run))


@ca.command()
@click.argument("order")
@standard_options
def countersign(invocation: Invocation, order: str) -> None:
    """Agree, as another operator, to an ORDER that takes two. `overlay ca status` lists those that wait."""
    ask(invocation, lambda authority: authority.countersign(order))


@ca.command()
@dry_run_option
@standard_options
def repair(invocation: Invocation, *, dry_run: bool) -> None:
    """Get the share of this signer back from the others, when it was lost."""
    ask(invocation, lambda authority: authority.repair(dry_run=dry_run))


@ca.command("audit")
@standard_options
def ca_audit(invocation: Invocation) -> None:
    """Look whether every certificate that was seen stands in the logs of enough signers."""
    ask(invocation, lambda authority: authority.audit())
