"""What a member makes a node do is bounded: handlers, logs, proofs."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from overlay.core.evidence import Binding, Evidence
from overlay.core.identity import LocalIdentity
from overlay.core.limits import LOGS_PER_AUTHOR, STREAM_HANDLER_WINDOWS, WINDOW_FIRST, AttestTimes
from overlay.core.mesh.reconcile import Reconcile
from overlay.core.mesh.replication_frames import Head, make_heads
from overlay.core.session_states import State
from overlay.core.stream_formats import Opening
from overlay.errors import StateDamaged
from overlay.net.attester import Attester
from overlay.net.link import Link
from overlay.net.stream import BrokenStream, Stream
from overlay.net.system import SystemChance
from overlay.registry import ChainKind, EvidenceKind, FrameType, ReplyStatus, Role
from overlay.store.topics import TopicStore
from tests.shell.node_kit import fresh_mesh, linked
from tests.unit.core.mesh.mesh_kit import ToyChains, node
from tests.unit.core.session_kit import ALICE, BOB, evidence_for, local

HANDLERS = STREAM_HANDLER_WINDOWS // WINDOW_FIRST


async def test_handlers_of_streams_that_were_broken_off_count_until_they_have_ended() -> None:
    running, release = 0, trio.Event()

    async def stubborn(_stream: Stream) -> None:
        nonlocal running
        running += 1
        await release.wait()

    async with linked(fresh_mesh(), "alice", "bob", streams={"stubborn": stubborn}) as (alice, bob):
        link = bob.node.pool.links[alice.node.identity.node_id]
        for _ in range(3 * HANDLERS):
            number = link.open_stream("stubborn", Opening(False, b""), deadline=2**50)
            link.reset_stream(number, ReplyStatus.CANCELLED, "")
        async with bob.node.open_stream(alice.node.identity.node_id, "stubborn", b"", signed=False) as stream:
            with pytest.raises(BrokenStream, match="busy"):
                await stream.receive_some()
        assert running == HANDLERS
        release.set()


def test_one_author_does_not_use_up_the_logs_that_are_for_all() -> None:
    author, other = node("author"), node("other")
    held = [(number.to_bytes(16, "big"), Head(author, 1, bytes(32))) for number in range(LOGS_PER_AUTHOR)]
    machine = Reconcile(ChainKind.AUDIT, node("alice"), ToyChains(), held)
    machine.peer_opened(node("bob"), 0.0)
    machine.messages_to_send()
    new = {b"more" + bytes(12): Head(author, 5, bytes(32)), b"else" + bytes(12): Head(other, 5, bytes(32))}
    for body in make_heads(ChainKind.AUDIT, new):
        machine.receive(node("bob"), FrameType.HEADS, body, 0.0)
    wants = [body for _, frame, body in machine.messages_to_send() if frame is FrameType.WANT]
    assert len(wants) == 1
    assert b"else" in wants[0]


def test_a_damaged_store_of_topics_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "topics.sqlite3"
    store = TopicStore.open(path)
    store._connection.execute("INSERT INTO chains VALUES (?, ?, ?, ?, ?, ?)", (bytes(16), b"short", "news", 1, bytes(32), 1))
    with pytest.raises(StateDamaged):
        store.states()
    assert {one.stat().st_mode & 0o777 for one in path.parent.glob("topics.sqlite3*")} == {0o600}
    store.close()


class CountingProver:
    """Stands for a TPM: it is asked in a thread, for many at once."""

    kind = EvidenceKind.TPM

    def __init__(self) -> None:
        self.asked: list[float] = []

    def prove(self, bindings: Sequence[Binding]) -> list[Evidence]:
        self.asked.append(trio.from_thread.run_sync(trio.current_time))
        return [evidence_for(binding) for binding in bindings]


async def proofs_made(attester: Attester) -> None:
    """Until nothing happens any more without time going on, and no thread is at work either."""
    await trio.testing.wait_all_tasks_blocked()
    while attester._proving.locked():
        async with attester._proving:
            pass
        await trio.testing.wait_all_tasks_blocked()


class Home:
    """Whom the attester belongs to: it has no links that are open."""

    def links(self) -> list[Link]:
        return []

    def evidence_failed(self, detail: str, hint: str) -> None:
        raise AssertionError(detail, hint)

    def credentials_renewed(self) -> None: ...


async def test_whoever_connects_again_and_again_makes_the_tpm_work_now_and_then(
    mock_clock: trio.testing.MockClock,
) -> None:
    """Time stands still while a proof is made in its thread: how many there are does not hang on how fast that is."""

    async def renew() -> LocalIdentity:
        return local(ALICE)

    prover = CountingProver()
    attester = Attester(
        local(ALICE), prover=lambda _identity: prover, renew=renew, renewal_due=lambda _identity: False, owner=Home(),
        times=AttestTimes(), chance=SystemChance(),
    )
    mallory = SimpleNamespace(peer=SimpleNamespace(node_id=BOB.node_id), session=SimpleNamespace(state=State.ADMITTING))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attester.run)
        for number in range(40):
            attester.admission(mallory, a_binding(number))  # type: ignore[arg-type]
            for _ in range(5):
                mock_clock.jump(0.05)
                await proofs_made(attester)
        nursery.cancel_scope.cancel()
    assert 1 <= len(prover.asked) <= 3


def a_binding(number: int) -> Binding:
    return Binding(
        mesh_id=bytes(32), h=bytes(32), role=Role.OTHER, attester_leaf=bytes(32), verifier_leaf=bytes(32),
        nonce=number.to_bytes(32, "big"), epoch=1,
    )
