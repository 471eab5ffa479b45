"""`overlay work`: sign what is to run, hand it to a scheduler, see what became of it; and be a worker."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import trio

from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.cli.run import run as run_node
from overlay.app.client import RemoteNode, connect_local
from overlay.app.output import note, say, say_json, say_table
from overlay.app.work import contract
from overlay.core.work.envelopes import SIGNED_WORKLOAD_MAX, SignedWorkload
from overlay.core.work.view import SUBMIT
from overlay.errors import CheckFailed, HostLacks, OverlayError, PeerUnreachable, UsageError
from overlay.net.peer import Peer

PEER_WITHIN: Final = 5.0  # seconds until a member is linked: our guess
LETTERS: Final = 8  # of a hash, for people
LOOK_EVERY: Final = 1.0  # seconds between two questions to a scheduler


@click.group()
def work() -> None:
    """Signed work: what runs on workers of the mesh is what was signed, checked there before and while it runs."""


@work.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where to write it; else beside SOURCE, with .work.")
@standard_options
def sign(invocation: Invocation, source: Path, *, out: Path | None) -> None:
    """Sign the job that SOURCE describes (TOML), or agree to one that another node has signed and that names this one.

    The node that runs here signs, and keeps the program and the inputs for the workers.
    """
    target = out or source.with_suffix(".work" if source.suffix == ".toml" else ".both.work")
    if source.suffix == ".toml":
        command, options = "sign", {"path": str(source.resolve())}
    else:
        command, options = "countersign", {"carried": _carry(_read(source).pack())}
    if target.exists():
        raise UsageError(f"{target} is there already", hint="name another file with --out")

    async def perform() -> None:
        async with connect_local(invocation.folder) as node:
            found = await node.work.ask(command, options)
            own = await node.status()
        target.write_bytes(base64.b64decode(found.pop("carried")))
        _tell_workload(invocation, found | {"file": str(target)})
        if not found["complete"]:
            note(f"one more must sign: {found['originators'][1]}, with `overlay work sign {target}` there")
        if SUBMIT not in own.roles:
            note(f"{own.name} has not the role {SUBMIT}, so this is refused everywhere: sign it again after "
                 f"`overlay grant {own.name} --role {SUBMIT}` and `overlay renew`")

    run(perform)


@work.command()
@click.argument("file", type=click.Path(path_type=Path))
@standard_options
def verify(invocation: Invocation, file: Path) -> None:
    """Say who has signed FILE, and whether that counts now."""
    signed = _read(file)

    async def perform() -> None:
        async with connect_local(invocation.folder) as node:
            _tell_workload(invocation, await node.work.ask("verify", {"carried": _carry(signed.pack())}))

    run(perform)


@work.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="SCHEDULER", help="The member that shall place it, by name or id.")
@standard_options
def submit(invocation: Invocation, file: Path, *, to: str) -> None:
    """Hand the signed work in FILE to a scheduler. `overlay work results` shows what becomes of it."""
    signed = _read(file)

    async def perform() -> None:
        async with connect_local(invocation.folder) as node:
            contract.check_answer(await (await _peer(node, to)).call(contract.SUBMIT, signed.pack()))
        if invocation.json:
            say_json({"workload": signed.hash.hex(), "scheduler": to})
        else:
            say(f"{to} has taken {signed.says.name}, {_short(signed.hash.hex())}")

    run(perform)


@work.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "scheduler", required=True, metavar="SCHEDULER", help="The member that has placed it.")
@click.option("--wait", is_flag=True, help="Until every run is over.")
@click.option("--into", type=click.Path(path_type=Path), help="Fetch the outputs into this new folder, one folder for a run.")
@standard_options
def results(invocation: Invocation, file: Path, *, scheduler: str, wait: bool, into: Path | None) -> int:
    """Show what became of the runs of FILE: every result is checked here, down to the bytes of its outputs."""
    signed = _read(file)
    if into is not None and into.exists():
        raise UsageError(f"{into} is there already", hint="name a new folder")
    into = into and into.absolute()

    async def perform() -> int:
        async with connect_local(invocation.folder) as node:
            peer = await _peer(node, scheduler)
            rows = [await _checked(node, signed, row) for row in await _rows(peer, signed, wait=wait)]
            if into is not None:
                await _fetch(node, rows, into)
        if not rows:
            note(f"{scheduler} tells of no run of it: `overlay work submit` hands it over")
        _tell_results(invocation, rows)
        return 0 if rows and all((row["state"], row["number"]) == ("exited", 0) for row in rows) else CheckFailed.exit_code

    return run(perform)


@work.command()
@standard_options
def status(invocation: Invocation) -> None:
    """Show the runs of the worker that runs here, the newest last."""

    async def perform() -> None:
        async with connect_local(invocation.folder) as node:
            rows = (await node.work.ask("status", {}))["runs"]
        if invocation.json:
            say_json({"runs": rows})
        elif not rows:
            note("nothing has run here in the last week")
        else:
            table = ([_short(row["workload"]), row["run"], _state(row), _short(row["placement"])] for row in rows)
            say_table(["WORKLOAD", "RUN", "STATE", "PLACEMENT"], table)

    run(perform)


@click.pass_context
def _be_a_worker(context: click.Context, /, **options: object) -> int:
    options["work"] = True
    return int(context.invoke(run_node, **options))


work.add_command(click.Command(
    "run", params=list(run_node.params), callback=_be_a_worker,
    help="Run the node of this machine as a worker, until SIGTERM or Ctrl-C; otherwise as `overlay run`.",
))


# --- parts ------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> SignedWorkload:
    try:
        with path.open("rb") as file:
            data = file.read(SIGNED_WORKLOAD_MAX + 1)
    except OSError as error:
        raise HostLacks(f"cannot read {path}: {error.strerror}") from None
    try:
        return SignedWorkload.unpack(data)
    except OverlayError as error:
        raise UsageError(f"{path} holds no signed work: {error}", hint="`overlay work sign` makes one") from None


async def _peer(node: RemoteNode, name: str) -> Peer:
    with trio.move_on_after(PEER_WITHIN):
        return await node.wait_peer(name)
    raise PeerUnreachable(f"there is no link to {name}", hint="`overlay status` shows who is linked")


async def _rows(peer: Peer, signed: SignedWorkload, *, wait: bool) -> list[contract.Row]:
    told = False
    while True:
        rows = contract.unpack_rows(await peer.call(contract.STATUS, contract.pack_hash(signed.hash)))
        if not wait or (rows and all(row.result is not None or row.reason is not None for row in rows)):
            return rows
        if not rows and not told:
            told = True
            note(f"{peer.name} tells of no run yet; it may wait for a worker, or not have got this: `overlay work submit`")
        await trio.sleep(LOOK_EVERY)


async def _checked(node: RemoteNode, signed: SignedWorkload, row: contract.Row) -> dict[str, Any]:
    """The result of a run as this node has checked it; what the scheduler says of others."""
    found = {"run": row.run, "node": str(row.worker), "worker": _name(node, row), "number": None, "files": []}
    if row.reason is not None:
        return found | {"state": "refused", "reason": row.reason.name, "detail": row.detail}
    if row.result is None:
        return found | {"state": "placed"}
    options = {"result": _carry(row.result), "placement": _carry(row.placement), "workload": signed.hash.hex()}
    return found | await node.work.ask("result", options)


def _name(node: RemoteNode, row: contract.Row) -> str:
    return next((peer.name for peer in node.peers if peer.node_id == row.worker), str(row.worker)[:LETTERS])


async def _fetch(node: RemoteNode, rows: list[dict[str, Any]], into: Path) -> None:
    for row in rows:
        folder = into / str(row["run"])
        await trio.Path(folder).mkdir(parents=True)
        for file in row["files"]:
            options = {"node": row["node"], "hash": file["hash"], "size": file["size"], "path": str(folder / file["name"])}
            await node.work.ask("fetch", options)


def _tell_workload(invocation: Invocation, found: Mapping[str, Any]) -> None:
    if invocation.json:
        say_json(found)
        return
    signers = found.get("signers")
    by = f", signed by {' and '.join(signers)}" if signers else ""
    say(f"{found['name']}, {_short(found['workload'])}: may run {found['runs']} times until {found['ends']}{by}")
    if "file" in found:
        say(f"written to {found['file']}")


def _tell_results(invocation: Invocation, rows: list[dict[str, Any]]) -> None:
    if invocation.json:
        say_json({"runs": rows})
    else:
        say_table(["RUN", "WORKER", "STATE", "OUTPUTS"], ([
            row["run"], row["worker"], _state(row), " ".join(one["name"] for one in row["files"] if one["size"]),
        ] for row in rows))


def _state(row: Mapping[str, Any]) -> str:
    parts = [row["state"], row["number"], row.get("reason")]
    return " ".join(str(part) for part in parts if part is not None)


def _short(text: str) -> str:
    return text[:LETTERS]


def _carry(data: bytes) -> str:
    return base64.b64encode(data).decode()
