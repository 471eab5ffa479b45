"""Whatever comes, in whatever order and however often: the same trust set."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.core.keys import NodeId
from overlay.core.revocation_profile import LogEnd, Mark, RevocationReason, Revocations, serial_bytes
from overlay.core.trust import Quarantine, TrustSet
from tests.unit.core.authority_kit import NOW, make_member, make_mesh, seed
from tests.unit.core.revocation_kit import make_list

MESH = make_mesh()
PEERS = [make_member(MESH, name).peer for name in ("alice", "bob", "carol")]
HASH = bytes(32)

node_ids = st.sampled_from([bytes(peer.node_id) for peer in PEERS])
marks = st.builds(
    lambda hours, more, reason: Mark(NOW - timedelta(hours=hours + more), NOW - timedelta(hours=hours), reason),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(RevocationReason),
)
serials = st.sampled_from([serial_bytes(peer.certificate.serial) for peer in PEERS])
log_ends = st.integers(0, 3).map(lambda size: LogEnd(size, HASH))
revocations = st.builds(
    Revocations,
    nodes=st.dictionaries(node_ids, marks, max_size=2),
    serials=st.dictionaries(serials, marks, max_size=2),
    ends=st.dictionaries(st.tuples(node_ids, st.just(bytes(16))), log_ends, max_size=2),
)
lists = st.builds(lambda what, number: make_list(MESH, what, number=number), revocations, st.integers(1, 4))
quarantines = st.builds(
    lambda node, hours, order: Quarantine(NodeId(node), NOW + timedelta(hours=hours), seed(order)),
    node_ids,
    st.integers(1, 3),
    st.sampled_from("ab"),
)


def moved(trust: TrustSet, *what: bytes | Quarantine) -> TrustSet:
    for one in what:
        trust = trust.with_list(one) if isinstance(one, bytes) else trust.with_quarantine(one)
    return trust


@settings(deadline=None, max_examples=150)
@given(st.lists(lists | quarantines, max_size=6), st.data())
def test_any_order_and_any_repetition_gives_the_same_set_and_hash(what: list[bytes | Quarantine], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(what))
    again = data.draw(st.lists(st.sampled_from(what), max_size=3)) if what else []
    first, second = moved(MESH.trust, *what), moved(MESH.trust, *shuffled, *again)
    assert first == second
    assert (first.hash, first.number, first.numbers_used_twice) == (second.hash, second.number, second.numbers_used_twice)
    assert first.revocations == second.revocations
    assert [first.mark_of(peer) for peer in PEERS] == [second.mark_of(peer) for peer in PEERS]


@settings(deadline=None, max_examples=100)
@given(st.lists(lists, max_size=5), lists)
def test_nothing_that_was_revoked_comes_back(before: list[bytes], one_more: bytes) -> None:
    trust = moved(MESH.trust, *before)
    after = trust.with_list(one_more)
    assert after.revocations.covers(trust.revocations)
    assert after.number >= trust.number
    for peer in PEERS:
        if trust.mark_of(peer) is not None:
            assert after.mark_of(peer) is not None


@settings(deadline=None, max_examples=100)
@given(st.lists(lists, max_size=5), st.lists(lists, max_size=5))
def test_two_nodes_that_give_each_other_the_lists_they_keep_agree(ours: list[bytes], theirs: list[bytes]) -> None:
    first, second = moved(MESH.trust, *ours), moved(MESH.trust, *theirs)
    from_second = moved(first, *(one.der for one in second.lists))
    from_first = moved(second, *(one.der for one in first.lists))
    assert from_second == from_first == moved(MESH.trust, *ours, *theirs)
    assert from_second.hash == from_first.hash
