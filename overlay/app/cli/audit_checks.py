"""`overlay audit verify`, `check-proof` and `doctor`: does what is here hold, with no mesh to ask?"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from rich.console import Console
from rich.progress import Progress

from audit.bundle_check import BundleReport, is_bundle, verify_bundle
from audit.proofs import check_proof as check
from audit.store import AuditStore
from audit.tlog_proof import PROOF_MAX, parse_tlog_proof
from audit.verifier import LogReport, Report, verify_store
from overlay.app.cli.common import Invocation, run, standard_options
from overlay.app.client import connect_local
from overlay.app.output import counted, plain, say, say_json, say_table
from overlay.core.certificates import Root, parse_root
from overlay.core.keys import MeshId, base32
from overlay.errors import CheckFailed, OverlayError, Refused, StateDamaged, UsageError
from overlay.net.system import wall_clock
from overlay.store.membership import load_mesh
from overlay.store.state import AUDIT_STORE, StateFolder, holder

FREE_MIN: Final = 256 * 1024 * 1024  # bytes free, below which one is warned: our guess
ROOT_MAX: Final = 64 * 1024  # bytes of a file with a root
_ROOT_HELP: Final = "The mesh, by its id or a file with its root certificate; else that of the state folder."


# --- verify -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--root", metavar="MESH", help=_ROOT_HELP)
@standard_options
def verify(invocation: Invocation, path: Path | None, root: str | None) -> int:
    """Check every entry of every log here, or in FILE: a bundle or a store. Exit code 1 names the first bad entry.

    No node needs to run.
    """
    report = _verified(invocation, path, root)
    logs = report.logs if isinstance(report, BundleReport) else report
    if invocation.json:
        say_json(_fields(report, logs))
        return 0 if report.holds else CheckFailed.exit_code
    for line in report.lines:
        say(plain(line))
    report.demand()
    entries = sum(log.size for log in logs.logs)
    say(f"all holds: {counted(len(logs.logs), 'log')}, {entries} {'entry' if entries == 1 else 'entries'}")
    return 0


def _verified(invocation: Invocation, path: Path | None, root: str | None) -> Report | BundleReport:
    if path is None:
        with StateFolder.open(invocation.folder, exclusive=False) as folder:
            path = folder.file(AUDIT_STORE)
    mesh = mesh_of(invocation, root)
    with _bar("verifying") as progress:
        if is_bundle(path):
            return verify_bundle(path, mesh, at=wall_clock(), progress=progress)
        if not isinstance(mesh, Root):
            hint = "name a file with the root certificate"
            raise UsageError("a store is verified by the root itself, not by the id", hint=hint)
        return verify_store(path, mesh, at=wall_clock(), progress=progress)


def mesh_of(invocation: Invocation, root: str | None) -> MeshId | Root:
    """The mesh that is meant. Raises UsageError for what is neither an id nor a file with a root."""
    if root is None:
        with StateFolder.open(invocation.folder, exclusive=False) as folder:
            mesh = load_mesh(folder)
        if mesh is None:
            raise UsageError("this node belongs to no mesh, so there is nothing to verify by", hint="name the mesh with --root")
        return mesh.root
    path = Path(root)
    if not path.is_file():
        try:
            return MeshId.parse(root)
        except ValueError:
            raise UsageError(f"{root!r} is neither the id of a mesh nor a file with its root") from None
    content = path.read_bytes()[:ROOT_MAX]
    try:
        pem = b"-----BEGIN" in content
        der = x509.load_pem_x509_certificate(content).public_bytes(Encoding.DER) if pem else content
        return parse_root(der)
    except (ValueError, Refused) as error:
        raise UsageError(f"{root} holds no root of a mesh: {error}") from None


@contextmanager
def _bar(what: str) -> Iterator[Any]:
    """A bar on standard error, if somebody looks at it; called with how many of how many."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _fields(report: Report | BundleReport, logs: Report) -> dict[str, Any]:
    found: dict[str, Any] = {
        "holds": report.holds, "logs": [_log_fields(log) for log in logs.logs], "faults": list(logs.faults)
    }
    if isinstance(report, BundleReport):
        found["faults"] += report.faults
        found["proofs"] = [{"hash": one.entry.hash.hex(), "timely": one.timely} for one in report.proofs]
        found["forks"] = [{"node": str(one.node_id), "name": one.name, "detail": one.detail} for one in report.forks]
    return found


def _log_fields(log: LogReport) -> dict[str, Any]:
    fault = log.fault
    return {
        "node": base32(log.node_id), "name": log.name, "log": log.log_id.hex(), "entries": log.size,
        "recorded": log.recorded, "root": log.root.hex(), "witnessed": log.witnesses.size,
        "fault": None if fault is None else {"seq": fault.seq, "reason": fault.reason.name, "detail": fault.detail},
    }


# --- check-proof ------------------------------------------------------------------------------------------------------


@click.command("check-proof")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--root", metavar="MESH", help=_ROOT_HELP)
@click.option("--timely", is_flag=True, help="Fail unless enough witnesses saw it before its key had ended.")
@standard_options
def check_proof(invocation: Invocation, path: Path, root: str | None, *, timely: bool) -> None:
    """Check a proof that `overlay audit prove` made, with no mesh, node or network."""
    try:
        raw = path.read_bytes()[: PROOF_MAX + 1]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        found = check(parse_tlog_proof(raw), mesh_of(invocation, root))
    except Refused as error:
        raise CheckFailed(f"{path} proves nothing: {error}", hint="ask for it again, where the log is") from None
    if invocation.json:
        say_json({
            "node": str(found.entry.node_id), "name": found.name, "log": found.entry.log_id.hex(), "seq": found.entry.seq,
            "hash": found.entry.hash.hex(), "at": found.entry.at.isoformat(), "timely": found.timely,
            "witnessed_at": None if found.witnessed_at is None else found.witnessed_at.isoformat(),
            "witnesses": len(found.witnesses.nodes), "cosigned": len(found.cosigned),
            "keys": [found.author_key.text, *(key.text for key in found.witness_keys)],
        })  # fmt: skip
    else:
        say(plain(found.line))
    if timely and not found.timely:
        raise CheckFailed("too few witnesses saw it in time", hint="a later proof of it may have more cosignatures")


# --- doctor -----------------------------------------------------------------------------------------------------------


@click.command()
@standard_options
def doctor(invocation: Invocation) -> int:
    """Look at the store of the logs: its file, the disk, damaged logs, and what the node warns of."""
    rows = list(_findings(invocation))
    if invocation.json:
        say_json([{"check": name, "good": good, "found": text} for name, good, text in rows])
    else:
        say_table(("CHECK", "", "FOUND"), [(name, "ok" if good else "!!", text) for name, good, text in rows])
    return 0 if all(good for _, good, _ in rows) else CheckFailed.exit_code


def _findings(invocation: Invocation) -> Iterator[tuple[str, bool, str]]:
    """What was looked at, whether it is good, and what was found."""
    with StateFolder.open(invocation.folder, exclusive=False) as folder:
        mesh, path = load_mesh(folder), folder.file(AUDIT_STORE)
    free = shutil.disk_usage(path.parent).free
    yield "disk", free >= FREE_MIN, f"{free // 2**20:,} MiB free"
    if mesh is None or not path.exists():
        yield "store", False, "there is none: the node makes it when it first runs"
        return
    sizes = [other.stat().st_size for name in ("", "-wal", "-shm") if (other := path.with_name(path.name + name)).exists()]
    yield "file", True, f"{path}, {sum(sizes) / 2**20:,.1f} MiB"
    try:
        yield from _in_store(path, mesh.root)
    except StateDamaged as error:
        yield "store", False, str(error)
    yield from _of_node(invocation)


def _in_store(path: Path, root: Root) -> Iterator[tuple[str, bool, str]]:
    store = AuditStore.open_readonly(path)
    try:
        damage = store.integrity()
        yield "store", not damage, damage or "SQLite finds it whole"
        states, damaged = store.load(root)
        entries = sum(state.size for state in states.values())
        yield "logs", True, f"{counted(len(states), 'log')}, {entries:,} entries; `verify` looks at more than their ends"
        for log in damaged:
            yield "damaged", False, f"log {log.row.log_id.hex()[:8]}: {log.detail}"
        forks = store.forks()
        yield "forks", not forks, f"{counted(len(forks), 'node')} have told two stories" if forks else "none is known"
    finally:
        store.close()


def _of_node(invocation: Invocation) -> Iterator[tuple[str, bool, str]]:
    if holder(invocation.folder) is None:
        yield "node", True, "does not run"
        return

    async def ask() -> tuple[str, ...]:
        async with connect_local(invocation.folder) as node:
            return (await node.status()).warnings

    try:
        warnings = run(ask)
    except OverlayError as error:
        yield "node", False, str(error)
        return
    yield "node", True, "runs"
    for warning in warnings:
        yield "warning", True, warning  # of anything; what is wrong with the logs has its own line
