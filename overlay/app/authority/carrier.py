"""Carries what signers say to each other: signs it, sends it over the link that there is, verifies what comes.

What a machine says to its own node takes no link. A message that finds no link is lost: the machines ask again.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from overlay.core.authority.round_messages import Outgoing, RoundMessage, sign_round_message, verify_round_message
from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId, NodeId
from overlay.core.limits import MESSAGE_MAX
from overlay.core.trust import VerifiedPeer
from overlay.errors import Refused
from overlay.registry import FrameType, Reason

EARLY_MAX: Final = 256  # messages of sessions that nobody listens to yet: our guess
EARLY_BYTES_MAX: Final = 8 * MESSAGE_MAX  # of all of them: our guess

Hear = Callable[[RoundMessage], None]
Tell = Callable[[NodeId, FrameType, bytes], bool]


class Carrier:
    """Of one node."""

    def __init__(self, *, own: Callable[[], LocalIdentity], mesh_id: MeshId, tell: Tell) -> None:
        self._own = own
        self._mesh_id = mesh_id
        self._tell = tell
        self._listeners: dict[bytes, Hear] = {}
        self._others: Hear = self._keep_early
        self._early: deque[RoundMessage] = deque()
        self._local: deque[RoundMessage] = deque()
        self._delivering = False

    def send(self, messages: Iterable[Outgoing]) -> None:
        """Let them go, in order."""
        own = self._own()
        for message in messages:
            if message.to == own.node_id:
                self._local.append(RoundMessage(
                    sender=own.node_id, to=own.node_id, session=message.session, kind=message.kind, body=message.body, raw=b""
                ))
            else:
                self._tell(message.to, FrameType.AUTHORITY_ROUND, sign_round_message(own, self._mesh_id, message))
        self._deliver_local()

    def received(self, peer: VerifiedPeer, raw: bytes) -> None:
        """A message from a node that is linked. Raises Refused for one that it has not signed, or not for us."""
        self._hand_out(verify_round_message(raw, own_id=self._own().node_id, mesh_id=self._mesh_id, peer=peer))

    @contextmanager
    def listening(self, session: bytes, hear: Hear) -> Iterator[None]:
        """Messages of this session go there, those too that came early. Raises Refused(BUSY) if they go somewhere already."""
        if session in self._listeners:
            raise Refused(Reason.BUSY, "a session of that name is under way")
        self._listeners[session] = hear
        early = [message for message in self._early if message.session == session]
        self._early = deque(one for one in self._early if one.session != session)
        for message in early:
            hear(message)
        try:
            yield
        finally:
            del self._listeners[session]

    def listen_to_others(self, hear: Hear) -> None:
        """Where messages of all other sessions go; `keep` is for those of a session that may begin here later."""
        self._others = hear

    def keep(self, message: RoundMessage) -> None:
        """It came before its session began here."""
        self._keep_early(message)

    def _keep_early(self, message: RoundMessage) -> None:
        """Where there is no room, the oldest message goes of whoever has taken most of it."""
        self._early.append(message)
        while len(self._early) > EARLY_MAX or sum(len(one.body) for one in self._early) > EARLY_BYTES_MAX:
            taken = Counter[NodeId]()
            for one in self._early:
                taken[one.sender] += len(one.body) + EARLY_BYTES_MAX // EARLY_MAX
            [(most, _)] = taken.most_common(1)
            self._early.remove(next(one for one in self._early if one.sender == most))

    def _hand_out(self, message: RoundMessage) -> None:
        self._listeners.get(message.session, self._others)(message)

    def _deliver_local(self) -> None:
        """One after the other, however they cause each other."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._local:
                self._hand_out(self._local.popleft())
        finally:
            self._delivering = False
