"""`overlay.blocking`: real nodes, used from plain threads. Every test function here is one."""

import gc
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

import overlay.blocking as blocking
from overlay.errors import (
    DeadlineExceeded,
    InternalError,
    NotAllowed,
    OverlayError,
    RemoteError,
    StateInUse,
    StreamReset,
    UsageError,
)
from overlay.events import NodeEvent, PeerDown, PeerUp
from overlay.net.request import Request
from overlay.registry import Reason
from tests.shell.bridge_kit import CONFIG, PATIENCE, Heard, InThread, Pair, pair, script, seeded
from tests.shell.folder_kit import ALONE

__all__ = ["pair"]


def shout(request: Request) -> bytes:
    return request.body.upper()


@contextmanager
def linked(
    pair: Pair, **services: blocking.Service
) -> Iterator[tuple[blocking.LocalNode, blocking.LocalNode, blocking.Peer]]:
    """alice, who serves this, and bob, and what bob has of alice."""
    with (
        blocking.open_node(pair.alice, config=ALONE, services={"shout": shout, **services}) as alice,
        blocking.open_node(pair.bob, config=seeded(alice.port)) as bob,
    ):
        alice.wait_peer("bob", timeout=PATIENCE)
        yield alice, bob, bob.wait_peer("alice", timeout=PATIENCE)


# --- what a node can do ---------------------------------------------------------------------------------------------


def test_two_nodes_see_each_other_and_call_each_other(pair: Pair) -> None:
    with linked(pair) as (alice, bob, peer):
        assert (peer.name, peer.node_id, peer.level) == ("alice", alice.node_id, 1)
        assert (peer.info.name, peer.roles, repr(peer)) == ("alice", peer.info.roles, f"<Peer alice {alice.node_id.short}>")
        assert [one.name for one in bob.wait_members(2, timeout=PATIENCE)] == ["alice"]
        assert [one.name for one in bob.peers] == ["alice"]
        assert (bob.name, bob.mesh_name, bob.mesh_id) == ("bob", "home", alice.mesh_id)
        assert repr(bob) == f"<LocalNode bob {bob.node_id.short}>"
        assert peer.call("shout", b"hello") == b"HELLO"
        assert [link.name for link in bob.status().links] == ["alice"]


def test_what_one_publishes_the_other_reads(pair: Pair) -> None:
    with linked(pair) as (alice, bob, _):
        assert alice.publish("news", b"one").seq == 0
        with bob.subscribe("news") as news:
            alice.publish("news", b"two", transient=False)
            assert [news.next(timeout=PATIENCE).body, next(news).body] == [b"one", b"two"]


def test_an_entry_is_appended_replicated_read_and_followed(pair: Pair) -> None:
    with linked(pair) as (alice, bob, _), bob.audit.follow() as entries:
        entry = alice.audit.append("door.opened", {"door": "7b"})
        assert alice.audit.wait_replicated(entry, timeout=PATIENCE) == 1
        assert entry.hash in [one.hash for one in bob.audit.read(node="alice")]
        assert bob.audit.wait_witnessed(entry, timeout=PATIENCE) == "1 of 1, tolerates 0 liars"
        assert entry.hash in (one.hash for one in entries)


def test_a_program_shares_the_node_that_runs_here(pair: Pair) -> None:
    with linked(pair) as (_, bob, _), blocking.connect_local(pair.bob) as again:
        assert again.wait_peer("alice", timeout=PATIENCE).call("shout", b"hello") == b"HELLO"
        assert (again.name, again.mesh_id, len(again.peers)) == ("bob", bob.mesh_id, 1)
        again.stop()
        bob.wait_stopped(timeout=PATIENCE)


def test_a_node_stops_when_it_is_asked_to(pair: Pair) -> None:
    with blocking.open_node(pair.alice, config=ALONE) as alice:
        with pytest.raises(DeadlineExceeded, match=r"nobody asked it to stop within 0\.01 s"):
            alice.wait_stopped(timeout=0.01)
        alice.ask_to_stop()
        alice.wait_stopped(timeout=PATIENCE)


# --- errors ---------------------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_library(pair: Pair) -> None:
    def fail(_: Request) -> bytes:
        raise ValueError("no such door")

    def refuse(_: Request) -> bytes:
        raise NotAllowed("not you")

    with linked(pair, fail=fail, refuse=refuse) as (_, bob, peer):
        with pytest.raises(RemoteError, match="ValueError: no such door"):
            peer.call("fail")
        with pytest.raises(NotAllowed):
            peer.call("refuse")
        with pytest.raises(RemoteError, match="no service 'dance'"):
            peer.call("dance")
        with pytest.raises(StateInUse), blocking.open_node(pair.bob):
            pass
        with pytest.raises(OverlayError), bob.subscribe(""):
            pass
        assert peer.call("shout", b"still there") == b"STILL THERE"


def test_a_folder_that_belongs_to_no_mesh_is_told_at_once_and_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(OverlayError), blocking.open_node(tmp_path / "nothing"):
        pass
    left = [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("Trio")]
    for thread in left:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_whoever_waits_in_vain_is_told_in_time(pair: Pair) -> None:
    with blocking.open_node(pair.alice, config=ALONE) as alice, alice.subscribe("news") as news:
        with pytest.raises(DeadlineExceeded, match=r"no link to bob within 0\.01 s"):
            alice.wait_peer("bob", timeout=0.01)
        with pytest.raises(DeadlineExceeded, match=r"fewer than 2 members within 0\.01 s"):
            alice.wait_members(2, timeout=0.01)
        with pytest.raises(DeadlineExceeded, match=r"held the entry within 0\.01 s"):
            alice.audit.wait_replicated(alice.audit.append("x"), timeout=0.01)
        with pytest.raises(DeadlineExceeded, match="nothing came"):
            news.next(timeout=0.01)
        alice.publish("news", b"late")
        assert news.next(timeout=PATIENCE).body == b"late"  # nothing was lost


def test_a_call_ends_at_its_timeout(pair: Pair) -> None:
    release = threading.Event()

    def wait(_: Request) -> bytes:
        release.wait(PATIENCE)
        return b""

    with linked(pair, wait=wait) as (_, _, peer):
        with pytest.raises(DeadlineExceeded, match="no answer to wait"):
            peer.call("wait", timeout=0.05)
        release.set()


# --- services -------------------------------------------------------------------------------------------------------


def test_a_service_runs_in_a_thread_of_its_own_and_holds_up_nobody(pair: Pair) -> None:
    release, began = threading.Event(), threading.Event()

    def wait(request: Request) -> bytes:
        began.set()
        assert release.wait(PATIENCE)
        return request.peer.name.encode()

    with linked(pair, wait=wait) as (_, _, peer):
        waiting = InThread(lambda: peer.call("wait"))
        assert began.wait(PATIENCE)
        assert peer.call("shout", b"meanwhile") == b"MEANWHILE"
        release.set()
        assert waiting.ended() == b"bob"


def test_no_more_services_run_at_once_than_there_are_threads(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "SERVICE_THREADS", 2)
    running, third, go_on = threading.Semaphore(0), threading.Event(), threading.Event()
    begun = count(1)

    def wait(_: Request) -> bytes:
        if next(begun) > 2 and not go_on.is_set():
            third.set()
        running.release()
        go_on.wait(PATIENCE)
        return b""

    with linked(pair, wait=wait) as (_, _, peer):
        calls = [InThread(lambda: peer.call("wait")) for _ in range(4)]
        for _ in range(2):
            assert running.acquire(timeout=PATIENCE)
        assert not third.wait(2.0)  # there is time for a third one, and no thread
        go_on.set()
        assert [call.ended() for call in calls] == [b""] * 4


def test_a_service_may_use_its_own_node(pair: Pair) -> None:
    nodes: list[blocking.LocalNode] = []

    def announce(request: Request) -> bytes:
        nodes[0].publish("calls", request.peer.name.encode())
        return nodes[0].wait_peer("bob", timeout=PATIENCE).name.encode()

    with linked(pair, announce=announce) as (alice, bob, peer), bob.subscribe("calls") as calls:
        nodes.append(alice)
        assert peer.call("announce") == b"bob"
        assert calls.next(timeout=PATIENCE).body == b"bob"


def test_a_service_that_ends_its_thread_does_not_end_the_node(pair: Pair) -> None:
    def leave(_: Request) -> bytes:
        sys.exit(1)

    with linked(pair, leave=leave) as (_, _, peer):
        with pytest.raises(RemoteError, match="SystemExit in a worker thread"):
            peer.call("leave")
        assert peer.call("shout", b"still there") == b"STILL THERE"


def test_a_node_does_not_wait_for_a_service_that_goes_on(pair: Pair) -> None:
    release, began = threading.Event(), threading.Event()

    def stay(_: Request) -> bytes:
        began.set()
        release.wait(PATIENCE)
        return b""

    with linked(pair, stay=stay) as (_, _, peer):
        call = InThread(lambda: peer.call("stay"))
        assert began.wait(PATIENCE)
    assert not release.is_set()
    release.set()
    with pytest.raises(OverlayError):
        call.ended()


# --- threads --------------------------------------------------------------------------------------------------------


def test_many_threads_call_at_once_and_each_gets_its_own_answer(pair: Pair) -> None:
    def ask(number: int) -> list[bytes]:
        return [peer.call("shout", b"x%d.%d" % (number, turn)) for turn in range(10)]

    with linked(pair) as (_, _, peer):
        callers = [InThread(lambda number=number: ask(number)) for number in range(8)]  # type: ignore[misc]
        for number, caller in enumerate(callers):
            assert caller.ended() == [b"X%d.%d" % (number, turn) for turn in range(10)]


def test_two_threads_that_share_a_subscription_get_each_item_once(pair: Pair) -> None:
    with blocking.open_node(pair.alice, config=ALONE) as alice, alice.subscribe("news") as news:
        readers = [InThread(lambda: [news.next(timeout=PATIENCE).body for _ in range(10)]) for _ in range(2)]
        for number in range(20):
            alice.publish("news", bytes([number]))
        found = [body for reader in readers for body in reader.ended()]  # type: ignore[attr-defined]
    assert sorted(found) == [bytes([number]) for number in range(20)]


def test_a_thread_that_waits_its_turn_is_told_in_time(pair: Pair) -> None:
    with blocking.open_node(pair.alice, config=ALONE) as alice, alice.subscribe("news") as news:
        first = InThread(lambda: news.next(timeout=PATIENCE))
        with pytest.raises(DeadlineExceeded):
            for _ in range(1000):  # sometimes before the other
                news.next(timeout=0.001)
        alice.publish("news", b"x")
        first.join(PATIENCE)


def test_whoever_waits_when_the_node_is_closed_is_told_so(pair: Pair) -> None:
    with blocking.open_node(pair.alice, config=ALONE) as alice, alice.subscribe("news") as news:
        waiting = [InThread(lambda: alice.wait_peer("nobody")), InThread(lambda: next(news))]
        alice.publish("other", b"so that both have begun, probably")
    for thread in waiting:
        with pytest.raises(UsageError, match="is closed"):
            thread.ended()


def test_an_observer_that_waits_for_its_own_node_is_told_instead_of_waiting_for_ever(pair: Pair) -> None:
    found: list[UsageError] = []

    def ask(_: NodeEvent) -> None:
        try:
            alice[0].status()
        except UsageError as error:
            found.append(error)

    def link() -> None:
        with blocking.open_node(pair.alice, config=ALONE, observers=[lambda event: ask(event) if alice else None]) as node:
            alice.append(node)
            with blocking.open_node(pair.bob, config=seeded(node.port)) as bob:
                bob.wait_peer("alice", timeout=PATIENCE)
                node.wait_peer("bob", timeout=PATIENCE)

    alice: list[blocking.LocalNode] = []
    InThread(link).ended()
    assert "must not wait for its own node" in str(found[0])


# --- answers in parts, and streams ----------------------------------------------------------------------------------


def test_a_generator_answers_in_parts(pair: Pair) -> None:
    ended = threading.Event()

    def count(request: Request) -> Iterator[bytes]:
        try:
            for number in range(int(request.body)):
                yield b"%d" % number
        finally:
            ended.set()

    def break_off(_: Request) -> Iterator[bytes]:
        yield b"one"
        raise ValueError("and no more")

    with linked(pair, count=count, break_off=break_off) as (_, _, peer):
        with peer.call_stream("count", b"3") as parts:
            assert list(parts) == [b"0", b"1", b"2"]
        assert ended.wait(PATIENCE)
        with peer.call_stream("break_off") as parts:
            assert next(parts) == b"one"
            with pytest.raises(RemoteError, match="and no more"):
                next(parts)
        ended.clear()
        with peer.call_stream("count", b"1000000") as parts:
            assert next(parts) == b"0"
        assert ended.wait(PATIENCE)  # who leaves the block ends the generator


def test_a_generator_that_is_busy_when_nobody_wants_it_any_more_is_closed_afterwards(pair: Pair) -> None:
    busy, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work(_: Request) -> Iterator[bytes]:
        try:
            yield b"one"
            busy.set()
            release.wait(PATIENCE)
            yield b"two"
        finally:
            ended.set()

    with linked(pair, work=work) as (_, _, peer), peer.call_stream("work") as parts:
        assert next(parts) == b"one"
        assert busy.wait(PATIENCE)
    release.set()
    assert ended.wait(PATIENCE)


def echo(stream: blocking.Stream) -> None:
    """What comes, louder."""
    stream.send_all(f"{stream.peer.name} {stream.name} {stream.body.decode()} {stream.signed}\n".encode())
    for data in stream:
        stream.send_all(data.upper())
    stream.send_eof()


def refuse_stream(stream: blocking.Stream) -> None:
    raise NotAllowed(stream.name)


def leave_stream(stream: blocking.Stream) -> None:
    sys.exit(1)


def wait_in_vain(stream: blocking.Stream) -> None:
    with pytest.raises(DeadlineExceeded, match=r"nothing came within 0\.01 s"):
        stream.receive_some(timeout=0.01)
    stream.send_all(b"go on")
    stream.send_eof()
    with pytest.raises(UsageError, match="closed for sending"):
        stream.send_all(b"x")
    assert stream.receive_some(1) == b"a"
    assert stream.receive_some(1) == b"b"


HANDLERS = {"echo": echo, "refuse": refuse_stream, "leave": leave_stream, "vain": wait_in_vain}


@contextmanager
def linked_for_streams(pair: Pair) -> Iterator[blocking.Peer]:
    """What bob has of alice, who has these handlers."""
    with (
        blocking.open_node(pair.alice, config=ALONE, streams=HANDLERS) as alice,
        blocking.open_node(pair.bob, config=seeded(alice.port)) as bob,
    ):
        yield bob.wait_peer("alice", timeout=PATIENCE)


def test_a_stream_is_read_and_written_in_threads(pair: Pair) -> None:
    with linked_for_streams(pair) as peer:
        with peer.open_stream("echo", b"first", signed=True) as stream:
            assert (stream.peer.name, stream.name, stream.body, stream.signed) == ("alice", "echo", b"first", True)
            greeting = b"bob echo first True\n"
            assert b"".join(stream.receive_some(1) for _ in greeting) == greeting
            stream.send_all(b"abc")
            stream.send_all(bytearray(b"def"))
            stream.send_eof()
            assert b"".join(stream) == b"ABCDEF"
            assert stream.signed_up_to == len(greeting) + 6
            assert stream.segment
        with pytest.raises(UsageError, match="the stream is closed"):
            stream.receive_some()
        with peer.open_stream("vain") as stream:
            assert stream.receive_some() == b"go on"
            stream.send_all(b"ab")
            assert list(stream) == []


def test_a_stream_that_is_refused_or_breaks_off_says_so(pair: Pair) -> None:
    with linked_for_streams(pair) as peer:
        with peer.open_stream("refuse") as stream, pytest.raises(StreamReset, match="not allowed"):
            stream.receive_some(timeout=PATIENCE)
        with peer.open_stream("leave") as stream, pytest.raises(StreamReset, match="SystemExit"):
            stream.receive_some(timeout=PATIENCE)
        with pytest.raises(DeadlineExceeded, match="not everything was sent"), peer.open_stream("refuse") as stream:
            while True:
                stream.send_all(bytes(8_000_000), timeout=0.0)


def test_a_stream_whose_block_is_left_by_an_exception_is_broken_off(pair: Pair) -> None:
    found: list[BaseException] = []
    told = threading.Event()

    def read(stream: blocking.Stream) -> None:
        stream.send_all(b"here")
        try:
            b"".join(stream)
        except OverlayError as error:
            found.append(error)
        told.set()

    with (
        blocking.open_node(pair.alice, config=ALONE, streams={"read": read}) as alice,
        blocking.open_node(pair.bob, config=seeded(alice.port)) as bob,
    ):
        peer = bob.wait_peer("alice", timeout=PATIENCE)
        with pytest.raises(ZeroDivisionError), peer.open_stream("read") as stream:
            assert stream.receive_some() == b"here"
            raise ZeroDivisionError
        assert told.wait(PATIENCE)
    assert isinstance(found[0], StreamReset)


def test_the_second_of_two_threads_that_read_one_stream_is_told(pair: Pair) -> None:
    found: queue.Queue[object] = queue.Queue()

    def read() -> None:
        try:
            found.put(stream.receive_some(timeout=PATIENCE))
        except UsageError as error:
            found.put(str(error))

    with linked_for_streams(pair) as peer, peer.open_stream("echo") as stream:
        stream.receive_some()
        readers = [InThread(read) for _ in range(2)]
        assert found.get(timeout=PATIENCE) == "another task is receiving from this stream"
        stream.send_all(b"x")
        assert found.get(timeout=PATIENCE) == b"X"
        for reader in readers:
            reader.ended()


# --- the end --------------------------------------------------------------------------------------------------------


def test_whatever_is_used_after_its_block_says_so(pair: Pair) -> None:
    with linked(pair) as (_, bob, peer):
        with bob.subscribe("news") as news:
            pass
        with pytest.raises(UsageError, match="the subscription is closed"):
            InThread(lambda: next(news)).ended()
        late = bob.subscribe("news")
    for use in (bob.status, lambda: peer.call("shout"), lambda: bob.audit.append("x"), late.__enter__):
        with pytest.raises(UsageError, match="the node is closed") as found:
            InThread(use).ended()
        assert "`with` block" in found.value.hint


def test_the_exception_of_the_block_leaves_it_as_it_was_raised_and_the_peer_hears_goodbye(pair: Pair) -> None:
    heard = Heard()
    with blocking.open_node(pair.alice, config=ALONE, observers=[heard]) as alice:
        with pytest.raises(ZeroDivisionError), blocking.open_node(pair.bob, config=seeded(alice.port)) as bob:
            bob.wait_peer("alice", timeout=PATIENCE)
            heard.wait(PeerUp)
            raise ZeroDivisionError
        assert heard.wait(PeerDown).reason is Reason.SHUTDOWN
        with blocking.open_node(pair.bob, config=seeded(alice.port)) as bob:  # its folder is free again
            bob.wait_peer("alice", timeout=PATIENCE)


def test_a_node_that_is_garbage_says_goodbye(pair: Pair) -> None:
    heard = Heard()
    with blocking.open_node(pair.alice, config=ALONE, observers=[heard]) as alice:
        node = blocking.open_node(pair.bob, config=seeded(alice.port)).__enter__()
        peer = node.wait_peer("alice", timeout=PATIENCE)
        news = node.subscribe("news").__enter__()
        heard.wait(PeerUp)
        del node
        gc.collect()
        with pytest.raises(RemoteError):  # who has a peer still has the node
            peer.call("nothing")
        del peer
        gc.collect()
        alice.publish("news", b"and so has who listens")
        assert news.next(timeout=PATIENCE).author.name == "alice"
        del news
        gc.collect()
        assert heard.wait(PeerDown).reason is Reason.SHUTDOWN


WAITS = CONFIG + """
import overlay.blocking, threading
def stay(request):
    print("called", flush=True)
    threading.Event().wait()
with overlay.blocking.open_node(sys.argv[1], config=config, services={"stay": stay}) as node:
    node.wait_peer("alice")
    print("linked", flush=True)
    node.wait_peer("nobody")
"""


def test_ctrl_c_ends_a_wait_and_the_node_whatever_a_service_does(pair: Pair, tmp_path: Path) -> None:
    heard = Heard()
    with (
        blocking.open_node(pair.alice, config=ALONE, observers=[heard]) as alice,
        script(WAITS, str(pair.bob), f"127.0.0.1:{alice.port}", home=tmp_path) as bob,
    ):
        bob.wait_line("linked")
        call = InThread(lambda: alice.wait_peer("bob").call("stay"))
        bob.wait_line("called")
        assert bob.interrupt() < 2
        code, errors = bob.end()
        assert (code, errors.splitlines()[-1]) == (-2, "KeyboardInterrupt")
        assert heard.wait(PeerDown).reason is Reason.SHUTDOWN
        with pytest.raises(OverlayError):
            call.ended()


STOPS = CONFIG + """
import overlay.blocking, signal
with overlay.blocking.open_node(sys.argv[1], config=config) as node:
    signal.signal(signal.SIGTERM, lambda *_: node.ask_to_stop())
    print("running", flush=True)
    node.wait_stopped()
"""


def test_a_signal_handler_may_ask_a_node_to_stop(pair: Pair, tmp_path: Path) -> None:
    with script(STOPS, str(pair.bob), home=tmp_path) as bob:
        bob.wait_line("running")
        assert bob.interrupt(signal.SIGTERM) < 2
        assert bob.end() == (0, "")


FORGETS = CONFIG + """
import overlay.blocking
node = overlay.blocking.open_node(sys.argv[1], config=config).__enter__()
node.wait_peer("alice")
subscription = node.subscribe("news")
subscription.__enter__()
print("linked", flush=True)
"""


def test_a_forgotten_node_says_goodbye_when_the_interpreter_ends(pair: Pair, tmp_path: Path) -> None:
    heard = Heard()
    with (
        blocking.open_node(pair.alice, config=ALONE, observers=[heard]) as alice,
        script(FORGETS, str(pair.bob), f"127.0.0.1:{alice.port}", home=tmp_path) as bob,
    ):
        bob.wait_line("linked")
        assert bob.end() == (0, "")
        assert heard.wait(PeerDown).reason is Reason.SHUTDOWN


FORKS = CONFIG + """
import os, overlay.blocking
with overlay.blocking.open_node(sys.argv[1], config=config) as node:
    node.audit.append("before")
    child = os.fork()
    if not child:
        try:
            node.audit.append("in the child")
        except overlay.UsageError as error:
            print(error, flush=True)
    else:
        os.waitpid(child, 0)
        print(node.audit.append("after").seq > 0, flush=True)
"""


def test_a_forked_process_is_told_that_the_node_is_not_its_own(pair: Pair, tmp_path: Path) -> None:
    with script(FORKS, str(pair.bob), home=tmp_path) as bob:
        bob.wait_line("the node belongs to another process")
        bob.wait_line("True")
        assert bob.end() == (0, "")


def test_a_bug_in_the_node_comes_out_at_the_end_and_is_named_before(pair: Pair) -> None:
    def explode(event: NodeEvent) -> None:
        if isinstance(event, PeerUp):
            raise ZeroDivisionError

    with pytest.raises(InternalError):  # noqa: SIM117
        with blocking.open_node(pair.alice, config=ALONE, observers=[explode]) as alice:
            with blocking.open_node(pair.bob, config=seeded(alice.port)), pytest.raises(UsageError, match="is closed"):
                alice.wait_members(3)
            with pytest.raises(UsageError, match="is closed") as found:
                alice.wait_members(3)
            assert isinstance(found.value.__cause__, InternalError)
