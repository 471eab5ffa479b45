"""Key generation: everyone or nobody, and whose fault it was."""

import math

import pytest

from overlay.core.authority import cocktail
from overlay.core.authority.cocktail import Contribution, Setup
from overlay.core.authority.cocktail_primitives import (
    SealKey,
    random_scalar,
    read_point,
    sha512,
    sign,
    signature_nonce,
    verify,
)
from overlay.core.authority.group import BASE, POINT_SIZE, Scalar
from overlay.core.authority.key_generation import KeyGeneration
from overlay.core.authority.run_events import Failed, FailedElsewhere, Finished, Ignored
from overlay.core.authority.runs import ROUND_TIMEOUT, Blamed, blaming, pack_statements
from overlay.core.authority.statements import Board, Statement
from overlay.core.keys import MeshId, NodeId
from overlay.core.wire import make_map, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason, RoundKind
from tests.unit.core.authority.runs_kit import (
    MESH,
    SESSION,
    Wire,
    bytes_to_id,
    check_shares,
    ids,
    key_generation,
    key_plan,
    said_otherwise,
    signer_of,
)  # fmt: skip
from tests.unit.core.session_kit import SeededChance

MEMBERS = ids(4)
ALICE, BOB, CAROL, DAVE = MEMBERS
TERMS = key_plan(MEMBERS, 3).terms()
EARLY = (RoundKind.KEY_ROUND_1, RoundKind.KEY_ROUND_2)


def four() -> Wire:
    return key_generation(4, 3)


def until(wire: Wire, kind: RoundKind) -> None:
    """Deliver until only messages of that kind, or later ones, are on the wire."""
    while any(sent[2] < kind for sent in wire.queue):
        wire.deliver(wire.queue.pop(next(at for at, sent in enumerate(wire.queue) if sent[2] < kind)))


def failures(wire: Wire, member: object) -> list[Failed]:
    return [event for event in wire.events[member] if isinstance(event, Failed)]  # type: ignore[index]


def nobody_has_a_key(wire: Wire) -> None:
    """Of those who keep to the rules: Dave is the one who does not."""
    honest = [member for member in wire.machines if member != DAVE]
    assert all(wire.machines[member].result is None for member in honest)
    assert not any(isinstance(event, Finished) for member in honest for event in wire.events[member])


def nothing_is_kept(machine: KeyGeneration) -> None:
    assert (machine._secrets, machine._outcome, machine._setup) == (None, None, None)
    assert machine.deadline == math.inf


# --- It works ---


def test_four_members_make_one_key_that_three_of_them_hold() -> None:
    wire = four()
    wire.run()
    results = [wire.machines[member].result for member in MEMBERS]
    assert all(events == [Finished()] for events in wire.events.values())
    assert len({(result.group.public, result.transcript_hash) for result in results}) == 1
    assert [result.share.identifier for result in results] == [1, 2, 3, 4]
    assert {result.share.generation for result in results} == {0}
    check_shares([result.share for result in results], results[0].group)
    for machine in wire.machines.values():
        nothing_is_kept(machine)


def test_the_certificates_convince_a_third_party() -> None:
    wire = four()
    wire.run()
    result = wire.machines[BOB].result
    assert result.transcript_hash == sha256(result.transcript)
    for statement, member in zip(result.certificates, MEMBERS, strict=True):
        assert Board(TERMS, ALICE, signer_of(ALICE)).verified(statement).author == member
    said = wire.machines[BOB]._room.board.contents(RoundKind.KEY_ROUND_1, MEMBERS)
    for content, statement in zip(said, result.certificates, strict=True):
        verify(read_point(content[:POINT_SIZE]), result.transcript, statement.content)


def test_another_session_gives_another_key() -> None:
    first, second = four(), key_generation(4, 3, seed=1, session=b"t" * 16)
    first.run()
    second.run()
    assert first.machines[ALICE].result.group != second.machines[ALICE].result.group


def test_the_same_message_twice_is_harmless() -> None:
    wire = four()
    wire.run(change=lambda sent: [sent, sent])
    assert all(events == [Finished()] for events in wire.events.values())


def test_after_a_lost_link_everything_is_sent_again() -> None:
    wire = four()
    wire.run(change=lambda sent: [] if sent[:2] == (ALICE, BOB) else [sent])
    nobody_has_a_key(wire)
    wire.queue += [(ALICE, *message) for message in wire.machines[ALICE].messages_again(BOB)]
    wire.run()
    assert all(events == [Finished()] for events in wire.events.values())


def test_a_certificate_that_was_lost_comes_with_those_of_the_others() -> None:
    wire = four()
    wire.run(change=lambda sent: [] if sent[:3] == (ALICE, BOB, RoundKind.KEY_CERTIFICATE) else [sent])
    assert wire.events[BOB] == [Finished()]


def test_what_was_not_said_in_this_run_is_ignored() -> None:
    wire = four()
    machine = wire.machines[ALICE]
    stranger = bytes_to_id(99)
    assert machine.receive(stranger, RoundKind.KEY_ROUND_1, b"", 0.0) == [Ignored(stranger, Reason.NOT_A_SIGNER)]
    assert machine.receive(ALICE, RoundKind.KEY_ROUND_1, b"", 0.0) == [Ignored(ALICE, Reason.NOT_A_SIGNER)]
    assert machine.receive(BOB, RoundKind.COMMITMENT, b"", 0.0) == [Ignored(BOB, Reason.UNEXPECTED_FRAME)]
    wire.run()
    assert wire.events[ALICE] == [Finished()]


@pytest.mark.parametrize(
    ("members", "threshold"),
    [(MEMBERS[:1], 1), (MEMBERS, 1), (MEMBERS, 5), ((ALICE, ALICE), 2), ((BOB, ALICE), 2), (ids(65), 3)],
)  # fmt: skip
def test_members_and_threshold_that_make_no_sense_are_our_own_error(members: tuple[NodeId, ...], threshold: int) -> None:
    with pytest.raises(ValueError):
        key_plan(members, threshold)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_session_id_has_16_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        key_plan(MEMBERS, 3, bytes(size)).terms()


def test_a_signer_that_the_others_do_not_know_is_our_own_error() -> None:
    for own in (ALICE, bytes_to_id(99)):
        with pytest.raises(ValueError, match="message key"):
            KeyGeneration(key_plan(MEMBERS, 3), own, SeededChance(1), 0.0, signer=signer_of(BOB))


def test_secrets_do_not_show() -> None:
    wire = four()
    until(wire, RoundKind.KEY_CERTIFICATE)
    machine = wire.machines[ALICE]
    secrets, outcome = machine._secrets, machine._outcome
    hidden = [secrets.static, secrets.ephemeral, *secrets.coefficients, outcome.share.secret]
    wire.run()
    hidden.append(machine.result.share.secret)
    shown = repr(machine) + repr(secrets) + repr(outcome) + repr(machine.result) + repr(wire.events)
    for secret in hidden:
        assert secret.encode().hex() not in shown
        assert repr(secret.encode()) not in shown


# --- Silence ---


@pytest.mark.parametrize("kind", [*EARLY, RoundKind.KEY_ECHO, RoundKind.KEY_CERTIFICATE])
def test_a_member_that_falls_silent_is_named_and_nobody_has_a_key(kind: RoundKind) -> None:
    wire = four()
    wire.run(change=lambda sent: [] if sent[0] == DAVE and sent[2] >= kind else [sent])
    wire.remove(DAVE)
    nobody_has_a_key(wire)
    assert {machine.deadline for machine in wire.machines.values()} == {ROUND_TIMEOUT}
    wire.tick_all(ROUND_TIMEOUT - 0.1)
    assert not any(wire.events[member] for member in wire.machines)
    wire.tick_all(ROUND_TIMEOUT)
    for member, machine in wire.machines.items():
        (failed,) = failures(wire, member)
        assert (failed.reason, failed.named, failed.reporter) == (Reason.TIMEOUT, (DAVE,), None)
        nothing_is_kept(machine)
    wire.run()
    nobody_has_a_key(wire)


def test_each_round_has_its_own_time() -> None:
    wire = four()
    wire.now = ROUND_TIMEOUT - 1
    until(wire, RoundKind.KEY_ECHO)
    assert {machine.deadline for machine in wire.machines.values()} == {2 * ROUND_TIMEOUT - 1}


def test_a_certificate_after_the_end_of_the_run_changes_nothing() -> None:
    wire = four()
    until(wire, RoundKind.KEY_CERTIFICATE)
    late, wire.queue = wire.queue, []
    wire.tick_all(ROUND_TIMEOUT)
    for sent in late:
        assert wire.machines[sent[1]].receive(*[sent[0], *sent[2:]], ROUND_TIMEOUT) == []
    nobody_has_a_key(wire)


def test_who_reads_of_a_failure_ends_the_run_and_knows_who_said_so() -> None:
    wire = four()
    wire.run(change=lambda sent: [] if sent[:2] == (DAVE, ALICE) else [sent])
    wire.events[ALICE] += wire.machines[ALICE].tick(ROUND_TIMEOUT)
    wire.collect()
    wire.run()
    (failed,) = failures(wire, BOB)
    assert (failed.reason, failed.named, failed.reporter) == (Reason.TIMEOUT, (DAVE,), ALICE)
    nobody_has_a_key(wire)


def test_who_had_finished_hears_that_another_failed() -> None:
    wire = four()
    until(wire, RoundKind.KEY_CERTIFICATE)
    wire.queue = [sent for sent in wire.queue if sent[1] == ALICE]
    for sent in wire.queue[:]:
        wire.machines[ALICE].receive(sent[0], sent[2], sent[3], 0.0)
    assert wire.machines[ALICE].result is not None
    wire.machines[ALICE].messages_to_send()
    wire.tick_all(ROUND_TIMEOUT)
    wire.queue = [sent for sent in wire.queue if sent[1] == ALICE and sent[2] is RoundKind.KEY_FAILED]
    wire.run()
    assert wire.events[ALICE] == [FailedElsewhere(member, Reason.TIMEOUT) for member in (BOB, CAROL, DAVE)]


# --- Lies ---


def tell_otherwise(wire: Wire, kind: RoundKind, content: bytes) -> None:
    """Dave tells Carol something else of this kind than the others, signed as well."""
    body = said_otherwise(TERMS, DAVE, kind, content)
    wire.run(change=lambda sent: [(*sent[:3], body)] if sent[:3] == (DAVE, CAROL, kind) else [sent])


def other_contribution(wire: Wire) -> bytes:
    """A second contribution of Dave's that is good by itself."""
    dave = wire.machines[DAVE]
    keys = [read_point(each[:POINT_SIZE]) for each in dave._room.board.contents(RoundKind.KEY_ROUND_1, MEMBERS)]
    coefficients = [Scalar.reduce(sha512(bytes([number]))) for number in range(3)]
    setup = Setup.of(3, keys, TERMS.run)
    return cocktail.contribute(setup, dave._secrets.static, coefficients, Scalar.reduce(sha512(b"e"))).encode()


def test_two_contributions_by_one_member_are_seen_in_the_echo_and_proven() -> None:
    wire = four()
    until(wire, RoundKind.KEY_ROUND_2)
    tell_otherwise(wire, RoundKind.KEY_ROUND_2, other_contribution(wire))
    nobody_has_a_key(wire)
    for member in (ALICE, BOB, CAROL):
        (failed,) = failures(wire, member)
        assert (failed.reason, failed.named) == (Reason.EQUIVOCATION, (DAVE,))
        assert failed.proof is not None
        failed.proof.verify(TERMS)
        nothing_is_kept(wire.machines[member])


def test_two_static_keys_by_one_member_are_proven_even_if_nothing_opens() -> None:
    wire = four()
    secret = Scalar.reduce(sha512(b"another"))
    key = BASE * secret
    claim = Label.KEY_GENERATION + TERMS.run + DAVE
    tell_otherwise(wire, RoundKind.KEY_ROUND_1, key.encode() + sign(secret, claim))
    nobody_has_a_key(wire)
    assert all(failures(wire, member) for member in (ALICE, BOB, CAROL))


def test_two_different_messages_to_one_member_are_an_equivocation() -> None:
    wire = four()
    body = said_otherwise(TERMS, DAVE, RoundKind.KEY_ROUND_1, b"something else")
    wire.run(change=lambda sent: [sent, (*sent[:3], body)] if sent[:3] == (DAVE, CAROL, RoundKind.KEY_ROUND_1) else [sent])
    (failed,) = failures(wire, CAROL)
    assert (failed.reason, failed.named) == (Reason.EQUIVOCATION, (DAVE,))
    for member in (ALICE, BOB):  # they have the proof from Carol, and need not believe her
        (failed,) = failures(wire, member)
        assert (failed.reason, failed.named, failed.reporter) == (Reason.EQUIVOCATION, (DAVE,), None)
        assert failed.proof is not None
        failed.proof.verify(TERMS)


def test_a_proof_of_one_statement_or_of_other_terms_proves_nothing() -> None:
    wire = four()
    until(wire, RoundKind.KEY_ROUND_2)
    tell_otherwise(wire, RoundKind.KEY_ROUND_2, other_contribution(wire))
    proof = failures(wire, CAROL)[0].proof
    assert proof is not None
    twice = type(proof)(DAVE, proof.kind, (proof.digests[0],) * 2, (proof.signatures[0],) * 2)
    for what, terms in ((twice, TERMS), (proof, key_plan(MEMBERS, 2).terms())):
        with pytest.raises(Refused) as refused:
            what.verify(terms)
        assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_false_proof_is_the_fault_of_who_brings_it() -> None:
    wire = four()
    rows = [int(RoundKind.KEY_ROUND_1), sha256(b"1"), bytes(64), sha256(b"2"), bytes(64)]
    content = make_map(int(Reason.EQUIVOCATION), [ALICE], rows)
    body = said_otherwise(TERMS, DAVE, RoundKind.KEY_FAILED, content)
    (failed,) = wire.machines[BOB].receive(DAVE, RoundKind.KEY_FAILED, body, 0.0)
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.named, failed.reporter) == (Reason.BAD_SIGNATURE, (DAVE,), None)


def test_an_echo_that_claims_what_nobody_signed_is_the_fault_of_the_echo() -> None:
    wire = four()
    until(wire, RoundKind.KEY_ECHO)
    board = wire.machines[DAVE]._room.board
    rows = b""
    for member in MEMBERS:
        for kind in EARLY:
            statement: Statement = board.get(member, kind)
            digest = sha256(b"never said") if member == ALICE else statement.digest
            rows += digest + statement.signature
    tell_otherwise(wire, RoundKind.KEY_ECHO, make_map(rows))
    (failed,) = failures(wire, CAROL)
    assert (failed.reason, failed.named, failed.proof) == (Reason.BAD_SIGNATURE, (DAVE,), None)


@pytest.mark.parametrize("size", [0, 7 * 96, 9 * 96])
def test_an_echo_that_does_not_tell_of_everyone_is_refused(size: int) -> None:
    wire = four()
    until(wire, RoundKind.KEY_ECHO)
    tell_otherwise(wire, RoundKind.KEY_ECHO, make_map(bytes(size)))
    (failed,) = failures(wire, CAROL)
    assert (failed.reason, failed.named) == (Reason.MALFORMED, (DAVE,))


def daves_contribution(wire: Wire) -> Contribution:
    until(wire, RoundKind.KEY_ROUND_2)
    (said,) = wire.machines[DAVE]._room.board.contents(RoundKind.KEY_ROUND_2, [DAVE])
    return Contribution.parse(said, 3, 4)


def dave_says(wire: Wire, content: bytes, kind: RoundKind = RoundKind.KEY_ROUND_2) -> Failed:
    """Dave says that, to everyone, instead of what his machine says; how it ends for Alice."""
    body = said_otherwise(TERMS, DAVE, kind, content)
    wire.run(change=lambda sent: [(*sent[:3], body)] if (sent[0], sent[2]) == (DAVE, kind) else [sent])
    (failed,) = failures(wire, ALICE)
    assert failed.named == (DAVE,)
    nobody_has_a_key(wire)
    nothing_is_kept(wire.machines[ALICE])
    return failed


def test_a_share_that_does_not_open_is_named() -> None:
    wire = four()
    made = daves_contribution(wire)
    sealed = (bytes(48), *made.ciphertexts[1:])
    failed = dave_says(wire, Contribution(made.commitment, made.proof, made.ephemeral, sealed).encode())
    assert failed.reason is Reason.BAD_SHARE


def test_a_share_of_another_polynomial_is_named() -> None:
    wire = four()
    made = daves_contribution(wire)
    machine = wire.machines[DAVE]
    keys = machine._setup.static_keys
    seal = SealKey.of_sender(machine._setup.context, machine._secrets.static, machine._secrets.ephemeral, keys[0])
    sealed = (seal.seal(Scalar.of(5)), *made.ciphertexts[1:])
    failed = dave_says(wire, Contribution(made.commitment, made.proof, made.ephemeral, sealed).encode())
    assert failed.reason is Reason.BAD_SHARE


def test_a_proof_of_possession_that_was_not_made_for_this_is_refused() -> None:
    wire = four()
    made = daves_contribution(wire)
    other = sign(wire.machines[DAVE]._secrets.coefficients[0], b"something else")
    failed = dave_says(wire, Contribution(made.commitment, other, made.ephemeral, made.ciphertexts).encode())
    assert failed.reason is Reason.BAD_SIGNATURE


def test_a_rogue_key_without_its_secret_is_refused() -> None:
    """Dave wants the sum of all keys to be his own."""
    wire = four()
    made = daves_contribution(wire)
    others = [Contribution.parse(said, 3, 4) for said in wire.machines[DAVE]._room.board.contents(
        RoundKind.KEY_ROUND_2, [DAVE])]  # fmt: skip
    rogue = made.commitment[0] - others[0].commitment[1]
    forged = Contribution((rogue, *made.commitment[1:]), made.proof, made.ephemeral, made.ciphertexts)
    assert dave_says(wire, forged.encode()).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + bytes(56), lambda data: b""])
def test_a_contribution_of_another_length_is_refused(change: object) -> None:
    wire = four()
    content = change(daves_contribution(wire).encode())  # type: ignore[operator]
    assert dave_says(wire, content).reason is Reason.MALFORMED


def test_a_commitment_to_a_higher_threshold_is_refused() -> None:
    wire = four()
    made = daves_contribution(wire)
    more = Contribution((*made.commitment, made.ephemeral), made.proof, made.ephemeral, made.ciphertexts)
    assert dave_says(wire, more.encode()).reason is Reason.MALFORMED
    with pytest.raises(Refused) as refused:
        setup = Setup.of(3, [BASE * Scalar.of(number) for number in range(1, 5)], b"s")
        cocktail.open_share(setup, more, sender=1, receiver=2, static=Scalar.of(2))
    assert refused.value.reason is Reason.BAD_SHARE


def test_a_sealed_share_of_a_wrong_length_is_refused() -> None:
    wire = four()
    data = bytearray(daves_contribution(wire).encode())
    data[-49] += 1
    assert dave_says(wire, bytes(data)).reason is Reason.MALFORMED


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_static_key_outside_the_group_is_refused(point: bytes) -> None:
    assert dave_says(four(), point + bytes(64), RoundKind.KEY_ROUND_1).reason is Reason.MALFORMED


def test_a_static_key_without_its_secret_is_refused() -> None:
    wire = four()
    (said,) = wire.machines[ALICE]._room.board.contents(RoundKind.KEY_ROUND_1, [ALICE])
    assert dave_says(wire, said, RoundKind.KEY_ROUND_1).reason is Reason.BAD_SIGNATURE


def test_two_members_with_one_static_key_are_refused() -> None:
    wire = four()
    static = wire.machines[ALICE]._secrets.static
    content = (BASE * static).encode() + sign(static, Label.KEY_GENERATION + TERMS.run + DAVE)
    assert dave_says(wire, content, RoundKind.KEY_ROUND_1).reason is Reason.MALFORMED


def test_a_static_key_of_another_length_is_refused() -> None:
    assert dave_says(four(), b"short", RoundKind.KEY_ROUND_1).reason is Reason.MALFORMED


def test_a_certificate_of_another_transcript_is_refused() -> None:
    wire = four()
    until(wire, RoundKind.KEY_CERTIFICATE)
    other = sign(wire.machines[DAVE]._secrets.static, b"another transcript")
    assert dave_says(wire, other, RoundKind.KEY_CERTIFICATE).reason is Reason.BAD_SIGNATURE


def test_a_statement_that_its_author_has_not_signed_is_refused() -> None:
    wire = four()
    statement = Board(TERMS, CAROL, signer_of(CAROL)).say(RoundKind.KEY_ROUND_1, b"content")
    (failed,) = wire.machines[ALICE].receive(DAVE, RoundKind.KEY_ROUND_1, statement.pack(), 0.0)
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.named) == (Reason.BAD_SIGNATURE, (DAVE,))


@pytest.mark.parametrize(
    "terms",
    [
        key_plan(MEMBERS, 2).terms(), key_plan(MEMBERS, 3, b"t" * 16).terms(),
        type(TERMS)(label=Label.KEY_GENERATION, mesh_id=MeshId(bytes(32)), session=SESSION,
                    parameters=TERMS.parameters, message_keys=TERMS.message_keys),
        type(TERMS)(label=b"another\0", mesh_id=MESH, session=SESSION,
                    parameters=TERMS.parameters, message_keys=TERMS.message_keys),
    ], ids=["threshold", "session", "mesh", "label"],
)  # fmt: skip
def test_what_was_said_in_another_run_does_not_count_in_this_one(terms: object) -> None:
    body = said_otherwise(terms, DAVE, RoundKind.KEY_ROUND_1, b"content")  # type: ignore[arg-type]
    (failed,) = four().machines[ALICE].receive(DAVE, RoundKind.KEY_ROUND_1, body, 0.0)
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.BAD_SIGNATURE


def test_a_statement_of_one_kind_does_not_count_as_another() -> None:
    statement = Board(TERMS, DAVE, signer_of(DAVE)).say(RoundKind.KEY_ROUND_1, b"content")
    (failed,) = four().machines[ALICE].receive(DAVE, RoundKind.KEY_ROUND_2, statement.pack(), 0.0)
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.BAD_SIGNATURE


def test_a_certificate_passed_on_for_another_needs_that_ones_signature() -> None:
    wire = four()
    until(wire, RoundKind.KEY_CERTIFICATE)
    (own,) = wire.machines[DAVE]._room.board.statements(RoundKind.KEY_CERTIFICATE, [DAVE])
    for author in (CAROL, bytes_to_id(99)):
        forged = Statement(author, RoundKind.KEY_CERTIFICATE, bytes(64), bytes(64))
        machine = four().machines[ALICE]
        events = machine.receive(DAVE, RoundKind.KEY_CERTIFICATE, own.pack(pack_statements([forged])), 0.0)
        (failed,) = events
        assert isinstance(failed, Failed)
        assert (failed.reason, failed.named) == (Reason.BAD_SIGNATURE, (DAVE,))


def test_after_a_failure_nothing_secret_is_left_to_be_sent() -> None:
    wire = four()
    until(wire, RoundKind.KEY_ROUND_2)
    machine = wire.machines[ALICE]
    machine.tick(ROUND_TIMEOUT)
    assert {kind for _, kind, _ in machine.messages_to_send()} == {RoundKind.KEY_FAILED}
    assert {kind for _, kind, _ in machine.messages_again(BOB)} == {RoundKind.KEY_FAILED}


@pytest.mark.parametrize("content", [b"", make_map(0, [], None), make_map(6, [bytes(32)] * 2, [16, bytes(32), bytes(64)] * 1)])
def test_word_of_a_failure_that_makes_no_sense_is_the_fault_of_its_author(content: bytes) -> None:
    body = said_otherwise(TERMS, DAVE, RoundKind.KEY_FAILED, content)
    (failed,) = four().machines[ALICE].receive(DAVE, RoundKind.KEY_FAILED, body, 0.0)
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.named, failed.reporter) == (Reason.MALFORMED, (DAVE,), None)


@pytest.mark.parametrize("body", [b"", b"\xa0", make_map(b"content"), make_map(b"content", bytes(63))])
def test_bytes_that_are_no_statement_are_the_fault_of_their_sender(body: bytes) -> None:
    (failed,) = four().machines[ALICE].receive(DAVE, RoundKind.KEY_ROUND_1, body, 0.0)
    assert isinstance(failed, Failed)
    assert failed.named == (DAVE,)
    assert failed.reason in (Reason.MALFORMED, Reason.UNSUPPORTED)


def test_what_was_said_is_not_said_again_otherwise() -> None:
    board = Board(TERMS, ALICE, signer_of(ALICE))
    board.say(RoundKind.KEY_ROUND_1, b"one")
    with pytest.raises(ValueError, match="said already"):
        board.say(RoundKind.KEY_ROUND_1, b"two")


@pytest.mark.parametrize(("reason", "kind"), [(200, RoundKind.KEY_ROUND_1), (6, 99)])
def test_a_failure_of_an_unknown_reason_or_kind_is_malformed(reason: int, kind: int) -> None:
    rows = [int(kind), sha256(b"1"), bytes(64), sha256(b"2"), bytes(64)]
    body = said_otherwise(TERMS, DAVE, RoundKind.KEY_FAILED, make_map(reason, [ALICE], rows))
    (failed,) = four().machines[BOB].receive(DAVE, RoundKind.KEY_FAILED, body, 0.0)
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.MALFORMED


def test_a_proof_names_one_member() -> None:
    rows = [int(RoundKind.KEY_ROUND_1), sha256(b"1"), bytes(64), sha256(b"2"), bytes(64)]
    body = said_otherwise(TERMS, DAVE, RoundKind.KEY_FAILED, make_map(int(Reason.EQUIVOCATION), [ALICE, CAROL], rows))
    (failed,) = four().machines[BOB].receive(DAVE, RoundKind.KEY_FAILED, body, 0.0)
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.named) == (Reason.MALFORMED, (DAVE,))


def test_before_its_time_nothing_is_due() -> None:
    machine = four().machines[ALICE]
    assert machine.tick(ROUND_TIMEOUT - 0.1) == []
    assert machine.deadline == ROUND_TIMEOUT


# --- The computations by themselves ---


def test_static_keys_are_different_and_a_threshold_can_be_reached() -> None:
    keys = [BASE * Scalar.of(number) for number in (1, 2, 3)]
    for threshold, some in ((0, keys), (4, keys), (2, [keys[0], keys[0], keys[1]])):
        with pytest.raises(Refused) as refused:
            Setup.of(threshold, some, b"s")
        assert refused.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "signature", [b"", bytes(63), bytes(64), BASE.encode() + b"\xff" * 32, BASE.encode() + bytes(32), b"\xff" * 64]
)
def test_what_is_no_schnorr_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(Refused) as refused:
        verify(BASE, b"message", signature)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_schnorr_signature_binds_key_and_message() -> None:
    secret = Scalar.reduce(sha512(b"secret"))
    signature = sign(secret, b"message")
    verify(BASE * secret, b"message", signature)
    for key, message in ((BASE, b"message"), (BASE * secret, b"messagE")):
        with pytest.raises(Refused):
            verify(key, message, signature)


def test_a_nonce_of_zero_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scalar, "reduce", classmethod(lambda kind, data: kind.of(0)))
    with pytest.raises(ValueError, match="zero"):
        signature_nonce(Scalar.of(5), b"message")


def test_a_secret_of_zero_is_drawn_again() -> None:
    class ZeroFirst(SeededChance):
        drawn = 0

        def token(self, size: int) -> bytes:
            self.drawn += 1
            return bytes(size) if self.drawn == 1 else super().token(size)

    chance = ZeroFirst(1)
    assert not random_scalar(chance).is_zero
    assert chance.drawn == 2


def test_a_share_is_sealed_for_one_sender_one_receiver_and_one_run() -> None:
    sender, receiver, ephemeral, other = (Scalar.of(number) for number in (5, 6, 7, 8))
    sealed = SealKey.of_sender(b"context", sender, ephemeral, BASE * receiver).seal(Scalar.of(9))
    opened, _ = SealKey.of_receiver(b"context", receiver, BASE * ephemeral, BASE * sender).open(sealed)
    assert opened == Scalar.of(9)
    for context, static, shown, author in (
        (b"another", receiver, ephemeral, sender), (b"context", other, ephemeral, sender),
        (b"context", receiver, other, sender), (b"context", receiver, ephemeral, other),
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            SealKey.of_receiver(context, static, BASE * shown, BASE * author).open(sealed)
        assert refused.value.reason is Reason.BAD_SHARE
    assert "key=" not in repr(SealKey(b"k" * 32, b"n" * 24))


def test_blame_stays_with_who_was_blamed_first() -> None:
    with pytest.raises(Blamed) as blamed, blaming(ALICE), blaming(BOB):
        raise Refused(Reason.BAD_SHARE, "bad")
    assert (blamed.value.member, blamed.value.reason) == (BOB, Reason.BAD_SHARE)
