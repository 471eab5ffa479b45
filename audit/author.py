"""Writing one's own log, as values: from where the log stands to the next entry and where it stands then.

Nothing here is durable. Whoever writes makes an entry durable first and shows it to others after that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from audit.bodies import Former, LogOpen, endorsement_body
from audit.chain import ChainState, KeyInForce, advance, extend
from audit.entry import Entry, Place, make_log_id, sign_entry
from overlay.core.certificates import Root, show_time, verify_leaf
from overlay.core.endorsement import verify_endorsement
from overlay.core.keys import Signer
from overlay.core.mesh.chains import hlc_time, is_ahead, next_hlc
from overlay.core.trust import Credentials
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import GENESIS, EntryType, Reason


@dataclass(frozen=True, slots=True)
class LogSigner:
    """The message key and the credentials that speak for it."""

    message: Signer = field(repr=False)
    credentials: Credentials

    @property
    def kid(self) -> bytes:
        """Hash of the endorsement. 32 bytes."""
        return sha256(self.credentials.endorsement)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLog:
    """Where our open log stands, and who signs what comes next."""

    root: Root
    state: ChainState
    signer: LogSigner

    @classmethod
    def begin(
        cls, root: Root, signer: LogSigner, at: datetime, k: int = 0, former: Former | None = None
    ) -> tuple["OwnLog", Entry]:
        """Incarnation k of our log, with its entry 0; `former` is the one before, None for the first.

        Raises:
            Refused: the credentials do not hold at this time.
        """
        shown = signer.credentials
        certificate = verify_leaf(shown.leaf, shown.chain, root, at)
        endorsement = verify_endorsement(shown.endorsement, certificate, root.mesh_id, at)
        last = GENESIS if former is None else former.last
        log_id = make_log_id(root.mesh_id, endorsement.node_id, k, last, endorsement.start_id)
        empty = cls(root=root, state=ChainState(node_id=endorsement.node_id, log_id=log_id), signer=signer)
        opening = LogOpen(k=k, credentials=shown, former=former)
        return empty._checked(EntryType.LOG_OPEN, opening.body(), at)

    def go_on(self, signer: LogSigner, at: datetime) -> tuple["OwnLog", Entry]:
        """The log under other keys, with the entry `endorsement` that says so.

        Raises:
            Refused: CLOCK (see `write`), or the credentials do not hold at this time.
        """
        self._check_clock(at)
        return replace(self, signer=signer)._checked(EntryType.ENDORSEMENT, endorsement_body(signer.credentials), at)

    def write(
        self, entry_type: int, body: Mapping[int, Any], at: datetime, references: tuple[bytes, ...] = ()
    ) -> tuple["OwnLog", Entry]:
        """The log with one more entry.

        Raises:
            Refused: CLOCK, our own clock is more than five minutes behind the last entry: the log has to be left for a
                new incarnation; NOT_IN_FORCE, the endorsement has ended.
            UsageError: this cannot be an entry.
        """
        self._check_clock(at)
        key = self._key_in_force(at)
        entry = self._sign(entry_type, body, at, references)
        return replace(self, state=advance(self.state, (entry,), key)), entry

    def _checked(self, entry_type: EntryType, body: Mapping[int, Any], at: datetime) -> tuple["OwnLog", Entry]:
        """An entry that carries keys, read back as others will read it."""
        entry = self._sign(entry_type, body, at, ())
        state = extend(self.state, (entry.raw,), self.root, at=None).state
        return replace(self, state=state), entry

    def _sign(self, entry_type: int, body: Mapping[int, Any], at: datetime, references: tuple[bytes, ...]) -> Entry:
        state = self.state
        place = Place(
            node_id=state.node_id, log_id=state.log_id, seq=state.size, prev=state.last, hlc=next_hlc(state.hlc, at)
        )
        return sign_entry(
            place, entry_type, body, signer=self.signer.message, kid=self.signer.kid, mesh_id=self.root.mesh_id,
            references=references,
        )  # fmt: skip

    def _check_clock(self, at: datetime) -> None:
        if is_ahead(self.state.hlc, at):
            last = show_time(hlc_time(self.state.hlc))
            raise Refused(Reason.CLOCK, f"our last entry is of {last}, and it is now {show_time(at)}")

    def _key_in_force(self, at: datetime) -> KeyInForce:
        key, when = self.state.key, hlc_time(next_hlc(self.state.hlc, at))
        if key is None or not key.not_before <= when <= key.not_after:
            hint = "the node renews its endorsement by itself; look at its clock and its certificate"
            raise Refused(Reason.NOT_IN_FORCE, f"no endorsement of ours holds at {show_time(when)}", hint=hint)
        return key


def former_of(state: ChainState, reason: str) -> Former:
    """What the next incarnation says of this one."""
    return Former(log_id=state.log_id, size=state.size, root=state.root, last=state.last, reason=reason)
