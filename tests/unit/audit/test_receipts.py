"""A receipt shows where an entry stands, signed by the author of its log; nothing else verifies as one."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.receipts import Place, check_receipt, kid_of, make_receipt
from overlay.core.merkle import inclusion_proof, root_of
from overlay.errors import Refused, UsageError
from overlay.registry import Reason
from tests.unit.audit.audit_kit import some_log
from tests.unit.core.authority_kit import make_member, make_mesh

MESH = make_mesh()
LOG = some_log(7, mesh=MESH)
HASHES = [entry.hash for entry in LOG.entries]
PUBLIC = LOG.member.peer.message_public


def place_of(index: int, size: int = 7) -> Place:
    return Place(index=index, size=size, path=inclusion_proof(HASHES[:size], index))


def receipt(index: int, size: int = 7) -> bytes:
    return make_receipt(place_of(index, size), HASHES[index], signer=LOG.member.message, kid=LOG.member.kid)


@pytest.mark.parametrize("index", range(7))
def test_a_receipt_verifies_with_the_entry_and_the_authors_key(index: int) -> None:
    assert check_receipt(receipt(index), HASHES[index], PUBLIC) == place_of(index)
    assert kid_of(receipt(index)) == LOG.member.kid


def test_it_has_the_form_of_the_rfc() -> None:
    tagged = cbor2.loads(receipt(3))
    protected, unprotected, payload, _ = tagged.value
    assert (tagged.tag, payload) == (18, None)
    assert cbor2.loads(protected) == {1: -8, 4: LOG.member.kid, 395: 1}
    (proof,) = unprotected[396][-1]
    assert cbor2.loads(proof) == [7, 3, list(inclusion_proof(HASHES, 3))]


def test_the_receipt_of_another_entry_index_or_key_is_refused() -> None:
    for leaf, public in ((HASHES[2], PUBLIC), (HASHES[3], make_member(MESH, "bob").peer.message_public)):
        with pytest.raises(Refused) as caught:
            check_receipt(receipt(3), leaf, public)
        assert caught.value.reason is Reason.BAD_SIGNATURE


def test_what_the_author_has_signed_for_another_purpose_is_no_receipt() -> None:
    for other in (LOG.raws[3], b"", b"\xd2\x80", b"x" * 5000):
        with pytest.raises(Refused):
            check_receipt(other, root_of(HASHES), PUBLIC)


def test_a_log_of_one_entry_has_no_receipts() -> None:
    with pytest.raises(UsageError, match="one entry"):
        receipt(0, 1)


@given(st.data())
def test_whatever_is_changed_in_a_receipt_it_is_refused(data: st.DataObject) -> None:
    raw = bytearray(receipt(3))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Refused):
        check_receipt(bytes(raw), HASHES[3], PUBLIC)
        assert kid_of(bytes(raw)) == LOG.member.kid
