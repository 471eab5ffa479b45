"""What is said on the LAN, and how a member recognises it: TXT record <-> values (RFC 6763, section 6). Pure.

    v=1  p=<port>  t=<tag>  m=<mesh hint>  n=<node hint>        t, m, n: eight bytes each, lower-case base32

The tag is random per start, and both hints are MACs over it under the gate key, so that two starts of one node share
nothing that a stranger can see.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from overlay.core.keys import NodeId, base32, from_base32
from overlay.core.mesh.found import TAG_SIZE, AnnouncementFacts
from overlay.errors import Refused
from overlay.registry import Label, Reason

HINT_SIZE: Final = 8  # bytes: a wrong guess every 2^64, and only a wasted dial then
VALUE_MAX: Final = 64  # bytes of one TXT value; ours have at most 13: our guess, so that nothing large is decoded
FORMAT: Final = b"1"
ANNOUNCED: Final = 2  # gate keys under which we announce: who was away during one revocation still recognises us


def mesh_hint(gate_key: bytes, tag: bytes) -> bytes:
    """Eight bytes that say to holders of the gate key: this mesh."""
    return _mac(gate_key, Label.MDNS_MESH + tag)


def node_hint(gate_key: bytes, tag: bytes, node_id: NodeId) -> bytes:
    """Eight bytes that say to holders of the gate key who know the id: this node."""
    return _mac(gate_key, Label.MDNS_NODE + tag + node_id)


def _mac(gate_key: bytes, data: bytes) -> bytes:
    return hmac.new(gate_key, data, hashlib.sha256).digest()[:HINT_SIZE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """One node's announcement. Anyone can copy it: it is a hint."""

    port: int
    tag: bytes
    mesh_hint: bytes
    node_hint: bytes

    @classmethod
    def of(cls, facts: AnnouncementFacts) -> "Announcement":
        """What we announce, under the newest gate key."""
        return cls._under(facts.gate_keys[0], facts)

    @classmethod
    def all_of(cls, facts: AnnouncementFacts) -> "tuple[Announcement, ...]":
        """The same, and what we announce beside it under the key before, for who was away when there was another one."""
        return tuple(cls._under(key, facts) for key in facts.gate_keys[:ANNOUNCED])

    @classmethod
    def _under(cls, key: bytes, facts: AnnouncementFacts) -> "Announcement":
        return cls(
            port=facts.port,
            tag=facts.tag,
            mesh_hint=mesh_hint(key, facts.tag),
            node_hint=node_hint(key, facts.tag, facts.node_id),
        )

    def to_txt(self) -> dict[str, str]:
        """The TXT record. It changes only with start, port or gate key."""
        return {
            "v": FORMAT.decode(),
            "p": str(self.port),
            "t": base32(self.tag),
            "m": base32(self.mesh_hint),
            "n": base32(self.node_hint),
        }

    @classmethod
    def from_txt(cls, txt: Mapping[bytes, bytes | None]) -> "Announcement":
        """Read a TXT record; keys that we do not know are skipped (RFC 6763, section 6.4), letter case too.

        Raises:
            Refused: UNSUPPORTED for another version, MALFORMED for anything else that does not fit.
        """
        fields = {key.lower(): value for key, value in txt.items()}
        if fields.get(b"v") != FORMAT:
            raise Refused(Reason.UNSUPPORTED, "version of an announcement")
        return cls(
            port=_port(_value(fields, b"p")),
            tag=_bytes(_value(fields, b"t"), TAG_SIZE),
            mesh_hint=_bytes(_value(fields, b"m"), HINT_SIZE),
            node_hint=_bytes(_value(fields, b"n"), HINT_SIZE),
        )

    def key_among(self, gate_keys: Iterable[bytes]) -> bytes | None:
        """With which of these gate keys it was made; None for another mesh."""
        fits = (key for key in gate_keys if hmac.compare_digest(self.mesh_hint, mesh_hint(key, self.tag)))
        return next(fits, None)

    def matches_mesh(self, gate_keys: Iterable[bytes]) -> bool:
        """Whether it was made with one of these gate keys."""
        return self.key_among(gate_keys) is not None

    def recognise(self, gate_keys: Iterable[bytes], known: Iterable[NodeId]) -> NodeId | None:
        """Which of the known nodes says this; None for one we do not know, or for another mesh."""
        keys = [key for key in gate_keys if self.matches_mesh([key])]
        if not keys:
            return None
        for node_id in known:
            if any(hmac.compare_digest(self.node_hint, node_hint(key, self.tag, node_id)) for key in keys):
                return node_id
        return None


def _value(fields: Mapping[bytes, bytes | None], key: bytes) -> str:
    value = fields.get(key)
    if value is None or not 0 < len(value) <= VALUE_MAX or not value.isascii():
        raise Refused(Reason.MALFORMED, f"announcement: {key.decode()}")
    return value.decode("ascii")


def _port(text: str) -> int:
    if not text.isdigit() or len(text) > 5 or not 0 < int(text) < 65_536 or text != str(int(text)):
        raise Refused(Reason.MALFORMED, "announcement: p")
    return int(text)


def _bytes(text: str, size: int) -> bytes:
    try:
        data = from_base32(text)
    except ValueError:
        raise Refused(Reason.MALFORMED, "announcement: not base32") from None
    if len(data) != size or text != base32(data):
        raise Refused(Reason.MALFORMED, "announcement: length or letter case")
    return data
