"""The peer book: bounded, newest first, and read back as it was."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlay.core.keys import NodeId
from overlay.errors import LocalProtocolError, StateDamaged
from overlay.store.peers import ADDRESSES_MAX, PEERS_MAX, PeerBook, load_peers, save_peers
from overlay.store.state import PEERS, StateFolder
from tests.unit.core.authority_kit import HOUR, NOW

ALICE = NodeId(bytes(32))
BOB = NodeId(bytes([1]) * 32)
BOOK = PeerBook().with_peer(ALICE, "alice", [("10.0.0.1", 7000), ("fe80::1%eth0", 7000)], NOW)


def test_a_book_is_read_as_it_was_written(folder: StateFolder) -> None:
    assert load_peers(folder) == PeerBook()
    save_peers(folder, BOOK)
    assert load_peers(folder) == BOOK
    assert load_peers(folder).peers[ALICE].addresses == (("10.0.0.1", 7000), ("fe80::1%eth0", 7000))


def test_the_latest_addresses_come_first_and_are_bounded() -> None:
    book = BOOK.with_peer(ALICE, "alice", [("10.0.0.2", 7000), ("10.0.0.1", 7000)], NOW + HOUR)
    assert book.peers[ALICE].addresses == (("10.0.0.2", 7000), ("10.0.0.1", 7000), ("fe80::1%eth0", 7000))
    assert book.peers[ALICE].last_seen == NOW + HOUR
    for port in range(1, 100):
        book = book.with_peer(ALICE, "alice", [("10.0.0.3", port)], NOW)
    assert len(book.peers[ALICE].addresses) == ADDRESSES_MAX
    assert book.peers[ALICE].addresses[0] == ("10.0.0.3", 99)


def test_a_change_gives_a_new_book() -> None:
    assert set(BOOK.with_peer(BOB, "bob", [], NOW).peers) == {ALICE, BOB}
    assert set(BOOK.peers) == {ALICE}
    assert set(BOOK.without(ALICE).peers) == set()


def test_the_longest_unseen_go_first() -> None:
    full = PeerBook(
        {
            peer.node_id: peer
            for number in range(PEERS_MAX)
            for peer in PeerBook()
            .with_peer(NodeId(number.to_bytes(32, "big")), "n", [], NOW + number * HOUR / 60)
            .peers.values()
        }
    )
    book = full.with_peer(BOB, "bob", [], NOW + 10_000 * HOUR)
    assert len(book.peers) == PEERS_MAX
    assert BOB in book.peers
    assert NodeId(bytes(32)) not in book.peers


def test_a_book_is_written_by_the_holder_of_the_lock_only(folder: StateFolder) -> None:
    with StateFolder.open(folder.path, exclusive=False) as reader, pytest.raises(LocalProtocolError):
        save_peers(reader, BOOK)


KEYS = st.sampled_from(["format", "peers", "name", "addresses", "last_seen"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


def known(**other: object) -> bytes:
    """A book with one peer whose fields in `other` are replaced."""
    peer = {"name": "alice", "addresses": [["10.0.0.1", 7000]], "last_seen": NOW.isoformat()} | other
    return json.dumps({"format": 1, "peers": {str(ALICE): peer}}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        b'{"format": 2, "peers": {}}',
        b'{"format": 1, "peers": []}',
        b'{"format": 1, "peers": {"zz": {}}}',
        known(name="Alice"),
        known(name=7),
        known(addresses=[["10.0.0.1"]]),
        known(addresses=[["10.0.0.1", 0]]),
        known(addresses=[["10.0.0.1", 65_536]]),
        known(addresses=[["10.0.0.1", True]]),
        known(addresses=[[1, 7000]]),
        known(addresses=[["10.0.0.1", 7000]] * 9),
        known(last_seen="yesterday"),
        known(last_seen="2026-03-01T12:00:00"),
        known(last_seen=5),
        json.dumps(
            {"format": 1, "peers": {"a" * 51: {"name": "a", "addresses": [], "last_seen": NOW.isoformat()}}}
        ).encode(),
    ],
)
def test_a_book_of_another_form_is_named_and_left_as_it_is(folder: StateFolder, data: bytes) -> None:
    path = folder.file(PEERS)
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StateDamaged, match=PEERS):
        load_peers(folder)
    assert path.read_bytes() == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON)
def test_any_json_is_a_book_or_damage(folder: StateFolder, value: object) -> None:
    path = folder.file(PEERS)
    path.touch(mode=0o600)
    path.write_text(json.dumps(value))
    try:
        load_peers(folder)
    except StateDamaged:
        return
