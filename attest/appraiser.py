"""PolicyAppraiser: a peer's evidence, judged under the policy that is in force now."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from attest.evidence import Claims, parse_claims
from attest.levels import level_of
from attest.policy import Measured, accepted_kinds, check_kind, check_level, judge_manifest, judge_quote
from attest.quote import Clock, Enrolled, check_quote
from attest.software import check_software
from overlay.core.evidence import Appraisal, Binding, Evidence
from overlay.core.policy import Policy
from overlay.core.trust import VerifiedPeer
from overlay.registry import EvidenceKind


@dataclass(frozen=True, slots=True)
class PolicyAppraiser:
    """An Appraiser. `policy_source` is asked at each use, so that a new policy holds at once; `at`: for grace that ends."""

    policy_source: Callable[[], Policy]
    at: Callable[[], datetime]

    @property
    def accepted(self) -> tuple[EvidenceKind, ...]:
        """The kinds that the policy accepts, for CHALLENGE."""
        return accepted_kinds(self.policy_source())

    def appraise(
        self, evidence: Evidence, binding: Binding, peer: VerifiedPeer, previous: Appraisal | None
    ) -> Appraisal:
        """Raises Refused with the reason; the checks that need the policy come last, but for the kind of evidence."""
        policy = self.policy_source()
        claims = parse_claims(evidence.claims)
        check_kind(policy, claims.kind, peer)
        case = _Case(policy, self.at(), claims, evidence, binding, peer)
        if claims.kind is EvidenceKind.TPM:
            appraisal = case.quote(previous.clock if previous is not None else None)
        else:
            appraisal = case.software()
        check_level(policy, appraisal.level, peer.roles)
        return appraisal


@dataclass(frozen=True, slots=True)
class _Case:
    """All that one judgement is about. The genuine comes before the good: reference values are compared last."""

    policy: Policy
    at: datetime
    claims: Claims
    evidence: Evidence
    binding: Binding
    peer: VerifiedPeer

    @property
    def level(self) -> int:
        return level_of(self.claims.kind, self.peer.certificate.facts.level)

    def quote(self, previous: Clock | None) -> Appraisal:
        facts = self.peer.certificate.facts
        enrolled = Enrolled(ak_name=facts.ak_name, ak_qualified_name=facts.ak_qualified_name)
        bitmap = self.claims.pcr_bitmap
        quote = check_quote(self.evidence, self.binding, enrolled, pcr_bitmap=bitmap, previous=previous)
        warnings = judge_quote(self.policy, self.at, Measured(bitmap, quote.pcr_digest, quote.header.firmware))
        return Appraisal(
            level=self.level,
            kind=EvidenceKind.TPM,
            software_version=self.claims.software_version,
            pcr_digest=quote.pcr_digest,
            clock=quote.header.clock,
            warnings=warnings,
        )

    def software(self) -> Appraisal:
        check_software(self.evidence, self.binding, self.peer)
        return Appraisal(
            level=self.level,
            kind=EvidenceKind.SOFTWARE,
            software_version=self.claims.software_version,
            warnings=judge_manifest(self.policy, self.at, self.claims),
        )
