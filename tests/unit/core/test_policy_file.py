"""A policy in TOML: what people write, and what they are told when it is wrong."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.policy import EK_ROOTS_MAX, Attestation, Mode, Policy
from overlay.core.policy_file import PolicyFile, parse_policy_file, parse_policy_toml
from overlay.core.policy_parts import (
    EARLIER_MAX,
    RULE_DIGESTS_MAX,
    DigestRule,
    Earlier,
    FirmwareFloor,
    MissingLog,
    Need,
    Needs,
    References,
)
from overlay.core.policy_values import GRACE_MAX
from overlay.errors import UsageError
from tests.unit.core.authority_kit import make_mesh
from tests.unit.core.test_policy import FULL

ROOT = make_mesh().root.der
PEM = x509.load_der_x509_certificate(ROOT).public_bytes(Encoding.PEM).decode()
OTHER_PEM = x509.load_der_x509_certificate(make_mesh("other").root.der).public_bytes(Encoding.PEM).decode()
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
FULL_TOML = f"""
version = 3
attestation = "require"
mode = "enforce"
minimum_level = 2
pcrs = [0, 14]
pcr_digests = ["{"00" * 32}", "{"01" * 32}"]
manifests = ["{"02" * 32}"]
"""
NEW_TOML = f"""
version = 4
ek_roots = ['''{PEM}{OTHER_PEM}''', '''{PEM}''']
ek_tags = ["{"03" * 32}"]
firmware_floors = [{{ floor = "0007003f00000000", first = "7.0.0.0" }}, {{ floor = "9" }}, {{ floor = "7.63.3320.52226" }}]
missing_log = "warn"
grace = "90m"

[digests.7]
required = ["{"01" * 32}", "{"00" * 32}"]

[digests.4]
allowed = ["{"00" * 32}"]

[digests.files]
forbidden = ["{"05" * 32}"]

[services."overlay.run"]
level = 4
roles = ["worker", "operator"]

[topics.news]
level = 2

[roles.signer]
level = 3
"""


def test_a_policy_in_toml() -> None:
    assert parse_policy_toml(FULL_TOML) == FULL


def test_a_policy_with_everything_in_toml() -> None:
    found = parse_policy_file(NEW_TOML)
    assert found.grace == timedelta(minutes=90)
    assert found.policy == Policy(
        version=4,
        ek_roots=tuple(sorted((ROOT, make_mesh("other").root.der))),
        ek_tags=(bytes([3]) * 32,),
        firmware_floors=(
            FirmwareFloor(9), FirmwareFloor(0x0007003F_0CF8CC02), FirmwareFloor(0x0007003F_00000000, 0x00070000_00000000)
        ),
        digest_rules=(DigestRule(4, allowed=(bytes(32),)), DigestRule(7, required=(bytes(32), bytes([1]) * 32))),
        file_rule=DigestRule(10, forbidden=(bytes([5]) * 32,)),
        missing_log=MissingLog.WARN,
        needs=Needs((Need("overlay.run", 4, ("operator", "worker")),), (Need("news", 2),), (Need("signer", 3),)),
    )
    assert Policy.unpack(found.policy.pack()) == found.policy


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
        ("ek_roots = 1", "PEM"),
        ("ek_roots = [1]", "PEM"),
        ('ek_roots = ["certificate"]', "PEM"),
        ('ek_tags = ["00"]', "64 hexadecimal digits"),
        ('missing_log = "maybe"', '"allow" or "warn" or "refuse"'),
        ('firmware_floors = ["9"]', "hexadecimal"),
        ("firmware_floors = [{ floor = 9 }]", "hexadecimal"),
        ('firmware_floors = [{ first = "9" }]', "hexadecimal"),
        ('firmware_floors = [{ floor = "9", last = "9" }]', "hexadecimal"),
        ('firmware_floors = [{ floor = "12345678123456789" }]', "hexadecimal"),
        ('firmware_floors = [{ floor = "9", first = "9" }]', "higher"),
        ("grace = 3600", '"1h"'),
        ('grace = "1 h"', '"1h"'),
        ('grace = "31d"', "30 days"),
        ("digests = 1", "[digests.7]"),
        ("digests = { 24.allowed = [] }", "from 0 to 23"),
        ("digests = { 07.allowed = [] }", "from 0 to 23"),
        ("digests = { x.allowed = [] }", "files"),
        ("digests.7 = {}", "allowed, required and forbidden"),
        ("digests = { 7.denied = [] }", "allowed, required and forbidden"),
        ('digests.7.allowed = ["00"]', "64 hexadecimal digits"),
        ("services = 1", "[services.NAME]"),
        ("services.x = {}", "`level` and `roles`"),
        ("services.x = 4", "`level` and `roles`"),
        ("services.x.level = 6", "from 0 to 5"),
        ("services = { x.lvel = 1 }", "`level` and `roles`"),
        ('services.x.roles = "worker"', "roles"),
        ('services.x.roles = ["Worker!"]', "roles"),
        ('topics = { "".level = 1 }', "topics"),
        ('roles = { worker.roles = ["x"] }', "`level`"),
        ("roles = { Worker.level = 1 }", "roles"),
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


def test_too_many_roots_are_refused() -> None:
    many = [make_mesh(str(number)).root.der for number in range(EK_ROOTS_MAX + 1)]
    texts = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() for der in many]
    with pytest.raises(UsageError, match="ek_roots"):
        parse_policy_toml(f"version = 1\nek_roots = {texts!r}")


def test_a_policy_that_is_too_large_says_so_before_it_is_ordered() -> None:
    many = [number.to_bytes(32, "big").hex() for number in range(RULE_DIGESTS_MAX)]
    text = f"version = 1\n[digests.files]\nallowed = {many!r}\n"
    parse_policy_toml(text)
    with pytest.raises(UsageError, match="bytes where"):
        parse_policy_toml(f"{text}forbidden = {many!r}")


# --- grace ----------------------------------------------------------------------------------------------------------


def in_force(**fields: object) -> Policy:
    return Policy(version=1, pcr_bitmap=1, pcr_digests=(bytes(32),), **fields)  # type: ignore[arg-type]


def test_grace_keeps_what_was_good_until_a_time() -> None:
    new = PolicyFile(FULL, timedelta(hours=1)).in_place_of(in_force(), AT)
    assert new.earlier == (Earlier(int(AT.timestamp()) + 3600, Mode.ENFORCE, in_force().references),)
    assert new.references == FULL.references


def test_without_grace_nothing_before_counts() -> None:
    before = in_force(earlier=(Earlier(int(AT.timestamp()) + 60, Mode.ENFORCE, References()),))
    assert PolicyFile(FULL).in_place_of(before, AT) == FULL


def test_grace_after_a_policy_that_compared_nothing_compares_nothing() -> None:
    new = PolicyFile(FULL, timedelta(hours=1)).in_place_of(in_force(attestation=Attestation.OFF), AT)
    assert [one.mode for one in new.earlier] == [Mode.LEARN]


def test_grace_that_goes_on_is_taken_over_and_what_has_ended_is_not() -> None:
    now = int(AT.timestamp())
    ended, lasting = Earlier(now, Mode.ENFORCE, References()), Earlier(now + 1, Mode.ENFORCE, References(pcr_bitmap=2))
    new = PolicyFile(FULL, timedelta(hours=1)).in_place_of(in_force(earlier=(ended, lasting)), AT)
    assert new.earlier[1:] == (lasting,)


def test_more_policies_in_grace_than_fit_are_an_error_with_a_hint() -> None:
    lasting = tuple(Earlier(int(AT.timestamp()) + 60, Mode.ENFORCE, References(pcr_bitmap=one)) for one in range(EARLIER_MAX))
    with pytest.raises(UsageError, match="still in their grace") as caught:
        PolicyFile(FULL, timedelta(hours=1)).in_place_of(in_force(earlier=lasting), AT)
    assert "wait" in caught.value.hint


def test_grace_has_a_longest_time() -> None:
    assert parse_policy_file('version = 1\ngrace = "30d"').grace == GRACE_MAX
