"""Who was ever seen: the newest certificate says what a node is, names find nodes, and the book survives the disk."""

from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core import members
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificates import VerifiedCertificate
from overlay.core.keys import NodeId
from overlay.core.members import MEMBERS_MAX, SERIALS_KEPT, Members
from overlay.core.revocation_profile import serial_bytes
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import NOW, make_member, make_mesh, seed

MESH = make_mesh()
FACTS = LeafFacts(roles=("operator", "signer"), person="alice@home", level=1)
ALICE = make_member(MESH, "alice", facts=FACTS).peer.certificate
BOB = make_member(MESH, "bob").peer.certificate


def later(found: VerifiedCertificate, minutes: int) -> VerifiedCertificate:
    step = timedelta(minutes=minutes)
    return replace(
        found, serial=found.serial + minutes, not_before=found.not_before + step, not_after=found.not_after + step
    )


def test_a_node_is_found_by_name_and_by_id() -> None:
    known = Members().with_certificate(ALICE).with_certificate(BOB)
    assert {one.name for one in known} == {"alice", "bob"}
    for text in ("alice", str(ALICE.node_id)):
        found = known.find(text)
        assert found is not None and found.node_id == ALICE.node_id
        assert (found.roles, found.person, found.level) == (("operator", "signer"), "alice@home", 1)
    assert known.find("carol") is None and known.find("ali") is None and known.find("") is None
    assert known.get(NodeId(seed("nobody"))) is None


def test_of_two_nodes_with_one_name_the_one_with_the_newer_certificate_is_meant() -> None:
    heir = replace(later(BOB, 1), name="alice")
    for order in ((ALICE, heir), (heir, ALICE)):
        known = Members()
        for one in order:
            known = known.with_certificate(one)
        found = known.find("alice")
        assert found is not None and found.node_id == heir.node_id


def test_a_newer_certificate_says_what_the_node_is() -> None:
    renewed = replace(later(ALICE, 5), facts=replace(FACTS, roles=("worker",), person=None, level=2))
    found = Members().with_certificate(ALICE).with_certificate(renewed).get(ALICE.node_id)
    assert found is not None
    assert (found.roles, found.person, found.level) == (("worker",), None, 2)
    assert found.serials == (serial_bytes(ALICE.serial), serial_bytes(renewed.serial))


def test_an_older_certificate_brings_nothing_back() -> None:
    known = Members().with_certificate(later(ALICE, 5))
    assert known.with_certificate(ALICE) is known


def test_a_certificate_that_is_known_changes_nothing() -> None:
    known = Members().with_certificate(ALICE)
    assert known.with_certificate(ALICE) is known


def test_the_newest_serials_are_kept_and_no_more() -> None:
    known = Members()
    for minutes in range(SERIALS_KEPT + 3):
        known = known.with_certificate(later(ALICE, minutes))
    found = known.get(ALICE.node_id)
    assert found is not None and len(found.serials) == SERIALS_KEPT
    assert found.serials[-1] == serial_bytes(ALICE.serial + SERIALS_KEPT + 2)
    assert found.serials[0] == serial_bytes(ALICE.serial + 3)


def test_a_full_book_takes_nobody_new_and_still_learns_of_those_in_it() -> None:
    one = Members().with_certificate(ALICE).get(ALICE.node_id)
    assert one is not None
    others = {NodeId(seed(str(number))): one for number in range(MEMBERS_MAX - 1)}
    full = Members({**others, ALICE.node_id: one})
    assert full.with_certificate(BOB) is full
    renewed = full.with_certificate(later(ALICE, 5)).get(ALICE.node_id)
    assert renewed is not None and len(renewed.serials) == 2


def test_a_book_comes_back_from_the_disk_as_it_was() -> None:
    known = Members().with_certificate(ALICE).with_certificate(BOB).with_certificate(later(BOB, 3))
    assert Members.unpack(known.pack()) == known
    assert Members.unpack(Members().pack()) == Members()


@pytest.mark.parametrize("damage", [b"", b"\xa0", b"\xff" * 40])
def test_a_damaged_book_is_refused(damage: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Members.unpack(damage)
    assert refused.value.reason in {Reason.MALFORMED, Reason.UNSUPPORTED}


def test_a_book_with_a_key_of_another_size_is_refused() -> None:
    packed = Members().with_certificate(ALICE).pack()
    assert packed.count(ALICE.node_id) == 1
    with pytest.raises(Refused):
        Members.unpack(packed.replace(b"\x58\x20" + ALICE.node_id, b"\x58\x1f" + ALICE.node_id[:-1]))


def test_a_name_comes_back_as_text_and_a_time_with_its_zone() -> None:
    found = Members.unpack(Members().with_certificate(ALICE).pack()).get(ALICE.node_id)
    assert found is not None
    assert found.not_before == NOW - timedelta(minutes=1) and found.not_before.tzinfo is not None
    assert members.SIZE_MAX >= MEMBERS_MAX * 512
