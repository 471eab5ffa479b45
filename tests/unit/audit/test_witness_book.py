"""What is known to be witnessed, who lacks what of it, and which checkpoint is kept."""

from datetime import timedelta

import pytest

from audit.checkpoint import Checkpoint
from audit.judged import Witnessed
from audit.kept import DropCheckpoints, KeptCheckpoint
from audit.notes import parse_note
from audit.quorum import TIMELY_WITHIN, WitnessSet
from audit.witness_book import Known, WitnessBook
from audit.witness_frames import Say, Told
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.core.merkle import Tree
from tests.unit.core.authority_kit import Member, make_member, make_mesh, seed

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
NODES = [make_member(MESH, name, witness=True) for name in ("bob", "carol", "dave")]
SET = WitnessSet(tuple(sorted(node.node_id for node in NODES)))
PEER, OTHER = NodeId(b"\1" * 32), NodeId(b"\2" * 32)
LOG = bytes(16)
NOW = int(MESH.at.timestamp())
GRACE = TIMELY_WITHIN.total_seconds()


def known(size: int, *witnesses: Member, at: int = NOW, log_id: bytes = LOG) -> Known:
    tree = Tree().extend(seed("leaf", str(number)) for number in range(size))
    one = Checkpoint(mesh_id=MESH.mesh_id, node_id=ALICE.node_id, log_id=log_id, size=size, root=tree.root)
    lines = {}
    for node in witnesses:
        assert isinstance(node.witness, Ed25519Signer)
        lines[node.node_id] = one.cosign(node.node_id, node.witness, at)
    note = one.sign(ALICE.message).with_signatures(*lines.values())
    judged = Witnessed(checkpoint=one, witnesses=SET, lines=lines)
    return Known(KeptCheckpoint(checkpoint=one, tree=tree, note=note), judged)


def learnt(*all_known: Known) -> WitnessBook:
    book = WitnessBook()
    for one in all_known:
        book.learn(one)
    return book


def told(messages: list[bytes]) -> tuple[list[int], dict[bytes, int]]:
    """Sizes of the notes, and the rows."""
    found = [Told.unpack(body) for body in messages]
    assert all(one.say is Say.NEWS for one in found)
    notes = [int(parse_note(note).text.split("\n")[1]) for one in found for note in one.notes]
    return notes, {log_id: size for one in found for log_id, size in one.sizes.items()}


def test_the_largest_witnessed_one_is_remembered_from_the_start() -> None:
    book = WitnessBook([known(3, *NODES[:2]), known(9, NODES[0]), known(5, *NODES), known(4, *NODES)])
    assert (book.size(LOG), book.size(bytes([1]) * 16)) == (5, 0)


def test_news_reach_further_or_have_more_lines() -> None:
    book = learnt(known(5, *NODES[:2]))
    assert book.is_news(known(6, *NODES[:2]))
    assert book.is_news(known(5, *NODES))
    for one in (known(5, *NODES[1:]), known(4, *NODES), known(9, NODES[0])):
        assert not book.is_news(one)
    assert WitnessBook().is_news(known(1, *NODES[:2]))


def test_lines_of_one_checkpoint_come_together() -> None:
    book = learnt(known(5, *NODES[:2]))
    one = book.merged(known(5, *NODES[1:]))
    assert set(one.judged.lines) == {node.node_id for node in NODES}
    assert len(one.kept.note.signatures) == 4
    assert book.is_news(one)
    later = known(6, *NODES[1:])
    assert book.merged(later) is later
    assert WitnessBook().merged(later) is later


@pytest.mark.parametrize(("end", "kept"), [
    (NOW - GRACE - 1, False), (NOW - GRACE, True), (NOW - GRACE + 99, True), (NOW - GRACE + 100, False), (NOW + 9999, False),
])  # fmt: skip
def test_an_older_one_is_kept_where_it_alone_shows_that_entries_were_in_time(end: float, *, kept: bool) -> None:
    book = learnt(known(5, *NODES))
    new = known(6, *NODES, at=NOW + 100)
    dropped = [one for one in book.records(new, [end]) if isinstance(one, DropCheckpoints)]
    assert dropped == ([] if kept else [DropCheckpoints((known(5, *NODES).kept.key,))])
    assert book.records(new, [end])[0] == new.kept


def test_the_same_one_is_not_dropped_for_itself() -> None:
    assert learnt(known(5, *NODES[:2])).records(known(5, *NODES), []) == [known(5, *NODES).kept]


def test_peers_tell_sizes_and_who_has_more_sends_the_note() -> None:
    ours, theirs = learnt(known(5, *NODES)), WitnessBook()
    for book in (ours, theirs):
        book.peer_opened(PEER)
    (sizes,) = ours.tell(PEER)
    assert told([sizes]) == ([], {LOG: 5})
    assert ours.tell(PEER) == []
    (wanted,) = theirs.heard(PEER, Told.unpack(sizes).sizes)
    assert told([wanted]) == ([], {LOG: 0})
    assert told(ours.heard(PEER, Told.unpack(wanted).sizes)) == ([5], {})
    assert ours.heard(PEER, {LOG: 0}) == []  # it was sent
    assert told(ours.tell(PEER, again=True)) == ([], {LOG: 5})


def test_what_a_peer_has_is_not_sent_to_it() -> None:
    book = learnt(known(5, *NODES), known(7, *NODES, log_id=bytes([1]) * 16))
    book.peer_opened(PEER)
    assert book.heard(PEER, {LOG: 5}) == []
    assert told(book.heard(PEER, {bytes([1]) * 16: 6})) == ([7], {})


def test_who_is_not_linked_is_told_nothing() -> None:
    book = learnt(known(5, *NODES))
    book.peer_opened(PEER)
    book.peer_closed(PEER)
    for peer in (PEER, OTHER):
        assert book.tell(peer) == book.heard(peer, {LOG: 0}) == []
    assert timedelta(seconds=GRACE) == TIMELY_WITHIN
