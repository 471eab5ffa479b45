"""Who waits for signers that say nothing: machines are told the time when they have asked for it, not again and again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.authority.runs import carry
from overlay.core.authority.coordinator import Coordinator
from overlay.core.authority.round_messages import RoundMessage
from overlay.core.authority.run_events import Event, Finished
from overlay.core.keys import NodeId
from overlay.registry import RoundKind
from tests.shell.test_authority_ceremonies import distributed, proves, signers

SESSION = b"s" * 16
OTHER = NodeId(bytes(32))
ENOUGH = 100  # whoever asks so often does nothing else


class Slow:
    """A run that is over at its last deadline, and has to be asked for it. It hears one message."""

    def __init__(self, *deadlines: float) -> None:
        self._deadlines = list(deadlines)
        self.asked: list[float] = []

    @property
    def deadline(self) -> float:
        return self._deadlines[0]

    def receive(self, sender: NodeId, kind: RoundKind, body: bytes, now: float) -> list[Event]:
        assert (sender, kind, body) == (OTHER, RoundKind.RESHARE_BEGIN, b"early")
        del self._deadlines[0]
        return []

    def tick(self, now: float) -> list[Event]:
        self.asked.append(now)
        over = now >= self.deadline or len(self.asked) == ENOUGH
        return [Finished()] if over else []

    def messages_to_send(self) -> list[tuple[NodeId, RoundKind, bytes]]:
        return []


class Quiet:
    """A carrier that carries nothing; one message comes at some time."""

    def __init__(self, at: float) -> None:
        self._at = at
        self._hear: Callable[[RoundMessage], None] | None = None

    def send(self, messages: Sequence[object]) -> None:
        assert list(messages) == []

    @contextmanager
    def listening(self, session: bytes, hear: Callable[[RoundMessage], None]) -> Iterator[None]:
        assert session == SESSION
        self._hear = hear
        yield

    async def run(self) -> None:
        await trio.sleep_until(self._at)
        assert self._hear is not None
        self._hear(RoundMessage(sender=OTHER, to=OTHER, session=SESSION, kind=RoundKind.RESHARE_BEGIN, body=b"early", raw=b""))


async def test_a_run_is_told_the_time_at_its_deadline_and_after_each_message(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begun = trio.current_time()
    machine, carrier = Slow(begun + 86_400, begun + 50), Quiet(begun + 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carrier.run)
        assert await carry(machine, carrier, SESSION, str) == Finished()  # type: ignore[arg-type]
    assert machine.asked == [begun + 20, begun + 50]


async def test_a_coordinator_that_nobody_answers_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    tick = Coordinator.tick

    def counted(self: Coordinator, now: float) -> object:
        asked.append(now)
        return tick(self, now)

    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        for mute in nodes[1:]:
            monkeypatch.setattr(mute.node.seat.keeper.carrier, "received", lambda peer, raw: None)
        monkeypatch.setattr(Coordinator, "tick", counted)
        with trio.move_on_after(1) as second:
            await proves(nodes[0])
    assert second.cancelled_caught
    assert 0 < len(asked) < ENOUGH
