"""A peer-to-peer overlay whose members prove who they are and what they run. These names are public; nothing else is.

The names load on first use: importing `overlay` alone loads no trio, no zeroconf and no TPM library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overlay.app.api import EntryFilter as EntryFilter
    from overlay.app.api import EntryReceipt as EntryReceipt
    from overlay.app.api import EntryView as EntryView
    from overlay.app.api import NodeApi as NodeApi
    from overlay.app.api import Published as Published
    from overlay.app.api import TopicItem as TopicItem
    from overlay.app.client import connect_local as connect_local
    from overlay.app.compose import open_node as open_node
    from overlay.app.config import Config as Config
    from overlay.core.keys import MeshId as MeshId
    from overlay.core.keys import NodeId as NodeId
    from overlay.errors import CheckFailed as CheckFailed
    from overlay.errors import DeadlineExceeded as DeadlineExceeded
    from overlay.errors import HostLacks as HostLacks
    from overlay.errors import NotAllowed as NotAllowed
    from overlay.errors import NoWitnesses as NoWitnesses
    from overlay.errors import OverlayError as OverlayError
    from overlay.errors import PeerUnreachable as PeerUnreachable
    from overlay.errors import Refused as Refused
    from overlay.errors import RemoteError as RemoteError
    from overlay.errors import StateDamaged as StateDamaged
    from overlay.errors import StateInUse as StateInUse
    from overlay.errors import StreamReset as StreamReset
    from overlay.errors import Truncated as Truncated
    from overlay.errors import UsageError as UsageError
    from overlay.events import NodeEvent as NodeEvent
    from overlay.net.peer import Peer as Peer
    from overlay.net.request import PeerInfo as PeerInfo
    from overlay.net.request import Request as Request
    from overlay.net.statistics import NodeStatistics as NodeStatistics
    from overlay.net.stream import Stream as Stream
    from overlay.registry import Reason as Reason

_HOMES = {
    "overlay.app.api": ("EntryFilter", "EntryReceipt", "EntryView", "NodeApi", "Published", "TopicItem"),
    "overlay.app.client": ("connect_local",),
    "overlay.app.compose": ("open_node",),
    "overlay.app.config": ("Config",),
    "overlay.core.keys": ("MeshId", "NodeId"),
    "overlay.errors": (
        "CheckFailed", "DeadlineExceeded", "HostLacks", "NoWitnesses", "NotAllowed", "OverlayError", "PeerUnreachable",
        "Refused", "RemoteError", "StateDamaged", "StateInUse", "StreamReset", "Truncated", "UsageError",
    ),
    "overlay.events": ("NodeEvent",),
    "overlay.net.peer": ("Peer",),
    "overlay.net.request": ("PeerInfo", "Request"),
    "overlay.net.statistics": ("NodeStatistics",),
    "overlay.net.stream": ("Stream",),
    "overlay.registry": ("Reason",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """A public name, from where it is defined (PEP 562)."""
    try:
        home = _HOME_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return list(__all__)
