"""Which node has used which invite, and whose each name is: what a signer makes durable before it signs. A value. Rules:

- a use is a node id: whoever comes again with the same invite and the same name costs nothing
- a use, a name and an invite id are bound once, and to nothing else afterwards
- what is withdrawn is refused, for those too who have used it before, and also if the invite comes after its withdrawal
- names stay bound when the invite is forgotten; only the order `replace` moves one
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, NoReturn

from overlay.core.authority.order_bodies import INVITE_ID_SIZE, NAME_MAX, USES_MAX, Invite
from overlay.core.authority.order_payload import LIFE_MAX, Order, read_time
from overlay.core.certificate_profile import is_name
from overlay.core.certificates import TOLERANCE, show_time
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import TIME_MAX
from overlay.core.wire import Array, Bytes, Text, Tuple, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import OrderKind, Reason

NAMES_MAX: Final = 16_384  # nodes of a mesh, those that were among them: our guess
INVITES_MAX: Final = 4096  # used or withdrawn, not yet forgotten: our guess
USED_MAX: Final = 16_384  # uses of all invites, not yet forgotten: our guess
BOOK_MAX: Final = 4 * 1024 * 1024  # bytes, with all of these
KEPT_FOR: Final = timedelta(hours=24)  # after its end: our guess, as orders are

_HINT: Final = "have an operator make another one with `overlay invite`"
_ID: Final = Bytes(32)
_NAMES: Final = Array(Tuple((Text(NAME_MAX), _ID)), NAMES_MAX)
_USED: Final = Array(Tuple((Bytes(INVITE_ID_SIZE), _ID, UInt(TIME_MAX), Array(_ID, USES_MAX))), INVITES_MAX)
_WITHDRAWN: Final = Array(Tuple((Bytes(INVITE_ID_SIZE), UInt(TIME_MAX))), INVITES_MAX)


@dataclass(frozen=True, slots=True)
class Used:
    """An invite that somebody has used."""

    order_hash: bytes  # 32: which order it was
    not_after: datetime
    nodes: tuple[NodeId, ...]  # in the order in which they came


@dataclass(frozen=True, slots=True)
class InviteBook:
    """What is bound. Give it durable storage before a share or an approval leaves."""

    names: Mapping[str, NodeId] = field(default_factory=dict)
    used: Mapping[bytes, Used] = field(default_factory=dict)  # by invite id
    withdrawn: Mapping[bytes, datetime] = field(default_factory=dict)  # by invite id: until when it is remembered

    def use(self, order: Order, node_id: NodeId, name: str, at: datetime) -> "InviteBook":
        """The book in which this node has used this invite, and has this name; itself if so it was.

        Args:
            order: an invite that has verified, and that may be given (`order_rules.judge`).
            name: the invite's, or the joiner's where the invite leaves it open.

        Raises:
            Refused: BAD_INVITE, CLOCK, INVITE_SPENT, NAME_TAKEN, BOUND_OTHERWISE or TOO_MANY.
        """
        invite = _open_invite(order, at)
        if invite.invite_id in self.withdrawn:
            _bad("it was withdrawn")
        if invite.name is not None and invite.name != name:
            _bad(f"it is for {invite.name}")
        named = self.with_name(name, node_id)
        used = self.used.get(invite.invite_id, Used(order.hash, order.not_after, ()))
        if used.order_hash != order.hash:
            raise Refused(Reason.BOUND_OTHERWISE, "two invites with one id")
        if node_id in used.nodes:
            return named
        if len(used.nodes) >= invite.uses:
            raise Refused(Reason.INVITE_SPENT, f"{invite.uses} of {invite.uses} uses", hint=_HINT)
        if sum(len(one.nodes) for one in self.used.values()) >= USED_MAX:
            raise Refused(Reason.TOO_MANY, f"{USED_MAX} uses of invites that have not ended")
        _check_room(self.used, invite.invite_id, INVITES_MAX, "invites in use")
        return replace(named, used={**self.used, invite.invite_id: replace(used, nodes=(*used.nodes, node_id))})

    def with_name(self, name: str, node_id: NodeId) -> "InviteBook":
        """The book in which that name is that node's; for a node that did not come by an invite, too.

        Raises:
            Refused: BAD_INVITE for what is no name, NAME_TAKEN, BOUND_OTHERWISE or TOO_MANY.
        """
        if not is_name(name):
            _bad("it gives no name, and what the joiner wants is none")
        owner = self.names.get(name)
        if owner == node_id:
            return self
        if owner is not None:
            raise Refused(Reason.NAME_TAKEN, f"{name} is {owner.short}", hint="choose another name")
        former = self.name_of(node_id)
        if former is not None:
            raise Refused(Reason.BOUND_OTHERWISE, f"{node_id.short} is called {former}")
        _check_room(self.names, name, NAMES_MAX, "names")
        return replace(self, names={**self.names, name: node_id})

    def name_of(self, node_id: NodeId) -> str | None:
        """What that node is called."""
        return next((name for name, owner in self.names.items() if owner == node_id), None)

    def moved(self, old: NodeId, new: NodeId) -> "InviteBook":
        """The book in which the new node has the old one's name: the order `replace`, itself if that is done.

        Raises:
            Refused: BOUND_OTHERWISE if the new one has a name of its own.
        """
        name = self.name_of(old)
        if name is None:
            return self
        if self.name_of(new) is not None:
            raise Refused(Reason.BOUND_OTHERWISE, f"{new.short} is called {self.name_of(new)}")
        return replace(self, names={**self.names, name: new})

    def withdraw(self, invite_id: bytes, at: datetime) -> "InviteBook":
        """The book in which nobody joins by that invite any more. Raises Refused(TOO_MANY)."""
        if invite_id in self.withdrawn:
            return self
        _check_room(self.withdrawn, invite_id, INVITES_MAX, "withdrawn invites")
        until = (at + LIFE_MAX[OrderKind.INVITE] + KEPT_FOR).replace(microsecond=0)
        return replace(self, withdrawn={**self.withdrawn, invite_id: until})

    def forget(self, at: datetime) -> "InviteBook":
        """The book without invites that ended more than a day ago. Names stay."""
        used = {name: one for name, one in self.used.items() if at - KEPT_FOR <= one.not_after}
        withdrawn = {name: until for name, until in self.withdrawn.items() if at <= until}
        same = len(used) == len(self.used) and len(withdrawn) == len(self.withdrawn)
        return self if same else replace(self, used=used, withdrawn=withdrawn)

    def pack(self) -> bytes:
        """For durable storage of our own."""
        names = [[name, owner] for name, owner in sorted(self.names.items())]
        used = [
            [name, one.order_hash, _seconds(one.not_after), list(one.nodes)] for name, one in sorted(self.used.items())
        ]
        return make_map(names, used, [[name, _seconds(until)] for name, until in sorted(self.withdrawn.items())])

    @classmethod
    def unpack(cls, raw: bytes) -> "InviteBook":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        names, used, withdrawn = open_map(raw, _NAMES, _USED, _WITHDRAWN, limit=BOOK_MAX)
        book = cls(
            {name: NodeId(owner) for name, owner in names},
            {
                name: Used(order_hash, read_time(end), tuple(map(NodeId, nodes)))
                for name, order_hash, end, nodes in used
            },
            {name: read_time(until) for name, until in withdrawn},
        )
        if book.pack() != raw:
            malformed("a book is sorted, nothing twice")
        return book


def _open_invite(order: Order, at: datetime) -> Invite:
    """Raises Refused: BAD_INVITE, CLOCK."""
    if not isinstance(order.body, Invite):
        _bad("it is another kind of order")
    if at + TOLERANCE < order.not_before:
        raise Refused(Reason.CLOCK, f"the invite is from {show_time(order.not_before)}, it is now {show_time(at)}")
    if at - TOLERANCE > order.not_after:
        _bad(f"it expired on {show_time(order.not_after)}, it is now {show_time(at)}")
    return order.body


def _check_room(held: Collection[object], key: object, most: int, what: str) -> None:
    if key not in held and len(held) >= most:
        raise Refused(Reason.TOO_MANY, f"{most} {what}")


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


def _bad(detail: str) -> NoReturn:
    raise Refused(Reason.BAD_INVITE, detail, hint=_HINT)
