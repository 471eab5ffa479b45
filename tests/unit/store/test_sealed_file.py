"""A file that opens with its passphrase only, whole or not at all."""

import io

import pytest

from overlay.errors import CheckFailed, UsageError
from overlay.store.sealed_file import CHUNK, HEADER_SIZE, MAGIC, TAG_SIZE, SealedReader, SealedWriter

CHEAP = 14
PASSPHRASE = b"correct horse battery staple"
TEXT = bytes(range(256)) * 10


def sealed(content: bytes, passphrase: bytes = PASSPHRASE) -> bytes:
    file = io.BytesIO()
    writer = SealedWriter(file, passphrase, cost=CHEAP)
    for at in range(0, len(content), 300_000):
        writer.write(content[at : at + 300_000])
    writer.finish()
    return file.getvalue()


def opened(data: bytes, passphrase: bytes = PASSPHRASE) -> bytes:
    reader = SealedReader(io.BytesIO(data), passphrase)
    found = b""
    while part := reader.read(700_000):
        found += part
    return found


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5])
def test_what_was_sealed_comes_back(size: int) -> None:
    content = (TEXT * (size // len(TEXT) + 1))[:size]
    data = sealed(content)
    assert opened(data) == content
    chunks = max(1, -(-size // CHUNK))
    assert len(data) == HEADER_SIZE + size + chunks * TAG_SIZE


def test_nothing_of_it_can_be_read_and_no_two_files_are_alike() -> None:
    one, two = sealed(TEXT), sealed(TEXT)
    assert TEXT[:16] not in one and PASSPHRASE not in one
    assert one[HEADER_SIZE:] != two[HEADER_SIZE:]


def test_another_passphrase_is_told_from_a_damaged_file() -> None:
    with pytest.raises(CheckFailed, match="the passphrase is wrong"):
        opened(sealed(TEXT), b"correct horse battery stable")


@pytest.mark.parametrize("at", [*range(HEADER_SIZE), HEADER_SIZE + 1, -1])
def test_no_changed_byte_is_let_through(at: int) -> None:
    data = bytearray(sealed(TEXT))
    data[at] ^= 1
    with pytest.raises((CheckFailed, UsageError)) as caught:
        opened(bytes(data))
    assert caught.value.hint


@pytest.mark.parametrize(
    "left", [0, 5, len(MAGIC), HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 10, HEADER_SIZE + CHUNK + TAG_SIZE, -1]
)
def test_a_file_that_was_cut_is_refused_also_between_two_chunks(left: int) -> None:
    data = sealed(TEXT * (2 * CHUNK // len(TEXT) + 1))
    with pytest.raises((CheckFailed, UsageError)):
        opened(data[:left])


def test_a_file_that_goes_on_after_its_end_is_refused() -> None:
    data = sealed(b"x" * CHUNK)
    for more in (b"\0", data[HEADER_SIZE:]):
        with pytest.raises(CheckFailed, match="cut short or changed"):
            opened(data + more)


def test_chunks_that_changed_places_are_refused() -> None:
    data = sealed(TEXT * (3 * CHUNK // len(TEXT) + 1))
    size = CHUNK + TAG_SIZE
    head, first, second, rest = data[:HEADER_SIZE], data[HEADER_SIZE:][:size], data[HEADER_SIZE:][size : 2 * size], data[
        HEADER_SIZE + 2 * size :
    ]
    with pytest.raises(CheckFailed):
        opened(head + second + first + rest)


@pytest.mark.parametrize(("cost", "block", "parallel"), [(30, 8, 1), (19, 8, 1), (0, 8, 1), (14, 255, 1), (14, 8, 255)])
def test_a_file_that_would_take_gigabytes_is_refused_before_anything_is_derived(cost: int, block: int, parallel: int) -> None:
    data = bytearray(sealed(TEXT))
    data[len(MAGIC) : len(MAGIC) + 3] = bytes([cost, block, parallel])
    with pytest.raises(UsageError, match="which is not done here"):
        opened(bytes(data))


def test_reading_again_begins_at_the_first_byte() -> None:
    reader = SealedReader(io.BytesIO(sealed(TEXT)), PASSPHRASE)
    assert reader.read_exactly(10) == TEXT[:10]
    reader.rewind()
    assert reader.read_exactly(len(TEXT)) == TEXT
    with pytest.raises(CheckFailed, match="less than it says"):
        reader.read_exactly(1)
