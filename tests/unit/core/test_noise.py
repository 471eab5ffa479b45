"""Tests of overlay/core/noise.py: what the fence around the Noise library lets through and what it refuses."""

import warnings
from collections.abc import Callable

import pytest

from overlay.core.keys import X25519Pair
from overlay.core.limits import HANDSHAKE_MESSAGE_MAX
from overlay.core.noise import XX, Handshake, Inputs, KKpsk0, NoiseResult, Pattern, Size
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason

PROLOGUE = b"test prologue"
PSK = bytes([9]) * 32
P = 2**255 - 19
LOW_ORDER = [
    point.to_bytes(32, "little")
    for point in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        P - 1,
        P,
        P + 1,
    )
]


def pair(number: int) -> X25519Pair:
    """A key pair that is the same in every run."""
    return X25519Pair.from_private(bytes([number]) * 32)


OPENER, OTHER = pair(1), pair(2)


def two_xx(*, other_prologue: bytes = PROLOGUE) -> tuple[XX, XX]:
    """Both ends of an XX handshake that has not begun."""
    return XX.initiator(PROLOGUE, OPENER, pair(3)), XX.responder(other_prologue, OTHER, pair(4))


def two_kk(
    *, prologue: bytes = PROLOGUE, psk: bytes = PSK, remote: bytes = OTHER.public, static: X25519Pair = OTHER
) -> tuple[KKpsk0, KKpsk0]:
    """Both ends of a KKpsk0 handshake, of which the second may know something else."""
    return (
        KKpsk0.initiator(PROLOGUE, OPENER, pair(3), remote, PSK),
        KKpsk0.responder(prologue, static, pair(4), OPENER.public, psk),
    )


def after_message_2() -> tuple[XX, XX]:
    """XX of which two messages have been read."""
    alice, bob = two_xx()
    bob.read(alice.write())
    alice.read(bob.write(b"from bob"))
    return alice, bob


def refused(reason: Reason, act: Callable[..., object], *arguments: object) -> None:
    """The act must be refused for this reason."""
    with pytest.raises(Refused) as caught:
        act(*arguments)
    assert caught.value.reason is reason


def flipped(message: bytes) -> list[bytes]:
    """The message with one bit wrong, once for each byte."""
    return [message[:at] + bytes([message[at] ^ 1 << at % 8]) + message[at + 1 :] for at in range(len(message))]


def test_xx_gives_both_ends_the_same_keys_and_each_the_static_key_of_the_other() -> None:
    alice, bob = two_xx()
    first = alice.write()
    assert (len(first), bob.read(first)) == (32, b"")
    assert bob.remote_static is None
    assert alice.read(bob.write(b"from bob")) == b"from bob"
    assert alice.remote_static == OTHER.public
    assert bob.read(alice.write(b"from alice")) == b"from alice"
    assert alice.finished and bob.finished
    ours, theirs = alice.result(), bob.result()
    assert (ours.k1, ours.k2, ours.h) == (theirs.k1, theirs.k2, theirs.h)
    assert ours.k1 != ours.k2
    assert (ours.remote_static, theirs.remote_static) == (OTHER.public, OPENER.public)


def test_kkpsk0_takes_two_messages_of_48_bytes() -> None:
    alice, bob = two_kk()
    first = alice.write()
    assert bob.read(first) == b""
    second = bob.write()
    assert alice.read(second) == b""
    assert (len(first), len(second)) == (48, 48)
    ours, theirs = alice.result(), bob.result()
    assert (ours.k1, ours.k2, ours.h) == (theirs.k1, theirs.k2, theirs.h)
    assert (ours.remote_static, theirs.remote_static) == (OTHER.public, OPENER.public)


def test_k1_is_what_the_noise_initiator_sends_with_on_both_sides() -> None:
    alice, bob = after_message_2()
    alice_library = alice._connection
    bob.read(alice.write())
    assert alice.result().k1 == bob.result().k1 == alice_library.noise_protocol.cipher_state_encrypt.k


def test_no_warning_about_ephemeral_keys_reaches_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        two_xx()
        two_kk()


def test_a_payload_in_message_1_of_xx_is_refused_because_nothing_protects_it() -> None:
    alice, bob = two_xx()
    refused(Reason.TOO_LARGE, alice.write, b"x")
    refused(Reason.TOO_LARGE, bob.read, alice.write() + b"x")


def test_a_payload_in_a_rekey_is_refused() -> None:
    alice, bob = two_kk()
    refused(Reason.TOO_LARGE, alice.write, b"x")
    refused(Reason.TOO_LARGE, bob.read, alice.write() + b"x")


def test_a_payload_too_long_for_its_message_is_refused_and_changes_nothing() -> None:
    alice, bob = two_xx()
    bob.read(alice.write())
    most = HANDSHAKE_MESSAGE_MAX - 96
    refused(Reason.TOO_LARGE, bob.write, bytes(most + 1))
    message = bob.write(bytes(most))
    assert len(message) == HANDSHAKE_MESSAGE_MAX
    assert alice.read(message) == bytes(most)


def test_a_message_above_16_kib_is_refused_before_the_library_sees_it() -> None:
    alice, bob = two_xx()
    bob.read(alice.write())
    refused(Reason.TOO_LARGE, alice.read, bytes(HANDSHAKE_MESSAGE_MAX + 1))


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_message_1_that_is_too_short_is_refused(length: int) -> None:
    _, bob = two_xx()
    refused(Reason.BAD_HANDSHAKE, bob.read, bytes(range(length)))


@pytest.mark.parametrize("length", [0, 32, 79, 95])
def test_a_message_2_that_is_too_short_is_refused(length: int) -> None:
    alice, bob = two_xx()
    bob.read(alice.write())
    refused(Reason.BAD_HANDSHAKE, alice.read, bob.write()[:length])


def test_every_flipped_byte_of_message_2_is_refused() -> None:
    alice, bob = two_xx()
    bob.read(alice.write())
    for wrong in flipped(bob.write(b"payload")):
        alice = two_xx()[0]
        alice.write()
        refused(Reason.BAD_HANDSHAKE, alice.read, wrong)
        assert alice.remote_static is None


def test_every_flipped_byte_of_message_3_is_refused() -> None:
    alice, _ = after_message_2()
    for wrong in flipped(alice.write(b"payload")):
        _, bob = after_message_2()
        refused(Reason.BAD_HANDSHAKE, bob.read, wrong)
        assert bob.remote_static is None
        assert not bob.finished


def test_every_flipped_byte_of_a_rekey_is_refused() -> None:
    alice, bob = two_kk()
    first = alice.write()
    bob.read(first)
    second = bob.write()
    for wrong in flipped(first):
        refused(Reason.BAD_HANDSHAKE, two_kk()[1].read, wrong)
    for wrong in flipped(second):
        alice = two_kk()[0]
        alice.write()
        refused(Reason.BAD_HANDSHAKE, alice.read, wrong)


def test_a_handshake_that_failed_refuses_everything_after() -> None:
    alice, bob = two_xx()
    bob.read(alice.write())
    message = bob.write()
    refused(Reason.BAD_HANDSHAKE, alice.read, flipped(message)[40])
    refused(Reason.BAD_HANDSHAKE, alice.read, message)
    refused(Reason.BAD_HANDSHAKE, alice.write)
    assert alice.remote_static is None
    with pytest.raises(LocalProtocolError):
        alice.result()


def test_a_handshake_that_failed_forgets_a_static_key_that_it_was_given() -> None:
    alice, bob = two_kk()
    assert bob.remote_static == OPENER.public
    refused(Reason.BAD_HANDSHAKE, bob.read, flipped(alice.write())[0])
    assert bob.remote_static is None


def test_another_prologue_is_refused() -> None:
    alice, bob = two_xx(other_prologue=b"another mesh")
    bob.read(alice.write())
    refused(Reason.BAD_HANDSHAKE, alice.read, bob.write())
    alice_kk, bob_kk = two_kk(prologue=b"another epoch")
    refused(Reason.BAD_HANDSHAKE, bob_kk.read, alice_kk.write())


def test_another_psk_is_refused() -> None:
    alice, bob = two_kk(psk=bytes(32))
    refused(Reason.BAD_HANDSHAKE, bob.read, alice.write())


def test_another_static_key_than_the_known_one_is_refused() -> None:
    alice, bob = two_kk(static=pair(5))
    refused(Reason.BAD_HANDSHAKE, bob.read, alice.write())


@pytest.mark.parametrize("psk", [b"", b"short", bytes(31), bytes(33)])
def test_a_psk_of_another_length_never_reaches_the_library(psk: bytes) -> None:
    with pytest.raises(ValueError, match="32"):
        two_kk(psk=psk)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_remote_static_key_of_another_length_is_refused(length: int) -> None:
    refused(Reason.BAD_HANDSHAKE, lambda: two_kk(remote=bytes(length)))


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_a_remote_static_key_of_low_order_is_refused(point: bytes) -> None:
    alice, _ = two_kk(remote=point)
    refused(Reason.BAD_HANDSHAKE, alice.write)


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_an_ephemeral_key_of_low_order_in_message_1_is_refused(point: bytes) -> None:
    _, bob = two_xx()
    bob.read(point)
    refused(Reason.BAD_HANDSHAKE, bob.write)


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_an_ephemeral_key_of_low_order_in_message_2_is_refused(point: bytes) -> None:
    alice, bob = two_xx()
    bob.read(alice.write())
    refused(Reason.BAD_HANDSHAKE, alice.read, point + bob.write()[32:])


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_an_authentic_static_key_of_low_order_is_refused(point: bytes) -> None:
    alice, bob = two_xx()
    bob.read(alice.write())
    bob._state.s.public_bytes = point  # a responder that lies about its own key
    refused(Reason.BAD_HANDSHAKE, alice.read, bob.write())


def test_who_speaks_out_of_turn_has_a_bug() -> None:
    alice, bob = two_xx()
    acts: list[Callable[[], object]] = [lambda: alice.read(bytes(32)), bob.write, alice.result, bob.result]
    for act in acts:
        with pytest.raises(LocalProtocolError):
            act()
    bob.read(alice.write())  # and nothing has changed
    with pytest.raises(LocalProtocolError):
        bob.read(bytes(32))


def test_nothing_is_said_after_the_last_message() -> None:
    alice, bob = after_message_2()
    bob.read(alice.write())
    acts: list[Callable[[], object]] = [alice.write, bob.write, lambda: bob.read(bytes(64))]
    for act in acts:
        with pytest.raises(LocalProtocolError):
            act()


def test_a_pattern_without_a_static_key_of_the_peer_has_no_result() -> None:
    pattern = Pattern(name=b"Noise_NN_25519_AESGCM_SHA256", sizes=(Size(empty=32, most=32), Size(empty=48, most=48)))
    alice, bob = (
        Handshake(pattern, Inputs(prologue=b"", static=OPENER, ephemeral=pair(number)), initiator=number == 3)
        for number in (3, 4)
    )
    bob.read(alice.write())
    with pytest.raises(LocalProtocolError):
        bob.write()


def test_secrets_are_hidden_from_repr() -> None:
    result = NoiseResult(k1=b"first key", k2=b"second key", h=bytes(32), remote_static=bytes(32))
    inputs = Inputs(prologue=b"", static=OPENER, ephemeral=OPENER, psk=b"a pre-shared key of 32 bytes....")
    assert "key" not in repr(result)
    assert "pre-shared" not in repr(inputs)
    assert repr(OPENER.private) not in repr(inputs)
