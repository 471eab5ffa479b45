"""A policy as `overlay attest policy` shows it."""

from overlay.app.cli.policy_words import describe_policy
from overlay.core.policy import Policy
from tests.unit.core.test_policy import EVERYTHING
from tests.unit.core.test_policy_file import ROOT

ALWAYS = ["version", "attestation", "mode", "minimum_level", "pcrs", "pcr_digests", "manifests"]


def test_what_a_policy_does_not_use_is_left_out() -> None:
    assert list(describe_policy(Policy.default())) == ALWAYS


def test_everything_that_it_uses_is_shown_in_words() -> None:
    found = describe_policy(EVERYTHING)
    assert found["ek_roots"] == ["unreadable", "unreadable"]
    assert found["firmware_floors"] == ["0000000000000009 for all from 0000000000000004 on"]
    assert found["digests"] == [
        "PCR 4: 1 allowed, 0 required, 0 forbidden", "PCR 7: any allowed, 1 required, 1 forbidden",
        "files: any allowed, 0 required, 1 forbidden",
    ]
    assert found["missing_log"] == "warn"
    assert found["grace"] == ["anything of before passes until 2027-01-15T08:00:00Z"]
    assert found["services"] == ["run: level 4, one of worker"]
    assert (found["topics"], found["roles"]) == (["news: level 2"], ["signer: level 3"])


def test_a_root_is_shown_by_its_subject() -> None:
    (subject,) = describe_policy(Policy(version=1, ek_roots=(ROOT,)))["ek_roots"]
    assert "=" in subject
