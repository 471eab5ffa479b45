"""Transient publications: only the peer at the other end is their author, once, chained to nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from overlay.app.api import TopicItem
from overlay.app.topic_keeper import TopicKeeper
from overlay.core.identity import LocalIdentity
from overlay.core.mesh.chains import hlc_of
from overlay.core.mesh.topics import Author, TopicCheck, sign_publication, topic_log_id
from overlay.errors import Refused
from overlay.net.peer import PeerInfo
from overlay.registry import GENESIS, Reason
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


def publication(member: Member = ALICE, **changes: Any) -> bytes:
    log_id = topic_log_id(MESH.mesh_id, member.node_id, LOG, "news", transient=True)
    fields = {"topic": "news", "log_id": log_id, "seq": HLC, "prev": GENESIS, "hlc": HLC, "body": b"text"} | changes
    return sign_publication(local(member), MESH.mesh_id, **fields)


def info(member: Member) -> PeerInfo:
    return PeerInfo(member.node_id, member.name, (), 0)


@pytest.fixture
def keeper(tmp_path: Path) -> TopicKeeper:
    """Bob's, who knows alice and himself."""
    known = {member.kid: author(member) for member in (ALICE, BOB)}
    own: LocalIdentity = local(BOB)
    check = TopicCheck(MESH.mesh_id, known.get, lambda: MESH.at)
    return TopicKeeper(
        TopicStore.open(tmp_path / "topics.sqlite3"), mesh_id=MESH.mesh_id, identity=lambda: own,
        audit_log_id=lambda: LOG, check=check, calendar=lambda: MESH.at,
    )  # fmt: skip


async def heard(keeper: TopicKeeper, *raws: bytes, sender: Member = ALICE) -> list[bytes]:
    """What a subscriber of "news" hears of these."""
    bodies: list[bytes] = []

    async def listen(items: AsyncIterator[TopicItem]) -> None:
        async for item in items:
            bodies.append(item.body)

    async with keeper.subscribe("news") as items, trio.open_nursery() as nursery:
        nursery.start_soon(listen, items)
        for raw in raws:
            keeper.on_transient(raw, info(sender))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return bodies


async def test_a_transient_publication_is_heard_once(keeper: TopicKeeper) -> None:
    assert await heard(keeper, publication(), publication()) == [b"text"]


async def test_one_of_an_author_whom_nobody_has_shown_us_is_lost(keeper: TopicKeeper) -> None:
    assert await heard(keeper, publication(CAROL), sender=CAROL) == []


async def test_one_of_another_author_than_the_peer_is_refused(keeper: TopicKeeper) -> None:
    with pytest.raises(Refused) as caught:
        keeper.on_transient(publication(), info(CAROL))
    assert caught.value.reason is Reason.WRONG_AUTHOR


async def test_a_chained_one_is_refused(keeper: TopicKeeper) -> None:
    with pytest.raises(Refused) as caught:
        keeper.on_transient(publication(seq=0), info(ALICE))
    assert caught.value.reason is Reason.CHAIN_BROKEN
