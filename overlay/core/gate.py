"""The gate: 19 bytes before the handshake, made with the mesh's gate key. A defence against load; it decides no trust.

`version u8 | suite u8 | mode u8 | mac16`, where mac is the first 16 bytes of
HMAC-SHA-256(gate key, label || the first three bytes || tag of the responder || e).
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from overlay.core.limits import HELLO_SIZE, SEEN_HELLOS
from overlay.errors import Refused
from overlay.registry import SUITE, VERSION, Label, Mode, Reason

MAC_SIZE: Final = 16
TAG_SIZE: Final = 8
NO_TAG: Final = bytes(TAG_SIZE)  # dialled without an announcement
START_SIZE: Final = 3  # version, suite, mode
EPHEMERAL_SIZE: Final = 32


class SeenEphemerals:
    """The `e` of the last hellos that were let in: a recorded one does not come in twice. Holds at most 65,536."""

    def __init__(self, capacity: int = SEEN_HELLOS) -> None:
        self._capacity = capacity
        self._seen: dict[bytes, None] = {}  # in order of arrival

    def __contains__(self, ephemeral: bytes) -> bool:
        return ephemeral in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, ephemeral: bytes) -> None:
        """Remember one and forget the oldest."""
        self._seen[ephemeral] = None
        if len(self._seen) > self._capacity:
            del self._seen[next(iter(self._seen))]


def make_hello(gate_key: bytes, mode: Mode, tag: bytes, ephemeral: bytes) -> bytes:
    """The first 19 bytes of a connection, for the responder's tag (or NO_TAG) and the public e of message 1."""
    if len(tag) != TAG_SIZE or len(ephemeral) != EPHEMERAL_SIZE:
        raise ValueError("a tag has 8 bytes and an ephemeral key 32")
    start = bytes((VERSION, SUITE, mode))
    return start + _mac(gate_key, start, tag, ephemeral)


def check_hello(
    hello: bytes, ephemeral: bytes, gate_keys: Sequence[bytes], tags: Sequence[bytes], seen: SeenEphemerals
) -> Mode:
    """Let a connection in, and remember its `e`; nothing is remembered of one that is refused.

    Args:
        hello: its first 19 bytes.
        ephemeral: the 32 bytes of e at the start of message 1.
        gate_keys: those accepted, the newest two.
        tags: those accepted, our announced ones and NO_TAG.
        seen: what came in before.

    Raises:
        Refused: MALFORMED, UNSUPPORTED, BAD_GATE or REPLAYED_HELLO.
    """
    if len(hello) != HELLO_SIZE or len(ephemeral) != EPHEMERAL_SIZE:
        raise Refused(Reason.MALFORMED, "length of a hello")
    start, mac = hello[:START_SIZE], hello[START_SIZE:]
    mode = _mode(start)
    fits = [hmac.compare_digest(mac, _mac(key, start, tag, ephemeral)) for key in gate_keys for tag in tags]
    if not any(fits):
        raise Refused(Reason.BAD_GATE, "no gate key fits")
    if ephemeral in seen:
        raise Refused(Reason.REPLAYED_HELLO, "its e came in before")
    seen.add(ephemeral)
    return mode


def prologue(mesh_id: bytes, start: bytes) -> bytes:
    """The prologue of XX; `start` is the first three bytes of the connection."""
    if len(start) != START_SIZE:
        raise ValueError("version, suite and mode")
    return Label.PROLOGUE + mesh_id + start


def _mode(start: bytes) -> Mode:
    version, suite, mode = start
    if (version, suite) != (VERSION, SUITE):
        raise Refused(Reason.UNSUPPORTED, f"version {version}, suite {suite}")
    try:
        return Mode(mode)
    except ValueError:
        raise Refused(Reason.UNSUPPORTED, f"mode {mode}") from None


def _mac(gate_key: bytes, start: bytes, tag: bytes, ephemeral: bytes) -> bytes:
    return hmac.digest(gate_key, Label.GATE + start + tag + ephemeral, hashlib.sha256)[:MAC_SIZE]
