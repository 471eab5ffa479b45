"""Noise handshakes (Noise specification, revision 34): the fence around `noiseprotocol`, which nothing else imports.

The library changes its state before it authenticates, takes plaintexts that are too long and psks that are too short,
and hands out plaintext where it holds no key. So lengths are checked before it is called, and an object that failed
once refuses everything.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from noise.connection import Keypair, NoiseConnection

from overlay.core.keys import X25519Pair
from overlay.core.limits import HANDSHAKE_MESSAGE_MAX, TAG_SIZE
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason

KEY_SIZE: Final = 32  # DHLEN and the length of a psk (sections 4 and 9)
SEALED_KEY: Final = KEY_SIZE + TAG_SIZE  # a static key under encryption


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long a handshake message is: with an empty payload, and at most."""

    empty: int
    most: int

    @property
    def payload(self) -> int:
        """The longest payload."""
        return self.most - self.empty


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseResult:
    """What a finished handshake leaves. 32 bytes each."""

    k1: bytes = field(repr=False)  # the Noise initiator's sending key, on both sides
    k2: bytes = field(repr=False)
    h: bytes
    remote_static: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A protocol name and the size of each message."""

    name: bytes
    sizes: tuple[Size, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What one side brings along: a fresh ephemeral pair, `remote_static` and `psk` only where the pattern asks."""

    prologue: bytes
    static: X25519Pair
    ephemeral: X25519Pair
    remote_static: bytes | None = None
    psk: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.psk is not None and len(self.psk) != KEY_SIZE:
            raise ValueError(f"a psk has {KEY_SIZE} bytes")
        if self.remote_static is not None and len(self.remote_static) != KEY_SIZE:
            raise Refused(Reason.BAD_HANDSHAKE, "length of the remote static key")


class Handshake:
    """One run of a pattern, from one side: `write` and `read` in turn, then `result()`."""

    def __init__(self, pattern: Pattern, inputs: Inputs, *, initiator: bool) -> None:
        self._sizes = pattern.sizes
        self._initiator = initiator
        self._messages = 0
        self._failed = False
        self._remote_static = inputs.remote_static
        self._result: NoiseResult | None = None
        self._connection = _connection(pattern.name, inputs, initiator=initiator)
        self._state = self._connection.noise_protocol.handshake_state  # the library drops its own reference at the end
        self._state.e = _pair(self._connection, inputs.ephemeral)  # not by its setter, which warns

    @property
    def finished(self) -> bool:
        """Whether the last message has been written or read."""
        return self._result is not None

    @property
    def remote_static(self) -> bytes | None:
        """The peer's static key, 32 bytes, when its message was authentic or if it was given; it may be anybody's."""
        return None if self._failed else self._remote_static

    def write(self, payload: bytes = b"") -> bytes:
        """The next message of ours.

        Raises:
            Refused: TOO_LARGE, before anything has changed; BAD_HANDSHAKE if the peer's key was of low order.
            LocalProtocolError: it is not our turn.
        """
        size = self._turn(writing=True)
        if len(payload) > size.payload:
            raise Refused(Reason.TOO_LARGE, f"payload of {len(payload)} bytes where {size.payload} are allowed")
        return self._step(self._connection.write_message, payload)

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's next message; whatever is refused ends this object.

        Raises:
            Refused: TOO_LARGE or BAD_HANDSHAKE.
            LocalProtocolError: it is not the peer's turn.
        """
        size = self._turn(writing=False)
        if len(message) > size.most:
            raise self._fail(Reason.TOO_LARGE, f"{len(message)} bytes")
        if len(message) < size.empty:
            raise self._fail(Reason.BAD_HANDSHAKE, f"{len(message)} bytes")
        return self._step(self._connection.read_message, bytes(message))

    def result(self) -> NoiseResult:
        """The keys and the hash; raises LocalProtocolError before the last message."""
        if self._result is None:
            raise LocalProtocolError("the handshake has not finished")
        return self._result

    def _turn(self, *, writing: bool) -> Size:
        """The size of the message that comes now, if it is this side's turn to do so."""
        if self._failed:
            raise Refused(Reason.BAD_HANDSHAKE, "this handshake has failed before")
        if self._result is not None:
            raise LocalProtocolError("the handshake has finished")
        if writing != (self._initiator == (self._messages % 2 == 0)):
            raise LocalProtocolError("it is the other side's turn")
        return self._sizes[self._messages]

    def _step(self, step: Any, data: bytes) -> bytes:
        """Let the library do one message; what it raises for a peer's doing is a refusal (low order: ValueError)."""
        try:
            output = bytes(step(data))
        except (InvalidTag, ValueError) as error:
            raise self._fail(Reason.BAD_HANDSHAKE, type(error).__name__) from None
        self._messages += 1
        self._remote_static = getattr(self._state.rs, "public_bytes", None)
        if self._connection.handshake_finished:
            self._finish()
        return output

    def _fail(self, reason: Reason, detail: str) -> Refused:
        """End this object and drop its secrets: the library has changed its state already."""
        self._failed = True
        self._connection = self._state = None
        return Refused(reason, f"handshake message {self._messages + 1}: {detail}")

    def _finish(self) -> None:
        """Take the keys of Split() out by name: which of the two is ours to send with depends on the role."""
        done = self._connection.noise_protocol
        ours, theirs = done.cipher_state_encrypt.k, done.cipher_state_decrypt.k
        k1, k2 = (ours, theirs) if self._initiator else (theirs, ours)
        if self._remote_static is None:
            raise LocalProtocolError("a pattern in which the peer has no static key")
        self._result = NoiseResult(k1=k1, k2=k2, h=done.handshake_hash, remote_static=self._remote_static)
        self._connection = self._state = None


class XX(Handshake):
    """Noise_XX_25519_AESGCM_SHA256. Message 1 has no payload, because nothing would protect it."""

    PATTERN: Final = Pattern(
        name=b"Noise_XX_25519_AESGCM_SHA256",
        sizes=(
            Size(empty=KEY_SIZE, most=KEY_SIZE),  # e
            Size(empty=KEY_SIZE + SEALED_KEY + TAG_SIZE, most=HANDSHAKE_MESSAGE_MAX),  # e, ee, s, es
            Size(empty=SEALED_KEY + TAG_SIZE, most=HANDSHAKE_MESSAGE_MAX),  # s, se
        ),
    )

    @classmethod
    def initiator(cls, prologue: bytes, static: X25519Pair, ephemeral: X25519Pair) -> "XX":
        """The side that writes first. The ephemeral pair must be fresh."""
        return cls(cls.PATTERN, Inputs(prologue=prologue, static=static, ephemeral=ephemeral), initiator=True)

    @classmethod
    def responder(cls, prologue: bytes, static: X25519Pair, ephemeral: X25519Pair) -> "XX":
        """The side that reads first. The ephemeral pair must be fresh."""
        return cls(cls.PATTERN, Inputs(prologue=prologue, static=static, ephemeral=ephemeral), initiator=False)


class KKpsk0(Handshake):
    """Noise_KKpsk0_25519_AESGCM_SHA256: both statics are known, both messages have 48 bytes and empty payloads."""

    PATTERN: Final = Pattern(
        name=b"Noise_KKpsk0_25519_AESGCM_SHA256",
        sizes=(
            Size(empty=KEY_SIZE + TAG_SIZE, most=KEY_SIZE + TAG_SIZE),  # psk, e, es, ss
            Size(empty=KEY_SIZE + TAG_SIZE, most=KEY_SIZE + TAG_SIZE),  # e, ee, se
        ),
    )

    @classmethod
    def initiator(
        cls, prologue: bytes, static: X25519Pair, ephemeral: X25519Pair, remote_static: bytes, psk: bytes
    ) -> "KKpsk0":
        """The side that writes first. Raises Refused(BAD_HANDSHAKE) for a remote key of another length."""
        inputs = Inputs(prologue=prologue, static=static, ephemeral=ephemeral, remote_static=remote_static, psk=psk)
        return cls(cls.PATTERN, inputs, initiator=True)

    @classmethod
    def responder(
        cls, prologue: bytes, static: X25519Pair, ephemeral: X25519Pair, remote_static: bytes, psk: bytes
    ) -> "KKpsk0":
        """The side that reads first. Raises Refused(BAD_HANDSHAKE) for a remote key of another length."""
        inputs = Inputs(prologue=prologue, static=static, ephemeral=ephemeral, remote_static=remote_static, psk=psk)
        return cls(cls.PATTERN, inputs, initiator=False)


def _pair(connection: Any, pair: X25519Pair) -> Any:
    """A key pair as the library wants it."""
    return connection.noise_protocol.dh_fn.klass.from_private_bytes(pair.private)


def _connection(name: bytes, inputs: Inputs, *, initiator: bool) -> Any:
    """The library's object, started."""
    connection = NoiseConnection.from_name(name)
    connection.set_prologue(inputs.prologue)
    connection.set_keypair_from_private_bytes(Keypair.STATIC, inputs.static.private)
    if inputs.remote_static is not None:
        connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, inputs.remote_static)
    if inputs.psk is not None:
        connection.set_psks(psk=inputs.psk)
    if initiator:
        connection.set_as_initiator()
    else:
        connection.set_as_responder()
    connection.start_handshake()
    return connection
