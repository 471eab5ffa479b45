"""Recovery keys and proposals as files: what an offline machine signs, and all that it refuses to sign."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from overlay.core.authority.contents import OBJECT_MAX
from overlay.core.authority.objects import to_be_signed
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.authority.succession import AuthorityChain, Outcome
from overlay.core.enrolment_files import armor, unarmor
from overlay.core.keys import MeshId
from overlay.core.recovery_files import KEY, PROPOSAL, RecoveryKey, RecoveryProposal
from overlay.core.wire import decode, encode, make_map
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.generations_kit import MESH, Generation, chain_of, founding, node, nodes
from tests.unit.core.authority_kit import NOW, seed

ZERO = founding()
ONE = ZERO.rollover("one")
CHAIN = chain_of(ZERO, ONE)
KEYS = [RecoveryKey(seed("recovery", str(place)), MESH.root.mesh_id, place) for place in range(3)]
STRANGER = RecoveryKey(seed("stranger"), MESH.root.mesh_id, 0)


def unsigned(word: str = "rescue", chain: AuthorityChain = CHAIN, after: Generation = ONE) -> RecoveryProposal:
    """By x, alone."""
    found = after.recovered(word, names="x", threshold=1)
    data = to_be_signed(found.contents.mesh_id, found.contents.pack())
    return RecoveryProposal(
        chain=chain.objects, contents=found.contents, root_signed=found.key.sign(data), members_signed=(node("x").sign(data),)
    )


PROPOSED = unsigned()


def refused(act: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        act()
    return caught.value


def altered(place: int, change: Callable[[object], object]) -> str:
    """The file with one of its fields changed."""
    fields = decode(unarmor(PROPOSAL, PROPOSED.signed_by(KEYS[0]).to_text()), limit=1 << 20)
    return armor(PROPOSAL, encode({**fields, place: change(fields[place])}))


def test_two_of_three_keys_make_an_object_that_waits() -> None:
    signed = PROPOSED.signed_by(KEYS[0]).signed_by(KEYS[2])
    assert (PROPOSED.missing, PROPOSED.signed_by(KEYS[0]).missing, signed.missing) == (2, 1, 0)
    assert PROPOSED.object is None and PROPOSED.signed_by(KEYS[0]).object is None
    assert signed.object is not None
    change = CHAIN.with_object(signed.object, NOW)
    assert change.outcome is Outcome.RECOVERY_WAITS
    assert change.chain.candidates[0].object.member_ids == tuple(one for one in signed.contents.member_ids)


def test_copies_that_were_signed_in_two_places_come_together() -> None:
    one, other = (RecoveryProposal.from_text(PROPOSED.signed_by(key).to_text()) for key in KEYS[:2])
    assert one.merged(other) == other.merged(one)
    assert sorted(one.merged(other).recovery) == [0, 1]


def test_a_proposal_and_a_key_come_back_from_their_files_as_they_were() -> None:
    signed = PROPOSED.signed_by(KEYS[1])
    assert RecoveryProposal.from_text(signed.to_text()) == signed
    text = KEYS[1].to_text("home", 3, 2)
    assert RecoveryKey.from_text(text) == KEYS[1]
    assert "Recovery key 2 of 3 of the mesh home" in text and str(MESH.root.mesh_id) in text


def test_the_secret_of_a_key_is_in_its_file_and_nowhere_else() -> None:
    assert KEYS[0].seed.hex() not in repr(KEYS[0]) and repr(KEYS[0].seed) not in repr(KEYS[0])
    assert KEYS[0].seed not in unarmor(PROPOSAL, PROPOSED.signed_by(KEYS[0]).to_text())


def test_a_key_that_object_0_does_not_name_signs_nothing() -> None:
    error = refused(lambda: PROPOSED.signed_by(STRANGER))
    assert error.reason is Reason.BAD_AUTHORITY_OBJECT and "does not name" in error.detail


def test_one_key_does_not_sign_twice() -> None:
    once = PROPOSED.signed_by(KEYS[0])
    assert "has signed this proposal already" in refused(lambda: once.signed_by(KEYS[0])).detail
    again = replace(KEYS[0], place=1)  # whatever its file says of its place
    assert "has signed this proposal already" in refused(lambda: once.signed_by(again)).detail


def test_a_key_of_another_mesh_signs_nothing() -> None:
    foreign = replace(KEYS[0], mesh_id=MeshId(bytes(32)))
    assert refused(lambda: PROPOSED.signed_by(foreign)).reason is Reason.OTHER_MESH


def test_signatures_of_another_proposal_are_not_taken_over() -> None:
    other = unsigned("other rescue").signed_by(KEYS[1])
    assert refused(lambda: PROPOSED.merged(other)).reason is Reason.BAD_AUTHORITY_OBJECT


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (1, lambda raws: raws[:1]),  # it follows another object than it says
        (1, lambda raws: []),
        (1, lambda raws: [raws[0], raws[0]]),
        (2, lambda payload: payload[:-1] + bytes([payload[-1] ^ 1])),
        (2, lambda _: ONE.recovered("other").contents.pack()),  # another authority than those who signed
        (2, lambda _: ONE.reshared("bcd").contents.pack()),  # no recovery
        (3, lambda signature: bytes(64)),
        (4, lambda signatures: []),
        (4, lambda signatures: [bytes(64)]),
        (5, lambda gathered: [[0, bytes(64)]]),
        (5, lambda gathered: [[1, gathered[0][1]]]),
        (5, lambda gathered: [[7, gathered[0][1]]]),
        (5, lambda gathered: [*gathered, *gathered]),
    ],
)
def test_an_altered_proposal_is_refused_before_anybody_signs_it(place: int, change: Callable[[object], object]) -> None:
    assert RecoveryProposal.from_text(altered(place, lambda value: value)).recovery
    refused(lambda: RecoveryProposal.from_text(altered(place, change)))


def test_what_is_no_key_is_refused() -> None:
    good, short = make_map(bytes(32), bytes(32), 0), make_map(bytes(31), bytes(32), 0)
    for text in ("", armor(KEY, b""), armor(PROPOSAL, good), armor(KEY, short)):
        refused(lambda text=text: RecoveryKey.from_text(text))  # type: ignore[misc]


def test_what_founds_no_mesh_is_refused() -> None:
    no_root = make_map(encode({0: 1}), [], None, None)
    for first in (make_map(1), no_root):
        data = make_map([first], b"x", bytes(64), [], [])
        refused(lambda data=data: RecoveryProposal.from_text(armor(PROPOSAL, data)))  # type: ignore[misc]


def test_a_chain_too_long_for_a_file_is_said() -> None:
    long = replace(PROPOSED.chain[-1], raw=bytes(OBJECT_MAX))
    error = refused(lambda: replace(PROPOSED, chain=(*PROPOSED.chain, *([long] * 8))).to_text())
    assert error.reason is Reason.TOO_LARGE


def test_a_mesh_without_recovery_keys_takes_no_proposal() -> None:
    bare = founding(RecoveryKeys())
    generation = bare.recovered("rescue", names="x", threshold=1, by=())
    data = to_be_signed(generation.contents.mesh_id, generation.contents.pack())
    found = RecoveryProposal(
        chain=chain_of(bare).objects, contents=generation.contents, root_signed=generation.key.sign(data),
        members_signed=(nodes("x")[0].sign(data),),
    )
    assert "does not name" in refused(lambda: found.signed_by(KEYS[0])).detail
    assert found.object is None
