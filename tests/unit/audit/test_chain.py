"""Each rule of a chain, and the log that breaks only that one."""

from dataclasses import replace
from datetime import timedelta

import pytest

from audit.bodies import Former, LogOpen, application, endorsement_body, make_body
from audit.chain import ChainState, extend
from overlay.core.merkle import root_of
from overlay.core.mesh.chains import hlc_of
from overlay.core.trust import Credentials
from overlay.errors import Refused
from overlay.registry import GENESIS, EntryType, Reason
from tests.unit.audit.audit_kit import SECOND, Writer, other_node, some_log, start_of, state_after
from tests.unit.core.authority_kit import DAY, HOUR, make_member, make_mesh

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
BOB = make_member(MESH, "bob")
NOTE = application("test", "note")


def refusal(state: ChainState, *raws: bytes) -> Reason:
    """Why the entries do not extend the state."""
    with pytest.raises(Refused) as caught:
        extend(state, raws, MESH.root, at=None)
    return caught.value.reason


@pytest.fixture
def log() -> Writer:
    return some_log(3, mesh=MESH)


# --- logs that hold ---------------------------------------------------------------------------------------------------


def test_a_log_verifies_from_the_root_alone(log: Writer) -> None:
    state = state_after(log)
    assert state.size == 3
    assert state.last == log.entries[-1].hash
    assert state.root == root_of([entry.hash for entry in log.entries])
    assert state.key is not None
    assert (state.key.kid, state.key.peer.name) == (ALICE.kid, "alice")


def test_a_log_in_pieces_gives_the_state_of_the_whole(log: Writer) -> None:
    state = start_of(log)
    for raw in log.raws:
        state = extend(state, [raw], MESH.root, at=None).state
    assert state == state_after(log)


def test_a_log_goes_on_under_a_new_endorsement(log: Writer) -> None:
    log.change_to(make_member(MESH, "alice", start=2))
    log.note()
    state = state_after(log)
    assert state.key is not None
    assert (state.size, state.key.seq) == (5, 3)


def test_a_node_with_a_key_on_p256_writes_logs_too() -> None:
    writer = Writer.begin(MESH, make_member(MESH, "tess", tpm_like=True))
    writer.open()
    assert state_after(writer).size == 1


def test_a_later_incarnation_names_the_log_before(log: Writer) -> None:
    former = Former(log_id=log.log_id, size=3, root=state_after(log).root, last=log.entries[-1].hash, reason="clone")
    later = Writer.begin(MESH, ALICE, LogOpen(k=1, credentials=ALICE.credentials, former=former))
    later.open()
    assert state_after(later).k == 1


def test_an_entry_of_a_type_that_only_later_versions_know_stands(log: Writer) -> None:
    log.keep(log.sign(200, {0: 2, 1: b"whatever"}))
    assert state_after(log).size == 4


def test_an_entry_five_minutes_ahead_waits_and_is_not_refused(log: Writer) -> None:
    at = log.entries[1].at - timedelta(minutes=5)
    extension = extend(start_of(log), log.raws, MESH.root, at=at)
    assert (extension.state.size, extension.held) == (2, log.entries[2])
    assert extend(extension.state, log.raws[2:], MESH.root, at=at + SECOND).held is None


def test_an_entry_ahead_is_still_checked(log: Writer) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, signer=BOB.message)
    with pytest.raises(Refused) as caught:
        extend(state_after(log), [bad.raw], MESH.root, at=MESH.at - HOUR)
    assert caught.value.reason is Reason.BAD_SIGNATURE


# --- entries that do not follow ---------------------------------------------------------------------------------------


def test_bytes_that_are_no_entry_are_refused(log: Writer) -> None:
    assert refusal(state_after(log), b"\xd2nonsense") is Reason.MALFORMED


def test_an_entry_of_another_node_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, node_id=other_node())
    assert refusal(state_after(log), bad.raw) is Reason.WRONG_AUTHOR


def test_an_entry_of_another_log_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, log_id=bytes(16))
    assert refusal(state_after(log), bad.raw) is Reason.WRONG_AUTHOR


@pytest.mark.parametrize("seq", [0, 2, 4])
def test_a_number_that_is_not_the_next_is_refused(log: Writer, seq: int) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, seq=seq)
    assert refusal(state_after(log), bad.raw) is Reason.CHAIN_BROKEN


def test_a_hash_of_another_entry_before_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, prev=log.entries[1].hash)
    assert refusal(state_after(log), bad.raw) is Reason.CHAIN_BROKEN


def test_an_entry_left_out_is_missed(log: Writer) -> None:
    assert refusal(start_of(log), log.raws[0], log.raws[2]) is Reason.CHAIN_BROKEN


@pytest.mark.parametrize("back", [0, 1])
def test_time_that_does_not_rise_is_refused(log: Writer, back: int) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, hlc=log.entries[-1].hlc - back)
    assert refusal(state_after(log), bad.raw) is Reason.CLOCK


def test_a_counter_alone_makes_time_rise(log: Writer) -> None:
    log.note(hlc=log.entries[-1].hlc + 1)
    assert state_after(log).size == 4


def test_an_entry_after_the_end_of_its_endorsement_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, hlc=hlc_of(ALICE.peer.endorsement.not_after + SECOND))
    assert refusal(state_after(log), bad.raw) is Reason.NOT_IN_FORCE


def test_an_entry_before_the_start_of_its_endorsement_is_refused() -> None:
    writer = Writer.begin(MESH, ALICE)
    bad = writer.sign(EntryType.LOG_OPEN, writer.opening.body(), hlc=hlc_of(ALICE.peer.endorsement.not_before - SECOND))
    assert refusal(start_of(writer), bad.raw) is Reason.NOT_IN_FORCE


def test_an_entry_under_an_endorsement_that_no_entry_has_shown_is_refused(log: Writer) -> None:
    later = make_member(MESH, "alice", start=2)
    bad = log.sign(EntryType.APPLICATION, NOTE, signer=later.message, kid=later.kid)
    assert refusal(state_after(log), bad.raw) is Reason.BAD_ENDORSEMENT


def test_an_endorsement_that_was_replaced_signs_no_more(log: Writer) -> None:
    log.change_to(make_member(MESH, "alice", start=2))
    bad = log.sign(EntryType.APPLICATION, NOTE, signer=ALICE.message, kid=ALICE.kid)
    assert refusal(state_after(log), bad.raw) is Reason.BAD_ENDORSEMENT


def test_an_entry_signed_by_another_key_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, signer=BOB.message)
    assert refusal(state_after(log), bad.raw) is Reason.BAD_SIGNATURE


def test_an_entry_signed_for_another_mesh_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.APPLICATION, NOTE, mesh=make_mesh("other"))
    assert refusal(state_after(log), bad.raw) is Reason.BAD_SIGNATURE


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_log_that_does_not_begin_with_its_opening_is_refused() -> None:
    writer = Writer.begin(MESH, ALICE)
    assert refusal(start_of(writer), writer.note().raw) is Reason.CHAIN_BROKEN


def test_a_second_opening_in_a_log_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.LOG_OPEN, log.opening.body())
    assert refusal(state_after(log), bad.raw) is Reason.CHAIN_BROKEN


def test_an_opening_whose_log_id_does_not_follow_from_it_is_refused() -> None:
    writer = Writer.begin(MESH, ALICE)
    writer.log_id = bytes(16)
    assert refusal(start_of(writer), writer.open().raw) is Reason.CHAIN_BROKEN


def test_an_opening_of_another_start_is_refused() -> None:
    writer, later = Writer.begin(MESH, ALICE), make_member(MESH, "alice", start=2)
    writer.member, writer.opening = later, LogOpen(k=0, credentials=later.credentials)
    assert refusal(start_of(writer), writer.open().raw) is Reason.CHAIN_BROKEN


def test_an_opening_with_the_credentials_of_another_node_is_refused() -> None:
    writer = Writer.begin(MESH, replace(BOB, peer=ALICE.peer))
    writer.opening = LogOpen(k=0, credentials=BOB.credentials)
    raw = writer.open(kid=BOB.kid, signer=BOB.message).raw
    assert refusal(start_of(writer), raw) is Reason.WRONG_AUTHOR


def test_an_opening_of_another_mesh_is_refused() -> None:
    mesh = make_mesh("other")
    writer = Writer.begin(mesh, make_member(mesh, "alice"))
    assert refusal(start_of(writer), writer.open().raw) in (Reason.OTHER_MESH, Reason.BAD_CERTIFICATE)


def test_an_opening_with_an_expired_certificate_is_refused() -> None:
    member = make_member(MESH, "old", not_before=MESH.at - 2 * DAY, life=DAY)
    writer = Writer.begin(MESH, member)
    assert refusal(start_of(writer), writer.open().raw) is Reason.CERTIFICATE_EXPIRED


def test_an_opening_with_another_nodes_endorsement_is_refused() -> None:
    writer = Writer.begin(MESH, ALICE)
    writer.opening = LogOpen(k=0, credentials=Credentials(BOB.credentials.endorsement, ALICE.credentials.leaf))
    assert refusal(start_of(writer), writer.open().raw) is Reason.BAD_ENDORSEMENT


def test_an_endorsement_entry_under_the_old_key_is_refused(log: Writer) -> None:
    later = make_member(MESH, "alice", start=2)
    bad = log.sign(EntryType.ENDORSEMENT, endorsement_body(later.credentials))
    assert refusal(state_after(log), bad.raw) is Reason.BAD_ENDORSEMENT


def test_an_endorsement_entry_signed_by_the_old_key_is_refused(log: Writer) -> None:
    later = make_member(MESH, "alice", start=2)
    bad = log.sign(EntryType.ENDORSEMENT, endorsement_body(later.credentials), kid=later.kid)
    assert refusal(state_after(log), bad.raw) is Reason.BAD_SIGNATURE


def test_an_endorsement_entry_of_another_node_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.ENDORSEMENT, endorsement_body(BOB.credentials), signer=BOB.message, kid=BOB.kid)
    assert refusal(state_after(log), bad.raw) is Reason.WRONG_AUTHOR


def test_an_endorsement_entry_whose_body_is_broken_is_refused(log: Writer) -> None:
    bad = log.sign(EntryType.ENDORSEMENT, {0: 1, 1: b"endorsement"})
    assert refusal(state_after(log), bad.raw) is Reason.MALFORMED


def test_the_first_log_names_none_before() -> None:
    writer = Writer.begin(MESH, ALICE)
    body = {**writer.opening.body(), 5: bytes(16)}
    assert refusal(start_of(writer), writer.sign(EntryType.LOG_OPEN, body).raw) is Reason.MALFORMED


def test_a_later_log_names_the_one_before() -> None:
    writer = Writer.begin(MESH, ALICE)
    shown = ALICE.credentials
    body = make_body(EntryType.LOG_OPEN, k=1, endorsement=shown.endorsement, leaf=shown.leaf, chain=[])
    assert refusal(start_of(writer), writer.sign(EntryType.LOG_OPEN, body).raw) is Reason.MALFORMED


def test_a_later_log_with_another_end_of_the_log_before_is_refused(log: Writer) -> None:
    former = Former(log_id=log.log_id, size=3, root=state_after(log).root, last=log.entries[-1].hash, reason="clone")
    later = Writer.begin(MESH, ALICE, LogOpen(k=1, credentials=ALICE.credentials, former=former))
    later.opening = replace(later.opening, former=replace(former, last=GENESIS))
    assert refusal(start_of(later), later.open().raw) is Reason.CHAIN_BROKEN
