"""Tests of overlay/core/gate.py: who does not know the gate key, the tag or a fresh e does not come in."""

import hashlib
import hmac

import pytest

from overlay.core.gate import NO_TAG, SeenEphemerals, check_hello, make_hello, prologue
from overlay.errors import Refused
from overlay.registry import Label, Mode, Reason

KEY, OLD_KEY = b"k" * 32, b"o" * 32
TAG = b"own tag."
E = b"e" * 32


def check(hello: bytes, *, e: bytes = E, seen: SeenEphemerals | None = None) -> Mode:
    """Let the hello in with two keys and two tags."""
    return check_hello(hello, e, [KEY, OLD_KEY], [TAG, NO_TAG], SeenEphemerals() if seen is None else seen)


def refused(reason: Reason, hello: bytes, *, e: bytes = E, seen: SeenEphemerals | None = None) -> None:
    """The hello must be refused for this reason and leave no trace."""
    seen = SeenEphemerals() if seen is None else seen
    before = len(seen)
    with pytest.raises(Refused) as caught:
        check(hello, e=e, seen=seen)
    assert caught.value.reason is reason
    assert len(seen) == before


def test_a_hello_is_three_numbers_and_a_mac() -> None:
    mac = hmac.digest(KEY, Label.GATE + b"\x01\x01\x01" + TAG + E, hashlib.sha256)[:16]
    assert make_hello(KEY, Mode.MEMBER, TAG, E) == b"\x01\x01\x01" + mac


@pytest.mark.parametrize("key", [KEY, OLD_KEY])
@pytest.mark.parametrize("tag", [TAG, NO_TAG])
@pytest.mark.parametrize("mode", list(Mode))
def test_each_accepted_key_and_tag_comes_in(key: bytes, tag: bytes, mode: Mode) -> None:
    seen = SeenEphemerals()
    assert check(make_hello(key, mode, tag, E), seen=seen) is mode
    assert E in seen


def test_another_gate_key_is_refused() -> None:
    refused(Reason.BAD_GATE, make_hello(b"x" * 32, Mode.MEMBER, TAG, E))


def test_the_tag_of_another_node_is_refused() -> None:
    refused(Reason.BAD_GATE, make_hello(KEY, Mode.MEMBER, b"another.", E))


def test_a_hello_for_another_e_is_refused() -> None:
    refused(Reason.BAD_GATE, make_hello(KEY, Mode.MEMBER, TAG, E), e=b"f" * 32)


def test_a_mode_that_was_changed_on_the_way_is_refused() -> None:
    hello = make_hello(KEY, Mode.MEMBER, TAG, E)
    refused(Reason.BAD_GATE, hello[:2] + bytes([Mode.JOIN]) + hello[3:])


def test_every_flipped_bit_of_the_mac_is_refused() -> None:
    hello = make_hello(KEY, Mode.MEMBER, TAG, E)
    for bit in range(24, len(hello) * 8):
        wrong = bytearray(hello)
        wrong[bit // 8] ^= 1 << bit % 8
        refused(Reason.BAD_GATE, bytes(wrong))


@pytest.mark.parametrize("start", [b"\x00\x01\x01", b"\x02\x01\x01", b"\x01\x02\x01", b"\x01\x01\x00", b"\x01\x01\x04"])
def test_another_version_suite_or_mode_is_unsupported(start: bytes) -> None:
    mac = hmac.digest(KEY, Label.GATE + start + TAG + E, hashlib.sha256)[:16]
    refused(Reason.UNSUPPORTED, start + mac)


@pytest.mark.parametrize("hello", [b"", b"\x01\x01\x01", bytes(18), bytes(20)])
def test_a_hello_of_another_length_is_malformed(hello: bytes) -> None:
    refused(Reason.MALFORMED, hello)


def test_an_e_of_another_length_is_malformed() -> None:
    refused(Reason.MALFORMED, make_hello(KEY, Mode.MEMBER, TAG, E), e=E + b"e")


def test_a_recorded_hello_does_not_come_in_twice() -> None:
    seen = SeenEphemerals()
    hello = make_hello(KEY, Mode.MEMBER, TAG, E)
    check(hello, seen=seen)
    refused(Reason.REPLAYED_HELLO, hello, seen=seen)
    refused(Reason.REPLAYED_HELLO, make_hello(OLD_KEY, Mode.JOIN, NO_TAG, E), seen=seen)


def test_with_no_gate_key_nobody_comes_in() -> None:
    with pytest.raises(Refused) as caught:
        check_hello(make_hello(KEY, Mode.MEMBER, TAG, E), E, [], [TAG], SeenEphemerals())
    assert caught.value.reason is Reason.BAD_GATE


def test_the_oldest_e_is_forgotten_first() -> None:
    seen = SeenEphemerals(capacity=2)
    for ephemeral in (b"1", b"2", b"2", b"3"):
        seen.add(ephemeral)
    assert [ephemeral in seen for ephemeral in (b"1", b"2", b"3")] == [False, True, True]
    assert len(seen) == 2


def test_65536_are_remembered() -> None:
    seen = SeenEphemerals()
    for number in range(65_537):
        seen.add(number.to_bytes(4, "big"))
    assert len(seen) == 65_536
    assert bytes(4) not in seen
    assert (1).to_bytes(4, "big") in seen


def test_a_hello_needs_a_tag_of_8_and_a_key_of_32_bytes() -> None:
    for tag, ephemeral in ((b"", E), (TAG, b"")):
        with pytest.raises(ValueError, match="8"):
            make_hello(KEY, Mode.MEMBER, tag, ephemeral)


def test_the_prologue_names_the_mesh_and_the_first_three_bytes() -> None:
    assert prologue(b"m" * 32, b"\x01\x01\x01") == b"overlay/1\0" + b"m" * 32 + b"\x01\x01\x01"
    with pytest.raises(ValueError, match="mode"):
        prologue(b"m" * 32, b"\x01\x01")
