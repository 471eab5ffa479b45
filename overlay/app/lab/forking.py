"""A member that forks its own log on purpose: each second peer gets another entry where the first ones get the true one.

Everything else of it is the real node. From the first application entry on there are two histories, both signed by it.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, cast

from audit.author import OwnLog
from audit.bodies import application
from audit.chain import ChainState, extend
from audit.entry import Entry
from audit.log import AuditLog
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.core.mesh.reconcile import ItemsVerified, RangeWanted, Reconcile
from overlay.core.mesh.replication_frames import Head, Items, make_heads, make_items, open_heads, open_items
from overlay.registry import ChainKind, EntryType, FrameType

FALSE: Final = ("door.opened", {"door": "7c"})


class ForkingLog:
    """A `ChainKeeper` with two faces: beside the genuine one, who hears what."""

    def __init__(self, genuine: AuditLog, root: Root, at: Callable[[], datetime]) -> None:
        self.genuine = genuine
        self._root = root
        self._at = at
        self._before = genuine.state
        self._branch: OwnLog | None = None
        self.false: list[Entry] = []  # the other history, from where they part
        self._machine = cast("Reconcile", _TwoFaced(genuine.machine, self))
        genuine.listen(self._on_entries)

    @property
    def kind(self) -> ChainKind:
        """What it keeps."""
        return self.genuine.kind

    @property
    def machine(self) -> Reconcile:
        """The genuine one, as each half of the peers sees it."""
        return self._machine

    async def store(self, items: ItemsVerified) -> None:
        """As it is."""
        await self.genuine.store(items)

    async def read(self, wanted: RangeWanted) -> list[bytes]:
        """Of our own log what that peer is to believe."""
        found = await self.genuine.read(wanted)
        if not self.false or wanted.log_id != self._before.log_id or not self._faces.hears_the_other(wanted.peer):
            return found
        common = found[: max(0, self.false[0].seq - wanted.start)]
        end = wanted.start + wanted.count
        return common + [one.raw for one in self.false if wanted.start <= one.seq < end]

    @property
    def _faces(self) -> "_TwoFaced":
        return cast("_TwoFaced", self._machine)

    @property
    def other_head(self) -> Head | None:
        """Of the other history; None before the two part."""
        branch = self._branch
        return None if branch is None else Head(branch.state.node_id, branch.state.size, branch.state.root)

    def _on_entries(self, entries: Iterable[Entry]) -> None:
        """Follow our own log to its first application entry; the log itself may be further on by now."""
        for entry in entries:
            if self._branch is not None or entry.node_id != self._before.node_id:
                continue
            if entry.log_id != self._before.log_id and entry.seq == 0:
                self._before = ChainState(node_id=entry.node_id, log_id=entry.log_id)
            if entry.log_id != self._before.log_id or entry.seq != self._before.size:
                continue
            if entry.type == EntryType.APPLICATION:
                own = OwnLog(root=self._root, state=self._before, signer=self.genuine.signer)
                self._branch, false = own.write(EntryType.APPLICATION, application(*FALSE), self._at())
                self.false.append(false)
            else:
                self._before = extend(self._before, (entry.raw,), self._root, at=None).state


class _TwoFaced:
    """The machine of the genuine log; to each second peer it speaks of the other history."""

    def __init__(self, genuine: Reconcile, log: ForkingLog) -> None:
        self._genuine = genuine
        self._log = log
        self._peers: list[NodeId] = []
        self._told: set[NodeId] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._genuine, name)

    def hears_the_other(self, peer: NodeId) -> bool:
        return peer in self._peers and self._peers.index(peer) % 2 == 1

    def peer_opened(self, peer: NodeId, now: float) -> None:
        if peer not in self._peers:
            self._peers.append(peer)
        self._genuine.peer_opened(peer, now)

    def messages_to_send(self) -> list[tuple[NodeId, FrameType, bytes]]:
        out: list[tuple[NodeId, FrameType, bytes]] = []
        for peer, frame, body in self._genuine.messages_to_send():
            head = self._log.other_head
            if head is None or not self.hears_the_other(peer):
                out.append((peer, frame, body))
                continue
            out += [(peer, frame, one) for one in self._other(peer, frame, body, head)]
        return out

    def _other(self, peer: NodeId, frame: FrameType, body: bytes, head: Head) -> list[bytes]:
        """What that peer gets instead."""
        kind, false = self._genuine.kind, self._log.false
        if frame is FrameType.HEADS:
            heads = open_heads(kind, body)
            return list(make_heads(kind, {log: head if log == false[0].log_id else one for log, one in heads.items()}))
        if frame is not FrameType.ITEMS:
            return [body]
        came = open_items(kind, body)
        if came.log_id != false[0].log_id or came.wanted is not None:
            return [body]
        if peer in self._told:
            return []
        self._told.add(peer)
        return [make_items(kind, Items(came.log_id, false[0].seq, tuple(one.raw for one in false)))]
