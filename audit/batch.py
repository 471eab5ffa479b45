"""One commit: what several callers asked for, worked out as values before anything is written.

What cannot be done raises and leaves no trace in the batch. Where our log cannot go on (its time is ahead of our clock,
or a peer holds a newer copy of it), the next incarnation begins within the batch.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from audit.author import LogSigner, OwnLog, former_of
from audit.bodies import Former
from audit.chain import Append, ChainState, Extension
from audit.entry import Entry
from audit.kept import Record
from overlay.core.certificates import Root
from overlay.errors import Refused
from overlay.registry import Reason

CLOCK_WENT_BACK: Final = "clock went back"
NEWER_COPY: Final = "newer copy elsewhere"
DAMAGED: Final = "damaged"
RESTORED: Final = "restored"
UNCONFIRMED: Final = "unconfirmed"  # too few witnesses could be asked whether this is the newest copy


class Batch:
    """Where our log would stand after what was asked for so far, and what has to be written for that."""

    def __init__(self, own: OwnLog, at: datetime, *, waits: bool = False) -> None:
        """`waits`: it is not known yet whether ours is the newest copy of our log, and nothing of ours is written."""
        self.own = own
        self.records: list[Record] = []
        self._at = at
        self._waits = waits
        self._appends: list[Append] = []
        self._new: tuple[Entry, ...] = ()

    @classmethod
    def begin(cls, root: Root, signer: LogSigner, at: datetime, k: int, former: Former | None) -> "Batch":
        """A batch that opens an incarnation of our log. Raises as `OwnLog.begin`."""
        own, entry = OwnLog.begin(root, signer, at, k, former)
        batch = cls(own, at)
        batch._new = (entry,)
        return batch

    def write(self, entry_type: int, body: Mapping[int, Any], references: tuple[bytes, ...] = ()) -> tuple[Entry, ...]:
        """One more entry of ours. Raises as `OwnLog.write`, but never for the clock."""
        try:
            own, entry = self.own.write(entry_type, body, self._at, references)
        except Refused as error:
            if error.reason is not Reason.CLOCK:
                raise
            self._begin_next(self.own.signer, former_of(self.own.state, CLOCK_WENT_BACK))
            own, entry = self.own.write(entry_type, body, self._at, references)
        self._keep(own, entry)
        return (entry,)

    def change_signer(self, signer: LogSigner) -> tuple[Entry, ...]:
        """Our log under other keys; no entry if they are in force already. Raises as `OwnLog.go_on`."""
        if self.own.state.key is not None and self.own.state.key.kid == signer.kid:
            return ()
        try:
            self._keep(*self.own.go_on(signer, self._at))
        except Refused as error:
            if error.reason is not Reason.CLOCK:
                raise
            self._begin_next(signer, former_of(self.own.state, CLOCK_WENT_BACK))
        return self._new[-1:]

    def keep(self, record: Record) -> tuple[Entry, ...]:
        """What is known of a checkpoint, or has been cosigned."""
        self.records.append(record)
        return ()

    def begin_next(self, signer: LogSigner, former: Former, k: int) -> tuple[Entry, ...]:
        """The next incarnation of our log, with number k. Raises as `OwnLog.begin`.

        Who could not ask may have an old copy of its folder, and have used k + 1 already: it takes the Unix time, as after a
        restore, so that no number is used twice.
        """
        if former.reason == UNCONFIRMED:
            k = max(k, int(self._at.timestamp()))
        own, entry = OwnLog.begin(self.own.root, signer, self._at, k, former)
        self._close()
        self._keep(own, entry)
        return (entry,)

    def add(self, extension: Extension) -> tuple[Entry, ...]:
        """Entries that came from a peer. Those of our own open log show that a newer copy of it exists: we leave it.

        Raises:
            Refused: CHAIN_BROKEN, our log has moved on since they were checked.
        """
        state, entries = extension.state, extension.entries
        if state.log_id == self.own.state.log_id:
            if state.size - len(entries) != self.own.state.size:
                raise Refused(Reason.CHAIN_BROKEN, "our log has moved on since these entries were checked")
            if self._waits:
                return self._catch_up(state, entries)
            own, entry = self._next(self.own.signer, former_of(state, NEWER_COPY))
            self._close()
            self._appends.append(Append(state=state, entries=entries))
            self._keep(own, entry)
        else:
            self._appends.append(Append(state=state, entries=entries))
        return entries

    def _catch_up(self, state: ChainState, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Entries of our open log that we do not have any more: what comes next follows them, or names them as the end."""
        self._close()
        self._appends.append(Append(state=state, entries=entries))
        self.own = replace(self.own, state=state)
        return entries

    def finish(self) -> list[Append]:
        """All that has to be written, in order."""
        self._close()
        return self._appends

    def _begin_next(self, signer: LogSigner, former: Former) -> None:
        own, entry = self._next(signer, former)
        self._close()
        self._keep(own, entry)

    def _next(self, signer: LogSigner, former: Former) -> tuple[OwnLog, Entry]:
        return OwnLog.begin(self.own.root, signer, self._at, self.own.state.k + 1, former)

    def _keep(self, own: OwnLog, entry: Entry) -> None:
        self.own, self._new = own, (*self._new, entry)

    def _close(self) -> None:
        """What was written so far belongs to one log; what comes next may not."""
        if self._new:
            self._appends.append(Append(state=self.own.state, entries=self._new, ours=True))
            self._new = ()
