"""The peer book: whom we have met, and where. A hint for dialling, never a reason to trust."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from overlay.core.certificate_profile import is_name
from overlay.core.keys import NodeId
from overlay.store.files import damaged, read_private
from overlay.store.state import PEERS, StateFolder

FORMAT: Final = 1
PEERS_MAX: Final = 4096  # our guess: the longest unseen go first
ADDRESSES_MAX: Final = 8  # our guess, per peer, the latest first
ASIDE: Final = ".damaged"

PORT_MAX: Final = 65_535

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """A node that we have had a link with."""

    node_id: NodeId
    name: str
    addresses: tuple[Address, ...]  # host and port, the latest that worked first
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class PeerBook:
    """All known peers; a new value for each change."""

    peers: Mapping[NodeId, KnownPeer] = field(default_factory=dict)

    def with_peer(self, node_id: NodeId, name: str, addresses: Sequence[Address], at: datetime) -> "PeerBook":
        """The book after a link with this peer; its new addresses come before the old ones."""
        before = self.peers.get(node_id)
        merged = dict.fromkeys((*addresses, *(before.addresses if before else ())))
        peer = KnownPeer(node_id, name, tuple(merged)[:ADDRESSES_MAX], at.astimezone(UTC).replace(microsecond=0))
        newest = sorted({**self.peers, node_id: peer}.values(), key=lambda known: known.last_seen, reverse=True)
        return replace(self, peers={known.node_id: known for known in newest[:PEERS_MAX]})

    def without(self, node_id: NodeId) -> "PeerBook":
        """The book without this peer."""
        return replace(self, peers={key: known for key, known in self.peers.items() if key != node_id})


def load_peers(folder: StateFolder) -> PeerBook:
    """The book; empty where there is none. Raises StateDamaged."""
    path = folder.file(PEERS)
    data = read_private(path)
    if data is None:
        return PeerBook()
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise damaged(path, f"format {value['format']!r}, where this release knows {FORMAT}")
        known = [_read_peer(text, fields) for text, fields in value["peers"].items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None
    return PeerBook({peer.node_id: peer for peer in known})


def save_peers(folder: StateFolder, book: PeerBook) -> None:
    """Replace the book; durable when this returns. Raises HostLacks."""
    peers = {
        str(known.node_id): {
            "name": known.name, "addresses": [list(address) for address in known.addresses],
            "last_seen": known.last_seen.isoformat(),
        }
        for known in book.peers.values()
    }
    folder.write_text(PEERS, json.dumps({"format": FORMAT, "peers": peers}, indent=1))


def set_aside(folder: StateFolder) -> bool:
    """Keep a book that cannot be read under another name, so that the next one does not overwrite it. Whether it went."""
    path = folder.file(PEERS)
    try:
        path.replace(path.with_name(f"{path.name}{ASIDE}"))
    except OSError:
        return False
    return True


def _read_peer(text: str, fields: Mapping[str, Any]) -> KnownPeer:
    """Raises ValueError, KeyError or TypeError."""
    name, last_seen = fields["name"], datetime.fromisoformat(fields["last_seen"])
    addresses = tuple(_read_address(*address) for address in fields["addresses"])
    if not is_name(name) or last_seen.tzinfo is None or len(addresses) > ADDRESSES_MAX:
        raise ValueError(f"peer {text}")
    return KnownPeer(NodeId.parse(text), name, addresses, last_seen)


def _read_address(host: object, port: object) -> Address:
    """Raises ValueError."""
    if not isinstance(host, str) or type(port) is not int or not 0 < port <= PORT_MAX:
        raise ValueError("address")
    return host, port
