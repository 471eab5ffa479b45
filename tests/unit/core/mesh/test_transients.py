"""Transient publications: what their messages look like, whose they are, and that each can be shown alone."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core.batches import SignedBatch, parse_batch, sign_batch
from overlay.core.limits import PUBLICATION_MAX
from overlay.core.mesh.chains import HLC_SHIFT, hlc_of, hlc_time
from overlay.core.mesh.topics import Author
from overlay.core.mesh.transients import (
    KIND,
    Transients,
    make_transient,
    sorted_by_topic,
    topic_prefix,
    verify_transient,
    verify_transients,
)
from overlay.errors import Refused, UsageError
from overlay.registry import Reason
from tests.unit.core.authority_kit import Member, make_member, make_mesh
from tests.unit.core.session_kit import local

MESH = make_mesh()
ALICE, BOB = make_member(MESH, "alice"), make_member(MESH, "bob")
T0 = hlc_of(MESH.at)
SAID = [("news", b"one"), ("olds", b"two"), ("news", b"three")]


def author(member: Member) -> Author:
    life = member.peer.endorsement
    return Author(
        node_id=member.node_id, name=member.name, message_public=member.message.public_key,
        not_before=life.not_before, not_after=life.not_after, logs=(),
    )  # fmt: skip


AUTHOR = author(ALICE)
LAST = hlc_of(AUTHOR.not_after)


def batch(said: list[tuple[str, bytes]] = SAID, *, hlc: int = T0) -> SignedBatch:
    messages = [make_transient(topic_prefix(topic), body) for topic, body in said]
    return sign_batch(local(ALICE), MESH.mesh_id, kind=KIND, hlc=hlc, messages=messages)


def whole(signed: SignedBatch, known: Author = AUTHOR) -> Transients:
    return verify_transients(parse_batch(signed.encode()), mesh_id=MESH.mesh_id, author=known)


def checks(signed: SignedBatch, known: Author = AUTHOR) -> list[Callable[[], object]]:
    """The whole batch, and its last message alone."""
    last = signed.head.count - 1
    return [
        lambda: whole(signed, known),
        lambda: verify_transient(signed.proof(last), mesh_id=MESH.mesh_id, author_of={ALICE.kid: known}.get),
    ]


def refused(work: Callable[[], object]) -> Reason:
    with pytest.raises(Refused) as caught:
        work()
    return caught.value.reason


def test_a_batch_is_sorted_by_topic() -> None:
    found = whole(batch())
    assert found.topics == {"news": [0, 2], "olds": [1]}
    assert list(found.on("news")) == [(0, MESH.at, b"one"), (2, MESH.at, b"three")]
    assert list(found.on("else")) == []


def test_one_can_be_shown_alone() -> None:
    found = verify_transient(batch().proof(1), mesh_id=MESH.mesh_id, author_of={ALICE.kid: AUTHOR}.get)
    assert (found.author.name, found.topic, found.body, found.at) == ("alice", "olds", b"two", MESH.at)


def test_times_go_on_when_a_millisecond_is_full() -> None:
    found = whole(batch(hlc=T0 + (1 << HLC_SHIFT) - 2))
    assert [at for _, at, _ in found.on("news")] == [MESH.at, MESH.at + timedelta(milliseconds=1)]


def test_one_under_an_endorsement_that_nobody_has_shown_us_is_refused() -> None:
    raw = batch().proof(0)
    assert refused(lambda: verify_transient(raw, mesh_id=MESH.mesh_id, author_of=lambda kid: None)) is Reason.WRONG_AUTHOR


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_said_in_anothers_name_is_refused(which: int) -> None:
    other = replace(AUTHOR, node_id=BOB.node_id)
    assert refused(checks(batch(), other)[which]) is Reason.WRONG_AUTHOR


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("hlc", [
    hlc_of(AUTHOR.not_before - timedelta(minutes=1)), hlc_of(AUTHOR.not_after + timedelta(minutes=1)),
    LAST + (1 << HLC_SHIFT) - 2,  # only the last message is too late
])  # fmt: skip
def test_what_is_said_outside_the_life_of_the_endorsement_is_refused(hlc: int, which: int) -> None:
    assert refused(checks(batch(hlc=hlc))[which]) is Reason.NOT_IN_FORCE


def test_the_last_moment_of_an_endorsement_is_still_its_own() -> None:
    assert hlc_time(LAST) == AUTHOR.not_after
    assert len(whole(batch(hlc=LAST)).topics) == 2


@pytest.mark.parametrize("message", [
    b"", b"\0", b"\0\0", b"\0\0body", b"\0\5news", b"\0\1\n", b"\0\1\xff", b"\0\x81" + b"x" * 129,
])  # fmt: skip
def test_a_message_without_a_proper_topic_is_refused(message: bytes) -> None:
    assert refused(lambda: sorted_by_topic([message])) is Reason.MALFORMED
    good = make_transient(topic_prefix("news"), b"")
    signed = sign_batch(local(ALICE), MESH.mesh_id, kind=KIND, hlc=T0, messages=[good, message])
    for check in checks(signed):
        assert refused(check) is Reason.MALFORMED


@pytest.mark.parametrize("topic", ["", "two\nlines", "x" * 129])
def test_users_hear_at_once_that_a_topic_cannot_have_such_a_name(topic: str) -> None:
    with pytest.raises(UsageError):
        topic_prefix(topic)


def test_a_body_that_is_too_long_is_the_callers_error() -> None:
    longest = make_transient(topic_prefix("x" * 128), bytes(PUBLICATION_MAX))
    sign_batch(local(ALICE), MESH.mesh_id, kind=KIND, hlc=T0, messages=[longest])
    with pytest.raises(UsageError):
        make_transient(topic_prefix("news"), bytes(PUBLICATION_MAX + 1))
