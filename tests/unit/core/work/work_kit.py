"""A small mesh for work: who wants something run, a second person, a scheduler and a worker, and what they sign."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from overlay.core.certificate_profile import LeafFacts
from overlay.core.keys import NodeId
from overlay.core.members import Members
from overlay.core.policy_parts import Need, Needs
from overlay.core.trust import Quarantine, TrustSet
from overlay.core.wire import sha256
from overlay.core.work.envelopes import Assignment, SignedPlacement, SignedResult, SignedWorkload
from overlay.core.work.result import WorkResult
from overlay.core.work.signing import countersign_workload, place, sign_result, sign_workload
from overlay.core.work.view import WorkerView
from overlay.core.work.workload import Artifact, File, Workload
from overlay.registry import ArtifactType, WorkState
from tests.unit.core.authority_kit import HOUR, NOW, Member, make_member, make_mesh
from tests.unit.core.revocation_kit import make_list, revoked
from tests.unit.core.session_kit import local

MESH = make_mesh()
ARTIFACT = b"#!/bin/sh\necho done\n"
MINUTE = timedelta(minutes=1)


def member(name: str, *roles: str, person: str | None = None, level: int = 1, **changes: Any) -> Member:
    return make_member(MESH, name, facts=LeafFacts(roles=tuple(sorted(roles)), person=person, level=level), **changes)


SUBMITTER = member("alice", "submit", person="Alice")
SECOND = member("anna", "submit", person="Anna")
SCHEDULER = member("sched", "scheduler")
WORKER = member("worker", "worker")
OTHER_WORKER = member("other", "worker")


def make_workload(**changes: Any) -> Workload:
    fields: dict[str, Any] = {
        "originator": SUBMITTER.node_id, "id": bytes(16), "name": "job", "not_before": NOW, "not_after": NOW + HOUR,
        "artifact": Artifact(sha256(ARTIFACT), len(ARTIFACT), ArtifactType.PROGRAM), "arguments": ("-v",),
        "environment": (("LANG", "C"),), "inputs": (File("table.csv", bytes(32), 7),), "outputs": ("out.txt",),
    }  # fmt: skip
    return Workload(**(fields | changes))


def sign(workload: Workload | None = None, by: Member = SUBMITTER) -> SignedWorkload:
    return sign_workload(workload or make_workload(), own=local(by), mesh_id=MESH.mesh_id)


def sign_both(workload: Workload | None = None, by: Member = SUBMITTER, second: Member = SECOND) -> SignedWorkload:
    half = sign(workload or make_workload(second=second.node_id), by)
    return countersign_workload(half, own=local(second), mesh_id=MESH.mesh_id)


def put(workload: SignedWorkload | None = None, by: Member = SCHEDULER, **changes: Any) -> SignedPlacement:
    fields: dict[str, Any] = {"run": 1, "worker": WORKER.node_id, "at": NOW, "nonce": bytes(16)}
    return place(workload or sign(), own=local(by), mesh_id=MESH.mesh_id, **(fields | changes))


def assign(workload: SignedWorkload | None = None, by: Member = SCHEDULER, **changes: Any) -> Assignment:
    signed = workload or sign()
    return Assignment(signed, put(signed, by, **changes))


def make_result(placement: SignedPlacement, **changes: Any) -> WorkResult:
    fields: dict[str, Any] = {
        "worker": WORKER.node_id, "placement": placement.hash, "workload": placement.says.workload,
        "run": placement.says.run, "state": WorkState.EXITED, "number": 0, "started": NOW, "ended": NOW + MINUTE,
        "files": (File("out.txt", bytes(32), 3), File("stderr", bytes(32), 0), File("stdout", bytes(32), 5)),
    }  # fmt: skip
    return WorkResult(**(fields | changes))


def report(placement: SignedPlacement, by: Member = WORKER, **changes: Any) -> SignedResult:
    return sign_result(make_result(placement, **changes), own=local(by), mesh_id=MESH.mesh_id)


class Levels:
    """What links have shown, by node; 1 for whoever is not named, None for one that is not linked. Also what others find."""

    def __init__(self) -> None:
        self.shown: dict[NodeId, int | None] = {}
        self.limits: dict[NodeId, int] = {}
        self.fault: Exception | None = None

    def shown_level(self, node_id: NodeId) -> int | None:
        if self.fault is not None:
            raise self.fault
        return self.shown.get(node_id, 1)

    def limit(self, node_id: NodeId) -> int:
        return self.limits.get(node_id, 5)


def view(levels: Levels | None = None, own: Member = WORKER, **changes: Any) -> WorkerView:
    known = levels or Levels()
    fields: dict[str, Any] = {
        "own": own.peer, "trust": MESH.trust, "members": Members(), "shown_level": known.shown_level, "limit": known.limit,
    }  # fmt: skip
    return WorkerView(**(fields | changes))


def without(*members: Member) -> TrustSet:
    """What is trusted once these nodes are revoked."""
    found = MESH.trust
    for number, one in enumerate(members, 1):
        found = found.with_list(make_list(MESH, revoked(one), number=number))
    return found


def quarantining(member: Member) -> TrustSet:
    """What is trusted while this node is in quarantine."""
    return MESH.trust.with_quarantine(Quarantine(member.node_id, NOW + HOUR, bytes(32)))


def needing(role: str, level: int) -> TrustSet:
    """A mesh whose policy lets a role count from a level on."""
    needs = Needs(roles=(Need(role, level),))
    policy = replace(MESH.trust.policy.policy, version=2, needs=needs)
    return MESH.trust.with_policy(MESH.authority.sign_policy(policy))
