"""A witness: what it cosigns, what it never does, and that nothing leaves before it is durable."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from audit.checkpoint import Checkpoint, parse_checkpoint, verify_cosignature
from audit.witness import (
    KNOWN_MAX,
    Cosigned,
    MakeDurable,
    Misbehaved,
    NotAnExtension,
    TwoRoots,
    Witness,
    WitnessEvent,
    WitnessKey,
)
from audit.witness_frames import COSIGNATURE_MAX, NOTES_MAX, ROWS_MAX, Request, Say, Told, make_news
from overlay.core.limits import LOGS_PER_AUTHOR
from overlay.core.merkle import consistency_proof, root_of
from overlay.core.wire import make_map, sha256
from overlay.errors import Refused
from overlay.registry import FrameType, Reason
from tests.unit.core.authority_kit import DAY, Member, make_member, make_mesh

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
BOB = make_member(MESH, "bob", witness=True)
CAROL = make_member(MESH, "carol")
LEAVES = [sha256(bytes([number])) for number in range(200)]
LOG = bytes(16)
NOW = int(MESH.at.timestamp())
SECOND = timedelta(seconds=1)


def checkpoint(size: int, *, log_id: bytes = LOG, author: Member = ALICE, root: bytes = b"") -> Checkpoint:
    return Checkpoint(
        mesh_id=MESH.mesh_id, node_id=author.node_id, log_id=log_id, size=size, root=root or root_of(LEAVES[:size])
    )


def ask(size: int, old: int = 0, *, signer: Member = ALICE, **fields: object) -> bytes:
    """A CHECKPOINT of that size with the proof from the old one."""
    proof = consistency_proof(LEAVES[:size], old) if 0 < old < size else ()
    return Request(checkpoint(size, **fields).sign(signer.message).raw, old, proof).pack()  # type: ignore[arg-type]


class Bob:
    """A witness on a desk: what it wanted stored, and what it said."""

    def __init__(self, *known: Cosigned) -> None:
        self.machine = Witness(MESH.mesh_id, BOB.node_id, known)
        assert BOB.witness is not None
        self.machine.use(WitnessKey(BOB.witness, MESH.at, MESH.at + DAY))

    def show(self, body: bytes, *, at: datetime = MESH.at, peer: Member = ALICE) -> list[WitnessEvent]:
        return self.machine.receive(peer.peer, body, at)

    def told(self) -> list[Told]:
        return [Told.unpack(body) for _, _, body in self.machine.messages_to_send()]

    def cosign(self, body: bytes, *, at: datetime = MESH.at, peer: Member = ALICE) -> Cosigned:
        """What it cosigns, once that is durable."""
        (event,) = self.show(body, at=at, peer=peer)
        assert isinstance(event, MakeDurable)
        assert self.machine.messages_to_send() == []
        assert self.machine.stored(event.cosigned, at) == []
        assert self.told() == [Told(Say.COSIGNED, (event.cosigned.note,))]
        return event.cosigned

    def declines(self, body: bytes, *, at: datetime = MESH.at) -> list[WitnessEvent]:
        """It tells what it has, and signs nothing."""
        before = self.machine.last(ALICE.node_id, LOG)
        events = self.show(body, at=at)
        assert not any(isinstance(event, MakeDurable) for event in events)
        assert self.told() == [Told(Say.COSIGNED, () if before is None else (before.note,))]
        assert self.machine.last(ALICE.node_id, LOG) == before
        return events


# --- what it cosigns ---------------------------------------------------------------------------------------------------


def test_a_first_checkpoint_is_cosigned_with_the_authors_line_under_it() -> None:
    cosigned = Bob().cosign(ask(5))
    found = parse_checkpoint(cosigned.note)
    assert found.verify(ALICE.message.public_key) == checkpoint(5)
    (line,) = found.cosignatures
    assert BOB.witness is not None
    assert verify_cosignature(found.says, line, BOB.node_id, BOB.witness.public_key) == NOW == cosigned.at
    assert Cosigned.read(cosigned.note, NOW) == cosigned


def test_a_later_one_is_cosigned_with_a_proof_that_it_follows() -> None:
    bob = Bob()
    bob.cosign(ask(5))
    assert bob.cosign(ask(64, 5), at=MESH.at + SECOND).checkpoint.size == 64
    assert bob.cosign(ask(65, 64), at=MESH.at + SECOND).at == NOW + 1


def test_nothing_is_said_before_it_is_durable_and_nothing_at_all_if_it_cannot_be() -> None:
    bob = Bob()
    (event,) = bob.show(ask(5))
    assert isinstance(event, MakeDurable)
    assert bob.told() == []
    assert bob.machine.last(ALICE.node_id, LOG) is None
    bob.machine.dropped(event.cosigned)
    assert bob.told() == []
    bob.cosign(ask(6))


def test_what_comes_while_the_disk_is_busy_is_looked_at_afterwards() -> None:
    bob = Bob()
    (event,) = bob.show(ask(5))
    assert isinstance(event, MakeDurable)
    assert bob.show(ask(6, 5)) == bob.show(ask(7, 5)) == [] == bob.told()
    (second,) = bob.machine.stored(event.cosigned, MESH.at)
    assert isinstance(second, MakeDurable)
    assert second.cosigned.checkpoint.size == 7
    assert len(bob.told()) == 1


def test_a_witness_that_restarts_knows_what_it_has_cosigned() -> None:
    cosigned = Bob().cosign(ask(64))
    again = Bob(Cosigned.read(cosigned.note, cosigned.at))
    assert again.declines(ask(10)) == []
    assert len(again.declines(ask(64, root=bytes(32)))) == 1
    assert again.cosign(ask(65, 64)).checkpoint.size == 65


def test_a_witness_that_was_put_back_from_a_backup_learns_again_what_it_has_cosigned() -> None:
    bob = Bob()
    old, new = bob.cosign(ask(5)), bob.cosign(ask(64, 5), at=MESH.at + SECOND)
    again = Bob(old)
    (event,) = again.machine.remember(new)
    assert isinstance(event, MakeDurable)
    assert again.machine.remember(new) == [] == again.show(ask(65, 64))
    assert again.machine.last(ALICE.node_id, LOG) == old
    (waited,) = again.machine.stored(event.cosigned, MESH.at)
    assert isinstance(waited, MakeDurable) and waited.cosigned.checkpoint.size == 65
    again.machine.stored(waited.cosigned, MESH.at)
    assert again.machine.remember(new) == again.machine.remember(old) == []


def test_a_question_is_answered_with_what_was_cosigned_of_the_askers_logs() -> None:
    bob = Bob()
    notes = [bob.cosign(ask(number + 1, log_id=bytes([number]) * 16)).note for number in range(KNOWN_MAX + 2)]
    bob.cosign(ask(3, author=CAROL, signer=CAROL), peer=CAROL)
    assert bob.show(Request(None).pack()) == []
    assert bob.told() == [Told(Say.KNOWN, tuple(reversed(notes[-KNOWN_MAX:])))]


# --- what it never does ------------------------------------------------------------------------------------------------


def test_it_never_cosigns_a_smaller_size() -> None:
    bob = Bob()
    bob.cosign(ask(64))
    assert bob.declines(ask(63)) == []
    assert bob.declines(ask(64)) == []


def test_it_never_cosigns_two_roots_of_one_size_and_shows_both() -> None:
    bob = Bob()
    ours = bob.cosign(ask(64))
    (fork,) = bob.declines(ask(64, root=bytes(32)))
    assert isinstance(fork, TwoRoots)
    one, other = parse_checkpoint(fork.ours), parse_checkpoint(fork.theirs)
    assert fork.ours == ours.note
    assert one.verify(ALICE.message.public_key).size == other.verify(ALICE.message.public_key).size == 64
    assert one.says.root != other.says.root


def test_it_does_not_cosign_what_does_not_follow() -> None:
    bob = Bob()
    bob.cosign(ask(5))
    other = checkpoint(64, root=root_of([bytes(32), *LEAVES[1:64]])).sign(ALICE.message).raw
    proofs = [(), consistency_proof(LEAVES[:64], 5), consistency_proof(LEAVES[:64], 6)]
    for proof in proofs:
        assert bob.declines(Request(other, 5, proof).pack()) == [NotAnExtension(ALICE.node_id, LOG, 5)]


def test_an_author_that_is_mistaken_about_us_is_told() -> None:
    bob = Bob()
    assert bob.declines(ask(64, 5)) == []
    bob.cosign(ask(10))
    assert bob.declines(ask(64, 5)) == []
    assert bob.declines(ask(64)) == []


def test_it_never_cosigns_an_earlier_time() -> None:
    bob = Bob()
    bob.cosign(ask(5), at=MESH.at + 100 * SECOND)
    assert bob.cosign(ask(6, 5), at=MESH.at + 99 * SECOND).at == NOW + 100
    assert bob.cosign(ask(6, log_id=bytes([1]) * 16), at=MESH.at).at == NOW + 100


def test_a_clock_that_went_back_cosigns_nothing_until_it_is_right() -> None:
    bob = Bob()
    bob.cosign(ask(5), at=MESH.at + 301 * SECOND)
    assert bob.declines(ask(6, 5), at=MESH.at) == []
    assert "behind what we have signed" in bob.machine.warning
    bob.cosign(ask(6, 5), at=MESH.at + SECOND)
    assert bob.machine.warning == ""


@pytest.mark.parametrize("at", [MESH.at - SECOND, MESH.at - DAY, MESH.at + DAY + SECOND, MESH.at + 365 * DAY])
def test_a_clock_outside_our_endorsement_cosigns_nothing(at: datetime) -> None:
    bob = Bob()
    assert bob.declines(ask(5), at=at) == []
    assert "endorsement does not hold" in bob.machine.warning


def test_without_a_key_nothing_is_cosigned() -> None:
    bob = Bob()
    bob.machine.use(None)
    assert bob.declines(ask(5)) == []


@pytest.mark.parametrize(("body", "reason"), [
    (b"", Reason.MALFORMED), (make_map(b"hello", 0, []), Reason.MALFORMED), (ask(5, signer=BOB), Reason.BAD_SIGNATURE),
    (ask(5, author=CAROL), Reason.WRONG_AUTHOR), (ask(5, author=CAROL, signer=CAROL), Reason.WRONG_AUTHOR),
    (Request(replace(checkpoint(5), mesh_id=make_mesh("x").mesh_id).sign(ALICE.message).raw).pack(), Reason.WRONG_AUTHOR),
    (make_map(checkpoint(5).sign(ALICE.message).raw, 0, [bytes(32)]), Reason.MALFORMED),
])  # fmt: skip
def test_what_no_honest_author_sends_is_refused(body: bytes, reason: Reason) -> None:
    bob = Bob()
    (event,) = bob.show(body)
    assert isinstance(event, Misbehaved)
    assert (event.peer, event.reason) == (ALICE.node_id, reason)
    assert bob.told() == []


def test_nobody_takes_the_id_of_anothers_log() -> None:
    bob = Bob()
    bob.cosign(ask(9, author=CAROL, signer=CAROL), peer=CAROL)
    assert bob.cosign(ask(5)).checkpoint.node_id == ALICE.node_id


def test_an_author_has_only_so_many_logs() -> None:
    assert BOB.witness is not None
    notes = [checkpoint(1, log_id=number.to_bytes(16, "big")) for number in range(LOGS_PER_AUTHOR)]
    bob = Bob(*(Cosigned(checkpoint=one, at=NOW, note=one.sign(ALICE.message).raw) for one in notes))
    (event,) = bob.show(ask(1, log_id=b"\xff" * 16))
    assert isinstance(event, Misbehaved) and event.reason is Reason.QUOTA
    bob.cosign(ask(2, 1, log_id=notes[0].log_id))


# --- messages ----------------------------------------------------------------------------------------------------------


def test_news_are_cut_into_messages() -> None:
    assert list(make_news((), {})) == []
    notes, sizes = [b"x"] * (NOTES_MAX + 1), {number.to_bytes(16, "big"): number for number in range(ROWS_MAX + 1)}
    found = [Told.unpack(body) for body in make_news(notes, sizes)]
    assert [len(one.notes) for one in found] == [NOTES_MAX, 1]
    assert [len(one.sizes) for one in found] == [ROWS_MAX, 1]
    assert [len(Told.unpack(body).notes) for body in make_news([b"x"] * (2 * NOTES_MAX), {})] == [NOTES_MAX, NOTES_MAX]
    assert [len(Told.unpack(body).sizes) for body in make_news([b"x"], sizes)] == [ROWS_MAX, 1]


@pytest.mark.parametrize("body", [b"", make_map(9, [], []), make_map(1, [b""], []), make_map(1, [], [[b"x", 1]])])
def test_another_message_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        Told.unpack(body)
    assert COSIGNATURE_MAX > NOTES_MAX * 16_384
    assert FrameType.COSIGNATURE == 0x44
