"""Rows about signed work: what a worker checks before a start, and how fast it hashes what is to run."""

import hashlib
import time
from datetime import timedelta
from typing import Final

import nacl.bindings

from bench.row import Row, row
from overlay.core.authority.issuance import FoundingAuthority
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import build_request, verify_request
from overlay.core.endorsement import make_endorsement
from overlay.core.identity import LocalIdentity
from overlay.core.keys import Ed25519Signer, X25519Pair
from overlay.core.members import Members
from overlay.core.policy import Policy, verify_policy
from overlay.core.trust import Credentials, TrustSet
from overlay.core.work.artifact import ExpectedBytes
from overlay.core.work.book import Accepted, Begun, WorkBook
from overlay.core.work.envelopes import Assignment
from overlay.core.work.signing import countersign_workload, place, sign_workload
from overlay.core.work.view import WorkerView
from overlay.core.work.workload import Artifact, File, Workload
from overlay.net.system import wall_clock
from overlay.registry import ArtifactType

HOUR: Final = timedelta(hours=1)
STARTS: Final = 100
PIECE: Final = 1024 * 1024
PIECES: Final = 512


class _Mesh:
    """A founding authority, and identities under it."""

    def __init__(self) -> None:
        self.at = wall_clock().replace(microsecond=0)
        self._authority = FoundingAuthority.create("bench", nacl.bindings.randombytes(32), self.at - HOUR)
        policy = verify_policy(self._authority.sign_policy(Policy.default()), self._authority.root)
        self.trust = TrustSet(self._authority.root, policy)

    def identity(self, name: str, *roles: str) -> LocalIdentity:
        """A member with all its keys."""
        signer, message = (Ed25519Signer(nacl.bindings.randombytes(32)) for _ in range(2))
        noise = X25519Pair.from_private(nacl.bindings.randombytes(32))
        facts = LeafFacts(roles=roles, person=name)
        begin, end = self.at - HOUR / 2, self.at + 20 * HOUR
        request = verify_request(build_request(signer, name))
        leaf = self._authority.issue(request, name=name, facts=facts, not_before=begin, not_after=end)
        endorsement = make_endorsement(
            signer, mesh_id=self.trust.mesh_id, leaf=leaf, noise_public=noise.public, message=message, start_id=bytes(16),
            not_before=begin, not_after=end,
        )  # fmt: skip
        shown = Credentials(endorsement, leaf)
        return LocalIdentity(
            credentials=shown, verified=self.trust.verify(shown, self.at), static=noise, message=message
        )


class _Work:
    """Signed work of `STARTS` runs, and the worker that is to run it."""

    def __init__(self, *, persons: int) -> None:
        mesh = _Mesh()
        self.at, self.mesh_id = mesh.at, mesh.trust.mesh_id
        alice, anna = mesh.identity("alice", "submit"), mesh.identity("anna", "submit")
        self.scheduler, worker = mesh.identity("carol", "scheduler"), mesh.identity("bob", "worker")
        self.worker_id = worker.node_id
        signed = sign_workload(
            Workload(
                originator=alice.node_id, id=bytes(16), name="bench", not_before=self.at, not_after=self.at + HOUR,
                artifact=Artifact(bytes(32), 1_000_000, ArtifactType.PROGRAM), arguments=("--fast", "input"),
                environment=(("LANG", "C"),), inputs=(File("input", bytes(32), 1000),), outputs=("output",), runs=STARTS,
                second=anna.node_id if persons > 1 else None,
            ), own=alice, mesh_id=self.mesh_id,
        )  # fmt: skip
        self.signed = countersign_workload(signed, own=anna, mesh_id=self.mesh_id) if persons > 1 else signed
        self.view = WorkerView(
            own=worker.verified, trust=mesh.trust, members=Members(), shown_level=lambda _: 1, limit=lambda _: 5
        )

    def assignments(self) -> list[bytes]:
        """One for each run."""
        return [
            Assignment(self.signed, place(
                self.signed, run=run, worker=self.worker_id, own=self.scheduler, mesh_id=self.mesh_id, at=self.at,
                nonce=bytes(16),
            )).pack()
            for run in range(1, STARTS + 1)
        ]  # fmt: skip


async def checks(runs: int) -> list[Row]:
    """All checks before a start, from the bytes of an assignment on; the book of a worker sees its signers again and again."""
    rows = []
    for persons, name in ((1, "work_check_ms"), (2, "work_check_two_persons_ms")):
        work = _Work(persons=persons)
        assignments = work.assignments()
        rows.append(row(name, "ms", [_one_by_one(work, assignments) for _ in range(runs)]))
        if persons == 1:
            rows.append(row("work_check_again_ms", "ms", [_in_one_book(work, assignments) for _ in range(runs)]))
    return rows


def _one_by_one(work: _Work, assignments: list[bytes]) -> float:
    """Milliseconds of processor time each, by a worker that has seen none of the signers before."""
    return sum(_start(WorkBook(), work, raw) for raw in assignments) / len(assignments) * 1000


def _in_one_book(work: _Work, assignments: list[bytes]) -> float:
    """Milliseconds of processor time each, by one worker."""
    book = WorkBook()
    _start(book, work, assignments[0])
    return sum(_start(book, work, raw) for raw in assignments[1:]) / (len(assignments) - 1) * 1000


def _start(book: WorkBook, work: _Work, raw: bytes) -> float:
    began = time.process_time()
    accepted = book.receive(raw, work.view, 0.0, work.at)
    assert isinstance(accepted, Accepted), accepted
    begun = book.begin(accepted.run.key, work.view, work.at)
    took = time.process_time() - began
    assert isinstance(begun, Begun), begun
    book.end(accepted.run.key)
    return took


async def hashing(runs: int) -> list[Row]:
    """An artifact of half a GiB in pieces, against hashlib alone."""
    piece = bytes(PIECE)
    digest = hashlib.sha256(piece * PIECES).digest()
    ours, bare = [], []
    for _ in range(runs):
        ours.append(_taken(piece, digest))
        began = time.perf_counter()
        found = hashlib.sha256()
        for _ in range(PIECES):
            found.update(piece)
        bare.append(PIECE * PIECES / (time.perf_counter() - began) / 1e9)
        assert found.digest() == digest
    return [row("artifact_hash_gb_per_s", "GB/s", ours, bare)]


def _taken(piece: bytes, digest: bytes) -> float:
    expected = ExpectedBytes("the artifact", digest, PIECE * PIECES)
    began = time.perf_counter()
    for _ in range(PIECES):
        expected.take(piece)
    expected.finish()
    return PIECE * PIECES / (time.perf_counter() - began) / 1e9
