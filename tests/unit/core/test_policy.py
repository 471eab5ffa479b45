"""The policy: signed by the mesh key, read from TOML, and strict when in doubt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.policy import (
    DIGESTS_MAX,
    POLICY_MAX,
    Attestation,
    Mode,
    Policy,
    VerifiedPolicy,
    parse_policy_toml,
    verify_policy,
)
from overlay.core.wire import encode, sign1
from overlay.errors import Refused, UsageError
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
FULL_TOML = f"""
version = 3
attestation = "require"
mode = "enforce"
minimum_level = 2
pcrs = [0, 14]
pcr_digests = ["{"00" * 32}", "{"01" * 32}"]
manifests = ["{"02" * 32}"]
"""


def reason_for(raw: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        verify_policy(raw, MESH.root)
    return caught.value.reason


def signed(payload: bytes, *, label: bytes = Label.POLICY) -> bytes:
    return sign1(payload, signer=MESH.authority.key, aad=label + MESH.mesh_id, kid=None)


def test_a_signed_policy_is_read_as_it_was_written() -> None:
    raw = MESH.authority.sign_policy(FULL)
    assert verify_policy(raw, MESH.root) == VerifiedPolicy(FULL, raw)


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
    assert parse_policy_toml("version = 1").mode is Mode.ENFORCE
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
    ],
)
def test_a_field_of_another_form_is_refused(field: dict[int, object]) -> None:
    fields: dict[int, object] = {0: 1, 1: 1, 2: 1, 3: 0, 4: 0, 5: 0, 6: [], 7: []}
    assert reason_for(signed(encode(fields | field))) is Reason.MALFORMED


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    assert reason_for(b"\xd2" + bytes(POLICY_MAX + 1)) is Reason.TOO_LARGE


def test_the_largest_policy_is_accepted() -> None:
    many = tuple(number.to_bytes(32, "big") for number in range(DIGESTS_MAX))
    policy = Policy(version=1, pcr_bitmap=1, pcr_digests=many, manifests=many)
    assert verify_policy(MESH.authority.sign_policy(policy), MESH.root).policy == policy


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    reason_for(data)
    reason_for(signed(data))


# --- TOML -----------------------------------------------------------------------------------------------------------


def test_a_policy_in_toml() -> None:
    assert parse_policy_toml(FULL_TOML) == FULL


def test_only_the_version_must_be_there() -> None:
    assert parse_policy_toml("version = 9") == Policy(version=9)
    with pytest.raises(UsageError, match="no version"):
        parse_policy_toml("")


def test_an_unknown_key_is_named_and_the_known_ones_are_listed() -> None:
    with pytest.raises(UsageError, match="unknown key in the policy: minimum_lvel") as caught:
        parse_policy_toml("version = 1\nminimum_lvel = 2")
    assert "minimum_level" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("version = 0", "from 1"),
        ("version = true", "whole number"),
        ('version = "1"', "whole number"),
        ('attestation = "always"', '"off" or "prefer" or "require"'),
        ("attestation = 1", '"off"'),
        ('mode = "Enforce"', '"learn" or "warn" or "enforce"'),
        ("minimum_level = 6", "from 0 to 5"),
        ("pcrs = 14", "list of different numbers from 0 to 23"),
        ("pcrs = [24]", "from 0 to 23"),
        ("pcrs = [1, 1]", "different"),
        ("pcrs = [true]", "numbers"),
        ("pcrs = [[1]]", "numbers"),
        ('pcr_digests = ["00"]', "64 hexadecimal digits"),
        ("pcr_digests = [1]", "64 hexadecimal digits"),
        ('manifests = ["zz"]', "64 hexadecimal digits"),
        ('manifests = "00"', "SHA-256"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(line: str, hint: str) -> None:
    text = line if line.startswith("version") else f"version = 1\n{line}"
    with pytest.raises(UsageError, match=line.split(" ", maxsplit=1)[0]) as caught:
        parse_policy_toml(text)
    assert hint in caught.value.hint


@given(st.text(max_size=80))
def test_any_text_is_a_policy_or_a_usage_error(text: str) -> None:
    for candidate in (text, f"version = 1\n{text}"):
        try:
            parse_policy_toml(candidate)
        except UsageError:
            continue
