"""Messages between signers: signed by the sender, for one receiver, in one mesh, of a known kind."""

from dataclasses import replace
from typing import Any

import pytest

from overlay.core.authority.round_messages import (
    ROUND_BODY_MAX,
    ROUND_MESSAGE_MAX,
    Outgoing,
    RoundMessage,
    sign_round_message,
    verify_round_message,
)
from overlay.core.wire import make_map, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason, RoundKind
from tests.unit.core.session_kit import ALICE, BOB, LAB, OTHER_LAB, local

MESSAGE = Outgoing(BOB.node_id, b"s" * 16, RoundKind.PACKAGE, b"body")


def verify(raw: bytes, **changes: Any) -> RoundMessage:
    fields: dict[str, Any] = {"own_id": BOB.node_id, "mesh_id": LAB.mesh_id, "peer": ALICE.peer} | changes
    return verify_round_message(raw, **fields)


def refusal(raw: bytes, **changes: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        verify(raw, **changes)
    return refused.value.reason


def raw(message: Outgoing = MESSAGE) -> bytes:
    return sign_round_message(local(ALICE), LAB.mesh_id, message)


def payload_signed(*fields: object, label: bytes = Label.AUTHORITY_ROUND) -> bytes:
    return sign1(make_map(*fields), signer=ALICE.message, aad=label + LAB.mesh_id, kid=ALICE.kid)


def test_what_alice_says_to_bob_arrives_as_it_was() -> None:
    found = verify(raw())
    assert (found.sender, found.to, found.session, found.kind, found.body) == (
        ALICE.node_id, BOB.node_id, b"s" * 16, RoundKind.PACKAGE, b"body",
    )  # fmt: skip
    assert found.raw == raw()


def test_the_largest_body_fits_into_a_message() -> None:
    found = raw(replace(MESSAGE, body=bytes(ROUND_BODY_MAX)))
    assert len(found) <= ROUND_MESSAGE_MAX
    assert len(verify(found).body) == ROUND_BODY_MAX


@pytest.mark.parametrize("message", [replace(MESSAGE, body=bytes(ROUND_BODY_MAX + 1)), replace(MESSAGE, session=b"short")])
def test_what_no_receiver_would_take_is_not_signed(message: Outgoing) -> None:
    with pytest.raises(ValueError, match="session"):
        raw(message)


def test_a_message_for_somebody_else_is_refused() -> None:
    assert refusal(raw(), own_id=ALICE.node_id) is Reason.WRONG_RECIPIENT


def test_a_message_of_another_mesh_is_refused() -> None:
    assert refusal(raw(), mesh_id=OTHER_LAB.mesh_id) is Reason.BAD_SIGNATURE


def test_a_message_under_another_endorsement_is_refused() -> None:
    assert refusal(raw(), peer=BOB.peer) is Reason.WRONG_AUTHOR


def test_a_message_in_the_name_of_another_is_refused() -> None:
    forged = payload_signed(BOB.node_id, BOB.node_id, b"s" * 16, 1, b"")
    assert refusal(forged) is Reason.WRONG_AUTHOR


def test_a_changed_message_is_refused() -> None:
    changed = raw().replace(b"body", b"b0dy")
    assert refusal(changed) is Reason.BAD_SIGNATURE


def test_a_call_does_not_pass_for_a_message_between_signers() -> None:
    forged = payload_signed(ALICE.node_id, BOB.node_id, b"s" * 16, 1, b"", label=Label.CALL)
    assert refusal(forged) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("kind", [0, 6, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    assert refusal(payload_signed(ALICE.node_id, BOB.node_id, b"s" * 16, kind, b"")) is Reason.MALFORMED
