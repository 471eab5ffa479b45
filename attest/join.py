"""What a signer checks before it believes that a joiner's key lives in a TPM, and in which: all in one step.

`check_join` takes the bytes of both frames and gives one finding or refuses; no result of an earlier step is passed in,
so nothing can be swapped between two checks. No TPM is needed here.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from attest.areas import PublicArea, parse_area
from attest.credential import make_credential, parse_endorsement_key
from attest.endorsement_chain import EndorsementTrust, judge_endorsement_key
from attest.enrol import NAME_SIZE, attestation_qualified_name, check_identity_key, handle_name
from attest.inquiry import LogInquiry, Subject
from attest.levels import SOFTWARE_KEY, level_of
from attest.log_book import LogBook
from attest.policy import Measured, accepted_kinds, check_level, file_rules, judge_quote, meets_rules, wants_logs
from attest.quote import (
    Header,
    check_attestation_key,
    check_digest,
    check_selection,
    check_signature,
    parse_certification,
    parse_quote,
)
from attest.rules import Logs
from attest.structures import ALG_SHA256, RH_OWNER, bad_evidence
from overlay.core.certificate_profile import ek_tag
from overlay.core.certificate_request import Request
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import JoinTpm, TpmAnswer
from overlay.core.join_ports import JoinFinding, JoinInquiry, WrappedSecret
from overlay.core.policy import Policy
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import COSE_ES256, EvidenceKind, Reason

JOIN_LIST_MAX: Final = 16 * 1024 * 1024  # bytes of a joiner's list of files: our guess; 20,000 entries have some 3 MiB


@dataclass(frozen=True, slots=True)
class _Keys:
    """The three keys that a joiner shows, each of its kind."""

    ek: PublicArea
    ak: PublicArea
    identity: PublicArea

    @classmethod
    def of(cls, shown: JoinTpm, request: Request) -> "_Keys":
        """Raises Refused(BAD_EVIDENCE, or ATTESTATION_KEY_MISMATCH for an identity key that is not the CSR's)."""
        keys = cls(parse_endorsement_key(shown.ek_public), parse_area(shown.ak_public), parse_area(shown.identity_public))
        check_attestation_key(keys.ak)
        check_identity_key(keys.identity, request.identity)
        return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinCase:
    """Everything about one joiner: what it showed, what it answered, and to what."""

    shown: JoinTpm
    answer: TpmAnswer
    binding: JoinBinding
    request: Request
    secret: bytes = field(repr=False)  # what was wrapped for EK and AK
    pcr_bitmap: int  # what was asked for


@dataclass(frozen=True, slots=True)
class ShownMachine:
    """What is known of the joiner's machine when all checks have passed."""

    level: int  # 2 to 4
    ek_tag: bytes
    ak_name: bytes
    ak_qualified_name: bytes
    pcr_digest: bytes
    firmware: int
    resets: int  # the TPM's reset count
    warnings: tuple[str, ...]


def check_join(case: JoinCase, trust: EndorsementTrust, at: datetime) -> ShownMachine:
    """EK, AK, identity key, boot state, signer, link, invite and request belong together; how good the TPM is.

    Raises:
        Refused: BAD_EVIDENCE for a key or structure of the wrong kind, or a certificate of another EK;
            ATTESTATION_KEY_MISMATCH for names that do not fit; EVIDENCE_NOT_BOUND for another conversation or TPM;
            EVIDENCE_SIGNATURE, PCR_SELECTION, PCR_MISMATCH.
    """
    shown, answer = case.shown, case.answer
    keys = _Keys.of(shown, case.request)
    if case.binding.csr_hash != sha256(case.request.der) or case.binding.boot_log_hash != shown.boot_log_hash:
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "challenged for another request or boot log")
    bound = case.binding.pack(ak_name=keys.ak.name, ek_name=keys.ek.name)
    if not hmac.compare_digest(answer.activation, bound.activation(case.secret)):
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "the credential was not opened by this TPM for this conversation")
    signer = attestation_qualified_name(keys.ek, keys.ak)

    check_signature(keys.ak, answer.quote, answer.quote_signature)
    quote = parse_quote(answer.quote)
    _check_header(quote.header, signer, bound.quoted)
    check_selection(quote, case.pcr_bitmap)
    check_digest(quote)

    check_signature(keys.ak, answer.certify_attest, answer.certify_signature)
    certification = parse_certification(answer.certify_attest)
    _check_header(certification.header, signer, bound.certified)
    if certification.name != keys.identity.name:
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "another key was certified")
    if certification.qualified_name != _qualified_name(keys.identity, shown.parent_name):
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "the identity key does not live under that storage key")

    tag = ek_tag(case.binding.mesh_id, keys.ek.name)
    level, warnings = judge_endorsement_key(keys.ek, tag, shown.ek_chain, trust, at)
    firmware, resets = quote.header.firmware, quote.header.clock[0]
    return ShownMachine(level, tag, keys.ak.name, signer, quote.pcr_digest, firmware, resets, warnings)


def _check_header(header: Header, qualified_signer: bytes, data: bytes) -> None:
    """By the attestation key under this EK, over just this."""
    if header.qualified_signer != qualified_signer:
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "not by a key that is a child of the EK")
    if header.extra_data != data:
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "made for another link, signer, nonce, request, key or invite")


def _qualified_name(identity: PublicArea, parent_name: bytes) -> bytes:
    """Of a key under a primary storage key of the owner hierarchy with a SHA-256 name."""
    algorithm = ALG_SHA256.to_bytes(2, "big")
    if len(parent_name) != NAME_SIZE or not parent_name.startswith(algorithm):
        bad_evidence("name of the storage key")
    return identity.qualified_name(algorithm + sha256(handle_name(RH_OWNER), parent_name))


class TpmJoinAppraiser:
    """A JoinAppraiser: the checks above, then the policy, which is asked for anew each time."""

    def __init__(self, policy: Callable[[], Policy]) -> None:
        self._policy = policy

    @property
    def pcr_bitmap(self) -> int:
        """The policy's PCRs."""
        return self._policy().pcr_bitmap

    def wrap(self, shown: JoinTpm, request: Request, secret: bytes) -> WrappedSecret:
        """A credential for the shown keys, once they are of their kinds."""
        keys = _Keys.of(shown, request)
        credential = make_credential(keys.ek, keys.ak.name, secret)
        return WrappedSecret(credential.blob, credential.encrypted_seed)

    def appraise(
        self, shown: JoinTpm, answer: TpmAnswer, binding: JoinBinding, secret: bytes, request: Request, *,
        pcr_bitmap: int, at: datetime,
    ) -> JoinFinding | JoinInquiry:
        """What goes into the certificate, or which part of the logs the policy's rules need first.

        Raises:
            Refused: check_join's reasons, `judge_quote`'s, or LEVEL_TOO_LOW; the same as on a link.
        """
        case = JoinCase(
            shown=shown, answer=answer, binding=binding, request=request, secret=secret, pcr_bitmap=pcr_bitmap
        )
        policy = self._policy()
        machine = check_join(case, EndorsementTrust.of(policy), at)

        def conclude(logs: Logs | Refused | None) -> JoinFinding:
            return _conclude(policy, at, machine, Measured(pcr_bitmap, machine.pcr_digest, machine.firmware, logs))

        if not wants_logs(policy, at):
            return conclude(None)
        if not shown.boot_log_hash:
            return conclude(Refused(Reason.LOG_MISSING, "the machine has no logs, or does not show them"))
        subject = Subject(
            node=request.node_id, ak_name=machine.ak_name, resets=machine.resets, bitmap=pcr_bitmap,
            pcr_digest=machine.pcr_digest, boot_hash=shown.boot_log_hash, rules=file_rules(policy, at),
        )
        book = LogBook()  # of this conversation: what a joiner shows is no news about a member
        return LogInquiry(subject, book, conclude, list_max=JOIN_LIST_MAX).begin()

    def appraise_file_key(self, request: Request) -> JoinFinding:
        """Level 1, where the policy takes that; raises Refused(EVIDENCE_NOT_ACCEPTED or LEVEL_TOO_LOW)."""
        policy = self._policy()
        if request.identity.algorithm == COSE_ES256:
            detail = "the key is of the kind that a TPM makes, and nothing shows that one did"
            raise Refused(Reason.EVIDENCE_NOT_ACCEPTED, detail)
        if EvidenceKind.SOFTWARE not in accepted_kinds(policy):
            raise Refused(Reason.EVIDENCE_NOT_ACCEPTED, "the policy wants a TPM, and the joiner shows none")
        check_level(policy, SOFTWARE_KEY)
        return JoinFinding(level=SOFTWARE_KEY, policy_version=policy.version)


def _conclude(policy: Policy, at: datetime, machine: ShownMachine, measured: Measured) -> JoinFinding:
    """What the policy says when all there is to know is known. Level 5 is each neighbour's to see: no certificate says it."""
    warnings = machine.warnings + judge_quote(policy, at, measured)
    check_level(policy, level_of(EvidenceKind.TPM, machine.level, met=meets_rules(policy, at, measured)))
    return JoinFinding(
        level=machine.level, policy_version=policy.version, ak_name=machine.ak_name,
        ak_qualified_name=machine.ak_qualified_name, ek_tag=machine.ek_tag, warnings=warnings,
    )
