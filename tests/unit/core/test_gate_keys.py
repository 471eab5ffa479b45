"""Gate keys: the highest holds, old ones pass for ninety days, and only signers make them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.endorsement import make_endorsement
from overlay.core.gate_keys import _CARRIED, JUMP_MAX, KEYS_MAX, GateKeys, sign_gate_key, verify_gate_key
from overlay.core.keys import NodeId
from overlay.core.trust import Quarantine, TrustSet
from overlay.core.wire import make_map, open_map
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, make_member, make_mesh
from tests.unit.core.revocation_kit import make_list, revoked

MESH = make_mesh()
ALICE, BOB = make_member(MESH, "alice"), make_member(MESH, "bob")
FIRST = GateKeys(()).adding(1, b"1" * 32, NOW)


def carried(number: int = 2, *, at: timedelta = timedelta(0)) -> bytes:
    return sign_gate_key(
        number, b"k" * 32, signer=ALICE.message, credentials=ALICE.credentials, mesh_id=MESH.mesh_id, at=NOW + at
    )


def verify(raw: bytes, trust: TrustSet = MESH.trust, *, signers: tuple[NodeId, ...] = (ALICE.node_id,)) -> tuple[int, bytes]:
    return verify_gate_key(raw, trust, signers.__contains__, 1, NOW)


def refusal(raw: bytes, trust: TrustSet = MESH.trust, **options: tuple[NodeId, ...]) -> Reason:
    with pytest.raises(Refused) as refused:
        verify(raw, trust, **options)
    return refused.value.reason


def test_the_highest_number_holds_and_of_two_equal_ones_the_lower_key() -> None:
    rows = [(3, b"c" * 32), (2, b"x" * 32), (3, b"b" * 32)]
    for order in (rows, rows[::-1]):
        found = FIRST
        for number, key in order:
            found = found.adding(number, key, NOW)
        assert [(one.number, one.key[:1]) for one in found.keys] == [(3, b"b"), (3, b"c"), (2, b"x"), (1, b"1")]
        assert found.newest.number == 3


def test_an_older_key_passes_for_ninety_days_after_it_was_replaced_and_the_last_two_for_ever() -> None:
    found = FIRST.adding(2, b"2" * 32, NOW + DAY).adding(3, b"3" * 32, NOW + 2 * DAY)
    assert [one.number for one in found.adding(4, b"4" * 32, NOW + 90 * DAY).keys] == [4, 3, 2, 1]
    assert [one.number for one in found.adding(4, b"4" * 32, NOW + 91 * DAY).keys] == [4, 3, 2]
    assert [one.number for one in found.adding(4, b"4" * 32, NOW + 900 * DAY).keys] == [4, 3]


def test_at_most_so_many_are_kept() -> None:
    found = FIRST
    for number in range(2, KEYS_MAX + 9):
        found = found.adding(number, number.to_bytes(32, "big"), NOW)
    assert len(found.keys) == KEYS_MAX and found.newest.number == KEYS_MAX + 8


def test_what_is_known_changes_nothing() -> None:
    assert FIRST.adding(9, b"1" * 32, NOW + DAY) is FIRST


def test_keys_come_back_from_the_disk_and_show_nothing() -> None:
    found = FIRST.adding(2, b"2" * 32, NOW, carried())
    assert GateKeys.unpack(found.pack()) == found and found.signed == carried()
    assert found.adding(3, b"3" * 32, NOW).signed is None
    assert "2222" not in repr(found) and "50, 50" not in repr(found)


def test_the_key_of_a_signer_is_believed_also_when_its_endorsement_has_ended() -> None:
    assert verify(carried()) == (2, b"k" * 32)
    assert verify_gate_key(carried(), MESH.trust, (ALICE.node_id,).__contains__, 1, NOW + 5 * DAY) == (2, b"k" * 32)


def test_the_key_of_somebody_who_never_was_a_signer_is_refused() -> None:
    assert refusal(carried(), signers=(BOB.node_id,)) is Reason.NOT_ALLOWED


def test_the_key_of_a_signer_that_is_out_is_refused() -> None:
    assert refusal(carried(), MESH.trust.with_list(make_list(MESH, revoked(ALICE)))) is Reason.REVOKED
    held = MESH.trust.with_quarantine(Quarantine(ALICE.node_id, NOW + DAY, bytes(32)))
    assert refusal(carried(), held) is Reason.QUARANTINED


def test_a_key_of_tomorrow_is_refused() -> None:
    assert refusal(carried(at=HOUR)) is Reason.CLOCK


def test_a_key_in_another_name_or_of_another_content_is_refused() -> None:
    cose, made, *_rest = open_map(carried(), *_CARRIED, limit=2**20)
    theirs = BOB.credentials
    assert refusal(make_map(cose, made, theirs.endorsement, theirs.leaf, []), signers=(BOB.node_id,)) is Reason.BAD_SIGNATURE
    ours = ALICE.credentials
    changed = cose[:-1] + bytes([cose[-1] ^ 1])
    assert refusal(make_map(changed, made, ours.endorsement, ours.leaf, [])) is Reason.BAD_SIGNATURE


def test_a_key_under_another_endorsement_of_the_same_keys_is_refused() -> None:
    cose, made, _endorsement, leaf, chain = open_map(carried(), *_CARRIED, limit=2**20)
    other = make_endorsement(
        ALICE.signer, mesh_id=MESH.mesh_id, leaf=leaf, noise_public=ALICE.noise.public, message=ALICE.message,
        start_id=b"another start id", not_before=NOW - HOUR / 2, not_after=NOW + HOUR,
    )
    assert refusal(make_map(cose, made, other, leaf, chain)) is Reason.BAD_SIGNATURE


def test_nobody_uses_up_the_numbers() -> None:
    assert verify(carried(1 + JUMP_MAX))[0] == 1 + JUMP_MAX
    assert refusal(carried(2 + JUMP_MAX)) is Reason.NOT_ALLOWED


@given(st.binary(max_size=80))
def test_any_bytes_are_keys_or_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        verify(data)
    try:
        found = GateKeys.unpack(data)
    except Refused:
        return
    assert found.pack() == data
