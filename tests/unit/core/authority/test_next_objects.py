"""Later authority objects: who has to sign, what may follow what."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from overlay.core.authority.contents import ClosingCheckpoint, Contents, ObjectKind, next_contents, read_next
from overlay.core.authority.objects import Signatures, assemble, to_be_signed, verify_next
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.authority.roots import NextRoot, parse_next_root
from overlay.core.certificate_profile import ED25519_OID, Life
from overlay.core.certificate_profile import seal as seal_certificate
from overlay.core.keys import Ed25519Signer, NodeId, Signer
from overlay.core.wire import Anything, Maybe, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.generations_kit import (
    FOUNDING_KEY,
    MESH,
    RECOVERY,
    THIEF,
    Generation,
    checkpoint,
    checkpoints,
    cross_for,
    founding,
    keys,
    nodes,
    root_after,
    seal,
)
from tests.unit.core.authority_kit import DAY, NOW, make_mesh, seed

ZERO = founding()
ROLLED = ZERO.rollover("one")
RESHARED = ROLLED.reshared("bcde", 3)
RECOVERED = ROLLED.recovered("rescue")
PAYLOAD_FIELDS = ("mesh_id", "number", "root", "cross", "members", "transcript", "previous", "closing", "recovery")


def reason_for(raw: bytes, before: Contents) -> Reason:
    with pytest.raises(Refused) as caught:
        verify_next(raw, before)
    return caught.value.reason


def changed(generation: Generation, **other: object) -> bytes:
    """The payload with other fields."""
    kinds = [Maybe(Anything())] * len(PAYLOAD_FIELDS)
    fields = dict(zip(PAYLOAD_FIELDS, open_map(generation.contents.pack(), *kinds, limit=2**16), strict=True))
    assert other.keys() <= fields.keys()
    return make_map(*(fields | other).values())


def signed(generation: Generation, payload: bytes, members: list[Signer] | None = None) -> bytes:
    """By all who have to sign such an object."""
    previous = {ObjectKind.ROLLOVER: FOUNDING_KEY}.get(generation.contents.kind)
    recovery = (0, 1) if generation.contents.kind is ObjectKind.RECOVERY else ()
    signers = generation.members if members is None else members
    return seal(generation.contents, payload, generation.key, signers, previous_root=previous, recovery=recovery)


@pytest.mark.parametrize(
    ("generation", "before", "kind"),
    [
        (ROLLED, ZERO, ObjectKind.ROLLOVER),
        (RESHARED, ROLLED, ObjectKind.RESHARING),
        (RECOVERED, ROLLED, ObjectKind.RECOVERY),
    ],
)
def test_each_kind_of_successor_is_accepted(generation: Generation, before: Generation, kind: ObjectKind) -> None:
    found = verify_next(generation.raw, before.contents)
    assert found.contents == generation.contents
    assert (found.kind, found.number) == (kind, before.contents.number + 1)
    assert found.member_ids == tuple(sorted(NodeId.of_key(member.spki) for member in generation.members))
    assert found.root.public_key == generation.key.public_key
    assert (found.root == before.contents.root) is (kind is ObjectKind.RESHARING)
    assert found.root.mesh_id == MESH.mesh_id
    assert found.recovery == before.contents.recovery
    assert found.cross == generation.contents.cross
    assert found.threshold == generation.contents.threshold
    assert found.hash == sha256(generation.contents.pack())


def test_an_object_is_known_by_what_it_says_and_not_by_how_it_was_signed() -> None:
    payload = ROLLED.contents.pack()
    again = signed(ROLLED, payload)
    other_order = signed(ROLLED, payload)
    assert verify_next(again, ZERO.contents).hash == verify_next(other_order, ZERO.contents).hash == ROLLED.contents.hash


# --- who signs ------------------------------------------------------------------------------------------------------


def forged(generation: Generation, **wrong: object) -> bytes:
    payload = generation.contents.pack()
    data = to_be_signed(MESH.mesh_id, payload)
    good = Signatures(
        root=generation.key.sign(data), members=[member.sign(data) for member in generation.members],
        previous_root=FOUNDING_KEY.sign(data) if generation.contents.kind is ObjectKind.ROLLOVER else None,
        recovery={place: RECOVERY[place].sign(data) for place in (0, 1)}
        if generation.contents.kind is ObjectKind.RECOVERY else {},
    )  # fmt: skip
    return assemble(payload, replace(good, **wrong))  # type: ignore[arg-type]


BAD = bytes(63) + b"\1"


@pytest.mark.parametrize("generation", [ROLLED, RESHARED, RECOVERED])
def test_without_the_signature_of_the_new_root_it_is_refused(generation: Generation) -> None:
    before = (ZERO if generation is ROLLED else ROLLED).contents
    verify_next(forged(generation), before)
    assert reason_for(forged(generation, root=BAD), before) is Reason.BAD_AUTHORITY_OBJECT


@pytest.mark.parametrize("wrong", [BAD, None, "thief"])
def test_without_the_signature_of_the_root_before_a_rollover_is_refused(wrong: bytes | str | None) -> None:
    payload = ROLLED.contents.pack()
    signature = THIEF.sign(to_be_signed(MESH.mesh_id, payload)) if wrong == "thief" else wrong
    assert reason_for(forged(ROLLED, previous_root=signature), ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_every_member_has_to_sign() -> None:
    data = to_be_signed(MESH.mesh_id, ROLLED.contents.pack())
    good = [member.sign(data) for member in ROLLED.members]
    verify_next(forged(ROLLED, members=good), ZERO.contents)
    for place in range(len(good)):
        missing, bad = good[:place] + good[place + 1 :], [*good[:place], THIEF.sign(data), *good[place + 1 :]]
        assert reason_for(forged(ROLLED, members=missing), ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT
        assert reason_for(forged(ROLLED, members=bad), ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT
    for wrong in ([*good, good[0]], good[::-1], []):
        assert reason_for(forged(ROLLED, members=wrong), ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_a_resharing_bears_no_signature_of_the_root_before_beside_that_of_the_root() -> None:
    signature = ROLLED.key.sign(to_be_signed(MESH.mesh_id, RESHARED.contents.pack()))
    assert reason_for(forged(RESHARED, previous_root=signature), ROLLED.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_a_thief_of_the_root_before_last_cannot_reshare() -> None:
    payload = RESHARED.contents.pack()
    raw = seal(RESHARED.contents, payload, FOUNDING_KEY, RESHARED.members)
    assert reason_for(raw, ROLLED.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_a_signature_for_another_mesh_is_refused() -> None:
    other = make_mesh("other").mesh_id
    payload = ROLLED.contents.pack()
    data = to_be_signed(other, payload)
    raw = assemble(
        payload,
        Signatures(ROLLED.key.sign(data), [member.sign(data) for member in ROLLED.members], FOUNDING_KEY.sign(data)),
    )
    assert reason_for(raw, ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_bytes_after_an_object_are_refused() -> None:
    assert reason_for(ROLLED.raw + b"\0", ZERO.contents) is Reason.MALFORMED


def test_one_flipped_bit_in_any_byte_is_refused() -> None:
    for place in range(len(ROLLED.raw)):
        damaged = bytearray(ROLLED.raw)
        damaged[place] ^= 1 << place % 8
        reason_for(bytes(damaged), ZERO.contents)


# --- what may follow what -------------------------------------------------------------------------------------------


def test_what_follows_another_object_is_refused() -> None:
    other = founding(RecoveryKeys())
    assert reason_for(ROLLED.raw, other.contents) is Reason.BAD_AUTHORITY_OBJECT
    assert reason_for(ROLLED.raw, ROLLED.contents) is Reason.WRONG_GENERATION
    assert reason_for(signed(ROLLED, changed(ROLLED, number=2)), ZERO.contents) is Reason.WRONG_GENERATION
    assert reason_for(signed(ROLLED, changed(ROLLED, mesh_id=bytes(32))), ZERO.contents) is Reason.OTHER_MESH


FOREIGN = make_mesh("other").root
ONE = ROLLED.contents
MEMBERS = [member.spki for member in ONE.members]
CLOSING = [item.fields for item in ONE.closing]


@pytest.mark.parametrize(
    "field",
    [
        {"previous": None},
        {"previous": bytes(32)},
        {"transcript": None},
        {"closing": None},
        {"closing": []},
        {"closing": CLOSING * 2},
        {"closing": [checkpoint(ONE.member_ids[0]).fields]},
        {"recovery": [[], 0]},
        {"recovery": [list(ONE.recovery.keys), 1]},
        {"recovery": [list(ONE.recovery.keys)[::-1], 2]},
    ],
)
def test_a_field_that_is_missing_or_does_not_belong_to_the_object_before_is_refused(field: dict[str, object]) -> None:
    assert reason_for(signed(ROLLED, changed(ROLLED, **field)), ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT


@pytest.mark.parametrize(
    "members",
    [
        [MEMBERS, 0],
        [MEMBERS, 1],
        [MEMBERS, 4],
        [MEMBERS[::-1], 2],
        [[MEMBERS[0], MEMBERS[0], MEMBERS[1]], 2],
        [[], 1],
        [[*MEMBERS[:2], bytes(44)], 2],
    ],
)
def test_members_that_could_tell_two_stories_or_are_not_in_order_are_refused(members: list[object]) -> None:
    by_key = {member.spki: member for member in ROLLED.members}
    signers = [by_key[key] for key in members[0] if key in by_key]  # type: ignore[attr-defined]
    raw = signed(ROLLED, changed(ROLLED, members=members), signers)
    assert reason_for(raw, ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT


@pytest.mark.parametrize(("count", "threshold"), [(2, 1), (4, 2), (5, 2)])
def test_two_quorums_without_a_common_member_are_refused(count: int, threshold: int) -> None:
    with pytest.raises(Refused, match="more than half"):
        ROLLED.reshared("abcdefgh"[:count], threshold)


@pytest.mark.parametrize(
    "field",
    [
        {"root": FOREIGN.der},
        {"root": MESH.root.der},
        {"root": root_after(MESH.root, THIEF).der},
        {"root": root_after(FOREIGN, ROLLED.key).der},
        {"root": root_after(MESH.root, ROLLED.key, NOW + DAY).der},
        {"cross": MESH.root.der},
        {"cross": ONE.root.der},
        {"cross": cross_for(MESH.root, THIEF, ROLLED.key)},
        {"cross": cross_for(MESH.root, FOUNDING_KEY, THIEF)},
        {"cross": cross_for(MESH.root, FOUNDING_KEY, ROLLED.key, NOW + DAY)},
        {"cross": cross_for(FOREIGN, FOUNDING_KEY, ROLLED.key)},
        {"cross": (ONE.cross or b"") + b"\0"},
    ],
    ids=str,
)
def test_a_root_and_a_cross_certificate_that_do_not_belong_together_are_refused(field: dict[str, object]) -> None:
    assert reason_for(signed(ROLLED, changed(ROLLED, **field)), ZERO.contents) is Reason.BAD_CERTIFICATE


def test_a_certificate_with_the_signature_of_another_is_refused() -> None:
    good = NextRoot(MESH.root, ONE.root.spki, ONE.root.life)
    other = NextRoot(MESH.root, ONE.root.spki, Life(ONE.root.life.not_before, NOW + DAY))
    cross = seal_certificate(other.cross_to_be_signed, ED25519_OID, FOUNDING_KEY.sign(good.cross_to_be_signed))
    assert reason_for(signed(ROLLED, changed(ROLLED, cross=cross)), ZERO.contents) is Reason.BAD_CERTIFICATE


def test_a_later_root_with_the_key_of_the_one_before_is_refused() -> None:
    with pytest.raises(Refused, match="another key"):
        parse_next_root(MESH.root.der, MESH.root)


def test_a_new_root_without_a_cross_certificate_is_a_recovery_and_the_old_root_cannot_sign_that() -> None:
    raw = signed(ROLLED, changed(ROLLED, cross=None))
    assert reason_for(raw, ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_a_resharing_among_the_same_members_is_refused() -> None:
    with pytest.raises(Refused, match="refresh"):
        ROLLED.reshared("abc", 2)
    assert ROLLED.reshared("abc", 3).contents.threshold == 3


def test_a_signer_that_is_gone_closes_no_log_but_those_who_sign_do() -> None:
    every = checkpoints(RESHARED.contents)

    def with_closing(closing: list[ClosingCheckpoint]) -> Contents:
        return next_contents(
            RESHARED.contents, RESHARED.contents.root, keys(nodes("abc")), 2, transcript=bytes(32), closing=closing
        )

    assert len(with_closing(every[1:]).closing) == 3
    for wrong in (every[2:], [*every, checkpoint(NodeId(bytes(32)))]):
        with pytest.raises(Refused, match=r"close|closing"):
            with_closing(wrong)


# --- recovery keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [(), (0,), (1,)])
def test_fewer_recovery_keys_than_it_takes_are_refused(places: tuple[int, ...]) -> None:
    data = to_be_signed(MESH.mesh_id, RECOVERED.contents.pack())
    signatures = {place: RECOVERY[place].sign(data) for place in places}
    assert reason_for(forged(RECOVERED, recovery=signatures), ROLLED.contents) is Reason.BAD_AUTHORITY_OBJECT


@pytest.mark.parametrize("other", [{0: BAD}, {1: RECOVERY[0]}, {3: THIEF}, {0: THIEF}, {2: BAD}])
def test_a_bad_signature_of_a_recovery_key_is_refused_even_beside_enough_good_ones(
    other: dict[int, bytes | Ed25519Signer],
) -> None:
    data = to_be_signed(MESH.mesh_id, RECOVERED.contents.pack())
    signatures = {place: RECOVERY[place].sign(data) for place in (0, 1)}
    signatures |= {place: key if isinstance(key, bytes) else key.sign(data) for place, key in other.items()}
    assert reason_for(forged(RECOVERED, recovery=signatures), ROLLED.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_one_recovery_key_that_signs_twice_counts_once() -> None:
    payload = RECOVERED.contents.pack()
    data = to_be_signed(MESH.mesh_id, payload)
    signature = RECOVERY[0].sign(data)
    holders = [RECOVERED.key.sign(data), *(member.sign(data) for member in RECOVERED.members)]
    raw = make_map(payload, holders, None, [[0, signature], [0, signature]])
    assert reason_for(raw, ROLLED.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_signatures_of_recovery_keys_that_are_not_in_order_are_refused() -> None:
    payload, holders, previous, recovery = open_map(RECOVERED.raw, *[Maybe(Anything())] * 4, limit=2**16)
    raw = make_map(payload, holders, previous, recovery[::-1])
    assert reason_for(raw, ROLLED.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_recovery_keys_cannot_sign_a_rollover_or_a_resharing() -> None:
    for generation, before in ((ROLLED, ZERO), (RESHARED, ROLLED)):
        data = to_be_signed(MESH.mesh_id, generation.contents.pack())
        extra = {place: RECOVERY[place].sign(data) for place in (0, 1)}
        assert reason_for(forged(generation, recovery=extra), before.contents) is Reason.BAD_AUTHORITY_OBJECT
    raw = seal(ROLLED.contents, ROLLED.contents.pack(), ROLLED.key, ROLLED.members, recovery=(0, 1))
    assert reason_for(raw, ZERO.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_the_old_root_cannot_sign_a_recovery_beside_the_recovery_keys() -> None:
    data = to_be_signed(MESH.mesh_id, RECOVERED.contents.pack())
    assert reason_for(forged(RECOVERED, previous_root=ROLLED.key.sign(data)), ROLLED.contents) is Reason.BAD_AUTHORITY_OBJECT


def test_a_mesh_without_recovery_keys_is_never_recovered() -> None:
    bare = founding(RecoveryKeys())
    rescue = bare.recovered("rescue", by=())
    assert reason_for(rescue.raw, bare.contents) is Reason.BAD_AUTHORITY_OBJECT
    three = bare.recovered("rescue", by=(0, 1, 2))
    assert reason_for(three.raw, bare.contents) is Reason.BAD_AUTHORITY_OBJECT


@pytest.mark.parametrize(("count", "threshold"), [(0, 0), (1, 1), (2, 2), (3, 2), (5, 3)])
def test_a_majority_of_recovery_keys_is_the_default(count: int, threshold: int) -> None:
    found = RecoveryKeys.of(*(Ed25519Signer(seed(str(number))).public_key for number in range(count)))
    assert (len(found.keys), found.threshold) == (count, threshold)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RecoveryKeys.of(RECOVERY[0].public_key, RECOVERY[0].public_key),
        lambda: RecoveryKeys.of(RECOVERY[0].public_key, threshold=2),
        lambda: RecoveryKeys.of(RECOVERY[0].public_key, threshold=0),
        lambda: RecoveryKeys.of(threshold=1),
        lambda: RecoveryKeys.of(bytes(32)),
        lambda: RecoveryKeys.of(*(Ed25519Signer(seed(str(number))).public_key for number in range(17))),
    ],
)
def test_recovery_keys_that_could_not_recover_are_an_error_of_the_user(make: Callable[[], RecoveryKeys]) -> None:
    with pytest.raises(ValueError, match="recovery key"):
        make()


def test_a_signer_can_check_a_payload_before_it_signs() -> None:
    assert read_next(ROLLED.contents.pack(), ZERO.contents) == ROLLED.contents
    with pytest.raises(Refused):
        read_next(changed(ROLLED, transcript=None), ZERO.contents)
