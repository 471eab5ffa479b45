"""What a member can send about checkpoints, and what it comes to on a real node."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from audit.checkpoint import Checkpoint
from audit.store import AuditStore
from audit.witness_frames import Request, Say, Told
from overlay.app.local import LocalNode
from overlay.events import ChainRejected, PeerDown
from overlay.registry import FrameType, Reason
from overlay.store.state import AUDIT_STORE
from tests.shell.folder_kit import Started, enrolled, started

TWO_ROOTS = "two checkpoints of one size with two roots"


@asynccontextmanager
async def pair(path: Path) -> AsyncIterator[tuple[Started, Started]]:
    """Alice, who attacks, and Bob; what she has written is witnessed."""
    alices, bobs = enrolled(path, "alice", "bob")
    async with started(bobs) as bob, started(alices, bob.node) as alice:
        with trio.fail_after(10):
            await alice.node.audit.wait_witnessed(await alice.node.audit.append("count", 1))
        yield alice, bob


async def newest(node: LocalNode, *, root: bytes = b"", log_id: bytes = b"") -> Checkpoint:
    """Of the node's own log, with what it holds now; or with another root."""
    (*_, entry) = [one for one in await node.audit.read(node=node.name) if one.type == "application"]
    chain = next(one for one in node.statistics().chains if one.log == entry.log_id.hex())
    return Checkpoint(
        mesh_id=node.mesh_id, node_id=node.node_id, log_id=log_id or entry.log_id, size=chain.size,
        root=root or bytes.fromhex(chain.root),
    )


def signed(node: LocalNode, one: Checkpoint) -> bytes:
    return one.sign(node.engine.identity.message).raw


def cosigned(node: LocalNode) -> dict[bytes, int]:
    """What a node remembers to have cosigned, on its disk now."""
    store = AuditStore.open_readonly(node.folder / AUDIT_STORE)
    found = {one.checkpoint.log_id: one.checkpoint.size for one in store.cosigned()}
    store.close()
    return found


async def test_what_a_witness_has_cosigned_is_on_its_disk(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        entry = await alice.node.audit.append("count", 2)
        with trio.fail_after(10):
            await alice.node.audit.wait_witnessed(entry)
        assert cosigned(bob.node)[entry.log_id] > entry.seq


async def test_a_second_root_is_not_cosigned_and_all_are_told(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        log_id = bytes([7]) * 16
        for root in (bytes(32), bytes([1]) * 32):
            one = await newest(alice.node, root=root, log_id=log_id)
            assert alice.node.engine.tell(bob.node.node_id, FrameType.CHECKPOINT, Request(signed(alice.node, one)).pack())
        await bob.saw(ChainRejected(name="alice", node="", reason=Reason.FORKED, detail=TWO_ROOTS))
        assert cosigned(bob.node)[log_id] == one.size
        assert bob.node.peers  # who shows it may be the author itself: its link is not what proves anything


async def test_a_checkpoint_that_does_not_follow_is_not_cosigned_and_all_are_told(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        one = await newest(alice.node)
        before = cosigned(bob.node)[one.log_id]
        later = Checkpoint(mesh_id=one.mesh_id, node_id=one.node_id, log_id=one.log_id, size=one.size + 9, root=bytes(32))
        alice.node.engine.tell(
            bob.node.node_id, FrameType.CHECKPOINT, Request(signed(alice.node, later), before, (bytes(32),)).pack()
        )
        await bob.saw(ChainRejected(name="alice", node="", reason=Reason.FORKED, detail=""))
        assert cosigned(bob.node)[one.log_id] <= one.size


async def test_news_of_another_history_than_ours_are_not_believed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (alice, bob):
        one = await newest(alice.node, root=bytes(32))
        note = signed(alice.node, one)
        alice.node.engine.tell(bob.node.node_id, FrameType.COSIGNATURE, Told(Say.NEWS, (note,)).pack())
        await bob.saw(ChainRejected(name="alice", node="", reason=Reason.FORKED, detail=""))
        store = AuditStore.open_readonly(bob.node.folder / AUDIT_STORE)
        assert all(kept.checkpoint.root != bytes(32) for kept in store.checkpoints(one.log_id))
        store.close()


@pytest.mark.parametrize(("frame", "what", "reason"), [
    (FrameType.CHECKPOINT, "garbage", Reason.MALFORMED), (FrameType.COSIGNATURE, "garbage", Reason.MALFORMED),
    (FrameType.CHECKPOINT, "another node's", Reason.WRONG_AUTHOR), (FrameType.COSIGNATURE, "another key", Reason.BAD_SIGNATURE),
    (FrameType.CHECKPOINT, "another key", Reason.BAD_SIGNATURE), (FrameType.COSIGNATURE, "no note", Reason.MALFORMED),
])  # fmt: skip
async def test_what_no_honest_member_sends_costs_the_link(tmp_path: Path, frame: FrameType, what: str, reason: Reason) -> None:
    async with pair(tmp_path) as (alice, bob):
        one, identity = await newest(alice.node), alice.node.engine.identity
        if what == "another node's":
            one = replace(one, node_id=bob.node.node_id)
        assert identity.witness is not None
        note = one.sign(identity.witness if what == "another key" else identity.message).raw
        body = Request(note).pack() if frame is FrameType.CHECKPOINT else Told(Say.NEWS, (note,)).pack()
        bodies = {"garbage": b"\0", "no note": Told(Say.NEWS, (b"hello\n\n",)).pack()}
        alice.node.engine.tell(bob.node.node_id, frame, bodies.get(what, body))
        await bob.saw(PeerDown(name="alice", node="", reason=reason, detail="", by_peer=False))
