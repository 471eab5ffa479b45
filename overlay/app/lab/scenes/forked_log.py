"""forked-log: a member signs two entries with one number, and shows some of the others the one, some the other."""

from collections.abc import Callable
from pathlib import Path

import trio

from audit.bundle import write_bundle
from audit.bundle_check import BundleReport, verify_bundle
from audit.store import AuditStore
from overlay.app.client import connect_local
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Event, Machine, peer_up, refused, wait_until
from overlay.app.lab.scene import ADMITTED_WITHIN, REFUSED_WITHIN, Observation, Scene
from overlay.errors import CheckFailed
from overlay.net.system import wall_clock
from overlay.registry import Reason
from overlay.store.membership import load_mesh
from overlay.store.state import AUDIT_STORE, StateFolder

WRITTEN_WITHIN = 20.0  # a start may first wait ten seconds for its witnesses


async def _write(lab: Lab, actor: Machine, since: dict[str, int]) -> None:
    """Linked to every victim, it says which door was opened."""
    for victim in lab.victims:
        await victim.wait(
            peer_up(actor.node_id), within=ADMITTED_WITHIN, since=since[victim.name], what=f"{actor.name} admitted"
        )
    with trio.move_on_after(WRITTEN_WITHIN) as scope:
        async with connect_local(actor.state) as node:
            await node.audit.append("door.opened", {"door": "7b"})
    if scope.cancelled_caught:
        raise CheckFailed(f"{actor.name} could not write into its own log")


async def control(lab: Lab, actor: Machine) -> None:
    """It tells everybody the same, and nobody says anything of it; every victim has the entry."""
    since = await lab.positions()
    async with lab.running(actor, seeds=lab.victims):
        await _write(lab, actor, since)
        for victim in lab.victims:
            await _has_entry(victim, actor)
        if any(_exposes(actor)(event) for victim in lab.victims for event in victim.events[since[victim.name] :]):
            raise CheckFailed(f"{actor.name} has not forked, and was exposed")


async def _has_entry(victim: Machine, actor: Machine) -> None:
    async def has() -> bool:
        async with connect_local(victim.state) as node:
            return any(one.type == "application" for one in await node.audit.read(node=actor.node_id))

    await wait_until(has, within=REFUSED_WITHIN, what=f"{victim.name} has the entry of {actor.name}")


async def attack(lab: Lab, actor: Machine) -> Observation:
    """Two stories: every victim names it, has the proof, and has dropped it, within seconds."""
    since = await lab.positions()
    async with lab.running(actor, defect="forked-log", seeds=lab.victims):
        await _write(lab, actor, since)
        began = trio.current_time()
        for victim in lab.victims:
            left = max(0.1, began + REFUSED_WITHIN - trio.current_time())
            found = await victim.wait(_exposes(actor), within=left, since=since[victim.name], what="the fork")
            await victim.wait(
                refused(Reason.QUARANTINED.name, actor.node_id), within=left, since=since[victim.name],
                what=f"{actor.name} put out",
            )
        lab.say(f"every machine has the proof, {trio.current_time() - began:.1f} s later: it has signed {found['detail']}")
    for victim in lab.victims:
        bundle = actor.host.folder / f"{victim.name}.zip"
        report = await trio.to_thread.run_sync(_exported, victim, bundle)
        report.demand()
        if actor.node_id not in {str(fork.node_id) for fork in report.forks}:
            raise CheckFailed(f"what {victim.name} exports does not prove the fork of {actor.name}")
    lab.say("what each machine exports proves it, by the name of the mesh alone")
    return Observation(Reason.FORKED.name, lab.victims[0].name)


def _exported(victim: Machine, path: Path) -> BundleReport:
    """What a machine exports, checked by the id of the mesh and nothing else, as on a machine that was never in it. Blocks."""
    with StateFolder.open(victim.state, exclusive=False) as folder:
        mesh = load_mesh(folder)
    if mesh is None:
        raise CheckFailed(f"{victim.name} has no mesh")
    store = AuditStore.open_readonly(victim.state / AUDIT_STORE)
    try:
        write_bundle(store, mesh.root, path, wall_clock())
    finally:
        store.close()
    return verify_bundle(path, mesh.root.mesh_id, at=wall_clock())


def _exposes(actor: Machine) -> Callable[[Event], bool]:
    return lambda event: event["event"] == "fork-exposed" and event["node"] == actor.node_id


SCENE = Scene(
    name="forked-log", about="tells half of the others another story", expected=Reason.FORKED,
    control=control, attack=attack,
)
