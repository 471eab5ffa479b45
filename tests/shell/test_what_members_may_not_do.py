"""A member that lies above the link harms nobody but itself: what ended nodes once must not do so again."""

import json
import secrets
from collections import Counter
from collections.abc import Callable

import pytest
import trio

from audit.bodies import application, read_application
from overlay.app.local import LocalNode
from overlay.app.output import say_json
from overlay.core.admission import pack_goodbye
from overlay.core.frames import Frame, pack
from overlay.core.keys import NodeId
from overlay.core.mesh.chains import SEQ_MAX
from overlay.core.mesh.found import AnnouncementFacts, Candidate
from overlay.core.mesh.reconcile import Reconcile
from overlay.core.mesh.replication_frames import Head, Items, make_heads, make_items, open_items
from overlay.core.mesh.topics import sign_publication, verify_publication
from overlay.core.messages import sign_call
from overlay.core.stream_formats import pack_opening
from overlay.errors import Refused, UsageError
from overlay.events import PeerUp
from overlay.net.link import Link
from overlay.net.request import Request
from overlay.net.stream import Stream
from overlay.registry import GENESIS, ChainKind, FrameType, Reason
from overlay.testing import mesh
from tests.shell.node_kit import fresh_mesh, make_parts, running
from tests.unit.core.mesh.mesh_kit import ToyChains, node

GOODBYE = Frame(FrameType.GOODBYE, body=pack_goodbye(Reason.SHUTDOWN))


async def echo(request: Request) -> bytes:
    return request.body


def signed_call(speaker: LocalNode, link: Link, body: bytes) -> bytes:
    return sign_call(
        speaker.engine.identity, speaker.mesh_id, to=link.peer.node_id, call_id=secrets.token_bytes(16),
        first_h=link.session.first_h, method="echo", deadline=0, body=body,
    )


def say(link: Link, *frames: Frame) -> None:
    """One record with these frames, as no node of ours sends it."""
    link.session._outbox._seal([b"".join(pack(frame) for frame in frames)])
    link.kick()


async def link_between(speaker: LocalNode, hearer: LocalNode) -> Link:
    await speaker.wait_peer(hearer.name)
    await hearer.wait_peer(speaker.name)
    return speaker.engine.pool.links[hearer.node_id]


async def still_works(node: LocalNode, other: LocalNode) -> None:
    with trio.fail_after(20):
        while True:
            peer = await other.wait_peer(node.name)
            try:
                assert await peer.call("echo", b"alive", timeout=5) == b"alive"
            except Exception:  # noqa: BLE001 - the link that mallory ended may still be there
                await trio.sleep(0.05)
            else:
                return


async def test_a_stream_that_is_opened_and_a_link_that_is_ended_by_the_same_bytes() -> None:
    services = {"alice": {"echo": echo}}
    async with mesh("alice", "mallory", services=services) as (alice, mallory):
        link = await link_between(mallory, alice)

        handled: list[Stream] = []

        async def handle(stream: Stream) -> None:
            handled.append(stream)

        alice.engine.parts.streams["echo"] = handle  # type: ignore[index]
        opening = signed_call(mallory, link, pack_opening(b"", signed=False))
        say(link, Frame(FrameType.STREAM_OPEN, stream=link.session.next_stream(), body=opening), GOODBYE)
        await still_works(alice, mallory)
        assert not handled


async def test_a_call_that_comes_twice_and_then_the_end() -> None:
    async with mesh("alice", "mallory", services={"alice": {"echo": echo}}) as (alice, mallory):
        link = await link_between(mallory, alice)
        call = Frame(FrameType.CALL, stream=link.session.next_stream(), body=signed_call(mallory, link, b""))
        say(link, call, call, GOODBYE)
        await still_works(alice, mallory)


async def test_followers_that_leave_while_entries_come() -> None:
    async with mesh("alice", "bob") as (alice, bob):
        await link_between(bob, alice)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, bob)
            for _ in range(200):
                async with alice.audit.follow():
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def write(node: LocalNode) -> None:
    while True:
        await node.audit.append("count", 1)


def test_an_entry_nested_too_deep_is_refused_before_anybody_shows_it() -> None:
    deep = b"[" * 40 + b"]" * 40
    with pytest.raises(Refused, match="too deep"):
        read_application({0: "deep", 1: deep})
    with pytest.raises(UsageError, match="too deep"):
        application("deep", [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]])
    assert read_application(application("flat", {"a": [{"b": [1]}]}))[1] == {"a": [{"b": [1]}]}


async def test_a_publication_with_a_number_that_no_head_can_tell_is_refused() -> None:
    async with mesh("alice") as (alice,):
        own = alice.engine.identity
        log_id = bytes(16)
        raw = sign_publication(
            own, alice.mesh_id, topic="news", log_id=log_id, seq=SEQ_MAX, prev=GENESIS, hlc=1 << 40, body=b""
        )
        with pytest.raises(Refused) as caught:
            verify_publication(raw, mesh_id=alice.mesh_id, author_of=lambda _kid: None)
        assert caught.value.reason is Reason.WRONG_AUTHOR  # the author is asked first
        with pytest.raises(Refused) as caught:
            open_items(ChainKind.TOPIC, make_items(ChainKind.TOPIC, Items(log_id, SEQ_MAX, (raw,))))
        assert caught.value.reason is Reason.MALFORMED


# --- announcements are anybody's ------------------------------------------------------------------------------------------


class Announcer:
    """A finder that says what it is told to say."""

    def __init__(self) -> None:
        self.found: Callable[[Candidate], None] = lambda _one: None
        self.ready = trio.Event()

    async def run(
        self, announcement: AnnouncementFacts, found: Callable[[Candidate], None], *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.found = found
        self.ready.set()
        await trio.sleep_forever()


async def test_who_announces_itself_as_another_node_does_not_keep_that_node_away() -> None:
    lab, announcer = fresh_mesh(), Announcer()
    async with (
        running(make_parts(lab, "bob")) as bob, running(make_parts(lab, "mallory")) as mallory,
        running(make_parts(lab, "alice", finders=(announcer,))) as alice,
    ):
        await announcer.ready.wait()
        name = bob.node.identity.node_id
        announcer.found(Candidate(addresses=(("127.0.0.1", mallory.node.port),), ours=True, source="test", node_id=name))
        await mallory.saw(PeerUp)
        announcer.found(Candidate(addresses=(("127.0.0.1", bob.node.port),), ours=True, source="test", node_id=name))
        await bob.saw(PeerUp)
        with trio.fail_after(10):
            while len(alice.node.peers) < 2:
                await alice.node.wait_peers_change()
        assert {peer.name for peer in alice.node.peers} == {"bob", "mallory"}


# --- logs, and what is read at a terminal ---------------------------------------------------------------------------------


def test_a_peer_that_names_many_logs_and_answers_for_none_is_not_looked_through_again() -> None:
    looked: list[bytes] = []

    class Watched(Reconcile):
        def _source(self, log_id: bytes, owed: Counter[NodeId], now: float) -> NodeId | None:
            looked.append(log_id)
            return super()._source(log_id, owed, now)

    machine = Watched(ChainKind.AUDIT, node("alice"), ToyChains())
    machine.peer_opened(node("mallory"), 0.0)
    heads = {number.to_bytes(16, "big"): Head(node("author"), 5, bytes(32)) for number in range(4000)}
    for body in make_heads(ChainKind.AUDIT, heads):
        machine.receive(node("mallory"), FrameType.HEADS, body, 0.0)
    looked.clear()
    one = {bytes(16): Head(node("author"), 6, bytes(32))}
    for body in make_heads(ChainKind.AUDIT, one):
        machine.receive(node("mallory"), FrameType.HEADS, body, 0.0)
    assert not looked


async def test_a_member_that_comes_and_goes_does_not_fill_our_log() -> None:
    async with mesh("alice", "mallory") as (alice, mallory):
        for _ in range(3):  # links that live shortly are dialled ever more slowly
            link = await link_between(mallory, alice)
            link.close(Reason.SHUTDOWN)
            with trio.fail_after(20):
                while alice.engine.pool.links.get(mallory.node_id) is not None:
                    await alice.wait_peers_change()
                await mallory.wait_peer("alice")
        entries = await alice.audit.read(node="alice")
        assert 1 <= sum(1 for entry in entries if entry.type == "admission") <= 2  # a new minute may have begun


def test_json_for_a_terminal_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "a\u009bb\u202ec\u007fd\U000e0001e \u00e4\U0001f600"}
    say_json(value)
    line = capsys.readouterr().out
    assert json.loads(line) == value
    assert not any(bad in line for bad in ("\u009b", "\u202e", "\u007f", "\U000e0001"))
    assert "\u00e4" in line
