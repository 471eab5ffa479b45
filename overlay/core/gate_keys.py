"""Which gate keys a node knows, and how the next one comes: a signer makes it when a member was revoked, who knows the old one.

    key     = COSE_Sign1 by the signer's message key: kid = H(endorsement), payload {0:1, 1:number, 2:key32},
              AAD = "overlay/1 gate key\\0" || mesh_id
    carried = {0:1, 1:key, 2:made_at, 3:endorsement, 4:leaf, 5:[chain]}
    kept    = {0:1, 1:[[number, key32, since], ...], 2:carried?}

Rules:

- the highest number holds, of two equal numbers the lower key; so all come to use the same, however they hear of it
- older keys go on to pass for 90 days: who was away is let in, if under the quota of strangers (`core/mesh/load.py`)
- credentials are judged at made_at, which nobody signs: it must lie in their life, and their owner must not be revoked
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from overlay.core.certificates import TOLERANCE
from overlay.core.keys import MeshId, NodeId, Signer
from overlay.core.limits import CHAIN_BYTES_MAX, CHAIN_DEPTH_MAX, ENDORSEMENT_MAX
from overlay.core.revocation_profile import TIME_MAX
from overlay.core.trust import Credentials, TrustSet
from overlay.core.wire import Array, Bytes, Maybe, Tuple, UInt, make_map, malformed, open_map, parse_sign1, sha256, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason

KEY_SIZE: Final = 32
PASSES_FOR: Final = timedelta(days=90)  # protocol
KEYS_MAX: Final = 64  # protocol
JUMP_MAX: Final = 64  # our guess: so nobody uses up the numbers, and whoever was away for as many still follows
NUMBER_MAX: Final = 2**63 - 1
COSE_MAX: Final = 512
GATE_KEY_MAX: Final = 2 * (CHAIN_BYTES_MAX + ENDORSEMENT_MAX)

_ROWS: Final = Array(Tuple((UInt(NUMBER_MAX), Bytes(KEY_SIZE), UInt(TIME_MAX))), KEYS_MAX)
_CARRIED: Final = (
    Bytes(1, COSE_MAX), UInt(TIME_MAX), Bytes(1, ENDORSEMENT_MAX), Bytes(1, CHAIN_BYTES_MAX),
    Array(Bytes(1, CHAIN_BYTES_MAX), CHAIN_DEPTH_MAX),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GateKey:
    """One of them, and since when we know it."""

    number: int
    key: bytes = field(repr=False)  # 32
    since: datetime

    @property
    def rank(self) -> tuple[int, bytes]:
        """The lowest rank holds."""
        return -self.number, self.key


@dataclass(frozen=True, slots=True)
class GateKeys:
    """All that pass, the one in use first."""

    keys: tuple[GateKey, ...]
    signed: bytes | None = field(default=None, repr=False)  # the one in use, as it was carried; None for that of our bundle

    @property
    def newest(self) -> GateKey:
        """The one in use."""
        return self.keys[0]

    def adding(self, number: int, key: bytes, at: datetime, signed: bytes | None = None) -> "GateKeys":
        """The same and this one; the same where it is known. Others are forgotten 90 days after one took their place."""
        if any(one.key == key for one in self.keys):
            return self
        since = at.astimezone(UTC).replace(microsecond=0)
        every = sorted((GateKey(number, key, since), *self.keys), key=lambda one: one.rank)
        passing = [one for place, one in enumerate(every) if place < 2 or at - every[place - 1].since < PASSES_FOR]
        return GateKeys(tuple(passing[:KEYS_MAX]), signed if every[0].key == key else self.signed)

    def pack(self) -> bytes:
        """For a file."""
        return make_map([[one.number, one.key, int(one.since.timestamp())] for one in self.keys], self.signed)

    @classmethod
    def unpack(cls, data: bytes) -> "GateKeys":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        rows, signed = open_map(data, _ROWS, Maybe(Bytes(1, GATE_KEY_MAX)), limit=GATE_KEY_MAX + KEYS_MAX * 64)
        if not rows:
            malformed("there is a gate key")
        return cls(tuple(GateKey(number, key, datetime.fromtimestamp(since, UTC)) for number, key, since in rows), signed)


def sign_gate_key(
    number: int, key: bytes, *, signer: Signer, credentials: Credentials, mesh_id: MeshId, at: datetime
) -> bytes:
    """The carried form of a new one."""
    raw = sign1(make_map(number, key), signer=signer, aad=Label.GATE_KEY + mesh_id, kid=sha256(credentials.endorsement))
    shown = credentials
    return make_map(raw, int(at.timestamp()), shown.endorsement, shown.leaf, list(shown.chain))


def verify_gate_key(
    raw: bytes, trust: TrustSet, was_signer: Callable[[NodeId], bool], highest: int, at: datetime
) -> tuple[int, bytes]:
    """Number and key of a carried one.

    Raises:
        Refused: BAD_SIGNATURE or MALFORMED for what no honest node passes on; NOT_ALLOWED, CLOCK or any reason of
            `TrustSet.verify` for what somebody may believe who knows more or less than we do.
    """
    cose, made, endorsement, leaf, chain = open_map(raw, *_CARRIED, limit=GATE_KEY_MAX)
    made_at = datetime.fromtimestamp(made, UTC)
    if made_at > at + TOLERANCE:
        raise Refused(Reason.CLOCK, "a gate key of tomorrow")
    peer = trust.verify(Credentials(endorsement, leaf, tuple(chain)), made_at)
    if not was_signer(peer.node_id):
        raise Refused(Reason.NOT_ALLOWED, f"{peer.name} is no signer, and makes no gate key")
    found = parse_sign1(cose, limit=COSE_MAX)
    if found.kid != sha256(endorsement):
        raise Refused(Reason.BAD_SIGNATURE, "a gate key under another endorsement")
    payload = found.verify(peer.message_public, aad=Label.GATE_KEY + trust.mesh_id)
    number, key = open_map(payload, UInt(NUMBER_MAX), Bytes(KEY_SIZE), limit=64)
    if number > highest + JUMP_MAX:
        raise Refused(Reason.NOT_ALLOWED, f"gate key {number} where {highest} is in use")
    return number, key
