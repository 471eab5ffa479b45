"""The founding authority: what it signs, and what it will not."""

from datetime import timedelta

import pytest

from overlay.core.authority.issuance import ROOT_LIFE, FoundingAuthority
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import build_request, verify_request
from overlay.core.certificates import parse_root, verify_leaf
from overlay.core.keys import Ed25519Signer
from overlay.core.policy import Policy, verify_policy
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, NOW, make_mesh, seed

MESH = make_mesh()
AUTHORITY = MESH.authority
REQUEST = verify_request(build_request(Ed25519Signer(seed("node")), "alice"))


def issue(*, name: str = "alice", facts: LeafFacts | None = None, life: timedelta = DAY) -> bytes:
    return AUTHORITY.issue(REQUEST, name=name, facts=facts or LeafFacts(), not_before=NOW, not_after=NOW + life)


def test_a_mesh_is_founded_for_twenty_years() -> None:
    authority = FoundingAuthority.create("home", seed("new"), NOW)
    assert parse_root(authority.root.der) == authority.root
    assert authority.root.name == "home"
    assert authority.root.life.not_before == NOW
    assert authority.root.life.not_after == NOW + ROOT_LIFE


def test_the_stored_seed_gives_the_authority_back_and_another_one_does_not() -> None:
    assert FoundingAuthority.load(seed("root", "lab"), MESH.root).root == MESH.root
    with pytest.raises(ValueError, match="not the root's"):
        FoundingAuthority.load(seed("other"), MESH.root)


def test_a_mesh_cannot_be_founded_under_what_is_not_a_name() -> None:
    with pytest.raises(ValueError, match="not a name"):
        FoundingAuthority.create("My Mesh", seed("new"), NOW)


def test_the_same_request_facts_and_times_give_the_same_bytes() -> None:
    assert issue() == issue()
    assert issue() != issue(name="bob")


def test_the_authority_chooses_the_name() -> None:
    assert verify_leaf(issue(name="bob"), (), MESH.root, NOW).name == "bob"


def test_parts_of_a_second_are_dropped() -> None:
    begin = NOW.replace(microsecond=999_999)
    leaf = AUTHORITY.issue(REQUEST, name="alice", facts=LeafFacts(), not_before=begin, not_after=begin + DAY)
    assert verify_leaf(leaf, (), MESH.root, NOW).not_before == NOW


def test_nothing_is_issued_for_more_than_seven_days_or_to_what_is_not_a_name() -> None:
    assert verify_leaf(issue(life=7 * DAY), (), MESH.root, NOW).not_after == NOW + 7 * DAY
    with pytest.raises(ValueError, match="cannot issue"):
        issue(life=7 * DAY + timedelta(seconds=1))
    with pytest.raises(ValueError, match="cannot issue"):
        issue(name="Bob")


def test_nothing_is_signed_that_no_verifier_would_accept() -> None:
    for facts in (LeafFacts(roles=("b", "a")), LeafFacts(level=6), LeafFacts(ak_name=bytes(34))):
        with pytest.raises(Refused) as caught:
            issue(facts=facts)
        assert caught.value.reason is Reason.MALFORMED
    with pytest.raises(Refused):
        AUTHORITY.sign_policy(Policy(version=1, minimum_level=6))


def test_a_policy_is_signed_for_this_mesh() -> None:
    assert verify_policy(AUTHORITY.sign_policy(Policy.default()), MESH.root).policy == Policy.default()


def test_the_mesh_key_is_not_shown() -> None:
    assert seed("root", "lab").hex() not in repr(AUTHORITY)
    assert "key=" not in repr(AUTHORITY).replace("public_key=", "")
