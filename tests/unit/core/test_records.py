"""Tests of overlay/core/records.py: a strict counter, nothing out of order, bounded reading."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay.core.limits import NOISE_PLAINTEXT_MAX, RECORD_MAX
from overlay.core.records import Opener, RecordReader, Sealer
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason

KEY = bytes(range(32))


def bodies(*plaintexts: bytes) -> list[bytes]:
    """What one sealer makes of them, without the lengths."""
    sealer = Sealer(KEY)
    return [sealer.seal(plaintext)[2:] for plaintext in plaintexts]


def refused(reason: Reason, opener: Opener, body: bytes) -> None:
    """The body must be refused for this reason."""
    with pytest.raises(Refused) as caught:
        opener.open(body)
    assert caught.value.reason is reason


def test_a_record_is_its_length_and_an_aead_message_under_a_rising_counter() -> None:
    sealer = Sealer(KEY)
    for counter, plaintext in enumerate([b"first", b"second"]):
        message = AESGCM(KEY).encrypt(bytes(4) + counter.to_bytes(8, "big"), plaintext, None)
        assert sealer.seal(plaintext) == len(message).to_bytes(2, "big") + message


def test_what_was_sealed_opens_in_order_and_is_counted() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    for plaintext in (b"one", bytearray(b"three"), memoryview(b"seven")):
        assert opener.open(sealer.seal(plaintext)[2:]) == plaintext
    assert (sealer.records, sealer.volume) == (opener.records, opener.volume) == (3, 13)


def test_several_records_are_sealed_into_one_buffer() -> None:
    assert bytes(Sealer(KEY).seal_all([b"a", b"bc", b"d" * 100])) == b"".join(
        len(body).to_bytes(2, "big") + body for body in bodies(b"a", b"bc", b"d" * 100)
    )
    assert Sealer(KEY).seal_all([]) == b""


def test_the_longest_record_has_65535_bytes() -> None:
    record = Sealer(KEY).seal(bytes(NOISE_PLAINTEXT_MAX))
    assert record[:2] == b"\xff\xff"
    assert len(record) == 2 + RECORD_MAX


@pytest.mark.parametrize("length", [0, NOISE_PLAINTEXT_MAX + 1])
def test_nothing_empty_or_too_long_is_sealed(length: int) -> None:
    sealer = Sealer(KEY)
    with pytest.raises(LocalProtocolError):
        sealer.seal_all([b"good", bytes(length)])
    assert (sealer.records, sealer.volume) == (0, 0)


def test_the_counter_never_wraps() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    sealer.records = opener.records = 2**64 - 2
    assert opener.open(sealer.seal(b"the last")[2:]) == b"the last"
    with pytest.raises(LocalProtocolError):
        sealer.seal(b"one too many")
    body = AESGCM(KEY).encrypt(bytes(4) + b"\xff" * 8, b"one too many", None)
    refused(Reason.BAD_RECORD, opener, body)


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_of_another_length_is_a_bug(length: int) -> None:
    for make in (Sealer, Opener):
        with pytest.raises(ValueError, match="32"):
            make(bytes(length))


def test_every_flipped_bit_of_a_record_is_refused() -> None:
    (body,) = bodies(b"payload")
    for bit in range(len(body) * 8):
        wrong = bytearray(body)
        wrong[bit // 8] ^= 1 << bit % 8
        refused(Reason.BAD_RECORD, Opener(KEY), bytes(wrong))


def test_a_truncated_tag_is_refused() -> None:
    (body,) = bodies(b"payload")
    for length in range(1, len(body)):
        refused(Reason.BAD_RECORD, Opener(KEY), body[:length])


def test_a_dropped_record_is_noticed() -> None:
    _, second = bodies(b"first", b"second")
    refused(Reason.BAD_RECORD, Opener(KEY), second)


def test_a_record_that_comes_twice_is_refused() -> None:
    (body,) = bodies(b"first")
    opener = Opener(KEY)
    opener.open(body)
    refused(Reason.BAD_RECORD, opener, body)


def test_a_record_under_another_key_is_refused() -> None:
    (body,) = bodies(b"first")
    refused(Reason.BAD_RECORD, Opener(bytes(32)), body)


def test_after_a_refusal_everything_is_refused() -> None:
    (body,) = bodies(b"first")
    opener = Opener(KEY)
    refused(Reason.BAD_RECORD, opener, b"x" * 20)
    refused(Reason.BAD_RECORD, opener, body)
    assert (opener.records, opener.volume) == (0, 0)


def test_an_empty_record_is_malformed_with_and_without_a_tag() -> None:
    refused(Reason.MALFORMED, Opener(KEY), b"")
    refused(Reason.MALFORMED, Opener(KEY), AESGCM(KEY).encrypt(bytes(12), b"", None))


def test_the_reader_gives_bodies_however_the_bytes_were_cut() -> None:
    stream = Sealer(KEY).seal_all([b"one", b"two" * 1000, b"three"])
    for size in (1, 2, 3, 7, 1000, len(stream)):
        reader, found = RecordReader(), []
        for start in range(0, len(stream), size):
            reader.feed(stream[start : start + size])
            while (body := reader.next_record()) is not None:
                found.append(body)
        assert found == bodies(b"one", b"two" * 1000, b"three")
        assert reader.buffered == 0


def test_the_reader_gives_plain_bytes_first_if_asked() -> None:
    reader = RecordReader()
    reader.feed(b"hel")
    assert reader.take(5) is None
    reader.feed(b"lo\x00\x01xy")
    assert reader.take(5) == b"hello"
    assert reader.next_record() == b"x"
    assert reader.next_record() is None
    assert reader.buffered == 1


def test_an_empty_record_ends_the_reader() -> None:
    reader = RecordReader()
    reader.feed(b"\x00\x01a\x00\x00\x00\x01b")
    assert reader.next_record() == b"a"
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            reader.next_record()
        assert caught.value.reason is Reason.MALFORMED


def test_a_record_above_the_maximum_is_refused_by_its_length_alone() -> None:
    reader = RecordReader(16)
    reader.feed((17).to_bytes(2, "big"))
    with pytest.raises(Refused) as caught:
        reader.next_record()
    assert caught.value.reason is Reason.TOO_LARGE
    reader.feed(b"x" * 1000)
    assert reader.buffered == 0
    with pytest.raises(Refused):
        reader.take(1)


def test_the_maximum_may_change_between_two_records() -> None:
    reader = RecordReader(1)
    reader.feed(b"\x00\x01a\x00\x02bc")
    assert reader.next_record() == b"a"
    reader.maximum = 2
    assert reader.next_record() == b"bc"


def test_who_does_not_take_the_records_may_not_feed_more() -> None:
    reader = RecordReader()
    reader.feed(bytes([0, 1, 7]) * 30_000)
    with pytest.raises(LocalProtocolError):
        reader.feed(b"more")


def test_the_reader_lets_go_of_what_was_taken() -> None:
    reader = RecordReader()
    for _ in range(100):
        reader.feed(b"\xff\xff" + bytes(RECORD_MAX) + b"\x00")
        assert reader.next_record() == bytes(RECORD_MAX)
        assert reader.next_record() is None
        assert len(reader._kept) < 3 * RECORD_MAX
        reader.feed(b"\x01x")
        assert reader.next_record() == b"x"
        assert reader.buffered == 0


def test_what_is_refused_in_a_run_is_refused_when_it_is_the_first() -> None:
    """All whole records before it are given, and it is refused as if it had come alone."""
    for length, reason in ((b"\0\0", Reason.MALFORMED), (b"\0\x65", Reason.TOO_LARGE)):
        reader = RecordReader(maximum=100)
        reader.feed(b"\0\1a" + b"\0\2bc" + length + bytes(101))
        assert reader.next_records() == [b"a", b"bc"]
        with pytest.raises(Refused) as error:
            reader.next_records()
        assert error.value.reason is reason


def test_a_run_of_records_is_what_came_one_by_one() -> None:
    wire = b"".join(len(body).to_bytes(2, "big") + body for body in (b"a", b"b" * 300, b"cc", b"d" * 7))
    for cut in range(len(wire) + 1):
        reader, found = RecordReader(), list[bytes]()
        for part in (wire[:cut], wire[cut:]):
            reader.feed(part)
            while reader.buffered and (bodies := reader.next_records()):
                found += map(bytes, bodies)
        assert found == [b"a", b"b" * 300, b"cc", b"d" * 7]
        assert reader.buffered == 0
