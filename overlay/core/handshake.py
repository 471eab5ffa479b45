"""The first three messages of a link: gate, Noise XX with credentials and ML-KEM in its payloads (docs/protocol/handshake.md).

Ends with an `Agreement`: a peer whose certificate and endorsement have verified, and the keys of epoch 1.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from overlay.core import limits
from overlay.core.chance import Chance
from overlay.core.epochs import EpochKeys, KemKey, first_epoch
from overlay.core.gate import SeenEphemerals, check_hello, make_hello, prologue
from overlay.core.guard import asked
from overlay.core.identity import LocalIdentity
from overlay.core.noise import XX
from overlay.core.trust import Credentials, TrustSet, VerifiedPeer
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import SUITE, SUITES, VERSION, Mode, Reason

HELLO_PREFIX = 3
_CHAIN = Array(Bytes(1, limits.CHAIN_BYTES_MAX), limits.CHAIN_DEPTH_MAX)
_SUITES = Array(Tuple((UInt(255), UInt(255))), 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeContext:
    """What both ends of a handshake need. The two callables are asked when the peer's credentials arrive."""

    identity: LocalIdentity
    trust: Callable[[], TrustSet]
    calendar: Callable[[], datetime]
    chance: Chance
    gate_keys: Sequence[bytes] = field(repr=False)  # newest first
    tag: bytes = bytes(8)  # opener: the responder's tag as announced; responder: its own
    seen: SeenEphemerals | None = None  # responder


@dataclass(frozen=True, slots=True)
class Agreement:
    """Both ends hold the keys of epoch 1; the first record that decrypts confirms them."""

    peer: VerifiedPeer
    keys: EpochKeys
    remote_static: bytes


class Opener:
    """The side that dialled."""

    def __init__(self, context: HandshakeContext) -> None:
        self._context = context
        ephemeral = context.chance.x25519()
        hello = make_hello(context.gate_keys[0], Mode.MEMBER, context.tag, ephemeral.public)
        mesh_id = context.trust().mesh_id
        self._noise = XX.initiator(prologue(mesh_id, hello[:HELLO_PREFIX]), context.identity.static, ephemeral)
        self.first_bytes = hello + as_record(self._noise.write())

    def message_2(self, message: bytes) -> tuple[bytes, Agreement]:
        """Read message 2: message 3 as a record, and what was agreed. Raises Refused."""
        payload = self._noise.read(message)
        endorsement, leaf, chain, kem_public, suites = open_map(
            payload, Bytes(1, 4096), Bytes(1, limits.CHAIN_BYTES_MAX), _CHAIN, Bytes(limits.KEM_KEY_SIZE), _SUITES,
            limit=limits.HANDSHAKE_MESSAGE_MAX,
        )
        refuse_downgrade(suites)
        peer = _verify(self._context, Credentials(endorsement, leaf, tuple(chain)), self._noise)
        secret, ciphertext = self._context.chance.kem.encapsulate(kem_public)
        message_3 = as_record(self._noise.write(_payload(self._context.identity.credentials, ciphertext)))
        result = self._noise.result()
        return message_3, Agreement(peer, first_epoch(result, secret), result.remote_static)


class Responder:
    """The side that was dialled."""

    def __init__(self, context: HandshakeContext) -> None:
        self._context = context
        self._kem_key: KemKey | None = None
        self._noise: XX | None = None

    def message_1(self, hello: bytes, message: bytes) -> bytes:
        """Check the gate and read message 1: message 2 as a record. Raises Refused."""
        context = self._context
        if context.seen is None:
            raise ValueError("a responder remembers the hellos it has seen")
        mode = check_hello(hello, message, context.gate_keys, (context.tag, bytes(8)), context.seen)
        if mode is not Mode.MEMBER:
            raise Refused(Reason.UNSUPPORTED, f"mode {mode.name.lower()}")
        chance = context.chance
        noise = XX.responder(
            prologue(context.trust().mesh_id, hello[:HELLO_PREFIX]), context.identity.static, chance.x25519()
        )
        noise.read(message)
        kem_key = chance.kem.generate()
        answer = as_record(noise.write(_payload(context.identity.credentials, kem_key.public)))
        self._noise, self._kem_key = noise, kem_key
        return answer

    def message_3(self, message: bytes) -> Agreement:
        """Read message 3: what was agreed. Raises Refused."""
        noise, kem_key = self._noise, self._kem_key
        if noise is None or kem_key is None:
            raise ValueError("message 1 comes first")
        payload = noise.read(message)
        endorsement, leaf, chain, ciphertext, suites = open_map(
            payload, Bytes(1, 4096), Bytes(1, limits.CHAIN_BYTES_MAX), _CHAIN, Bytes(limits.KEM_CIPHERTEXT_SIZE), _SUITES,
            limit=limits.HANDSHAKE_MESSAGE_MAX,
        )
        refuse_downgrade(suites)
        peer = _verify(self._context, Credentials(endorsement, leaf, tuple(chain)), noise)
        secret = kem_key.decapsulate(ciphertext)
        result = noise.result()
        return Agreement(peer, first_epoch(result, secret), result.remote_static)


def as_record(message: bytes) -> bytes:
    """A handshake message behind its u16 length."""
    if len(message) > limits.HANDSHAKE_MESSAGE_MAX:
        raise Refused(Reason.TOO_LARGE, "our own handshake message")
    return len(message).to_bytes(2, "big") + message


def refuse_downgrade(suites: list[list[int]], known: Iterable[tuple[int, int]] = SUITES) -> None:
    """Raises Refused(DOWNGRADE) if both ends know a better (version, suite) than the one in use."""
    common = {(version, suite) for version, suite in suites} & set(known)
    if not common:
        raise Refused(Reason.UNSUPPORTED, "the peer does not list what it speaks")
    if max(common) > (VERSION, SUITE):
        raise Refused(Reason.DOWNGRADE, f"both ends know {max(common)}")


def _payload(own: Credentials, kem: bytes) -> bytes:
    return make_map(own.endorsement, own.leaf, list(own.chain), kem, [list(pair) for pair in SUITES])


def _verify(context: HandshakeContext, credentials: Credentials, noise: XX) -> VerifiedPeer:
    """The peer behind these credentials, if the endorsed Noise key is the one that did this handshake."""
    peer = asked(lambda: context.trust().verify(credentials, context.calendar()))
    if noise.remote_static is None or peer.noise_public != noise.remote_static:
        raise Refused(Reason.STATIC_MISMATCH, "the endorsement names another Noise key")
    if peer.node_id == context.identity.node_id:
        raise Refused(Reason.SELF_DIAL, "this is our own identity")
    return peer
