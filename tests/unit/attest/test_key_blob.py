"""A TPM key in the state folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.key_blob import KeyBlob
from overlay.core.wire import make_map
from overlay.errors import StateDamaged
from tests.unit.attest.software_tpm import AK

BLOB = KeyBlob(private=b"encrypted by the TPM", public=AK.area.raw)


def test_a_blob_comes_back_as_it_went() -> None:
    assert KeyBlob.unpack(BLOB.pack()) == BLOB
    assert BLOB.area == AK.area


def test_a_blob_shows_nothing_of_itself() -> None:
    assert repr(BLOB) == "KeyBlob()"


@pytest.mark.parametrize("bad", [b"", BLOB.pack()[:-1], make_map(b"private", b"no area"), make_map(b"", AK.area.raw)])
def test_a_damaged_blob_is_said_to_be_damaged(bad: bytes) -> None:
    with pytest.raises(StateDamaged):
        KeyBlob.unpack(bad)


@given(st.binary(max_size=200))
def test_any_bytes_are_said_to_be_damaged(data: bytes) -> None:
    with pytest.raises(StateDamaged):
        KeyBlob.unpack(data)
