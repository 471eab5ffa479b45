"""Rows about the authority: one signer's work, a signature of 4 of 5 over links, key generation, all of it in one process."""

import secrets
import time
from statistics import median

import nacl.bindings
import trio

from bench.row import Row, row
from overlay.core.authority.frost import Commitment, Nonces, aggregate, commit, sign, verify_share
from overlay.core.authority.group import BASE, WIDE_SIZE, Scalar
from overlay.core.authority.key_generation import KeyGeneration, KeyPlan
from overlay.core.authority.record_requests import AuthorityTest
from overlay.core.authority.sharing import GroupKey, Share, split
from overlay.core.keys import Ed25519Signer, MeshId, NodeId
from overlay.net.system import SystemChance
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
