"""What a finder is told about us and what it says about others: values only, shared by the port and by `discovery/`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from overlay.core.keys import NodeId

TAG_SIZE: Final = 8  # bytes; random per start, named `t` in an announcement

Address = tuple[str, int]  # host (numeric, a link-local one with %scope; or a name from a seed) and TCP port


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncementFacts:
    """What a node says about itself for as long as it runs with one gate key.

    When the gate key or the port changes, the finder is cancelled and run again with new facts: nothing else changes
    what is announced.
    """

    port: int
    tag: bytes  # 8 bytes, random per start; names this start and no node
    node_id: NodeId
    gate_keys: tuple[bytes, ...] = field(repr=False)  # newest first; two are announced, all are recognised
    known: Callable[[], Iterable[NodeId]]  # ids from the peer book, asked again for every announcement

    def __post_init__(self) -> None:
        if len(self.tag) != TAG_SIZE or not self.gate_keys or not 0 < self.port < 65_536:
            raise ValueError("a tag has 8 bytes, there is a gate key, and a port is above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Someone who may be worth dialling. A hint and never a proof: whoever dials checks the certificate."""

    addresses: tuple[Address, ...]  # best first
    tag: bytes = bytes(TAG_SIZE)  # of the responder, for the gate; zeros when it is not known
    node_id: NodeId | None = None  # recognised with the gate key, or remembered; None for a stranger
    gate_key: bytes | None = field(default=None, repr=False)  # with which it was recognised: it knows that one
    ours: bool = False  # the hint of our mesh fits, or the user says so (a seed); never proven
    source: str  # "mdns", "static", "book"
