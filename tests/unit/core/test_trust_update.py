"""What moves trust: an update is believed for its signatures only, and what a node keeps is verified again when it is read."""

from dataclasses import replace

import pytest

from overlay.core.certificate_profile import ED25519_OID, seal
from overlay.core.keys import Signer
from overlay.core.policy import Policy
from overlay.core.revocation_profile import revocation_list_to_be_signed
from overlay.core.trust import Quarantine, TrustSet
from overlay.core.trust_update import LISTS_MAX, TrustUpdate, pack_trust, unpack_trust, update_of, with_roots
from overlay.core.wire import make_map, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority_kit import DAY, NOW, make_member, make_mesh
from tests.unit.core.revocation_kit import cross, facts_of, make_list, revoked, root_key

MESH = make_mesh()
OTHER = make_mesh("other")
ALICE, BOB = make_member(MESH, "alice"), make_member(MESH, "bob")
FIRST = make_list(MESH, revoked(ALICE))
SECOND = make_list(MESH, revoked(BOB), number=2)


def policy(version: int, *, generation: int = 0) -> bytes:
    content = replace(Policy.default(), version=version)
    if generation == 0:
        return MESH.authority.sign_policy(content)
    return sign1(content.pack(), signer=root_key(MESH, generation), aad=Label.POLICY + MESH.mesh_id, kid=None)


def refusal(update: TrustUpdate, trust: TrustSet = MESH.trust) -> Reason:
    with pytest.raises(Refused) as refused:
        update.applied(trust)
    return refused.value.reason


def test_an_update_brings_lists_and_a_policy() -> None:
    after = TrustUpdate((SECOND, FIRST), policy(2)).applied(MESH.trust)
    assert set(after.revocations.nodes) == {ALICE.node_id, BOB.node_id}
    assert (after.number, after.policy.policy.version) == (2, 2)


def test_what_is_known_changes_nothing() -> None:
    after = TrustUpdate((FIRST,), policy(2)).applied(MESH.trust)
    assert update_of(after).applied(after) == after
    assert TrustUpdate().applied(after) is after


def test_an_older_policy_is_passed_over_and_the_lists_beside_it_count() -> None:
    newer = TrustUpdate(policy=policy(3)).applied(MESH.trust)
    after = TrustUpdate((FIRST,), policy(2)).applied(newer)
    assert after.policy == newer.policy and after.number == 1


def test_a_policy_under_a_root_that_is_still_to_come_is_passed_over() -> None:
    assert TrustUpdate(policy=policy(2, generation=1)).applied(MESH.trust) == MESH.trust


def test_a_list_of_another_mesh_is_refused_and_nothing_of_the_update_counts() -> None:
    forged = make_list(OTHER, revoked(BOB), number=2)
    assert refusal(TrustUpdate((FIRST, forged))) is Reason.BAD_REVOCATION_LIST


def test_a_list_by_a_root_that_is_still_to_come_is_passed_over_and_what_is_beside_it_counts() -> None:
    later = make_list(MESH, revoked(BOB), number=2, generation=1)
    assert TrustUpdate((later,)).applied(MESH.trust) is MESH.trust
    after = TrustUpdate((later, FIRST)).applied(MESH.trust)
    assert set(after.revocations.nodes) == {ALICE.node_id}
    known = TrustUpdate((later,)).applied(MESH.trust.with_root(cross(MESH, 1), NOW))
    assert set(known.revocations.nodes) == {BOB.node_id}


@pytest.mark.parametrize("signer", [ALICE.signer, root_key(MESH, 1)])
def test_a_list_in_the_name_of_our_root_that_another_key_has_signed_is_refused(signer: Signer) -> None:
    content = revocation_list_to_be_signed(MESH.root.issuer, facts_of(revoked(BOB)))
    assert refusal(TrustUpdate((seal(content, ED25519_OID, signer.sign(content)),))) is Reason.BAD_REVOCATION_LIST


def test_a_list_with_a_changed_byte_is_refused() -> None:
    forged = FIRST[:-1] + bytes([FIRST[-1] ^ 1])
    assert refusal(TrustUpdate((forged,))) is Reason.BAD_REVOCATION_LIST


def test_a_policy_that_cannot_be_read_is_refused() -> None:
    assert refusal(TrustUpdate(policy=b"\xff")) in {Reason.MALFORMED, Reason.UNSUPPORTED}


def test_two_lists_with_one_number_are_merged_and_show_as_an_alarm() -> None:
    twin = make_list(MESH, revoked(BOB), number=1)
    one = TrustUpdate((FIRST, twin)).applied(MESH.trust)
    two = TrustUpdate((twin, FIRST)).applied(MESH.trust)
    assert one.hash == two.hash
    assert set(one.revocations.nodes) == {ALICE.node_id, BOB.node_id}
    assert one.numbers_used_twice == (1,)


def test_an_older_list_takes_nothing_back() -> None:
    after = TrustUpdate((SECOND,)).applied(MESH.trust)
    assert set(TrustUpdate((FIRST,)).applied(after).revocations.nodes) == {ALICE.node_id, BOB.node_id}


def test_an_update_goes_over_the_wire_and_back() -> None:
    update = TrustUpdate((FIRST, SECOND), policy(2))
    assert TrustUpdate.unpack(update.pack()) == update
    assert TrustUpdate.unpack(TrustUpdate().pack()) == TrustUpdate()


@pytest.mark.parametrize(
    "body", [b"", b"\xff", make_map([b""], None), make_map([b"x"] * (LISTS_MAX + 1), None), make_map([1], None)]
)
def test_what_is_no_update_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        TrustUpdate.unpack(body)


def test_an_update_hides_what_is_in_it() -> None:
    assert repr(TrustUpdate((FIRST,), policy(2))) == "TrustUpdate()"


# --- on the disk --------------------------------------------------------------------------------------------------------


def rich() -> TrustSet:
    trust = MESH.trust.with_root(cross(MESH, 1), NOW).with_list(FIRST).with_list(make_list(MESH, revoked(BOB), number=1))
    return trust.with_quarantine(Quarantine(BOB.node_id, NOW + DAY, bytes(32)))


def test_what_a_node_knows_comes_back_from_the_disk() -> None:
    trust = rich()
    found = unpack_trust(pack_trust(trust), MESH.root)
    assert found == trust and found.hash == trust.hash
    assert found.later[0].accepted == NOW


def test_a_policy_by_a_later_root_comes_back_from_the_disk() -> None:
    trust = rich().with_policy(policy(2, generation=1))
    assert unpack_trust(pack_trust(trust), MESH.root) == trust


def test_lists_that_another_mesh_has_signed_are_not_read_from_the_disk() -> None:
    packed = make_map([], [make_list(OTHER, revoked(BOB))], MESH.trust.policy.raw, [])
    with pytest.raises(Refused) as refused:
        unpack_trust(packed, MESH.root)
    assert refused.value.reason is Reason.BAD_REVOCATION_LIST


def test_a_policy_that_no_root_of_the_mesh_has_signed_is_not_read_from_the_disk() -> None:
    for raw in (OTHER.trust.policy.raw, policy(2, generation=1)):
        with pytest.raises(Refused) as refused:
            with_roots(MESH.root, raw, [])
        assert refused.value.reason is Reason.BAD_POLICY


def test_a_root_that_its_predecessor_has_not_signed_is_not_read_from_the_disk() -> None:
    packed = make_map([[cross(MESH, 2), int(NOW.timestamp())]], [], MESH.trust.policy.raw, [])
    with pytest.raises(Refused):
        unpack_trust(packed, MESH.root)


def test_a_policy_that_cannot_be_read_is_no_matter_of_roots() -> None:
    with pytest.raises(Refused) as refused:
        with_roots(MESH.root, b"\xff", [])
    assert refused.value.reason in {Reason.MALFORMED, Reason.UNSUPPORTED}
