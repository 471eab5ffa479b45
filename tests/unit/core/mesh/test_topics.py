"""Publications: each check once with the one that breaks it, and what a chain does with gaps, waiting and two histories."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.identity import LocalIdentity
from overlay.core.limits import PUBLICATION_MAX, TOPIC_MAX
from overlay.core.mesh.chains import hlc_of, hlc_time, item_hash, next_hlc
from overlay.core.mesh.topics import (
    Author,
    TopicCheck,
    TopicState,
    check_topic,
    sign_publication,
    topic_log_id,
    verify_publication,
)
from overlay.core.wire import make_map, sign1
from overlay.errors import Refused, UsageError
from overlay.registry import GENESIS, Label, Reason
from tests.unit.core.authority_kit import Member, make_member, make_mesh

MESH = make_mesh()
ALICE, BOB = make_member(MESH, "alice"), make_member(MESH, "bob")
AUDIT_LOG = b"alice's audit id"
NEWS = topic_log_id(MESH.mesh_id, ALICE.node_id, AUDIT_LOG, "news")
T0 = hlc_of(MESH.at)
MINUTE = timedelta(minutes=1)


def local(member: Member) -> LocalIdentity:
    return LocalIdentity(
        credentials=member.credentials, verified=member.peer, static=member.noise, message=member.message
    )


def author(member: Member, *logs: bytes) -> Author:
    life = member.peer.endorsement
    return Author(
        node_id=member.node_id, name=member.name, message_public=member.message.public_key,
        not_before=life.not_before, not_after=life.not_after, logs=logs,
    )  # fmt: skip


AUTHORS = {ALICE.kid: author(ALICE, AUDIT_LOG), BOB.kid: author(BOB, b"bobs' audit logs")}


def publish(member: Member = ALICE, **fields: Any) -> bytes:
    """A publication, number 0 on "news" unless said."""
    values: dict[str, Any] = {"topic": "news", "log_id": NEWS, "seq": 0, "prev": GENESIS, "hlc": T0, "body": b"text"}
    return sign_publication(local(member), fields.pop("mesh_id", MESH.mesh_id), **values | fields)


def chain(length: int, member: Member = ALICE) -> list[bytes]:
    """The first items of alice's chain on "news", a millisecond apart."""
    raws: list[bytes] = []
    for seq in range(length):
        prev = item_hash(raws[-1]) if raws else GENESIS
        raws.append(publish(member, seq=seq, prev=prev, hlc=T0 + (seq << 16), body=b"%d" % seq))
    return raws


def verify(raw: bytes) -> Any:
    return verify_publication(raw, mesh_id=MESH.mesh_id, author_of=AUTHORS.get)


def refused(work: Callable[[], object]) -> Reason:
    with pytest.raises(Refused) as caught:
        work()
    return caught.value.reason


@pytest.fixture
def check() -> TopicCheck:
    return TopicCheck(MESH.mesh_id, AUTHORS.get, lambda: MESH.at)


def take(check: TopicCheck, start: int, raws: list[bytes]) -> None:
    assert check.check(NEWS, ALICE.node_id, start, raws) == len(raws)
    state, _ = check.extend(NEWS, ALICE.node_id, start, raws)
    check.commit(NEWS, state)


# --- one publication --------------------------------------------------------------------------------------------------


def test_a_publication_says_what_its_author_said() -> None:
    one = verify(publish(body=b"stop press"))
    assert (one.author.name, one.topic, one.seq, one.body, one.at) == ("alice", "news", 0, b"stop press", MESH.at)


def test_an_endorsement_that_nobody_has_shown_us_is_refused() -> None:
    assert refused(lambda: verify(publish(make_member(MESH, "carol")))) is Reason.WRONG_AUTHOR


def test_the_signature_of_another_key_is_refused() -> None:
    payload = make_map(ALICE.node_id, "news", NEWS, 0, GENESIS, T0, b"")
    raw = sign1(payload, signer=BOB.message, aad=Label.PUBLISH + MESH.mesh_id, kid=ALICE.kid)
    assert refused(lambda: verify(raw)) is Reason.BAD_SIGNATURE


def test_a_publication_of_another_mesh_is_refused() -> None:
    assert refused(lambda: verify(publish(mesh_id=make_mesh("other").mesh_id))) is Reason.BAD_SIGNATURE


def test_a_message_of_another_kind_is_refused() -> None:
    payload = make_map(ALICE.node_id, "news", NEWS, 0, GENESIS, T0, b"")
    raw = sign1(payload, signer=ALICE.message, aad=Label.CALL + MESH.mesh_id, kid=ALICE.kid)
    assert refused(lambda: verify(raw)) is Reason.BAD_SIGNATURE


def test_a_publication_in_anothers_name_is_refused() -> None:
    payload = make_map(BOB.node_id, "news", NEWS, 0, GENESIS, T0, b"")
    raw = sign1(payload, signer=ALICE.message, aad=Label.PUBLISH + MESH.mesh_id, kid=ALICE.kid)
    assert refused(lambda: verify(raw)) is Reason.WRONG_AUTHOR


@pytest.mark.parametrize("at", [
    ALICE.peer.endorsement.not_before - MINUTE, ALICE.peer.endorsement.not_after + MINUTE,
])  # fmt: skip
def test_a_publication_outside_the_life_of_its_endorsement_is_refused(at: Any) -> None:
    assert refused(lambda: verify(publish(hlc=hlc_of(at)))) is Reason.NOT_IN_FORCE


@pytest.mark.parametrize("topic", ["", "two\nlines", "x" * 129])
def test_a_topic_without_a_proper_name_is_refused(topic: str) -> None:
    payload = make_map(ALICE.node_id, topic, NEWS, 0, GENESIS, T0, b"")
    raw = sign1(payload, signer=ALICE.message, aad=Label.PUBLISH + MESH.mesh_id, kid=ALICE.kid)
    assert refused(lambda: verify(raw)) is Reason.MALFORMED


@pytest.mark.parametrize("topic", ["", "two\nlines", "x" * (TOPIC_MAX + 1), "é" * TOPIC_MAX, "\ud800"])
def test_users_hear_at_once_that_a_topic_cannot_have_such_a_name(topic: str) -> None:
    with pytest.raises(UsageError):
        check_topic(topic)


def test_a_body_that_is_too_long_is_not_signed() -> None:
    assert len(publish(body=bytes(PUBLICATION_MAX))) <= 60 * 1024
    with pytest.raises(UsageError):
        publish(body=bytes(PUBLICATION_MAX + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    check = TopicCheck(MESH.mesh_id, AUTHORS.get, lambda: MESH.at)
    for raw in (data, b"\xd2" + data):
        refused(partial(verify, raw))
        refused(partial(check.check, NEWS, ALICE.node_id, 0, [raw]))
    assert check.states == {}


@given(st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    raw = bytearray(publish())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    refused(lambda: verify(bytes(raw)))


# --- chains -----------------------------------------------------------------------------------------------------------


def test_a_chain_grows_from_where_it_stands(check: TopicCheck) -> None:
    raws = chain(5)
    take(check, 0, raws[:2])
    take(check, 2, raws[2:])
    assert check.states[NEWS] == TopicState(ALICE.node_id, "news", 5, item_hash(raws[-1]), T0 + (4 << 16))


def test_a_check_moves_nothing(check: TopicCheck) -> None:
    assert check.check(NEWS, ALICE.node_id, 0, chain(2)) == 2
    assert check.states == {}


def test_the_number_of_an_item_can_be_read_back(check: TopicCheck) -> None:
    assert [check.number_of(raw) for raw in chain(3)] == [0, 1, 2]


def test_an_item_left_out_is_missed(check: TopicCheck) -> None:
    first, _, third = chain(3)
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 0, [first, third])) is Reason.CHAIN_BROKEN


def test_an_item_that_comes_again_is_refused(check: TopicCheck) -> None:
    raws = chain(2)
    take(check, 0, raws)
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 1, raws[1:])) is Reason.CHAIN_BROKEN


def test_a_number_that_is_not_its_place_is_refused(check: TopicCheck) -> None:
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 0, [publish(seq=1)])) is Reason.CHAIN_BROKEN


def test_the_first_of_all_follows_nothing(check: TopicCheck) -> None:
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 0, [publish(prev=b"\1" * 32)])) is Reason.CHAIN_BROKEN


def test_an_item_that_follows_another_within_what_came_is_refused(check: TopicCheck) -> None:
    raws = [*chain(1), publish(seq=1, prev=b"\1" * 32, hlc=T0 + 1)]
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 0, raws)) is Reason.CHAIN_BROKEN


def test_an_item_that_follows_another_than_our_last_is_another_history(check: TopicCheck) -> None:
    take(check, 0, chain(1))
    other = publish(seq=1, prev=b"\1" * 32, hlc=T0 + 1)
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 1, [other])) is Reason.FORKED


def test_time_that_does_not_rise_is_refused(check: TopicCheck) -> None:
    (first,) = chain(1)
    second = publish(seq=1, prev=item_hash(first), hlc=T0)
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 0, [first, second])) is Reason.CHAIN_BROKEN


def test_an_item_of_another_topic_is_refused(check: TopicCheck) -> None:
    (first,) = chain(1)
    second = publish(topic="olds", seq=1, prev=item_hash(first), hlc=T0 + 1)
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 0, [first, second])) is Reason.WRONG_AUTHOR


def test_an_item_of_another_chain_is_refused(check: TopicCheck) -> None:
    assert refused(lambda: check.check(bytes(16), ALICE.node_id, 0, chain(1))) is Reason.WRONG_AUTHOR


def test_an_item_of_another_author_is_refused(check: TopicCheck) -> None:
    assert refused(lambda: check.check(NEWS, BOB.node_id, 0, chain(1))) is Reason.WRONG_AUTHOR
    take(check, 0, chain(1))
    second = publish(BOB, seq=1, prev=item_hash(chain(1)[0]), hlc=T0 + 1)
    assert refused(lambda: check.check(NEWS, BOB.node_id, 1, [second])) is Reason.WRONG_AUTHOR


def test_nothing_is_no_chain(check: TopicCheck) -> None:
    assert refused(lambda: check.extend(NEWS, ALICE.node_id, 0, [])) is Reason.MALFORMED


# --- what has to wait -------------------------------------------------------------------------------------------------


def test_items_of_an_author_whom_we_do_not_know_yet_wait(check: TopicCheck) -> None:
    later = make_member(MESH, "alice", start=2)
    first = chain(1)
    second = publish(later, seq=1, prev=item_hash(first[0]), hlc=T0 + 1)
    assert check.check(NEWS, ALICE.node_id, 0, [second]) == 0
    assert check.check(NEWS, ALICE.node_id, 0, [*first, second]) == 1


@pytest.mark.parametrize("logs", [(), (b"another audit id",)])
def test_a_chain_waits_until_we_know_the_audit_log_that_names_it(logs: tuple[bytes, ...]) -> None:
    known = {ALICE.kid: author(ALICE, *logs)}
    check = TopicCheck(MESH.mesh_id, known.get, lambda: MESH.at)
    assert check.check(NEWS, ALICE.node_id, 0, chain(2)) == 0
    known[ALICE.kid] = author(ALICE, *logs, AUDIT_LOG)
    assert check.check(NEWS, ALICE.node_id, 0, chain(2)) == 2


def test_items_ahead_of_our_clock_wait() -> None:
    raws = chain(3)
    at = hlc_time(T0 + (1 << 16)) - timedelta(minutes=5)
    check = TopicCheck(MESH.mesh_id, AUTHORS.get, lambda: at)
    assert check.check(NEWS, ALICE.node_id, 0, raws) == 2


# --- chains that have lost their start --------------------------------------------------------------------------------


def test_a_chain_may_begin_later_and_goes_on_from_there(check: TopicCheck) -> None:
    raws = chain(6)
    take(check, 3, raws[3:5])
    take(check, 5, raws[5:])
    assert check.states[NEWS].size == 6


def test_what_was_missed_for_good_is_left_out(check: TopicCheck) -> None:
    raws = chain(6)
    take(check, 0, raws[:2])
    take(check, 4, raws[4:])
    assert check.states[NEWS].head == item_hash(raws[-1])


def test_after_a_gap_the_chain_still_has_to_fit(check: TopicCheck) -> None:
    raws = chain(6)
    take(check, 0, raws[:2])
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 4, [raws[5]])) is Reason.CHAIN_BROKEN


def test_a_time_that_does_not_rise_after_a_gap_is_its_authors_fault(check: TopicCheck) -> None:
    take(check, 0, chain(6)[:2])
    assert refused(lambda: check.check(NEWS, ALICE.node_id, 4, [publish(seq=4, hlc=T0)])) is Reason.FORKED


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_time_rises_even_when_the_clock_does_not() -> None:
    first = next_hlc(0, MESH.at)
    assert first == T0
    assert next_hlc(first, MESH.at) == first + 1
    assert next_hlc(first, MESH.at - MINUTE) == first + 1
    assert next_hlc(first, MESH.at + MINUTE) == hlc_of(MESH.at + MINUTE)
    assert hlc_time(first + 65_535) == MESH.at
