"""The policy: signed by the mesh key, and strict when in doubt."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.policy import (
    EK_ROOT_MAX,
    EK_ROOTS_MAX,
    EK_TAGS_MAX,
    POLICY_MAX,
    Attestation,
    Policy,
    VerifiedPolicy,
    verify_policy,
)
from overlay.core.policy_parts import (
    DIGESTS_MAX,
    EARLIER_MAX,
    FLOORS_MAX,
    DigestRule,
    Earlier,
    FirmwareFloor,
    MissingLog,
    Mode,
    Need,
    Needs,
    References,
)
from overlay.core.wire import encode, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import P256Signer, make_mesh, seed

MESH = make_mesh()
FULL = Policy(
    version=3,
    attestation=Attestation.REQUIRE,
    mode=Mode.ENFORCE,
    minimum_level=2,
    pcr_bitmap=1 << 14 | 1,
    pcr_digests=(bytes(32), bytes([1]) * 32),
    manifests=(bytes([2]) * 32,),
)
EVERYTHING = replace(
    FULL,
    ek_roots=(b"one", b"two"),
    ek_tags=(bytes([3]) * 32,),
    firmware_floors=(FirmwareFloor(9, 4),),
    digest_rules=(DigestRule(4, allowed=(bytes(32),)), DigestRule(7, required=(bytes(32),), forbidden=(bytes([1]) * 32,))),
    file_rule=DigestRule(10, forbidden=(bytes([5]) * 32,)),
    missing_log=MissingLog.WARN,
    earlier=(
        Earlier(1_800_000_000, Mode.WARN, References(
            pcr_bitmap=1, pcr_digests=(bytes(32),), manifests=(bytes(32),), firmware_floors=(FirmwareFloor(3),),
            digest_rules=(DigestRule(7),), file_rule=DigestRule(10),
        )),
    ),
    needs=Needs((Need("run", 4, ("worker",)),), (Need("news", 2),), (Need("signer", 3),)),
)  # fmt: skip


def reason_for(raw: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        verify_policy(raw, MESH.root)
    return caught.value.reason


def signed(payload: bytes, *, label: bytes = Label.POLICY) -> bytes:
    return sign1(payload, signer=MESH.authority.key, aad=label + MESH.mesh_id, kid=None)


def test_a_signed_policy_is_read_as_it_was_written() -> None:
    for policy in (FULL, EVERYTHING):
        raw = MESH.authority.sign_policy(policy)
        assert verify_policy(raw, MESH.root) == VerifiedPolicy(policy, raw)


def test_the_first_policy_lets_first_nodes_join() -> None:
    policy = Policy.default()
    assert (policy.version, policy.attestation, policy.mode) == (1, Attestation.PREFER, Mode.LEARN)
    assert (policy.minimum_level, policy.pcrs, policy.manifests) == (0, (), ())
    assert not policy.has_tpm_references


def test_reference_values_for_a_tpm_are_pcrs_and_digests() -> None:
    assert FULL.has_tpm_references
    assert FULL.pcrs == (0, 14)
    assert not Policy(version=1, pcr_bitmap=1).has_tpm_references
    assert not Policy(version=1, pcr_digests=(bytes(32),)).has_tpm_references


def test_a_policy_that_names_no_mode_means_enforce() -> None:
    payload = encode({0: 1, 1: 1, 2: 1, 4: 0, 5: 0, 6: [], 7: []})
    assert verify_policy(signed(payload), MESH.root).policy.mode is Mode.ENFORCE
    assert Policy(version=1).mode is Mode.ENFORCE


def test_a_policy_not_signed_by_the_mesh_key_is_refused() -> None:
    assert reason_for(make_mesh("other").authority.sign_policy(FULL)) is Reason.BAD_POLICY
    assert reason_for(signed(FULL.pack(), label=Label.AUTHORITY_TEST)) is Reason.BAD_POLICY
    other_kind = sign1(FULL.pack(), signer=P256Signer(seed("p")), aad=Label.POLICY + MESH.mesh_id, kid=None)
    assert reason_for(other_kind) is Reason.BAD_POLICY


def test_one_flipped_bit_in_any_byte_is_refused() -> None:
    raw = MESH.authority.sign_policy(FULL)
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << place % 8
        assert reason_for(bytes(damaged)) in (Reason.BAD_POLICY, Reason.MALFORMED)


@pytest.mark.parametrize(
    "field",
    [
        {2: 3},
        {3: 3},
        {4: 6},
        {5: 1 << 24},
        {6: [bytes(31)]},
        {7: [bytes(33)]},
        {6: [bytes(32)] * (DIGESTS_MAX + 1)},
        {8: 1},
        {8: [b""]},
        {8: [bytes(EK_ROOT_MAX + 1)]},
        {8: [b"root"] * (EK_ROOTS_MAX + 1)},
        {9: [bytes(31)]},
        {9: [bytes(32)] * (EK_TAGS_MAX + 1)},
        {10: [[1]]},
        {10: [[0, 1]] * (FLOORS_MAX + 1)},
        {11: [[24, [], [], []]]},
        {11: [[7, [], [], []], [7, [], [], []]]},
        {11: [[7, [], [], []], [4, [], [], []]]},
        {11: [[7, [bytes(31)], [], []]]},
        {12: [[7, [], [], []]]},
        {12: [[10, [], [], []], [10, [], [], []]]},
        {13: 3},
        {14: [[0, 3, 0, [], [], [], [], []]]},
        {14: [[0, 2, 0, [], [], [], []]]},
        {14: [[2**40, 2, 0, [], [], [], [], []]]},
        {14: [[0, 2, 0, [], [], [], [], []]] * (EARLIER_MAX + 1)},
        {15: [[], []]},
        {15: [[["b", 1, []], ["a", 1, []]], [], []]},
        {15: [[["a", 1, []], ["a", 2, []]], [], []]},
        {15: [[["a", 6, []]], [], []]},
        {15: [[], [], [["worker", 3, ["other"]]]]},
        {16: 1},
    ],
)
def test_a_field_of_another_form_is_refused(field: dict[int, object]) -> None:
    fields: dict[int, object] = {0: 1, 1: 1, 2: 1, 3: 0, 4: 0, 5: 0, 6: [], 7: []}
    assert reason_for(signed(encode(fields | field))) is Reason.MALFORMED


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    assert reason_for(b"\xd2" + bytes(POLICY_MAX + 1)) is Reason.TOO_LARGE


def test_the_largest_policy_is_accepted() -> None:
    many = tuple(number.to_bytes(32, "big") for number in range(DIGESTS_MAX))
    policy = Policy(
        version=1, pcr_bitmap=1, pcr_digests=many, manifests=many, ek_tags=many,
        earlier=(Earlier(1, Mode.ENFORCE, References(pcr_bitmap=1, pcr_digests=many, manifests=many)),),
        ek_roots=tuple(bytes([number]) * 2048 for number in range(EK_ROOTS_MAX)),
    )
    assert verify_policy(MESH.authority.sign_policy(policy), MESH.root).policy == policy


def test_a_policy_that_uses_nothing_new_has_the_bytes_that_it_always_had() -> None:
    payload = encode({0: 1, 1: 1, 2: 1, 3: 0, 4: 0, 5: 0, 6: [], 7: []})
    assert Policy.default().pack() == payload
    assert Policy.unpack(payload) == Policy.default()


def test_what_a_missing_log_means_follows_from_the_rules_where_the_policy_does_not_say() -> None:
    assert Policy(version=1).without_log is MissingLog.ALLOW
    assert Policy(version=1, digest_rules=(DigestRule(7),)).without_log is MissingLog.REFUSE
    assert Policy(version=1, file_rule=DigestRule(10)).without_log is MissingLog.REFUSE
    assert Policy(version=1, file_rule=DigestRule(10), missing_log=MissingLog.WARN).without_log is MissingLog.WARN


def test_grace_ends_on_the_second() -> None:
    policy = replace(FULL, earlier=(Earlier(1_000, Mode.ENFORCE, References()), Earlier(2_000, Mode.WARN, References())))
    assert [one.until for one in policy.in_grace(datetime.fromtimestamp(999.9, UTC))] == [1_000, 2_000]
    assert [one.until for one in policy.in_grace(datetime.fromtimestamp(1_000, UTC))] == [2_000]
    assert policy.in_grace(datetime.fromtimestamp(2_000, UTC)) == ()


def test_a_floor_is_for_one_range_of_firmware_versions() -> None:
    floor = FirmwareFloor(first=0x0007_0000, floor=0x0007_0040)
    assert [floor.is_too_old(one) for one in (0x0006_FFFF, 0x0007_0000, 0x0007_003F, 0x0007_0040)] == [False, True, True, False]


def test_what_a_service_a_topic_or_a_role_needs_is_found_by_name() -> None:
    needs = EVERYTHING.needs
    assert needs.service("run") == Need("run", 4, ("worker",))
    assert needs.topic("news") == Need("news", 2)
    assert needs.role("signer") == Need("signer", 3)
    assert (needs.service("news"), needs.topic("run"), needs.role("worker")) == (None, None, None)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    reason_for(data)
    reason_for(signed(data))
