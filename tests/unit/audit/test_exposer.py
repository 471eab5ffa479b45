"""From two copies of a log to a proof: who is exposed, who only suspected, and who has lied."""

from datetime import datetime, timedelta

import pytest

from audit.exposer import SEARCHES_WAITING, Compare, Exposed, Exposer, ExposerEvent, Misbehaved, Suspected
from audit.fork_sides import Side
from audit.forks import make_fork, parse_fork
from overlay.core.keys import NodeId
from overlay.core.trust import Credentials
from overlay.registry import EntryType, ForkKind, Reason
from tests.unit.audit.audit_kit import Writer, some_log
from tests.unit.audit.fork_kit import Forker, another_start, entry_side, head_side
from tests.unit.core.authority_kit import DAY, Member, make_member, make_mesh

MESH = make_mesh()
BOB, CAROL = NodeId(b"b" * 32), NodeId(b"c" * 32)
SHOWN_MAX = 54  # one, and a search among at most 2^53


class Ours:
    """An exposer with the left copy; peers show the right one."""

    def __init__(self, forker: Forker, *members: Member) -> None:
        self.forker = forker
        self.at = forker.mesh.at
        self.known = {member.kid: member.credentials for member in (forker.member, *members)}
        self.machine = Exposer(forker.mesh.root, self._at, self._credentials_of)
        self.compared = 0

    def _at(self) -> datetime:
        return self.at

    def _credentials_of(self, kid: bytes) -> Credentials | None:
        return self.known.get(kid)

    def differ(self, peer: NodeId = BOB, *, agreed: int = 0, size: int | None = None) -> list[ExposerEvent]:
        log = self.forker.left
        size = min(len(log.entries), len(self.forker.right.entries)) if size is None else size
        return self.machine.histories_differ(peer, log.member.node_id, log.log_id, agreed=agreed, size=size)

    def search(self, right: Writer | None = None, peer: NodeId = BOB, **known: int) -> list[ExposerEvent]:
        """All that comes of a search in which the peer shows what it has."""
        events = self.differ(peer, **known)
        theirs = (right or self.forker.right).entries
        while events and isinstance(events[-1], Compare):
            at = events[-1].index
            self.compared += 1
            ours = self.forker.left.entries[at].raw
            events = events[:-1] + self.machine.compared(peer, self.forker.left.log_id, at, ours, theirs[at].raw)
        return events


def test_the_last_entries_of_two_copies_prove_a_fork() -> None:
    ours = Ours(Forker.after(3, 5, 5, mesh=MESH))
    (found,) = ours.search()
    assert isinstance(found, Exposed)
    assert (found.proof.node_id, found.sender) == (ours.forker.member.node_id, None)
    assert parse_fork(found.proof.raw).verify(MESH.root, MESH.at).kind is ForkKind.ENTRIES
    assert ours.compared == 1
    assert set(ours.machine.exposed) == {ours.forker.member.node_id}
    assert ours.differ() == []


def test_where_the_other_copy_has_keys_of_its_own_the_first_entry_that_differs_is_found() -> None:
    """A folder that was put back writes under another endorsement, which its first entry carries."""
    forker = Forker.after(40, 30, 0, mesh=MESH)
    forker.right.change_to(another_start(MESH))
    for number in range(20):
        forker.right.note(f"right {number}")
    ours = Ours(forker)
    (found,) = ours.search()
    assert isinstance(found, Exposed)
    assert parse_fork(found.proof.raw).first.entry is not None
    assert found.proof.detail.startswith("two entries number 40")
    assert ours.compared < 10


def test_what_was_agreed_is_not_looked_at_again() -> None:
    forker = Forker.after(30, 30, 0, mesh=MESH)
    forker.right.change_to(another_start(MESH))
    forker.right.note()
    ours = Ours(forker)
    assert isinstance(ours.search(agreed=30)[0], Exposed)
    assert ours.compared == 2


def test_a_peer_that_shows_nothing_makes_a_node_suspected_and_nobody_exposed() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    eve = ours.forker.member.node_id
    (compare,) = ours.differ()
    assert isinstance(compare, Compare)
    left = ours.forker.left
    found = ours.machine.compared(BOB, left.log_id, compare.index, left.entries[compare.index].raw, None)
    assert found == [Suspected(eve, BOB, "nobody shows where the two copies part")]
    assert (dict(ours.machine.exposed), set(ours.machine.suspected)) == ({}, {eve})
    assert isinstance(ours.search(peer=CAROL)[0], Exposed)
    assert ours.machine.suspected == {}


def test_a_peer_that_shows_our_own_entries_has_lied() -> None:
    ours = Ours(Forker.after(20, mesh=MESH))
    assert [type(one) for one in ours.search(ours.forker.left)] == [Misbehaved]
    assert ours.compared <= SHOWN_MAX
    assert ours.machine.suspected == {}


@pytest.mark.parametrize("lie", ["forged", "elsewhere", "garbage"])
def test_a_peer_that_shows_what_the_author_has_not_signed_has_lied(lie: str) -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    left, (compare,) = ours.forker.left, ours.differ()
    assert isinstance(compare, Compare)
    body = {0: "x", 1: b"1"}
    bob = some_log(1, name="bob", mesh=MESH).member
    shown = {
        "forged": left.sign(EntryType.APPLICATION, body, seq=compare.index, signer=bob.message).raw,
        "elsewhere": left.sign(EntryType.APPLICATION, body, seq=compare.index + 1).raw,
        "garbage": b"\xff",
    }[lie]
    (found,) = ours.machine.compared(BOB, left.log_id, compare.index, left.entries[compare.index].raw, shown)
    reasons = {"forged": Reason.BAD_SIGNATURE, "elsewhere": Reason.WRONG_AUTHOR, "garbage": Reason.MALFORMED}
    assert isinstance(found, Misbehaved)
    assert (found.peer, found.reason) == (BOB, reasons[lie])
    assert not ours.machine.exposed


def test_copies_under_keys_that_have_ended_prove_nothing_and_are_nobodys_fault() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    ours.at += 2 * DAY
    assert [type(one) for one in ours.search()] == [Suspected]


def test_our_own_copy_under_keys_that_have_ended_proves_nothing() -> None:
    """The other one is in force: neither is evidence then."""
    short = make_member(MESH, "eve", start=5, endorsement_life=timedelta(hours=1))
    forker = Forker.after(3, 0, 0, mesh=MESH)
    forker.left.change_to(short)
    forker.right.change_to(another_start(MESH))
    ours = Ours(forker, short)
    ours.at += timedelta(hours=2)
    assert [type(one) for one in ours.search()] == [Suspected]


def test_a_search_among_as_many_entries_as_a_log_may_have_ends() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    (compare,), count = ours.differ(size=2**53), 0
    same = ours.forker.left.entries[0].raw
    while isinstance(compare, Compare):
        (compare,) = ours.machine.compared(BOB, ours.forker.left.log_id, compare.index, same, same)
        count += 1
    assert isinstance(compare, Misbehaved)
    assert count <= SHOWN_MAX


def test_nobody_makes_us_search_for_ever() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    eve = ours.forker.member.node_id
    found = [
        ours.machine.histories_differ(BOB, eve, number.to_bytes(16, "big"), agreed=0, size=5)
        for number in range(SEARCHES_WAITING + 9)
    ]
    assert [len(one) for one in found] == [1] + [0] * (len(found) - 1)
    assert ours.machine.histories_differ(BOB, eve, bytes(16), agreed=0, size=5) == []
    left = 0
    events = found[0]
    while events:
        compare = events[-1]
        assert isinstance(compare, Compare)
        events = [one for one in ours.machine.compared(BOB, compare.log_id, compare.index, None, None) if type(one) is Compare]
        left += 1
    assert left == SEARCHES_WAITING


def test_searches_of_a_peer_that_has_gone_are_forgotten() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    (compare,) = ours.differ()
    assert isinstance(compare, Compare)
    ours.machine.peer_closed(BOB)
    assert ours.machine.compared(BOB, compare.log_id, compare.index, b"", b"") == []
    assert ours.differ() == [compare]


def test_answers_that_nobody_waits_for_are_passed_over() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    assert ours.machine.compared(BOB, ours.forker.left.log_id, 1, b"", b"") == []
    ours.differ()
    assert ours.machine.compared(BOB, ours.forker.left.log_id, 1, b"", b"") == []


def test_of_a_node_that_was_exposed_meanwhile_nothing_more_is_asked() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    left, (compare,) = ours.forker.left, ours.differ()
    assert isinstance(compare, Compare)
    ours.machine.histories_differ(BOB, left.member.node_id, bytes(16), agreed=0, size=5)
    ours.machine.heard(CAROL, ours.forker.proof())
    assert ours.machine.compared(BOB, left.log_id, compare.index, None, None) == []


# --- proofs of others -------------------------------------------------------------------------------------------------


def test_a_proof_that_a_peer_brings_exposes_once() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    raw = ours.forker.proof()
    (found,) = ours.machine.heard(BOB, raw)
    assert isinstance(found, Exposed)
    assert (found.sender, found.proof.raw) == (BOB, raw)
    assert ours.machine.heard(CAROL, raw) == []
    other = make_fork(ForkKind.ENTRIES, entry_side(ours.forker.left, 4), entry_side(ours.forker.right, 4))
    assert ours.machine.heard(CAROL, other) == []


def test_a_proof_that_proves_nothing_is_the_fault_of_who_brings_it() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    side = entry_side(ours.forker.left, 3)
    for raw, reason in ((make_fork(ForkKind.ENTRIES, side, side), Reason.BAD_FORK_PROOF), (b"\xff", Reason.MALFORMED)):
        (found,) = ours.machine.heard(BOB, raw)
        assert isinstance(found, Misbehaved)
        assert (found.peer, found.reason) == (BOB, reason)


def test_a_proof_that_comes_too_late_proves_nothing_and_is_no_fault() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    ours.at += 2 * DAY
    assert ours.machine.heard(BOB, ours.forker.proof()) == []
    assert not ours.machine.exposed


def test_two_statements_that_we_hold_expose_their_author() -> None:
    ours = Ours(Forker.after(3, mesh=MESH))
    left, right = (head_side(log, 5) for log in (ours.forker.left, ours.forker.right))
    assert ours.machine.contradict(ForkKind.HEADS, left, left) == []
    (found,) = ours.machine.contradict(ForkKind.HEADS, left, right)
    assert isinstance(found, Exposed)
    assert ours.machine.contradict(ForkKind.HEADS, left, right) == []


def test_proofs_that_were_kept_are_known_after_a_start() -> None:
    forker = Forker.after(3, mesh=MESH)
    proof = parse_fork(forker.proof()).verify(MESH.root, MESH.at)
    machine = Exposer(MESH.root, lambda: MESH.at + timedelta(hours=1), lambda _kid: None, [proof])
    assert machine.heard(BOB, proof.raw) == []
    assert set(machine.exposed) == {forker.member.node_id}


def test_an_entry_that_carries_another_endorsement_than_its_own_is_not_judged_by_it() -> None:
    forker = Forker.after(3, mesh=MESH)
    later = another_start(MESH)
    ours = Ours(forker)
    body = {0: 1, 1: later.credentials.endorsement, 2: later.credentials.leaf, 3: []}
    strange = forker.left.sign(EntryType.ENDORSEMENT, body)
    assert ours.machine.credentials_for(strange) == forker.member.credentials
    assert Side.of_entry(strange.raw, forker.member.credentials).verify(MESH.root, MESH.at)
