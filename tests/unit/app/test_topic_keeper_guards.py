"""Transient publications: only the peer at the other end is their author, once; and what a subscriber can show to others."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.api import TopicItem
from overlay.app.topic_keeper import BATCHES_SEEN, PREFIXES_KEPT, TopicKeeper
from overlay.core.batches import sign_batch
from overlay.core.identity import LocalIdentity
from overlay.core.mesh.chains import hlc_of
from overlay.core.mesh.topics import Author, TopicCheck, verify_publication
from overlay.core.mesh.transients import KIND, make_transient, topic_prefix, verify_transient
from overlay.errors import Refused
from overlay.net.request import PeerInfo
from overlay.registry import Reason
from overlay.store.topics import TopicStore
from tests.unit.core.authority_kit import Member, make_member, make_mesh
from tests.unit.core.session_kit import local

MESH = make_mesh()
ALICE, BOB, CAROL = (make_member(MESH, name) for name in ("alice", "bob", "carol"))
LOG = b"alice's audit id"
HLC = hlc_of(MESH.at)


def author(member: Member) -> Author:
    life = member.peer.endorsement
    return Author(
        node_id=member.node_id, name=member.name, message_public=member.message.public_key,
        not_before=life.not_before, not_after=life.not_after, logs=(LOG,),
    )  # fmt: skip


KNOWN = {member.kid: author(member) for member in (ALICE, BOB)}


def batch(*bodies: bytes, member: Member = ALICE, hlc: int = HLC, topic: str = "news") -> bytes:
    messages = [make_transient(topic_prefix(topic), body) for body in bodies or (b"text",)]
    return sign_batch(local(member), MESH.mesh_id, kind=KIND, hlc=hlc, messages=messages).encode()


def info(member: Member) -> PeerInfo:
    return PeerInfo(member.node_id, member.name, (), 0)


@pytest.fixture
def keeper(tmp_path: Path) -> TopicKeeper:
    """Bob's, who knows alice and himself."""
    own: LocalIdentity = local(BOB)
    check = TopicCheck(MESH.mesh_id, KNOWN.get, lambda: MESH.at)
    return TopicKeeper(
        TopicStore.open(tmp_path / "topics.sqlite3"), mesh_id=MESH.mesh_id, identity=lambda: own,
        audit_log_id=lambda: LOG, check=check, calendar=lambda: MESH.at,
    )  # fmt: skip


async def items_of(keeper: TopicKeeper, *raws: bytes, sender: Member = ALICE) -> list[TopicItem]:
    """What a subscriber of "news" hears of these."""
    found: list[TopicItem] = []

    async def listen(items: AsyncIterator[TopicItem]) -> None:
        async for item in items:
            found.append(item)

    async with keeper.subscribe("news") as items, trio.open_nursery() as nursery:
        nursery.start_soon(listen, items)
        for raw in raws:
            keeper.on_transient_batch(raw, info(sender))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return found


async def heard(keeper: TopicKeeper, *raws: bytes, sender: Member = ALICE) -> list[bytes]:
    return [item.body for item in await items_of(keeper, *raws, sender=sender)]


async def test_a_batch_is_heard_once_and_in_its_order(keeper: TopicKeeper) -> None:
    assert await heard(keeper, batch(b"one", b"two"), batch(b"one", b"two")) == [b"one", b"two"]


async def test_the_same_words_at_another_time_are_heard_again(keeper: TopicKeeper) -> None:
    assert await heard(keeper, batch(), batch(hlc=HLC + 1)) == [b"text", b"text"]


async def test_batches_are_remembered_for_a_while(keeper: TopicKeeper) -> None:
    raws = [batch(b"%d" % number, hlc=HLC + number) for number in range(BATCHES_SEEN + 1)]
    assert len(await heard(keeper, *raws, raws[1], raws[0])) == BATCHES_SEEN + 2


async def test_one_topic_of_a_batch_does_not_hear_another(keeper: TopicKeeper) -> None:
    assert await heard(keeper, batch(topic="olds"), batch(b"more")) == [b"more"]


async def test_one_of_an_author_whom_nobody_has_shown_us_is_lost(keeper: TopicKeeper) -> None:
    assert await heard(keeper, batch(member=CAROL), sender=CAROL) == []


async def test_one_of_another_author_than_the_peer_is_refused(keeper: TopicKeeper) -> None:
    with pytest.raises(Refused) as caught:
        keeper.on_transient_batch(batch(), info(CAROL))
    assert caught.value.reason is Reason.WRONG_AUTHOR


async def test_a_batch_that_was_changed_on_the_way_is_refused(keeper: TopicKeeper) -> None:
    with pytest.raises(Refused) as caught:
        keeper.on_transient_batch(batch(b"text").replace(b"text", b"test"), info(ALICE))
    assert caught.value.reason is Reason.CHAIN_BROKEN


async def test_what_was_heard_can_be_shown_to_others_alone(keeper: TopicKeeper) -> None:
    found = await items_of(keeper, batch(b"one", b"two", b"three"))
    shown = [verify_transient(item.proof(), mesh_id=MESH.mesh_id, author_of=KNOWN.get) for item in found]
    assert [(one.author.name, one.topic, one.body) for one in shown] == [
        ("alice", "news", body) for body in (b"one", b"two", b"three")
    ]
    assert [one.at for one in shown] == [item.at for item in found]


async def test_what_is_kept_can_be_shown_to_others_too(keeper: TopicKeeper) -> None:
    await keeper.publish("news", b"kept")
    (item,) = await items_of(keeper)
    assert verify_publication(item.proof(), mesh_id=MESH.mesh_id, author_of=KNOWN.get).body == b"kept"


async def test_our_own_are_heard_here_too_and_can_be_shown(keeper: TopicKeeper, nursery: trio.Nursery) -> None:
    nursery.start_soon(keeper.run)
    async with keeper.subscribe("news") as items:
        for topic in ("news", "olds", "news"):
            assert (await keeper.publish_transient(topic, topic.encode())).peers == 0
        for item in [await anext(items), await anext(items)]:
            shown = verify_transient(item.proof(), mesh_id=MESH.mesh_id, author_of=KNOWN.get)
            assert (item.body, item.author.name, shown.body, shown.author.name) == (b"news", "bob", b"news", "bob")


async def test_names_of_topics_are_remembered_up_to_a_bound(keeper: TopicKeeper, nursery: trio.Nursery) -> None:
    nursery.start_soon(keeper.run)
    async with keeper.subscribe("0") as items:
        for number in (*range(PREFIXES_KEPT + 1), 0):
            await keeper.publish_transient(str(number), b"%d" % number)
        assert [(await anext(items)).body for _ in range(2)] == [b"0", b"0"]
