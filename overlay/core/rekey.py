"""Fresh keys under a live link: OFFER, INIT, RESP, DONE, CONFIRM (docs/protocol/rekey.md).

A machine inside `session.py`: it takes frames and time, and answers with actions that the session carries out in order.
The driver offers; the answerer is the Noise initiator of KKpsk0. Streams never pause: each direction changes its key
between two records, DONE is the last frame under the old key and CONFIRM the first under the new one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.core import limits
from overlay.core.chance import Chance
from overlay.core.epochs import EpochKeys, KemKey, next_epoch, rekey_prologue, rekey_psk
from overlay.core.keys import NodeId, X25519Pair
from overlay.core.limits import RekeyTimes
from overlay.core.noise import KKpsk0
from overlay.core.wire import UInt, make_map, malformed, open_map, u64
from overlay.errors import Refused
from overlay.registry import FrameType, Reason, Role

KK_MESSAGE_SIZE = 48  # an X25519 key and the tag of an empty payload


@dataclass(frozen=True, slots=True)
class Send:
    """Queue a control frame."""

    type: FrameType
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendUnder:
    """Seal what is queued, then change the sending key."""

    keys: EpochKeys


@dataclass(frozen=True, slots=True)
class ReceiveUnder:
    """The record that brought this was the last under the old key."""

    keys: EpochKeys


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Both directions use the new keys as far as we can know."""

    keys: EpochKeys


MakeNoise = Callable[[bytes, X25519Pair, X25519Pair, bytes, bytes], KKpsk0]
Action = Send | SendUnder | ReceiveUnder | Confirmed


# --- stages: what is remembered between two steps ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing under way."""


@dataclass(frozen=True, slots=True)
class Offered:
    """Driver: OFFER sent."""

    offer: bytes = field(repr=False)
    kem_key: KemKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answered:
    """Answerer: INIT sent."""

    epoch: int
    noise: KKpsk0 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Responded:
    """Driver: RESP sent, DONE awaited."""

    keys: EpochKeys


@dataclass(frozen=True, slots=True)
class HalfDriver:
    """Driver: receiving under the new key, CONFIRM awaited."""

    keys: EpochKeys


@dataclass(frozen=True, slots=True)
class Switched:
    """Answerer: sending under the new key, the driver's DONE awaited."""

    keys: EpochKeys


@dataclass(frozen=True, slots=True)
class HalfAnswerer:
    """Answerer: both keys changed, the driver's CONFIRM awaited."""

    keys: EpochKeys


Stage = Idle | Offered | Answered | Responded | HalfDriver | Switched | HalfAnswerer


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyLink:
    """What does not change over the life of a link."""

    mesh_id: bytes
    role: Role
    own_id: NodeId
    peer_id: NodeId
    static: X25519Pair  # the statics of this link's XX, for all its epochs
    remote_static: bytes


class Rekey:
    """The rekey machine of one link; made when epoch 1 begins."""

    def __init__(self, link: RekeyLink, keys: EpochKeys, *, times: RekeyTimes, chance: Chance, now: float) -> None:
        self._link = link
        self._times = times
        self._chance = chance
        self._keys = keys
        self._stage: Stage = Idle()
        self._confirmed_at = now
        self._started_at = now
        self._heard_at = now
        self._due = self._next_due(now)
        self._pardon = False

    @property
    def keys(self) -> EpochKeys:
        """The last confirmed epoch."""
        return self._keys

    @property
    def confirmed_at(self) -> float:
        """When it was confirmed (monotonic)."""
        return self._confirmed_at

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        overdue = self._confirmed_at + self._times.close
        if isinstance(self._stage, Idle):
            return min(self._due, overdue)
        return min(overdue, self._heard_at + self._times.silence, self._started_at + self._times.give_up)

    def heard(self, now: float) -> None:
        """A record of the peer has decrypted."""
        self._heard_at = now

    def request(self) -> None:
        """A key has carried enough: the next tick offers, but never so soon that the peer, who confirmed later, refuses it."""
        self._due = min(self._due, self._confirmed_at + 2 * self._times.pause)

    def woke(self, now: float) -> None:
        """This machine has slept: the next tick offers, and one early offer of a peer that has slept, too, is taken."""
        self._due, self._pardon = now, True

    def tick(self, now: float) -> list[Action]:
        """Time in. Raises Refused(REKEY_OVERDUE or REKEY_FAILED), which ends the link."""
        if now >= self._confirmed_at + self._times.close:
            raise Refused(Reason.REKEY_OVERDUE, f"the keys are {now - self._confirmed_at:.0f} s old")
        if isinstance(self._stage, Idle):
            return self._offer(now) if now >= self._due else []
        if now >= self._heard_at + self._times.silence or now >= self._started_at + self._times.give_up:
            raise Refused(Reason.REKEY_FAILED, "no answer")
        return []

    def receive(self, frame: FrameType, body: bytes, now: float) -> list[Action]:
        """A rekey frame in. Raises Refused, which ends the link."""
        stage = self._stage
        match frame, stage:
            case FrameType.OFFER, Idle() | Offered():
                return self._on_offer(body, now)
            case FrameType.INIT, Offered():
                return self._on_init(stage, body)
            case FrameType.RESP, Answered():
                return self._on_resp(stage, body)
            case FrameType.DONE, Responded():
                return self._on_done(body, HalfDriver(stage.keys))
            case FrameType.DONE, Switched():
                return self._on_done(body, HalfAnswerer(stage.keys))
            case FrameType.CONFIRM, HalfDriver():
                return self._on_confirm(stage.keys, body, now, [Send(FrameType.DONE, b""), *_switch(stage.keys)])
            case FrameType.CONFIRM, HalfAnswerer():
                return self._on_confirm(stage.keys, body, now, [])
        raise Refused(Reason.STALE_EPOCH, f"{frame.name} while {type(stage).__name__.lower()}")

    # --- steps of the driver

    def _offer(self, now: float) -> list[Action]:
        kem_key = self._chance.kem.generate()
        offer = u64(self._keys.epoch + 1) + kem_key.public
        self._stage, self._started_at, self._heard_at = Offered(offer, kem_key), now, now
        return [Send(FrameType.OFFER, offer)]

    def _on_init(self, stage: Offered, body: bytes) -> list[Action]:
        epoch = self._epoch_of(body, limits.KEM_CIPHERTEXT_SIZE + KK_MESSAGE_SIZE)
        ciphertext, message = body[8 : 8 + limits.KEM_CIPHERTEXT_SIZE], body[8 + limits.KEM_CIPHERTEXT_SIZE :]
        noise = self._noise(KKpsk0.responder, stage.offer, ciphertext, stage.kem_key.decapsulate(ciphertext))
        _read(noise, message)
        answer = noise.write()
        keys = next_epoch(epoch, noise.result())
        self._stage = Responded(keys)
        return [Send(FrameType.RESP, u64(epoch) + answer)]

    # --- steps of the answerer

    def _on_offer(self, body: bytes, now: float) -> list[Action]:
        epoch = self._epoch_of(body, limits.KEM_KEY_SIZE)
        if isinstance(self._stage, Offered) and self._link.own_id < self._link.peer_id:
            return []  # both offered: the lower node id leads
        if now < self._confirmed_at + self._times.pause and not self._pardon:
            raise Refused(Reason.REKEY_TOO_SOON, f"{now - self._confirmed_at:.1f} s after the last")
        secret, ciphertext = self._chance.kem.encapsulate(body[8:])
        noise = self._noise(KKpsk0.initiator, body, ciphertext, secret)
        message = noise.write()
        self._stage, self._started_at, self._heard_at = Answered(epoch, noise), now, now
        self._pardon = False
        return [Send(FrameType.INIT, u64(epoch) + ciphertext + message)]

    def _on_resp(self, stage: Answered, body: bytes) -> list[Action]:
        epoch = self._epoch_of(body, KK_MESSAGE_SIZE)
        _read(stage.noise, body[8:])
        keys = next_epoch(epoch, stage.noise.result())
        self._stage = Switched(keys)
        return [Send(FrameType.DONE, b""), *_switch(keys)]

    # --- steps of both

    def _on_done(self, body: bytes, stage: HalfDriver | HalfAnswerer) -> list[Action]:
        if body:
            malformed("DONE has no body")
        self._stage = stage
        return [ReceiveUnder(stage.keys)]

    def _on_confirm(self, keys: EpochKeys, body: bytes, now: float, answer: list[Action]) -> list[Action]:
        (epoch,) = open_map(body, UInt(), limit=64)
        if epoch != keys.epoch:
            raise Refused(Reason.STALE_EPOCH, f"CONFIRM of epoch {epoch}")
        self._keys, self._stage, self._confirmed_at = keys, Idle(), now
        self._due = self._next_due(now)
        return [*answer, Confirmed(keys)]

    def _epoch_of(self, body: bytes, rest: int) -> int:
        """The u64 at the start of OFFER, INIT and RESP, which must name the next epoch."""
        if len(body) != 8 + rest:
            malformed("size of a rekey frame")
        epoch = int.from_bytes(body[:8], "big")
        if epoch != self._keys.epoch + 1:
            raise Refused(Reason.STALE_EPOCH, f"epoch {epoch} offered in epoch {self._keys.epoch}")
        return epoch

    def _noise(self, make: MakeNoise, offer: bytes, ciphertext: bytes, secret: bytes) -> KKpsk0:
        link, keys = self._link, self._keys
        prologue = rekey_prologue(link.mesh_id, keys.epoch + 1, keys.h, offer, ciphertext)
        psk = rekey_psk(keys, secret)
        return make(prologue, link.static, self._chance.x25519(), link.remote_static, psk)

    def _next_due(self, now: float) -> float:
        times = self._times
        if self._link.role is Role.OPENER:
            return now + times.after - times.jitter * self._chance.fraction()
        return now + times.backstop


def _switch(keys: EpochKeys) -> list[Action]:
    return [SendUnder(keys), Send(FrameType.CONFIRM, make_map(keys.epoch))]


def _read(noise: KKpsk0, message: bytes) -> None:
    """Read a KK message, which has room for no payload; one that fails means that the peer does not hold the link's keys."""
    try:
        noise.read(message)
    except Refused as error:
        raise Refused(Reason.REKEY_FAILED, error.detail) from None

