"""What a handler sees: who calls, what is asked, and how long there is."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from overlay.core.keys import NodeId


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Who someone is, as far as it has proven: name and roles from its certificate, level from its evidence."""

    node_id: NodeId
    name: str
    roles: tuple[str, ...]
    level: int


@dataclass(frozen=True, slots=True)
class Request:
    """A call as its handler sees it. `deadline`: seconds that were left when it came, by our clock; math.inf for no end."""

    peer: PeerInfo
    method: str
    body: bytes = field(repr=False)
    deadline: float = math.inf


Handler = Callable[[Request], Awaitable[bytes] | AsyncIterator[bytes]]
"""A service: `async def f(request) -> bytes`, or an async generator of bytes for an answer in parts."""
