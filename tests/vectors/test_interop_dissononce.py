"""Live handshakes between our classes and `dissononce`, an independent implementation, in both roles.

Its handshake is good, its rekey is not and is left alone. It also plays our own vectors.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from overlay.core.epochs import EpochKeys, first_epoch
from overlay.core.keys import X25519Pair
from overlay.core.noise import XX, KKpsk0, NoiseResult
from overlay.core.records import Opener, Sealer
from overlay.errors import Refused

pytest.importorskip("dissononce", reason="dissononce is not installed")

from dissononce.cipher.aesgcm import AESGCMCipher
from dissononce.dh.keypair import KeyPair
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.public import PublicKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.sha256 import SHA256Hash
from dissononce.processing.handshakepatterns.interactive.KK import KKHandshakePattern
from dissononce.processing.handshakepatterns.interactive.XX import XXHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from dissononce.processing.modifiers.psk import PSKPatternModifier

PROLOGUE = b"overlay/1 interop"
PSK = b"p" * 32
OURS, OUR_EPHEMERAL, THEIRS, THEIR_EPHEMERAL = (X25519Pair.from_private(bytes([n]) * 32) for n in range(1, 5))
PAYLOADS = (b"", b"credentials of the responder" * 100, b"credentials of the initiator" * 100)


class GivenEphemeral(X25519DH):  # type: ignore[misc]
    """Makes the ephemeral key that it was given."""

    def __init__(self, ephemeral: X25519Pair) -> None:
        super().__init__()
        self._ephemeral = ephemeral

    def generate_keypair(self, privatekey: Any = None) -> Any:
        """Dissononce asks for it once in each handshake."""
        return super().generate_keypair(privatekey or PrivateKey(self._ephemeral.private))


class Theirs:
    """A handshake of theirs that looks like one of ours."""

    def __init__(self, pattern: Any, static: X25519Pair, ephemeral: X25519Pair, **inputs: Any) -> None:
        self._symmetric = SymmetricState(CipherState(AESGCMCipher()), SHA256Hash())
        self._state = HandshakeState(self._symmetric, GivenEphemeral(ephemeral))
        pair = KeyPair(PublicKey(static.public), PrivateKey(static.private))
        self._state.initialize(pattern, s=pair, **inputs)
        self.ciphers: tuple[Any, Any] | None = None

    def write(self, payload: bytes = b"") -> bytes:
        """The next message of theirs."""
        buffer = bytearray()
        self.ciphers = self._state.write_message(payload, buffer)
        return bytes(buffer)

    def read(self, message: bytes) -> bytes:
        """The payload of our message."""
        buffer = bytearray()
        self.ciphers = self._state.read_message(message, buffer)
        return bytes(buffer)

    @property
    def h(self) -> bytes:
        """Their handshake hash."""
        return bytes(self._symmetric.get_handshake_hash())


def their_xx(*, initiator: bool, static: X25519Pair, ephemeral: X25519Pair, prologue: bytes = PROLOGUE) -> Theirs:
    """Their side of XX."""
    return Theirs(XXHandshakePattern(), static, ephemeral, initiator=initiator, prologue=prologue)


def their_kk(
    *, initiator: bool, static: X25519Pair, ephemeral: X25519Pair, remote: bytes, prologue: bytes, psk: bytes
) -> Theirs:
    """Their side of KKpsk0."""
    pattern = PSKPatternModifier(0).modify(KKHandshakePattern())
    return Theirs(pattern, static, ephemeral, initiator=initiator, prologue=prologue, rs=PublicKey(remote), psks=[psk])


def converse(first: Any, second: Any, payloads: tuple[bytes, ...]) -> list[bytes]:
    """Take turns, the first begins; the messages."""
    messages = []
    for payload in payloads:
        messages.append(first.write(payload))
        assert second.read(messages[-1]) == payload
        first, second = second, first
    return messages


def same_transport(result: NoiseResult, theirs: Theirs) -> None:
    """Records of ours open with their ciphers, and theirs with our keys, both ways."""
    assert result.h == theirs.h
    assert theirs.ciphers is not None
    for key, cipher in zip((result.k1, result.k2), theirs.ciphers, strict=True):
        sealer, opener = Sealer(key), Opener(key)
        assert cipher.decrypt_with_ad(b"", sealer.seal(b"from us")[2:]) == b"from us"
        assert cipher.decrypt_with_ad(b"", sealer.seal(b"again")[2:]) == b"again"
        cipher.set_nonce(0)
        assert opener.open(cipher.encrypt_with_ad(b"", b"from them")) == b"from them"


def test_xx_with_us_as_initiator() -> None:
    ours = XX.initiator(PROLOGUE, OURS, OUR_EPHEMERAL)
    theirs = their_xx(initiator=False, static=THEIRS, ephemeral=THEIR_EPHEMERAL)
    converse(ours, theirs, PAYLOADS)
    assert ours.remote_static == THEIRS.public
    same_transport(ours.result(), theirs)


def test_xx_with_us_as_responder() -> None:
    ours = XX.responder(PROLOGUE, OURS, OUR_EPHEMERAL)
    theirs = their_xx(initiator=True, static=THEIRS, ephemeral=THEIR_EPHEMERAL)
    converse(theirs, ours, PAYLOADS)
    assert ours.remote_static == THEIRS.public
    same_transport(ours.result(), theirs)


def test_kkpsk0_with_us_as_initiator() -> None:
    ours = KKpsk0.initiator(PROLOGUE, OURS, OUR_EPHEMERAL, THEIRS.public, PSK)
    theirs = their_kk(
        initiator=False, static=THEIRS, ephemeral=THEIR_EPHEMERAL, remote=OURS.public, prologue=PROLOGUE, psk=PSK
    )
    converse(ours, theirs, (b"", b""))
    same_transport(ours.result(), theirs)


def test_kkpsk0_with_us_as_responder() -> None:
    ours = KKpsk0.responder(PROLOGUE, OURS, OUR_EPHEMERAL, THEIRS.public, PSK)
    theirs = their_kk(
        initiator=True, static=THEIRS, ephemeral=THEIR_EPHEMERAL, remote=OURS.public, prologue=PROLOGUE, psk=PSK
    )
    converse(theirs, ours, (b"", b""))
    same_transport(ours.result(), theirs)


def test_another_prologue_of_theirs_is_refused() -> None:
    ours = XX.initiator(PROLOGUE, OURS, OUR_EPHEMERAL)
    theirs = their_xx(initiator=False, static=THEIRS, ephemeral=THEIR_EPHEMERAL, prologue=b"another")
    theirs.read(ours.write())
    with pytest.raises(Refused):
        ours.read(theirs.write(b"payload"))


def test_another_psk_of_theirs_is_refused() -> None:
    ours = KKpsk0.responder(PROLOGUE, OURS, OUR_EPHEMERAL, THEIRS.public, PSK)
    theirs = their_kk(
        initiator=True, static=THEIRS, ephemeral=THEIR_EPHEMERAL, remote=OURS.public, prologue=PROLOGUE, psk=b"q" * 32
    )
    with pytest.raises(Refused):
        ours.read(theirs.write())


# --- our own vectors, played by them alone


def pair_of(hexadecimal: str) -> X25519Pair:
    """A key pair of a vector."""
    return X25519Pair.from_private(bytes.fromhex(hexadecimal))


def test_they_make_the_same_xx_from_our_vectors(ours: Callable[[str], Any]) -> None:
    (session,) = ours("session.json")["vectors"]
    statics, fresh, wanted = session["static_private"], session["xx"]["inputs"], session["xx"]["values"]
    prologue = bytes.fromhex(wanted["prologue"])
    opener, other = (
        their_xx(
            initiator=side == "opener",
            static=pair_of(statics[side]),
            ephemeral=pair_of(fresh[f"{side}_ephemeral_private"]),
            prologue=prologue,
        )
        for side in ("opener", "other")
    )
    payloads = (b"", bytes.fromhex(wanted["payload_2"]), bytes.fromhex(wanted["payload_3"]))
    messages = converse(opener, other, payloads)
    assert [message.hex() for message in messages] == [wanted[f"message_{number}"] for number in (1, 2, 3)]
    assert opener.h.hex() == other.h.hex() == wanted["h_xx"]
    keys = first_epoch(their_result(opener), bytes.fromhex(wanted["kem_secret"]))
    assert epoch_of(keys) == {name: wanted[name] for name in epoch_of(keys)}


def test_they_make_the_same_rekeys_from_our_vectors(ours: Callable[[str], Any]) -> None:
    (session,) = ours("session.json")["vectors"]
    statics = {side: pair_of(private) for side, private in session["static_private"].items()}
    for rekey in session["rekeys"]:
        inputs, wanted = rekey["inputs"], rekey["values"]
        driver, answerer = inputs["driver"], inputs["answerer"]
        prologue, psk = bytes.fromhex(wanted["prologue"]), bytes.fromhex(wanted["psk"])
        first, second = (
            their_kk(
                initiator=side == answerer,
                static=statics[side],
                ephemeral=pair_of(inputs[f"{side}_ephemeral_private"]),
                remote=statics[peer].public,
                prologue=prologue,
                psk=psk,
            )
            for side, peer in ((answerer, driver), (driver, answerer))
        )
        messages = converse(first, second, (b"", b""))
        assert [message.hex() for message in messages] == [wanted["message_a"], wanted["message_b"]]
        assert first.h.hex() == second.h.hex() == wanted["h"]
        result = their_result(first)
        assert (result.k1.hex(), result.k2.hex()) == (wanted["k1"], wanted["k2"])


def test_each_epoch_of_our_vectors_follows_from_the_one_before(ours: Callable[[str], Any]) -> None:
    (session,) = ours("session.json")["vectors"]
    values = [session["xx"]["values"], *(rekey["values"] for rekey in session["rekeys"])]
    for before, after in pairwise(values):
        assert before["h"] in after["prologue"]
        assert before["i2r"] != after["i2r"]


def their_result(theirs: Theirs) -> NoiseResult:
    """What their handshake left, in our words."""
    assert theirs.ciphers is not None
    k1, k2 = (cipher._key for cipher in theirs.ciphers)
    return NoiseResult(k1=k1, k2=k2, h=theirs.h, remote_static=theirs._state.rs.data)


def epoch_of(keys: EpochKeys) -> dict[str, str]:
    """The names that a vector uses."""
    return {"i2r": keys.i2r.hex(), "r2i": keys.r2i.hex(), "export": keys.export.hex(), "h": keys.h.hex()}
