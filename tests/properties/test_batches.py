"""Signed batches: of any number of messages, whatever is changed is refused, and each message stands alone and nothing else."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.batches import SignedBatch, parse_batch, parse_proof, sign_batch
from overlay.core.mesh.transients import KIND, make_transient, sorted_by_topic, topic_prefix
from overlay.core.wire import make_map
from overlay.errors import Refused
from tests.unit.core.authority_kit import make_member, make_mesh
from tests.unit.core.session_kit import local

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
OWN = local(ALICE)
KEY = ALICE.message.public_key


def batch(messages: list[bytes]) -> SignedBatch:
    return sign_batch(OWN, MESH.mesh_id, kind=KIND, hlc=7, messages=messages)


def verify(raw: bytes) -> list[bytes]:
    return list(parse_batch(raw).verify(KEY, mesh_id=MESH.mesh_id, kind=KIND).messages)


def prove(raw: bytes) -> tuple[int, bytes]:
    found = parse_proof(raw).verify(KEY, mesh_id=MESH.mesh_id, kind=KIND)
    return found.index, found.message


GENUINE = batch([b"%d" % number for number in range(13)])
messages_of = st.lists(st.binary(max_size=40), min_size=1, max_size=40)


@pytest.mark.parametrize("count", range(1, 258))
def test_batches_of_every_size_hold_and_so_does_each_message_alone(count: int) -> None:
    messages = [b"message %d" % number for number in range(count)]
    found = parse_batch(batch(messages).encode()).verify(KEY, mesh_id=MESH.mesh_id, kind=KIND)
    assert found.messages == messages
    assert [prove(found.proof(index)) for index in {0, count // 2, count - 1}] == [
        (index, messages[index]) for index in {0, count // 2, count - 1}
    ]


@given(messages_of)
def test_what_was_said_comes_out(messages: list[bytes]) -> None:
    signed = batch(messages)
    assert verify(signed.encode()) == messages
    assert [prove(signed.proof(index)) for index in range(len(messages))] == list(enumerate(messages))


@given(st.data())
@settings(max_examples=300)
def test_a_changed_byte_anywhere_is_refused(data: st.DataObject) -> None:
    raw = bytearray(GENUINE.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Refused):
        verify(bytes(raw))


@given(st.data())
@settings(max_examples=300)
def test_a_changed_byte_in_a_proof_is_refused(data: st.DataObject) -> None:
    raw = bytearray(GENUINE.proof(data.draw(st.integers(0, 12))))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Refused):
        prove(bytes(raw))


@given(st.permutations(GENUINE.messages) | messages_of)
def test_other_messages_under_the_same_head_are_refused(messages: list[bytes]) -> None:
    if messages != GENUINE.messages:
        with pytest.raises(Refused):
            verify(make_map(GENUINE.head.raw, messages))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_a_proof_shows_its_own_message_at_its_own_place_and_nothing_else(path: int, place: int, message: int) -> None:
    raw = make_map(GENUINE.head.raw, place, parse_proof(GENUINE.proof(path)).path, GENUINE.messages[message])
    if path == place == message:
        assert prove(raw) == (place, GENUINE.messages[place])
    else:
        with pytest.raises(Refused):
            prove(raw)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (parse_batch, parse_proof):
        with suppress(Refused):
            parse(data)
        with suppress(Refused):
            parse(make_map(data or b"\0", [data]))


topics = st.text("ab ", min_size=1, max_size=3)


@given(st.lists(st.tuples(topics, st.binary(max_size=5)), max_size=20))
def test_messages_are_found_under_their_topics_and_in_order(said: list[tuple[str, bytes]]) -> None:
    wanted: dict[str, list[int]] = {}
    for index, (topic, _) in enumerate(said):
        wanted.setdefault(topic, []).append(index)
    assert sorted_by_topic(make_transient(topic_prefix(topic), body) for topic, body in said) == wanted


@given(st.lists(st.binary(max_size=6), max_size=4))
def test_any_messages_are_sorted_or_refused(messages: list[bytes]) -> None:
    with suppress(Refused):
        found = sorted_by_topic(messages)
        assert all(messages[index].startswith(topic_prefix(topic)) for topic in found for index in found[topic])
