"""PolicyAppraiser: a peer's evidence, judged under the policy that is in force now."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from attest.evidence import Claims, parse_claims
from attest.inquiry import LogInquiry, Subject
from attest.levels import level_of
from attest.log_book import LogBook
from attest.policy import (
    Measured,
    accepted_kinds,
    check_kind,
    check_level,
    file_rules,
    judge_manifest,
    judge_quote,
    meets_rules,
    wants_logs,
)
from attest.quote import Clock, Enrolled, Quote, check_quote
from attest.rules import Logs, what_changed
from attest.software import check_software
from overlay.core.evidence import Appraisal, Binding, Evidence, Inquiry
from overlay.core.policy import Policy
from overlay.core.trust import VerifiedPeer
from overlay.errors import Refused
from overlay.registry import EvidenceKind, Reason

_claims = lru_cache(maxsize=256)(parse_claims)  # the same each minute, and of at most 1 KiB


@dataclass(frozen=True, slots=True)
class PolicyAppraiser:
    """An Appraiser. `policy_source` is asked at each use, so that a new policy holds at once; `at`: for grace that ends."""

    policy_source: Callable[[], Policy]
    at: Callable[[], datetime]
    book: LogBook = field(default_factory=LogBook, repr=False)  # of all links

    @property
    def accepted(self) -> tuple[EvidenceKind, ...]:
        """The kinds that the policy accepts, for CHALLENGE."""
        return accepted_kinds(self.policy_source())

    def appraise(
        self, evidence: Evidence, binding: Binding, peer: VerifiedPeer, previous: Appraisal | None
    ) -> Appraisal | Inquiry:
        """Raises Refused with the reason; the checks that need the policy come last, but for the kind of evidence."""
        policy = self.policy_source()
        claims = _claims(evidence.claims)
        check_kind(policy, claims.kind, peer)
        case = _Case(policy, self.at(), claims, peer, self.book)
        if claims.kind is EvidenceKind.TPM:
            return case.quote(evidence, binding, previous.clock if previous is not None else None)
        return case.software(evidence, binding)


@dataclass(frozen=True, slots=True)
class _Case:
    """All that one judgement is about. The genuine comes before the good: reference values are compared last."""

    policy: Policy
    at: datetime
    claims: Claims
    peer: VerifiedPeer
    book: LogBook

    def quote(self, evidence: Evidence, binding: Binding, previous: Clock | None) -> Appraisal | Inquiry:
        facts = self.peer.certificate.facts
        enrolled = Enrolled(ak_name=facts.ak_name, ak_qualified_name=facts.ak_qualified_name)
        quote = check_quote(evidence, binding, enrolled, pcr_bitmap=self.claims.pcr_bitmap, previous=previous)
        self._check_resets(quote.header.clock[0])
        if not wants_logs(self.policy, self.at):
            return self._conclude(quote, None)
        boot_hash = self.claims.boot_log_hash
        if boot_hash is None or facts.ak_name is None:
            return self._conclude(quote, Refused(Reason.LOG_MISSING, "the machine has no logs, or does not show them"))
        subject = Subject(
            node=self.peer.node_id, ak_name=facts.ak_name, resets=quote.header.clock[0], bitmap=self.claims.pcr_bitmap,
            pcr_digest=quote.pcr_digest, boot_hash=boot_hash, rules=file_rules(self.policy, self.at),
        )
        return LogInquiry(subject, self.book, lambda logs: self._conclude(quote, logs)).begin()

    def _check_resets(self, count: int) -> None:
        """Check 11 beyond this link: an older state of a TPM is noticed on a new link, too, as long as we run."""
        node, ak_name = self.peer.node_id, self.peer.certificate.facts.ak_name or b""
        known = self.book.resets(node, ak_name)
        if count < known:
            raise Refused(Reason.TPM_CLOCK, f"the reset count went from {known} to {count}")
        self.book.keep_resets(node, ak_name, count)

    def _conclude(self, quote: Quote, logs: Logs | Refused | None) -> Appraisal:
        """What the policy says, when all that there is to know is known."""
        node, policy = self.peer.node_id, self.policy
        measured = Measured(self.claims.pcr_bitmap, quote.pcr_digest, quote.header.firmware, logs)
        try:
            warnings = judge_quote(policy, self.at, measured)
        except Refused as error:
            changed = what_changed(self.book.good_events(node), logs.events) if isinstance(logs, Logs) else ""
            if not changed:
                raise
            raise Refused(error.reason, f"{error.detail}; since it was good last, {changed}") from None
        if isinstance(logs, Logs):
            self.book.keep_good(node, logs.events)
        level = level_of(EvidenceKind.TPM, self.peer.certificate.facts.level, met=meets_rules(policy, self.at, measured))
        check_level(policy, level, self.peer.roles)
        return Appraisal(
            level=level,
            kind=EvidenceKind.TPM,
            software_version=self.claims.software_version,
            pcr_digest=quote.pcr_digest,
            clock=quote.header.clock,
            warnings=warnings,
        )

    def software(self, evidence: Evidence, binding: Binding) -> Appraisal:
        check_software(evidence, binding, self.peer)
        warnings = judge_manifest(self.policy, self.at, self.claims)
        level = level_of(EvidenceKind.SOFTWARE, self.peer.certificate.facts.level)
        check_level(self.policy, level, self.peer.roles)
        return Appraisal(
            level=level, kind=EvidenceKind.SOFTWARE, software_version=self.claims.software_version, warnings=warnings
        )
