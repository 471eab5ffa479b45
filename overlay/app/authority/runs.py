"""Carries one run of several members (key generation, resharing, repair) over links until it is done or has failed."""

from collections.abc import Callable
from typing import Protocol

import trio

from overlay.app.authority.carrier import Carrier
from overlay.core.authority.round_messages import Outgoing, RoundMessage
from overlay.core.authority.run_events import Event, Failed, FailedElsewhere, Finished
from overlay.core.keys import NodeId
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind

LINGER = 0.5  # seconds in which a member may still say that it failed: our guess, a round takes milliseconds


class Run(Protocol):
    """The machines of a run."""

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        ...

    def receive(self, sender: NodeId, kind: RoundKind, body: bytes, now: float) -> list[Event]:
        """A message of a member."""
        ...

    def tick(self, now: float) -> list[Event]:
        """Time in."""
        ...

    def messages_to_send(self) -> list[tuple[NodeId, RoundKind, bytes]]:
        """What we owe the others."""
        ...


async def carry(run: Run, carrier: Carrier, session: bytes, name: Callable[[NodeId], str]) -> Finished:
    """Until it has finished here, and nobody has said that it failed there.

    Raises:
        Refused: KEY_GENERATION_FAILED or the run's own reason, with those who are to blame.
    """
    results: list[Finished | Failed | FailedElsewhere] = []
    woken = trio.Event()

    def take(events: list[Event]) -> None:
        results.extend(event for event in events if isinstance(event, Finished | Failed | FailedElsewhere))
        carrier.send(Outgoing(to, session, kind, body) for to, kind, body in run.messages_to_send())

    def hear(message: RoundMessage) -> None:
        take(run.receive(message.sender, message.kind, message.body, trio.current_time()))
        woken.set()  # another time may be due now

    with carrier.listening(session, hear):
        take([])
        while not results:
            with trio.move_on_at(run.deadline):
                await woken.wait()
            woken = trio.Event()
            take(run.tick(trio.current_time()))
        if isinstance(results[0], Finished):
            await trio.sleep(LINGER)
    return _judge(results, name)


def _judge(results: "list[Finished | Failed | FailedElsewhere]", name: Callable[[NodeId], str]) -> Finished:
    for result in results:
        if isinstance(result, Failed):
            who = ", ".join(map(name, result.named)) or "nobody is to blame"
            said = f" (says {name(result.reporter)})" if result.reporter else ""
            raise Refused(result.reason, f"{result.detail or result.reason.name.lower()}: {who}{said}")
        if isinstance(result, FailedElsewhere):
            raise Refused(Reason.KEY_GENERATION_FAILED, f"{name(result.reporter)} says: {result.reason.name.lower()}")
    [finished] = [result for result in results if isinstance(result, Finished)][:1]
    return finished
