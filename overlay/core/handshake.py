"""The first three messages of a link: gate, Noise XX with credentials and ML-KEM in its payloads (docs/protocol/handshake.md).

Ends with an `Agreement`: a peer whose certificate and endorsement have verified, and the keys of epoch 1. Three modes:

- member: both show credentials in force
- join: who dials has none yet, and shows none; who answers adds all roots, and the joiner's token pins the newest
- renew: the certificates of either may have ended, within grace
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
from overlay.core.keys import MeshId, NodeId, X25519Pair
from overlay.core.noise import XX
from overlay.core.trust import Credentials, TrustSet, VerifiedPeer
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, open_map
from overlay.errors import Refused
from overlay.registry import SUITE, SUITES, VERSION, Mode, Reason

HELLO_PREFIX = 3
NOTHING = Credentials(b"", b"")  # what a joiner shows
_SUITES = Array(Tuple((UInt(255), UInt(255))), 16)

Verify = Callable[[Credentials], VerifiedPeer | None]  # raises Refused; None for one who need not show anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One end of a handshake in one mode: what it shows, and how it judges what it is shown."""

    mesh_id: MeshId
    static: X25519Pair = field(repr=False)
    shows: Credentials
    verify: Verify
    own_id: NodeId | None = None  # a joiner has no links to itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """How a handshake begins: the gate, and where randomness comes from."""

    chance: Chance
    gate_keys: Sequence[bytes] = field(repr=False)  # newest first
    tag: bytes = bytes(8)  # opener: the responder's tag as announced; responder: its own
    seen: SeenEphemerals | None = None  # responder


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeContext:
    """What a member needs for a handshake. The two callables are asked when the peer's credentials arrive."""

    identity: LocalIdentity
    trust: Callable[[], TrustSet]
    calendar: Callable[[], datetime]
    chance: Chance
    gate_keys: Sequence[bytes] = field(repr=False)  # newest first
    tag: bytes = bytes(8)
    seen: SeenEphemerals | None = None

    @property
    def entrance(self) -> Entrance:
        """How it begins."""
        return Entrance(chance=self.chance, gate_keys=self.gate_keys, tag=self.tag, seen=self.seen)

    def side(self) -> Side:
        """This end, as a member among members."""
        identity = self.identity
        return Side(
            mesh_id=self.trust().mesh_id, static=identity.static, shows=identity.credentials,
            verify=lambda shown: self.trust().verify(shown, self.calendar()), own_id=identity.node_id,
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """Both ends hold the keys of epoch 1; the first record that decrypts confirms them."""

    shown: VerifiedPeer | None  # None: a joiner
    keys: EpochKeys
    remote_static: bytes

    @property
    def peer(self) -> VerifiedPeer:
        """Who is at the other end; a member always is somebody."""
        if self.shown is None:
            raise Refused(Reason.BAD_CERTIFICATE, "the peer has shown no certificate")
        return self.shown


class Opener:
    """The side that dialled."""

    def __init__(self, entrance: Entrance, side: Side, mode: Mode = Mode.MEMBER) -> None:
        self._chance = entrance.chance
        self._side = side
        self._mode = mode
        ephemeral = entrance.chance.x25519()
        hello = make_hello(entrance.gate_keys[0], mode, entrance.tag, ephemeral.public)
        self._noise = XX.initiator(prologue(side.mesh_id, hello[:HELLO_PREFIX]), side.static, ephemeral)
        self.first_bytes = hello + as_record(self._noise.write())

    def message_2(self, message: bytes) -> tuple[bytes, Agreement]:
        """Read message 2: message 3 as a record, and what was agreed. Raises Refused."""
        payload = self._noise.read(message)
        shown, kem_public = _read_payload(payload, limits.KEM_KEY_SIZE, self._mode, empty=False)
        peer = _verify(self._side, shown, self._noise)
        secret, ciphertext = self._chance.kem.encapsulate(kem_public)
        message_3 = as_record(self._noise.write(_payload(self._side.shows, ciphertext)))
        result = self._noise.result()
        return message_3, Agreement(peer, first_epoch(result, secret), result.remote_static)


class Responder:
    """The side that was dialled. `sides` says in which modes it answers, and how; each is asked when it is needed."""

    def __init__(self, entrance: Entrance, sides: Callable[[Mode], Side | None]) -> None:
        self._door = entrance
        self._sides = sides
        self._side: Side | None = None
        self._kem_key: KemKey | None = None
        self._noise: XX | None = None
        self.mode = Mode.MEMBER

    def message_1(self, hello: bytes, message: bytes) -> bytes:
        """Check the gate and read message 1: message 2 as a record. Raises Refused."""
        entrance = self._door
        if entrance.seen is None:
            raise ValueError("a responder remembers the hellos it has seen")
        mode = check_hello(hello, message, entrance.gate_keys, (entrance.tag, bytes(8)), entrance.seen)
        side = self._sides(mode)
        if side is None:
            raise Refused(Reason.UNSUPPORTED, f"mode {mode.name.lower()}")
        noise = XX.responder(prologue(side.mesh_id, hello[:HELLO_PREFIX]), side.static, entrance.chance.x25519())
        noise.read(message)
        kem_key = entrance.chance.kem.generate()
        answer = as_record(noise.write(_payload(side.shows, kem_key.public)))
        self._noise, self._kem_key, self._side, self.mode = noise, kem_key, side, mode
        return answer

    def message_3(self, message: bytes) -> Agreement:
        """Read message 3: what was agreed. Raises Refused."""
        noise, kem_key, side = self._noise, self._kem_key, self._side
        if noise is None or kem_key is None or side is None:
            raise ValueError("message 1 comes first")
        payload = noise.read(message)
        joining = self.mode is Mode.JOIN
        shown, ciphertext = _read_payload(payload, limits.KEM_CIPHERTEXT_SIZE, self.mode, empty=joining)
        peer = _verify(side, shown, noise)
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


def _read_payload(payload: bytes, kem_size: int, mode: Mode, *, empty: bool) -> tuple[Credentials, bytes]:
    """Credentials, which nobody has verified, and what ML-KEM needs; a joiner's are empty, and nobody else's."""
    depth = limits.JOIN_CHAIN_DEPTH_MAX if mode is Mode.JOIN else limits.CHAIN_DEPTH_MAX
    nothing, chain = Bytes(0), Array(Bytes(1, limits.CHAIN_BYTES_MAX), 0 if empty else depth)
    endorsement, leaf, above, kem, suites = open_map(
        payload, nothing if empty else Bytes(1, 4096), nothing if empty else Bytes(1, limits.CHAIN_BYTES_MAX), chain,
        Bytes(kem_size), _SUITES, limit=limits.HANDSHAKE_MESSAGE_MAX,
    )
    refuse_downgrade(suites)
    return Credentials(endorsement, leaf, tuple(above)), kem


def _verify(side: Side, credentials: Credentials, noise: XX) -> VerifiedPeer | None:
    """The peer behind these credentials, if the endorsed Noise key is the one that did this handshake."""
    peer = asked(lambda: side.verify(credentials))
    if peer is None:
        return None
    if noise.remote_static is None or peer.noise_public != noise.remote_static:
        raise Refused(Reason.STATIC_MISMATCH, "the endorsement names another Noise key")
    if peer.node_id == side.own_id:
        raise Refused(Reason.SELF_DIAL, "this is our own identity")
    return peer
