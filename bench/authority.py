"""Rows about the authority: one signer's work, a signature of 4 of 5 over links, key generation, a revocation, a join.

All in one process, but for who joins.
"""

import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import nacl.bindings
import trio

import overlay
from bench.row import Row, row
from overlay.app.enrol import found_mesh
from overlay.app.lab.machine import NODE, clean_environment
from overlay.app.lab.processes import Child, start
from overlay.app.lab.tpms import SoftwareTpm, start_tpm
from overlay.app.tpm import missing
from overlay.core.authority.frost import Commitment, Nonces, aggregate, commit, sign, verify_share
from overlay.core.authority.group import BASE, WIDE_SIZE, Scalar
from overlay.core.authority.key_generation import KeyGeneration, KeyPlan
from overlay.core.authority.record_requests import AuthorityTest
from overlay.core.authority.sharing import GroupKey, Share, split
from overlay.core.keys import Ed25519Signer, MeshId, NodeId
from overlay.core.policy import Policy
from overlay.errors import HostLacks
from overlay.events import NodeEvent, PeerDown, PeerUp, RevocationsChanged
from overlay.net.system import SystemChance
from overlay.store.state import StateFolder
from overlay.testing import mesh

THRESHOLD, MEMBERS = 4, 5
SIGNATURES = 100
MESSAGE = bytes(600)  # about a certificate
CHANCE = SystemChance()


async def signing(runs: int) -> list[Row]:
    """Both rounds of one signer; verifying and putting together are the coordinator's."""
    shares = _dealt()
    signer, coordinator = [], []
    for _ in range(runs):
        times = [_once(shares) for _ in range(SIGNATURES)]
        signer.append(sum(ours for ours, _ in times) / SIGNATURES)
        coordinator.append(sum(theirs for _, theirs in times) / SIGNATURES)
    return [row("frost_signer_ms", "ms", signer), row("frost_coordinator_ms", "ms", coordinator)]


def _dealt() -> list[Share]:
    secret, *rest = (Scalar.reduce(nacl.bindings.randombytes(WIDE_SIZE)) for _ in range(THRESHOLD))
    parts = split(secret, THRESHOLD, MEMBERS, rest)
    group = GroupKey(THRESHOLD, (BASE * secret).encode(), {one: (BASE * part).encode() for one, part in parts.items()})
    return [Share(one, 0, part, group) for one, part in parts.items()][:THRESHOLD]


def _once(shares: list[Share]) -> tuple[float, float]:
    """Milliseconds of the first signer, and of whoever puts together."""
    began = time.perf_counter()
    own, shown = commit(shares[0], CHANCE)
    took = time.perf_counter() - began
    nonces, commitments = _others(shares)
    commitments = [shown, *commitments]
    began = time.perf_counter()
    signed = {shares[0].identifier: sign(shares[0], own, MESSAGE, commitments)}
    took += time.perf_counter() - began
    signed |= {
        share.identifier: sign(share, one, MESSAGE, commitments) for share, one in zip(shares[1:], nonces, strict=True)
    }
    return took * 1000, _put_together(shares[0].group, commitments, signed) * 1000


def _others(shares: list[Share]) -> tuple[list[Nonces], list[Commitment]]:
    made = [commit(share, CHANCE) for share in shares[1:]]
    return [nonces for nonces, _ in made], [shown for _, shown in made]


def _put_together(group: GroupKey, commitments: list[Commitment], signed: dict[int, bytes]) -> float:
    """Seconds: each share is verified as it comes, then all together."""
    began = time.perf_counter()
    for identifier, share in signed.items():
        assert verify_share(group, identifier, share, MESSAGE, commitments)
    aggregate(group, MESSAGE, commitments, signed)
    return time.perf_counter() - began


# --- over links -----------------------------------------------------------------------------------------------------

NAMES = ("alice", "bob", "carol", "dave", "erin")
LINKED_SIGNATURES = 40


async def linked(runs: int) -> list[Row]:
    """Five nodes over loopback hold a key of 4 of 5: how long one signature takes, its bindings made durable."""
    async with mesh(*NAMES, roles={name: ("signer",) for name in NAMES[1:]}) as nodes:
        for node in nodes:
            await node.wait_members(len(NAMES))
        await nodes[0].authority.distribute(NAMES, THRESHOLD)
        desk = nodes[0].seat.keeper.desk
        await trio.sleep(2.0)  # certificates are renewed under the new root
        found = []
        for _ in range(runs):
            times = []
            for _ in range(LINKED_SIGNATURES):
                began = time.perf_counter()
                await desk.sign(AuthorityTest(secrets.token_bytes(32)))
                times.append((time.perf_counter() - began) * 1000)
            found.append(median(times))
    return [row("signing_ms", "ms", found)]


# --- key generation -------------------------------------------------------------------------------------------------


async def generation(runs: int) -> list[Row]:
    """All members' work together, messages handed over in memory."""
    small = [_generate(THRESHOLD, MEMBERS) for _ in range(runs)]
    large = [_generate(11, 16) for _ in range(runs)]
    return [row("key_generation_ms", "ms", small), row("key_generation_16_ms", "ms", large)]


def _generate(threshold: int, count: int) -> float:
    signers = [Ed25519Signer(secrets.token_bytes(32)) for _ in range(count)]
    keys = {NodeId.of_key(signer.spki): signer for signer in signers}
    members = tuple(sorted(keys))
    plan = KeyPlan(
        mesh_id=MeshId(bytes(32)), session=bytes(16), members=members, threshold=threshold,
        message_keys={member: keys[member].public_key for member in members},
    )
    began = time.perf_counter()
    machines = {member: KeyGeneration(plan, member, CHANCE, 0.0, signer=keys[member]) for member in members}
    while waiting := [(own, *message) for own, machine in machines.items() for message in machine.messages_to_send()]:
        for sender, to, kind, body in waiting:
            machines[to].receive(sender, kind, body, 0.0)
    took = (time.perf_counter() - began) * 1000
    assert all(machine.result is not None for machine in machines.values())
    return took


# --- a revocation ---------------------------------------------------------------------------------------------------

CROWD = 20
GONE_WITHIN = 30.0  # seconds, to give up
QUIET = 2.0  # seconds: what the new links have to tell each other is told


class Farewell:
    """When the list came to each node, and when each of the others lost its last link to the one that is revoked."""

    def __init__(self, victim: str, others: Sequence[str]) -> None:
        self._victim = victim
        self._others = frozenset(others)
        self._listed: dict[str, float] = {}
        self._closed: dict[str, float] = {}
        self._done = trio.Event()

    def take(self, name: str, event: NodeEvent) -> None:
        """An event of the node of that name."""
        match event:
            case RevocationsChanged() if self._victim in event.nodes:
                self._listed[name] = time.perf_counter()
            case PeerDown() if event.node == self._victim:
                self._closed[name] = time.perf_counter()
            case PeerUp() if event.node == self._victim:  # came back to one who does not know yet
                self._closed.pop(name, None)
        if self._others <= self._listed.keys() & self._closed.keys():
            self._done.set()

    async def took(self) -> float:
        """Milliseconds from the list's first arrival anywhere to the last closed link."""
        with trio.fail_after(GONE_WITHIN):
            await self._done.wait()
        return (max(self._closed[name] for name in self._others) - min(self._listed.values())) * 1000


async def revocation(runs: int) -> list[Row]:
    """Twenty nodes, each linked to all others; the founder, who is operator and signer, revokes one. A mesh for each run."""
    return [row("revocation_20_nodes_ms", "ms", [await _revoke_one() for _ in range(runs)])]


async def _revoke_one() -> float:
    async with mesh(*(f"node{number}" for number in range(CROWD))) as (founder, *members):
        victim = members[-1]
        others = [founder, *members[:-1]]
        farewell = Farewell(str(victim.node_id), [node.name for node in others])
        await trio.sleep(QUIET)
        for node in (*others, victim):
            assert len(node.peers) == CROWD - 1
            node.engine.observe(partial(farewell.take, node.name))
        await founder.authority.revoke([victim.name], reason="key-compromise")
        return await farewell.took()


# --- a join ---------------------------------------------------------------------------------------------------------

JOINER = "bob"
JOINED_WITHIN = 60.0  # seconds, to give up


async def joining(runs: int) -> list[Row]:
    """`overlay join`, then `overlay run`, of a node with a TPM of its own, until the founder admits it; a mesh for each run."""
    if (lacks := missing()) is not None:
        raise HostLacks(lacks)
    with tempfile.TemporaryDirectory(prefix="ob-") as bytecode:
        env = {name: value for name, value in clean_environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = bytecode
        await _join_one(env)  # not measured: from here on the modules are compiled, as pip leaves them when it installs
        return [row("join_swtpm_s", "s", [await _join_one(env) for _ in range(runs)])]


async def _join_one(env: Mapping[str, str]) -> float:
    with tempfile.TemporaryDirectory(prefix="ob-") as name:
        path = Path(name)
        tpm = await start_tpm(path / "tpm")
        try:
            await trio.to_thread.run_sync(_found, path / "alice")
            config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="software")
            async with overlay.open_node(path / "alice", config=config) as alice:
                report = await alice.authority.invite(addresses=[f"127.0.0.1:{alice.port}"])
                admitted = Admission()
                alice.engine.observe(admitted.take)
                with trio.fail_after(JOINED_WITHIN):
                    return await _admit(Joiner(path, env), str(report.fields["token"]), tpm, admitted)
        finally:
            await tpm.child.end()


def _found(folder: Path) -> None:
    with StateFolder.create(folder) as alice:
        found_mesh(alice, "alice", "bench", Policy.default(), None)


class Admission:
    """When a node admitted the joiner."""

    def __init__(self) -> None:
        self.at = 0.0
        self.evidence = ""
        self.done = trio.Event()

    def take(self, event: NodeEvent) -> None:
        """An event of the node that admits."""
        if isinstance(event, PeerUp) and event.name == JOINER and not self.done.is_set():
            self.at, self.evidence = time.perf_counter(), event.evidence
            self.done.set()


@dataclass(frozen=True, slots=True)
class Joiner:
    """Who joins, by the commands that a user gives."""

    path: Path
    env: Mapping[str, str]

    def command(self, command: str, *words: str) -> Child:
        """`overlay` with its state folder."""
        argv = [sys.executable, "-m", NODE, "--state", str(self.path / JOINER), command, *words]
        return start(argv, name=command, folder=self.path, env=self.env, read_output=False)


async def _admit(joiner: Joiner, token: str, tpm: SoftwareTpm, admitted: Admission) -> float:
    """Seconds from the first command to the open link."""
    own = ("--evidence", "tpm", "--tcti", tpm.tcti, "--no-mdns")
    began = time.perf_counter()
    child = joiner.command("join", token, "--name", JOINER, *own)
    try:
        if await child.wait():
            raise RuntimeError(child.log.read_text())
        child = joiner.command("run", "--listen", "127.0.0.1:0", *own)
        await admitted.done.wait()
    except trio.Cancelled:
        sys.stderr.write(child.log.read_text())
        raise
    finally:
        await child.end()
    assert admitted.evidence == "tpm"
    return admitted.at - began
