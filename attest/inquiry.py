"""LogInquiry: a genuine quote, and the logs that its machine says lead to it, until they do or there is nothing more to read.

Each part that comes costs some milliseconds: a long list never holds up the other links of a verifier.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from attest.account import Ends
from attest.event_log import BootLog, parse_boot_log
from attest.ima import LIST_MAX, PCR, Follower, Measurement, Position
from attest.log_book import Boot, Files, LogBook, trimmed
from attest.replay import meet
from attest.rules import Logs, RuleCheck, see_file
from overlay.core.keys import NodeId
from overlay.core.log_parts import LogPart, LogWanted
from overlay.core.policy_parts import DigestRule
from overlay.core.wire import sha256
from overlay.errors import InternalError, Refused
from overlay.registry import EvidenceLog, Reason

BOOT_MAX: Final = 1024 * 1024  # bytes of a boot log over a link: our guess; logs of real machines have 10 to 100 KiB
BEGIN: Final = Position()

T = TypeVar("T")  # what the verifier concludes: an Appraisal on links, a JoinFinding at a join


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What the logs have to lead to, and whose they are."""

    node: NodeId
    ak_name: bytes
    resets: int  # the TPM's reset count
    bitmap: int  # PCRs that were quoted
    pcr_digest: bytes
    boot_hash: bytes  # as claimed, so the quote vouches for it
    rules: tuple[DigestRule, ...] = field(repr=False)  # about files


class LogInquiry(Generic[T]):
    """An Inquiry. `begin` first: it may need no part at all."""

    def __init__(
        self, subject: Subject, book: LogBook, conclude: Callable[[Logs | Refused], T], *, list_max: int = LIST_MAX
    ) -> None:
        """`list_max`: bytes of a list of files; a longer one is as good as none."""
        self._subject = subject
        self._book = book
        self._conclude = conclude
        self._list_max = list_max
        self._wanted: LogWanted | None = None
        self._bytes = bytearray()  # of a boot log
        self._follower: Follower | None = None
        self._ends: Ends | None = None
        self._checks: tuple[RuleCheck, ...] = ()
        self._resumed = False  # the list is read on from where it was, and not from its beginning

    @property
    def wanted(self) -> LogWanted:
        """The part that is lacking."""
        if self._wanted is None:
            raise InternalError("nothing is lacking")
        return self._wanted

    def begin(self) -> "T | LogInquiry[T]":
        """Judge by what is known of this peer already, or say what is lacking."""
        known = self._book.boot(self._subject.node, self._subject.boot_hash)
        return self._want(EvidenceLog.BOOT, 0) if known is None else self._with_boot(known)

    def take(self, part: LogPart) -> "T | LogInquiry[T]":
        """The part that was wanted. Raises Refused(BAD_EVIDENCE) for another log than the claimed one."""
        return self._boot_part(part) if part.log is EvidenceLog.BOOT else self._files_part(part)

    def _want(self, log: EvidenceLog, offset: int) -> "LogInquiry[T]":
        self._wanted = LogWanted(log, offset)
        return self

    def _unusable(self, why: Refused) -> T:
        return self._conclude(why)

    # --- the boot log -------------------------------------------------------------------------------------------------

    def _boot_part(self, part: LogPart) -> "T | LogInquiry[T]":
        if part.length > BOOT_MAX:
            why = Refused(Reason.LOG_MISSING, f"a boot log of {part.length} bytes; at most {BOOT_MAX}")
            return self._known(Boot(self._subject.boot_hash, None, why))
        self._bytes += part.data
        if not part.is_last:
            return self._want(EvidenceLog.BOOT, len(self._bytes))
        data = bytes(self._bytes)
        if sha256(data) != self._subject.boot_hash:
            raise Refused(Reason.BAD_EVIDENCE, "the boot log that was sent is not the one that was claimed")
        return self._known(_read(data))

    def _known(self, boot: Boot) -> "T | LogInquiry[T]":
        self._book.keep_boot(self._subject.node, boot)
        return self._with_boot(boot)

    def _with_boot(self, boot: Boot) -> "T | LogInquiry[T]":
        if boot.log is None:
            return self._unusable(boot.why or Refused(Reason.LOG_MISSING, "the boot log cannot be read"))
        if not self._subject.bitmap >> PCR & 1:
            return self._by_boot_alone(boot.log)
        self._ends = Ends(boot.log, self._subject.bitmap, self._subject.pcr_digest)
        known = self._book.files(self._subject.node)
        subject = self._subject
        if known is not None and known.goes_on(subject.ak_name, subject.resets, subject.rules):
            self._resumed = True
            return self._follow(known.position, tuple(check.copy() for check in known.checks))
        return self._from_the_beginning()

    def _by_boot_alone(self, log: BootLog) -> T:
        try:
            found = meet(log, self._subject.bitmap, self._subject.pcr_digest)
        except Refused as why:
            return self._unusable(why)
        return self._conclude(Logs(found.events))

    # --- the list of files ----------------------------------------------------------------------------------------------

    def _from_the_beginning(self) -> "T | LogInquiry[T]":
        self._resumed = False
        return self._follow(BEGIN, tuple(RuleCheck(rule) for rule in self._subject.rules))

    def _follow(self, position: Position, checks: tuple[RuleCheck, ...]) -> "T | LogInquiry[T]":
        assert self._ends is not None
        self._checks = checks
        self._follower = follower = Follower(position, self._ends.meet, self._see if checks else None)
        if follower.met is not None:
            return self._meet(follower.met)
        return self._want(EvidenceLog.FILES, position.offset)

    def _see(self, entry: Measurement) -> None:
        for check in self._checks:
            see_file(check, entry)

    def _files_part(self, part: LogPart) -> "T | LogInquiry[T]":
        follower = self._follower
        if follower is None:
            raise Refused(Reason.BAD_EVIDENCE, "a list of files before the boot log")
        if part.length > self._list_max:
            detail = f"a list of files of {part.length} bytes; at most {self._list_max}"
            return self._unusable(Refused(Reason.LOG_MISSING, detail))
        try:
            met = follower.feed(part.data)
        except Refused as why:
            return self._from_the_beginning() if self._resumed else self._unusable(why)
        if met is not None:
            return self._meet(met)
        if not part.is_last:
            return self._want(EvidenceLog.FILES, part.offset + len(part.data))
        if self._resumed:
            return self._from_the_beginning()  # the list has begun anew
        if not part.length:
            detail = "no list of files was sent, and the boot log alone does not lead to the quote"
            return self._unusable(Refused(Reason.LOG_MISSING, detail))
        return self._unusable(Refused(Reason.PCR_MISMATCH, "the logs do not lead to the PCRs that were quoted"))

    def _meet(self, position: Position) -> T:
        assert self._ends is not None
        subject = self._subject
        self._book.keep_files(subject.node, Files(subject.ak_name, subject.resets, position, self._checks))
        found = self._ends.account(position)
        return self._conclude(Logs(found.events, self._checks if position.entries else None))


def _read(data: bytes) -> Boot:
    try:
        log = parse_boot_log(data) if data else BootLog((), 0)
    except Refused as why:
        return Boot(sha256(data), None, why)
    return Boot(sha256(data), trimmed(log))
