"""What a node does with a fork proof: durable first, then told, once; and its author is out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from audit.author import LogSigner
from audit.bodies import Former, LogOpen
from audit.log import AuditLog
from audit.store import AuditStore
from overlay.app.fork_watch import TOLD_FOR, ForkWatch
from overlay.core.keys import NodeId
from overlay.core.mesh.reconcile import HeadsDiffer, ItemShown, ItemsVerified
from overlay.core.trust import TrustSet
from overlay.errors import Refused
from overlay.events import ForkExposed, ForkSuspected, NodeEvent
from overlay.registry import ForkKind, FrameType, Reason
from tests.unit.audit.audit_kit import Writer
from tests.unit.audit.fork_kit import Forker, head_of, note_of
from tests.unit.core.authority_kit import make_member, make_mesh

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
EVE = Forker.after(3, 2, 2, mesh=MESH)
BOB, CAROL, DAVE = (NodeId(name * 32) for name in (b"b", b"c", b"d"))
LOG, AUTHOR = EVE.left.log_id, EVE.member.node_id


@dataclass
class Engine:
    """What the watch needs of a node."""

    path: Path
    peers: tuple[NodeId, ...] = (BOB, CAROL)
    told: list[tuple[NodeId, bytes]] = field(default_factory=list)
    events: list[NodeEvent] = field(default_factory=list)
    hung_up: list[tuple[NodeId, Reason]] = field(default_factory=list)
    flushed: int = 0

    def tell(self, peer: NodeId, frame: FrameType, body: bytes) -> bool:
        assert frame is FrameType.FORK_PROOF
        store = AuditStore.open_readonly(self.path)
        assert [kept.raw for kept in store.forks()] == [body]  # durable before anybody hears of it
        store.close()
        self.told.append((peer, body))
        return True

    def linked_ids(self) -> tuple[NodeId, ...]:
        return self.peers

    def flush_logs(self) -> None:
        self.flushed += 1

    def rejected(self, peer: NodeId, reason: Reason, detail: str) -> None:
        assert detail
        self.hung_up.append((peer, reason))

    def emit(self, event: NodeEvent) -> None:
        self.events.append(event)


class Around:
    """A watch at work, on a real log that holds eve's left history."""

    def __init__(self, path: Path, log: AuditLog) -> None:
        self.now = MESH.at + timedelta(minutes=1)
        self.trust = MESH.trust
        self.engine = Engine(path)
        self.log = log
        self.watch = ForkWatch(log, MESH.root, lambda: self.now, lambda: self.trust)

    def move(self, after: TrustSet) -> None:
        """See `Trust`."""
        self.trust = after


@asynccontextmanager
async def around(path: Path) -> AsyncIterator[Around]:
    at = MESH.at + timedelta(minutes=1)
    log = await AuditLog.open(path, root=MESH.root, signer=LogSigner(ALICE.message, ALICE.credentials), at=lambda: at)
    found = Around(path, log)
    found.watch = await ForkWatch.open(log, MESH.root, lambda: found.now, lambda: found.trust)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        if LOG not in log.replica.states:
            log.replica.check(LOG, AUTHOR, 0, EVE.left.raws)
            await log.store(ItemsVerified(LOG, AUTHOR, 0, tuple(EVE.left.raws)))
        nursery.start_soon(found.watch.run, found.engine, found)
        await trio.testing.wait_all_tasks_blocked()
        yield found
        nursery.cancel_scope.cancel()
    log.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.sqlite3"


def is_out(one: Around) -> bool:
    return one.trust.quarantine_end(AUTHOR, one.now) is not None


async def exposed(one: Around) -> None:
    with trio.fail_after(5):
        while not is_out(one):
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_proof_is_stored_passed_on_once_told_and_its_author_is_out(path: Path) -> None:
    raw = EVE.proof()
    async with around(path) as one:
        one.watch.received(BOB, raw)
        await exposed(one)
        one.watch.received(CAROL, raw)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert one.engine.told == [(CAROL, raw)]
        ((event,), (proof,)) = (one.engine.events, one.watch.exposed)
        assert isinstance(event, ForkExposed)
        assert (event.name, event.kind, event.proof) == ("eve", "entries", proof.hash.hex())
        assert one.watch.warnings == (f"eve has told two stories, proven: it has signed {proof.detail}",)


async def test_a_link_that_opens_while_the_proof_is_being_stored_hears_of_it_after_that(path: Path) -> None:
    async with around(path) as one:
        one.watch.received(BOB, EVE.proof())
        one.watch.peer_opened(DAVE)
        one.engine.peers = (BOB, CAROL, DAVE)
        assert one.engine.told == []
        await exposed(one)
        assert [peer for peer, _ in one.engine.told] == [CAROL, DAVE]


async def test_after_a_start_it_is_known_told_to_whoever_is_linked_and_its_author_stays_out(path: Path) -> None:
    async with around(path) as one:
        one.watch.received(BOB, EVE.proof())
        await exposed(one)
    async with around(path) as one:
        assert is_out(one)
        assert [peer for peer, _ in one.engine.told] == [BOB, CAROL]
        one.engine.told.clear()
        one.watch.peer_opened(DAVE)
        assert [peer for peer, _ in one.engine.told] == [DAVE]
        one.now += TOLD_FOR
        one.watch.peer_opened(DAVE)
        assert len(one.engine.told) == 1


async def test_a_proof_that_proves_nothing_ends_the_link(path: Path) -> None:
    async with around(path) as one:
        with pytest.raises(Refused) as refused:
            one.watch.received(BOB, b"\xff")
        assert refused.value.reason is Reason.MALFORMED
        assert not one.engine.told
        assert not is_out(one)


async def test_two_copies_are_compared_until_there_is_a_proof(path: Path) -> None:
    async with around(path) as one:
        one.log.machine.peer_opened(BOB, trio.current_time())
        assert not one.watch.watch(HeadsDiffer(BOB, LOG, 5))
        assert one.engine.flushed == 1
        one.watch.watch(ItemShown(BOB, LOG, 4, EVE.right.entries[4].raw))
        await exposed(one)
        assert [peer for peer, _ in one.engine.told] == [BOB, CAROL]
        assert one.watch.watch(HeadsDiffer(CAROL, LOG, 5))  # no news, and no fault of carol's
        assert one.engine.flushed == 1


async def test_a_peer_that_lies_about_its_copy_loses_its_link_and_one_that_is_silent_makes_its_author_suspected(
    path: Path,
) -> None:
    async with around(path) as one:
        one.watch.watch(HeadsDiffer(BOB, LOG, 5))
        one.watch.watch(ItemShown(BOB, LOG, 4, b"\xff"))
        one.watch.watch(HeadsDiffer(CAROL, LOG, 5))
        one.watch.watch(ItemShown(CAROL, LOG, 4, None))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert one.engine.hung_up == [(BOB, Reason.MALFORMED)]
        (event,) = one.engine.events
        assert isinstance(event, ForkSuspected)
        assert (event.node, event.by) == (str(AUTHOR), str(CAROL))
        assert not is_out(one)
        (line,) = one.watch.warnings
        assert line.startswith(f"{AUTHOR.short} is suspected of two stories: ")


async def test_two_checkpoints_of_one_size_expose_who_has_signed_them(path: Path) -> None:
    async with around(path) as one:
        one.watch.two_heads(note_of(EVE.left, 5), note_of(EVE.left, 4))
        other = make_member(MESH, "eve", start=9)
        one.watch.two_heads(note_of(EVE.left, 5), head_of(EVE.right, 5).sign(other.message).raw)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not is_out(one)
        one.watch.two_heads(note_of(EVE.left, 5), note_of(EVE.right, 5))
        await exposed(one)
        assert one.watch.exposed[0].kind is ForkKind.HEADS


async def test_two_logs_with_one_number_expose_who_has_opened_them(path: Path) -> None:
    async with around(path) as one:
        for start in (2, 3):
            member = make_member(MESH, "eve", start=start)
            last = EVE.left.entries[-1]
            former = Former(log_id=LOG, size=5, root=bytes(32), last=last.hash, reason="damaged")
            writer = Writer.begin(MESH, member, LogOpen(k=1, credentials=member.credentials, former=former))
            writer.open()
            one.log.replica.check(writer.log_id, AUTHOR, 0, writer.raws)
            await one.log.store(ItemsVerified(writer.log_id, AUTHOR, 0, tuple(writer.raws)))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert is_out(one) is (start == 3)
        assert one.watch.exposed[0].kind is ForkKind.OPENINGS


async def test_a_node_that_is_exposed_itself_says_so(path: Path) -> None:
    mine = Forker.after(1, 1, 1, mesh=MESH, name="alice")
    async with around(path) as one:
        one.watch.received(BOB, mine.proof())
        with trio.fail_after(5):
            while not one.watch.warnings or not one.engine.told:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert one.watch.warnings[0].startswith("this node is exposed: it has signed two entries number 1 ")
