"""edited-entry: somebody with access to a node's disk changes one byte of a stored audit entry."""

import sqlite3
from pathlib import Path

import trio

from audit.verifier import Report, verify_store
from overlay.app.client import connect_local
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine
from overlay.app.lab.scene import REFUSED_WITHIN, Observation, Scene
from overlay.core.keys import NodeId
from overlay.errors import CheckFailed
from overlay.registry import Reason
from overlay.store.membership import load_mesh
from overlay.store.state import AUDIT_STORE, StateFolder

TRUE_WORDS = b'"door":"7b"'
FALSE_WORDS = b'"door":"7c"'
COLUMNS = (
    ("entries", "seq", "seq + 100000"), ("entries", "hlc", "hlc + 1"), ("entries", "type", "type + 1"),
    ("entries", "hash", "zeroblob(32)"), ("entries", "log", "log + 100000"), ("logs", "log_id", "zeroblob(16)"),
    ("logs", "node_id", "zeroblob(32)"), ("logs", "k", "k + 1"), ("logs", "size", "size - 1"),
    ("logs", "root", "zeroblob(32)"), ("logs", "edge", "x''"), ("logs", "last", "zeroblob(32)"), ("logs", "hlc", "hlc + 1"),
    ("logs", "key_seq", "key_seq + 1"),
)  # table, column, what it says then


def copy_store(machine: Machine, to: Path) -> Path:
    """A consistent copy of the store of a running node."""
    with sqlite3.connect(machine.state / AUDIT_STORE) as source, sqlite3.connect(to) as target:
        source.backup(target)
    target.close()
    source.close()
    return to


def edit(path: Path) -> int:
    """Let the entry of the lab speak of another door: one byte. Gives the number of the entry."""
    with sqlite3.connect(path) as connection:
        ((log, seq, raw),) = connection.execute(
            "SELECT log, seq, raw FROM entries WHERE instr(raw, CAST(? AS BLOB)) > 0 ORDER BY hlc DESC LIMIT 1", (TRUE_WORDS,)
        ).fetchall()
        connection.execute(
            "UPDATE entries SET raw = ? WHERE log = ? AND seq = ?", (raw.replace(TRUE_WORDS, FALSE_WORDS), log, seq)
        )
    connection.close()
    return int(seq)


def edit_column(path: Path, table: str, column: str, value: str) -> None:
    """Change what the store says beside the bytes of that entry, or of its log, and nothing else."""
    row = "SELECT log, seq FROM entries WHERE instr(raw, CAST(? AS BLOB)) > 0 ORDER BY hlc DESC LIMIT 1"
    with sqlite3.connect(path) as connection:
        ((log, seq),) = connection.execute(row, (TRUE_WORDS,)).fetchall()
        which, names = ("log = ? AND seq = ?", (log, seq)) if table == "entries" else ("number = ?", (log,))
        connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {which}", names)  # noqa: S608 - words of COLUMNS
    connection.close()


async def control(lab: Lab, actor: Machine) -> None:
    """One node says something, the others keep it; an untouched copy of a store holds from the first entry to the last."""
    victim, author = lab.victims[0], lab.victims[1]
    async with connect_local(author.state) as node:
        entry = await node.audit.append("door.opened", {"door": "7b"})
        with trio.move_on_after(REFUSED_WITHIN) as scope:
            await node.audit.wait_replicated(entry)
    if scope.cancelled_caught:
        raise CheckFailed(f"the entry of {author.name} did not reach every node")
    path = await trio.to_thread.run_sync(copy_store, victim, actor.host.folder / "untouched.sqlite3")
    (await trio.to_thread.run_sync(_verify, victim, path)).demand()


async def attack(lab: Lab, actor: Machine) -> Observation:
    """One byte of that entry: the verifier names it."""
    victim, author = lab.victims[0], lab.victims[1]
    path = await trio.to_thread.run_sync(copy_store, victim, actor.host.folder / "edited.sqlite3")
    seq = await trio.to_thread.run_sync(edit, path)
    report = await trio.to_thread.run_sync(_verify, victim, path)
    faults = [(log, log.fault) for log in report.logs if log.fault is not None]
    if len(faults) != 1:
        raise CheckFailed("one entry was edited, and " + ("; ".join(log.line for log, _ in faults) or "nothing was found"))
    log, fault = faults[0]
    if fault.seq != seq or str(NodeId(log.node_id)) != author.node_id:
        raise CheckFailed(f"entry {seq} of {author.name} was edited, and this was found: {log.line}")
    lab.say(f"{victim.name}: {log.line}")
    await _edit_each_column(lab, actor, victim)
    return Observation(fault.reason.name, victim.name)


async def _edit_each_column(lab: Lab, actor: Machine, victim: Machine) -> None:
    """Each column by itself, in a copy of its own: the verifier finds every one. Raises CheckFailed."""
    for table, column, value in COLUMNS:
        path = await trio.to_thread.run_sync(copy_store, victim, actor.host.folder / f"{table}-{column}.sqlite3")
        await trio.to_thread.run_sync(edit_column, path, table, column, value)
        report = await trio.to_thread.run_sync(_verify, victim, path)
        if report.holds:
            raise CheckFailed(f"{column} of {table} was edited, and nothing was found")
    lab.say(f"{victim.name}: an edit of each of {len(COLUMNS)} columns beside the entry is found")


def _verify(victim: Machine, path: Path) -> Report:
    with StateFolder.open(victim.state, exclusive=False) as folder:
        mesh = load_mesh(folder)
    if mesh is None:
        raise CheckFailed(f"{victim.name} has no mesh")
    return verify_store(path, mesh.root)


SCENE = Scene(
    name="edited-entry", about="changes a byte of a stored audit entry", expected=Reason.BAD_SIGNATURE, control=control,
    attack=attack,
)
