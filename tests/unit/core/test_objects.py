"""Authority object 0: the founding record, signed by the root and the founder, bound to the mesh."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.contents import founding_contents
from overlay.core.authority.objects import (
    OBJECT_MAX,
    Signatures,
    assemble,
    make_object_zero,
    to_be_signed,
    verify_object_zero,
)
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.keys import Ed25519Signer, IdentityKey, NodeId, Signer
from overlay.core.wire import make_map, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import P256Signer, make_mesh, seed

MESH = make_mesh()
FOUNDER = P256Signer(seed("founder"))
ROOT_KEY = MESH.authority.key
THIEF = Ed25519Signer(seed("thief"))
GOOD_KEYS = [Ed25519Signer(seed("recovery", str(number))).public_key for number in range(2)]


def reason_for(raw: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        verify_object_zero(raw, MESH.root)
    return caught.value.reason


def make(*signers: Signer, **other: object) -> bytes:
    """An object put together field by field; those in `other` are replaced before it is signed."""
    fields: dict[str, object] = {
        "mesh_id": MESH.mesh_id,
        "number": 0,
        "root": MESH.root.der,
        "cross": None,
        "members": [[FOUNDER.spki], 1],
        "transcript": None,
        "previous": None,
        "closing": None,
        "recovery": [[], 0],
    }
    assert other.keys() <= fields.keys()
    payload = make_map(*(fields | other).values())
    data = Label.AUTHORITY_OBJECT + MESH.mesh_id + payload
    return make_map(payload, [signer.sign(data) for signer in signers or (ROOT_KEY, FOUNDER)])


@pytest.mark.parametrize("founder", [FOUNDER, Ed25519Signer(seed("founder"))])
def test_the_founding_record_names_the_founder_alone(founder: Signer) -> None:
    raw = MESH.authority.object_zero(founder)
    found = verify_object_zero(raw, MESH.root)
    assert (found.number, found.threshold) == (0, 1)
    assert [member.spki for member in found.members] == [founder.spki]
    assert found.member_ids == (found.members[0].node_id,)
    assert found.recovery == RecoveryKeys()
    assert found.hash == sha256(founding_contents(MESH.root, found.members[0], RecoveryKeys()).pack())


def test_the_record_written_out_field_by_field_is_the_same() -> None:
    founder = Ed25519Signer(seed("founder"))
    by_hand = make(ROOT_KEY, founder, members=[[founder.spki], 1])
    assert by_hand == make_object_zero(MESH.root, ROOT_KEY, founder)


def test_recovery_keys_are_read() -> None:
    found = verify_object_zero(make(recovery=[GOOD_KEYS, 2]), MESH.root)
    assert found.recovery == RecoveryKeys(tuple(GOOD_KEYS), 2)


def test_a_founder_may_name_recovery_keys() -> None:
    keys = RecoveryKeys.of(*GOOD_KEYS, threshold=1)
    assert verify_object_zero(make_object_zero(MESH.root, ROOT_KEY, FOUNDER, keys), MESH.root).recovery == keys


def test_a_record_not_signed_by_both_root_and_founder_is_refused() -> None:
    for signers in ((THIEF, FOUNDER), (ROOT_KEY, THIEF), (FOUNDER, ROOT_KEY), (ROOT_KEY,), (ROOT_KEY, FOUNDER, THIEF)):
        assert reason_for(make(*signers)) is Reason.BAD_AUTHORITY_OBJECT


def test_a_record_of_another_mesh_or_root_is_refused() -> None:
    other = make_mesh("other")
    assert reason_for(other.authority.object_zero(FOUNDER)) is Reason.OTHER_MESH
    assert reason_for(make(mesh_id=other.mesh_id)) is Reason.OTHER_MESH
    assert reason_for(make(root=other.root.der)) is Reason.OTHER_MESH


@pytest.mark.parametrize(
    "field",
    [
        {"number": 1},
        {"cross": b"x"},
        {"transcript": bytes(32)},
        {"previous": bytes(32)},
        {"closing": []},
        {"members": [[FOUNDER.spki], 2]},
        {"members": [[], 1]},
        {"members": [[FOUNDER.spki, THIEF.spki], 1]},
        {"members": [[bytes(44)], 1]},
        {"recovery": [GOOD_KEYS[:1], 0]},
        {"recovery": [GOOD_KEYS[:1], 2]},
        {"recovery": [[], 1]},
        {"recovery": [GOOD_KEYS[:1] * 2, 1]},
        {"recovery": [[bytes(32)], 1]},
    ],
)
def test_what_cannot_be_a_founding_record_is_refused(field: dict[str, object]) -> None:
    assert reason_for(make(**field)) is Reason.BAD_AUTHORITY_OBJECT


@pytest.mark.parametrize("extra", [{"previous_root": bytes(64)}, {"recovery": {0: bytes(64)}}])
def test_signatures_of_those_before_do_not_belong_to_a_founding_record(extra: dict[str, Any]) -> None:
    payload = founding_contents(MESH.root, IdentityKey.parse(FOUNDER.spki), RecoveryKeys()).pack()
    data = to_be_signed(MESH.mesh_id, payload)
    good = Signatures(ROOT_KEY.sign(data), [FOUNDER.sign(data)])
    assert verify_object_zero(assemble(payload, good), MESH.root).number == 0
    assert reason_for(assemble(payload, replace(good, **extra))) is Reason.BAD_AUTHORITY_OBJECT


def test_two_founders_are_refused() -> None:
    both = sorted([FOUNDER, THIEF], key=lambda signer: NodeId.of_key(signer.spki))
    raw = make(ROOT_KEY, *both, members=[[signer.spki for signer in both], 2])
    assert reason_for(raw) is Reason.BAD_AUTHORITY_OBJECT


def test_one_flipped_bit_in_any_byte_is_refused() -> None:
    raw = make()
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        reason_for(bytes(damaged))


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    assert reason_for(bytes(OBJECT_MAX + 1)) is Reason.TOO_LARGE


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    reason_for(data)
    reason_for(make_map(data or b"x", [bytes(64)]))
