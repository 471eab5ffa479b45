"""Looks after what ends: warns at half and at three quarters of the life of roots, our share and our tokens, each once.

A share has no end of its own: it is as good as its last refresh, so its life is counted in refreshes that did not come.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import trio

from overlay.app.authority.ledger import Ledger
from overlay.core.alarms import Lifelong, Mortal, Stage, next_alarm, stage_of
from overlay.core.authority.order_bodies import Invite
from overlay.core.authority.sharing import Share
from overlay.core.authority.upkeep_record import UpkeepRecord
from overlay.core.certificate_profile import Life
from overlay.core.keys import NodeId
from overlay.errors import Refused
from overlay.events import EndComes, NodeEvent
from overlay.store.files import damaged
from overlay.store.state import UPKEEP, StateFolder

LOOK: Final = 60.0  # seconds at most until the calendar is looked at again, which may be set meanwhile: our guess
FAILURES: Final = 2  # protocol: of renewals of one certificate
SHARE_LIFE: Final = 4  # refreshes: our guess; an alarm when two in a row did not come, another after the third
TOKEN_LIFE: Final = timedelta(days=1)  # tokens for less are used or forgotten before anybody could do something: our guess


class Upkeep:
    """Of one node, for as long as it runs."""

    def __init__(
        self, folder: StateFolder, ledger: Ledger, own_id: NodeId, *, at: Callable[[], datetime],
        emit: Callable[[NodeEvent], None], refresh_every: float,
    ) -> None:
        """Blocks. Raises StateDamaged."""
        self.record = _load(folder)
        self._folder = folder
        self._ledger = ledger
        self._own_id = own_id
        self._at = at
        self._emit = emit
        self._share_life = timedelta(seconds=SHARE_LIFE * refresh_every)
        self._repaired = False
        self._failures: dict[bytes, int] = {}  # of renewals, by the serial that was to be replaced
        self._unwritten = False
        self._woken = trio.Event()

    def share_repaired(self) -> None:
        """The share that we have now was given back by others."""
        self._repaired = True
        self._woken.set()

    def look(self) -> None:
        """Something has changed."""
        self._woken.set()

    def not_renewed(self, serial: bytes) -> bool:
        """The renewal of that certificate has failed once more; whether an alarm is due, which it is once."""
        if serial == self.record.not_renewed:
            return False
        count = self._failures.get(serial, 0) + 1
        self._failures = {serial: count}
        if count < FAILURES:
            return False
        self.record = replace(self.record, not_renewed=serial)
        self._unwritten = True
        self._woken.set()
        return True

    def things(self) -> tuple[Mortal, ...]:
        """All that ends, and of which somebody should be warned."""
        ledger = self._ledger
        found = [Mortal(Lifelong.ROOT, f"root {k}", root.life) for k, root in enumerate(ledger.trust.roots.all)]
        if ledger.share is not None and ledger.chain.newest.number and self._knows(ledger.share):
            life = Life.between(self.record.since, self.record.since + self._share_life)
            found.append(Mortal(Lifelong.SHARE, f"share {self.record.root.hex()[:8]}-{self.record.generation}", life))
        for held in ledger.orders.held.values():
            order = held.order
            ours = order.operator == self._own_id and isinstance(order.body, Invite)
            if ours and order.not_after - order.not_before > TOKEN_LIFE and not self._is_withdrawn(order.body):
                found.append(Mortal(Lifelong.TOKEN, f"token {order.hash.hex()[:16]}", Life(order.not_before, order.not_after)))
        return tuple(found)

    def _knows(self, share: Share) -> bool:
        """Whether the record is of this share, and not of the one before, which may be of another key."""
        return (self.record.root, self.record.generation) == (self._ledger.chain.newest_root.key_hash, share.generation)

    def _is_withdrawn(self, body: object) -> bool:
        return isinstance(body, Invite) and body.invite_id in self._ledger.invites.withdrawn

    @property
    def warnings(self) -> tuple[str, ...]:
        """For every status: what is past half of its life now."""
        at = self._at()
        return tuple(describe(one, stage) for one in self.things() if (stage := stage_of(one.life, at)) is not Stage.FRESH)

    async def run(self) -> None:
        """Tell what is due, write down that it was told, and wait; until cancelled."""
        while True:
            await self._look()
            soon = next_alarm(self.things(), self._at())
            left = math.inf if soon is None else (soon - self._at()).total_seconds()
            with trio.move_on_after(min(LOOK, max(0.0, left))):
                await self._woken.wait()
            self._woken = trio.Event()

    async def _look(self) -> None:
        before, share, at = self.record, self._ledger.share, self._at()
        if share is not None:
            root = self._ledger.chain.newest_root.key_hash
            self.record = before.with_share(root, share.generation, at)
            if self._repaired:
                self.record, self._repaired = replace(self.record, repaired=True), False
        things = self.things()
        due = self.record.due(things, at)
        self.record = self.record.with_told(due, things)
        if self.record != before or self._unwritten:
            self._unwritten = False
            await trio.to_thread.run_sync(self._folder.write, UPKEEP, self.record.pack())
        for one in due:
            self._emit(EndComes(
                kind=one.of.kind.value, name=one.of.name, percent=int(one.stage), ends=one.of.life.not_after.isoformat()
            ))


def describe(thing: Mortal, stage: Stage) -> str:
    """For people."""
    end = f"{thing.life.not_after:%Y-%m-%d %H:%M} UTC"
    if thing.kind is Lifelong.SHARE:
        return f"our share was not refreshed since {thing.life.not_before:%Y-%m-%d}: `overlay ca refresh`"
    if stage is Stage.ENDED:
        return f"{thing.name} has ended on {end}"
    return f"{thing.name} has lived {int(stage)} % of its life, and ends on {end}"


def _load(folder: StateFolder) -> UpkeepRecord:
    content = folder.read(UPKEEP)
    if content is None:
        return UpkeepRecord()
    try:
        return UpkeepRecord.unpack(content)
    except Refused as error:
        raise damaged(folder.file(UPKEEP), str(error)) from None
