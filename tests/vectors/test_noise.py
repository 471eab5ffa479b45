"""Noise vectors of cacophony and snow, run through our fence; their transport messages go through our record layer."""

from collections.abc import Callable
from typing import Any

import pytest

from overlay.core.keys import X25519Pair
from overlay.core.limits import RECORD_MAX
from overlay.core.noise import XX, Handshake, Inputs, KKpsk0, Pattern, Size
from overlay.core.records import Opener, Sealer
from overlay.errors import Refused
from overlay.registry import Reason

pytestmark = pytest.mark.vectors

CACOPHONY = "noise/cacophony-25519-aesgcm-sha256.json"
SNOW = "noise/snow-25519-aesgcm-sha256.json"
TWO_MESSAGES = ("KK", "KX", "IK", "IX", "KKpsk0", "KKpsk2", "KXpsk2", "IKpsk1", "IKpsk2", "IXpsk2")
THREE_MESSAGES = ("XX", "XK", "XXpsk3", "XKpsk3")
# both sides have a static key, the library knows the pattern (it knows no deferred ones), and there is at most one psk
OF_CACOPHONY = TWO_MESSAGES + THREE_MESSAGES
OF_SNOW = ("KK", "KX", "IK", "IX", "XX", "XK")


def find(vectors: Callable[[str], Any], file: str, pattern: str) -> dict[str, Any]:
    """The one vector of a pattern."""
    name = f"Noise_{pattern}_25519_AESGCM_SHA256"
    (found,) = [vector for vector in vectors(file)["vectors"] if vector["protocol_name"] == name]
    return dict(found)


def inputs(vector: dict[str, Any], side: str) -> Inputs:
    """What one side brings along; `side` is init or resp."""
    remote = vector.get(f"{side}_remote_static")
    psks = vector.get(f"{side}_psks")
    return Inputs(
        prologue=bytes.fromhex(vector[f"{side}_prologue"]),
        static=X25519Pair.from_private(bytes.fromhex(vector[f"{side}_static"])),
        ephemeral=X25519Pair.from_private(bytes.fromhex(vector[f"{side}_ephemeral"])),
        remote_static=bytes.fromhex(remote) if remote else None,
        psk=bytes.fromhex(psks[0]) if psks else None,
    )


def sides(vector: dict[str, Any], count: int) -> tuple[Handshake, Handshake]:
    """Both sides of a handshake of so many messages, with payloads wherever the vector wants them."""
    pattern = Pattern(name=vector["protocol_name"].encode(), sizes=(Size(empty=0, most=RECORD_MAX),) * count)
    return (
        Handshake(pattern, inputs(vector, "init"), initiator=True),
        Handshake(pattern, inputs(vector, "resp"), initiator=False),
    )


def run(vector: dict[str, Any], count: int) -> None:
    """Everything that the vector says, in both roles."""
    messages = [(bytes.fromhex(one["payload"]), bytes.fromhex(one["ciphertext"])) for one in vector["messages"]]
    alice, bob = sides(vector, count)
    for payload, ciphertext in messages[:count]:
        assert alice.write(payload) == ciphertext
        assert bob.read(ciphertext) == payload
        alice, bob = bob, alice
    one, two = alice.result(), bob.result()
    assert (one.k1, one.k2, one.h) == (two.k1, two.k2, two.h)
    assert one.h.hex() == vector.get("handshake_hash", one.h.hex())
    keys = (one.k1, one.k2)
    sealers, openers = [Sealer(key) for key in keys], [Opener(key) for key in keys]
    for index, (payload, ciphertext) in enumerate(messages[count:], count):
        assert sealers[index % 2].seal(payload)[2:] == ciphertext
        assert openers[index % 2].open(ciphertext) == payload


@pytest.mark.parametrize("pattern", OF_CACOPHONY)
def test_cacophony(vectors: Callable[[str], Any], pattern: str) -> None:
    run(find(vectors, CACOPHONY, pattern), 3 if pattern in THREE_MESSAGES else 2)


@pytest.mark.parametrize("pattern", OF_SNOW)
def test_snow(vectors: Callable[[str], Any], pattern: str) -> None:
    run(find(vectors, SNOW, pattern), 3 if pattern in THREE_MESSAGES else 2)


def test_every_handshake_message_of_a_vector_is_refused_once_changed(vectors: Callable[[str], Any]) -> None:
    vector = find(vectors, CACOPHONY, "XX")
    second = bytes.fromhex(vector["messages"][1]["ciphertext"])
    for at in range(len(second)):
        alice, _ = sides(vector, 3)
        alice.write(bytes.fromhex(vector["messages"][0]["payload"]))
        with pytest.raises(Refused) as caught:
            alice.read(second[:at] + bytes([second[at] ^ 0x40]) + second[at + 1 :])
        assert caught.value.reason is Reason.BAD_HANDSHAKE


def test_the_two_patterns_in_use_are_named_as_the_vectors_name_them(vectors: Callable[[str], Any]) -> None:
    names = {vector["protocol_name"].encode() for vector in vectors(CACOPHONY)["vectors"]}
    assert {XX.PATTERN.name, KKpsk0.PATTERN.name} <= names


def test_our_own_classes_refuse_the_payload_that_the_vectors_put_where_we_have_none(
    vectors: Callable[[str], Any],
) -> None:
    xx, kk = find(vectors, CACOPHONY, "XX"), find(vectors, CACOPHONY, "KKpsk0")
    own, known = inputs(xx, "resp"), inputs(kk, "resp")
    assert known.remote_static is not None
    assert known.psk is not None
    for side, vector in (
        (XX.responder(own.prologue, own.static, own.ephemeral), xx),
        (KKpsk0.responder(known.prologue, known.static, known.ephemeral, known.remote_static, known.psk), kk),
    ):
        with pytest.raises(Refused) as caught:
            side.read(bytes.fromhex(vector["messages"][0]["ciphertext"]))
        assert caught.value.reason is Reason.TOO_LARGE
