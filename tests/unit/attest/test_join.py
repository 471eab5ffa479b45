"""What a signer checks of a joiner's TPM, with a TPM made of Python: each check alone says no in one test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.areas import IDENTITY_TEMPLATE, Attributes
from attest.endorsement_chain import EndorsementTrust
from attest.enrol import attestation_qualified_name, handle_name
from attest.event_log import parse_boot_log
from attest.join import JoinCase, TpmJoinAppraiser, check_join
from attest.replay import digest_of, replay
from attest.structures import RH_OWNER, EcdsaSignature, pack_selection, sized
from overlay.core.certificate_profile import ek_tag
from overlay.core.certificate_request import Request, build_request, verify_request
from overlay.core.join_binding import BoundJoin, JoinBinding
from overlay.core.join_frames import JoinTpm, TpmAnswer
from overlay.core.join_ports import JoinFinding
from overlay.core.keys import Ed25519Signer, MeshId, NodeId
from overlay.core.limits import LOG_PART
from overlay.core.log_parts import LogPart
from overlay.core.policy import Attestation, Mode, Policy
from overlay.core.policy_parts import DigestRule, MissingLog
from overlay.core.wire import lv, sha256
from overlay.errors import Refused
from overlay.registry import COSE_ES256, Reason
from tests.unit.attest.event_log_kit import BOOT, Made, log
from tests.unit.attest.software_tpm import (
    AK,
    AK_QUALIFIED,
    EK,
    GOOD_PCRS,
    IDENTITY,
    NOW,
    OTHER_AK,
    PCR_14,
    SRK,
    Machine,
    SoftwareKey,
)
from tests.unit.attest.test_endorsement_chain import ROOT

SECRET = sha256(b"secret")
OTHER_IDENTITY = SoftwareKey.make(IDENTITY_TEMPLATE, 77)


@dataclass(frozen=True, slots=True)
class KeySigner:
    """A Signer over a software key."""

    key: SoftwareKey
    algorithm: int = COSE_ES256

    @property
    def public_key(self) -> bytes:
        return self.key.area.point

    @property
    def spki(self) -> bytes:
        return self.key.identity.spki

    def sign(self, data: bytes) -> bytes:
        return EcdsaSignature.parse(self.key.sign(data)).raw


REQUEST = verify_request(build_request(KeySigner(IDENTITY), "bob"))
SHOWN = JoinTpm(
    ek_public=EK.area.raw, ak_public=AK.area.raw, identity_public=IDENTITY.area.raw, parent_name=SRK.area.name,
    boot_log_hash=sha256(b"boot log"),
)
BINDING = JoinBinding(
    mesh_id=MeshId(sha256(b"mesh")), h=sha256(b"h"), signer=NodeId(sha256(b"signer")), nonce=sha256(b"nonce"),
    csr_hash=sha256(REQUEST.der), invite_id=b"invite id", boot_log_hash=sha256(b"boot log"),
)
LISTED = EndorsementTrust(listed=frozenset({ek_tag(BINDING.mesh_id, EK.area.name)}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """What one test makes wrong in an otherwise good answer."""

    binding: JoinBinding = BINDING
    secret: bytes = SECRET
    ak: SoftwareKey = AK
    ek: SoftwareKey = EK
    identity: SoftwareKey = IDENTITY
    certified_name: bytes = b""
    certified_parent: bytes = b""
    machine: Machine | None = None
    quote_binding: JoinBinding | None = None
    certify_binding: JoinBinding | None = None
    quote_signed_by: SoftwareKey | None = None
    certify_signed_by: SoftwareKey | None = None

    def bound(self, binding: JoinBinding | None = None) -> BoundJoin:
        return (binding or self.binding).pack(ak_name=self.ak.area.name, ek_name=self.ek.area.name)

    def answer(self) -> TpmAnswer:
        signer = attestation_qualified_name(self.ek.area, self.ak.area)
        machine = self.machine or Machine(ak=self.ak, qualified_signer=signer)
        quote = machine.attested(self.bound(self.quote_binding).quoted)
        parent = self.certified_parent or SRK.area.qualified_name(handle_name(RH_OWNER))
        names = sized(self.certified_name or self.identity.area.name) + sized(self.identity.area.qualified_name(parent))
        header = replace(machine, structure=b"\x80\x17").header(self.bound(self.certify_binding).certified)
        return TpmAnswer(
            activation=self.bound().activation(self.secret), quote=quote,
            quote_signature=(self.quote_signed_by or self.ak).sign(quote), certify_attest=header + names,
            certify_signature=(self.certify_signed_by or self.ak).sign(header + names),
        )


def case(wrong: Wrong | None = None, shown: JoinTpm = SHOWN, **changed: object) -> JoinCase:
    answer = (wrong or Wrong()).answer()
    good = JoinCase(
        shown=shown, answer=answer, binding=BINDING, request=REQUEST, secret=SECRET, pcr_bitmap=PCR_14
    )
    return replace(good, **changed)  # type: ignore[arg-type]


def refusal_of(case: JoinCase) -> Reason:
    with pytest.raises(Refused) as refusal:
        check_join(case, EndorsementTrust(), NOW)
    return refusal.value.reason


def test_a_good_joiner_gives_what_the_certificate_says() -> None:
    machine = check_join(case(), EndorsementTrust(), NOW)
    assert (machine.level, machine.pcr_digest) == (2, GOOD_PCRS)
    tag = ek_tag(BINDING.mesh_id, EK.area.name)
    assert (machine.ek_tag, machine.ak_name, machine.ak_qualified_name) == (tag, AK.area.name, AK_QUALIFIED)
    assert machine.warnings


def test_x_is_what_the_document_says() -> None:
    x = lv(
        BINDING.mesh_id, BINDING.h, BINDING.signer, BINDING.nonce, sha256(REQUEST.der), AK.area.name, EK.area.name,
        b"invite id", sha256(b"boot log"),
    )
    bound = BINDING.pack(ak_name=AK.area.name, ek_name=EK.area.name)
    assert bound.x == x
    assert bound.quoted == sha256(b"overlay/1 attest enrol\0" + x)
    assert bound.certified == sha256(b"overlay/1 attest certify\0" + x)


# --- the keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ak",
    [
        AK.without(Attributes.RESTRICTED),
        AK.without(Attributes.SIGN),
        AK.having(Attributes.DECRYPT),
        AK.without(Attributes.FIXED_TPM),
        AK.without(Attributes.FIXED_PARENT),
        AK.without(Attributes.SENSITIVE_DATA_ORIGIN),
    ],
)
def test_a_key_that_is_no_attestation_key_is_refused(ak: SoftwareKey) -> None:
    assert refusal_of(case(Wrong(ak=ak), replace(SHOWN, ak_public=ak.area.raw))) is Reason.BAD_EVIDENCE


@pytest.mark.parametrize(
    "identity",
    [
        IDENTITY.having(Attributes.RESTRICTED),
        IDENTITY.having(Attributes.DECRYPT),
        IDENTITY.without(Attributes.SIGN),
        IDENTITY.without(Attributes.FIXED_TPM),
        IDENTITY.without(Attributes.FIXED_PARENT),
        IDENTITY.without(Attributes.SENSITIVE_DATA_ORIGIN),
    ],
)
def test_an_identity_key_with_other_attributes_is_refused(identity: SoftwareKey) -> None:
    shown = replace(SHOWN, identity_public=identity.area.raw)
    assert refusal_of(case(Wrong(identity=identity), shown)) is Reason.BAD_EVIDENCE


@pytest.mark.parametrize("attribute", [Attributes.FIXED_TPM, Attributes.RESTRICTED, Attributes.DECRYPT])
def test_an_endorsement_key_with_other_attributes_is_refused(attribute: Attributes) -> None:
    ek = EK.without(attribute)
    assert refusal_of(case(Wrong(ek=ek), replace(SHOWN, ek_public=ek.area.raw))) is Reason.BAD_EVIDENCE


def test_the_request_of_another_key_is_refused() -> None:
    other = verify_request(build_request(KeySigner(OTHER_IDENTITY), "bob"))
    binding = replace(BINDING, csr_hash=sha256(other.der))
    assert refusal_of(case(Wrong(binding=binding), binding=binding, request=other)) is Reason.ATTESTATION_KEY_MISMATCH


def test_the_request_of_a_file_key_is_refused() -> None:
    other = verify_request(build_request(Ed25519Signer(bytes(32)), "bob"))
    assert refusal_of(case(request=other)) is Reason.ATTESTATION_KEY_MISMATCH


# --- the binding ------------------------------------------------------------------------------------------------------

ELSEWHERE = [
    replace(BINDING, mesh_id=MeshId(sha256(b"other mesh"))),
    replace(BINDING, h=sha256(b"other link")),
    replace(BINDING, signer=NodeId(sha256(b"other signer"))),
    replace(BINDING, nonce=sha256(b"other nonce")),
    replace(BINDING, csr_hash=sha256(b"other request")),
    replace(BINDING, invite_id=b"other invite"),
    replace(BINDING, boot_log_hash=sha256(b"other log")),
]


@pytest.mark.parametrize("binding", ELSEWHERE)
def test_an_answer_to_another_conversation_is_refused(binding: JoinBinding) -> None:
    assert refusal_of(case(Wrong(binding=binding))) is Reason.EVIDENCE_NOT_BOUND


@pytest.mark.parametrize("binding", ELSEWHERE)
def test_a_quote_for_another_conversation_is_refused(binding: JoinBinding) -> None:
    assert refusal_of(case(Wrong(quote_binding=binding))) is Reason.EVIDENCE_NOT_BOUND


@pytest.mark.parametrize("binding", ELSEWHERE)
def test_a_certification_for_another_conversation_is_refused(binding: JoinBinding) -> None:
    assert refusal_of(case(Wrong(certify_binding=binding))) is Reason.EVIDENCE_NOT_BOUND


def test_a_quote_is_no_certification_and_the_other_way_round() -> None:
    good = Wrong().answer()
    swapped = replace(
        good, quote=good.certify_attest, quote_signature=good.certify_signature, certify_attest=good.quote,
        certify_signature=good.quote_signature,
    )
    assert refusal_of(case(answer=swapped)) is Reason.BAD_EVIDENCE
    twice = replace(good, certify_attest=good.quote, certify_signature=good.quote_signature)
    assert refusal_of(case(answer=twice)) is Reason.BAD_EVIDENCE


def test_an_answer_with_another_secret_is_refused() -> None:
    assert refusal_of(case(Wrong(secret=sha256(b"guess")))) is Reason.EVIDENCE_NOT_BOUND


def test_an_ek_that_is_swapped_after_the_answer_is_refused() -> None:
    other = SoftwareKey.make(EK.area.raw, 21)
    assert refusal_of(case(shown=replace(SHOWN, ek_public=other.area.raw))) is Reason.EVIDENCE_NOT_BOUND


def test_an_ak_that_is_swapped_after_the_answer_is_refused() -> None:
    assert refusal_of(case(shown=replace(SHOWN, ak_public=OTHER_AK.area.raw))) is Reason.EVIDENCE_NOT_BOUND


def test_a_boot_log_that_is_swapped_after_the_answer_is_refused() -> None:
    assert refusal_of(case(shown=replace(SHOWN, boot_log_hash=sha256(b"a nicer log")))) is Reason.EVIDENCE_NOT_BOUND
    assert refusal_of(case(shown=replace(SHOWN, boot_log_hash=b""))) is Reason.EVIDENCE_NOT_BOUND


def test_a_signer_that_mixes_up_its_own_requests_refuses() -> None:
    binding = replace(BINDING, csr_hash=sha256(b"of another link"))
    assert refusal_of(case(Wrong(binding=binding), binding=binding)) is Reason.EVIDENCE_NOT_BOUND


def test_a_machine_without_a_boot_log_says_so_in_x() -> None:
    binding = replace(BINDING, boot_log_hash=b"")
    check_join(case(Wrong(binding=binding), replace(SHOWN, boot_log_hash=b""), binding=binding), EndorsementTrust(), NOW)


# --- the structures ---------------------------------------------------------------------------------------------------

FAKE_EK = Machine(qualified_signer=b"\x00\x0b" + sha256(b"under another EK"))


def test_an_attestation_key_of_another_tpm_is_refused() -> None:
    assert refusal_of(case(Wrong(machine=FAKE_EK))) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_certification_by_the_attestation_key_of_another_tpm_is_refused() -> None:
    good, bad = Wrong().answer(), Wrong(machine=FAKE_EK).answer()
    mixed = replace(good, certify_attest=bad.certify_attest, certify_signature=bad.certify_signature)
    assert refusal_of(case(answer=mixed)) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_quote_that_another_key_has_signed_is_refused() -> None:
    assert refusal_of(case(Wrong(quote_signed_by=OTHER_AK))) is Reason.EVIDENCE_SIGNATURE


def test_a_certification_that_another_key_has_signed_is_refused() -> None:
    assert refusal_of(case(Wrong(certify_signed_by=IDENTITY))) is Reason.EVIDENCE_SIGNATURE


def test_a_signature_with_a_high_s_is_refused() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    good = Wrong().answer()
    low = good.quote_signature
    high = low[:40] + (order - int.from_bytes(low[40:], "big")).to_bytes(32, "big")
    assert refusal_of(case(answer=replace(good, quote_signature=high))) is Reason.EVIDENCE_SIGNATURE


def test_a_certification_of_another_key_is_refused() -> None:
    wrong = Wrong(certified_name=OTHER_IDENTITY.area.name)
    assert refusal_of(case(wrong)) is Reason.ATTESTATION_KEY_MISMATCH


def test_an_identity_key_under_another_parent_is_refused() -> None:
    assert refusal_of(case(Wrong(certified_parent=b"another"))) is Reason.ATTESTATION_KEY_MISMATCH
    assert refusal_of(case(shown=replace(SHOWN, parent_name=EK.area.name))) is Reason.ATTESTATION_KEY_MISMATCH


@pytest.mark.parametrize("name", [b"", b"\x00\x0c" + bytes(32), b"\x00\x0b" + bytes(48)])
def test_what_cannot_be_the_name_of_a_storage_key_is_refused(name: bytes) -> None:
    assert refusal_of(case(shown=replace(SHOWN, parent_name=name))) is Reason.BAD_EVIDENCE


def test_a_quote_over_other_pcrs_is_refused() -> None:
    assert refusal_of(case(pcr_bitmap=1 << 7)) is Reason.PCR_SELECTION


def test_a_digest_of_another_length_is_refused() -> None:
    machine = Machine(pcr_digest=bytes(20))
    assert refusal_of(case(Wrong(machine=machine))) is Reason.PCR_MISMATCH


@given(st.sampled_from([one.name for one in fields(TpmAnswer)]), st.binary(max_size=200))
def test_any_bytes_in_place_of_a_part_of_the_answer_are_refused(part: str, data: bytes) -> None:
    assert isinstance(refusal_of(case(answer=replace(Wrong().answer(), **{part: data}))), Reason)


@given(st.sampled_from(["ek_public", "ak_public", "identity_public", "parent_name"]), st.binary(max_size=200))
def test_any_bytes_in_place_of_a_key_are_refused(part: str, data: bytes) -> None:
    assert isinstance(refusal_of(case(shown=replace(SHOWN, **{part: data}))), Reason)  # type: ignore[arg-type]


@given(st.data())
def test_one_bit_anywhere_in_the_answer_is_refused(data: st.DataObject) -> None:
    good = Wrong().answer()
    part = data.draw(st.sampled_from([one.name for one in fields(TpmAnswer)]))
    value = bytearray(getattr(good, part))
    place = data.draw(st.integers(0, len(value) * 8 - 1))
    value[place // 8] ^= 1 << place % 8
    assert isinstance(refusal_of(case(answer=replace(good, **{part: bytes(value)}))), Reason)


# --- the level, and the policy ----------------------------------------------------------------------------------------


def appraiser(policy: Policy, trust: EndorsementTrust | None = None) -> TpmJoinAppraiser:
    if trust is not None:
        policy = replace(policy, ek_roots=trust.roots, ek_tags=tuple(trust.listed))
    return TpmJoinAppraiser(lambda: policy)


POLICY = Policy(version=7, mode=Mode.ENFORCE, pcr_bitmap=PCR_14, pcr_digests=(GOOD_PCRS,))
Finding = Callable[[], object]


def appraise(judge: TpmJoinAppraiser, chain: tuple[bytes, ...] = ()) -> object:
    shown = replace(SHOWN, ek_chain=chain)
    return judge.appraise(shown, Wrong().answer(), BINDING, SECRET, REQUEST, pcr_bitmap=PCR_14, at=NOW)


def level_with(trust: EndorsementTrust, chain: tuple[bytes, ...] = ()) -> int:
    return int(getattr(appraise(appraiser(POLICY, trust), chain), "level"))  # noqa: B009


def test_the_level_is_that_of_the_ek() -> None:
    assert level_with(EndorsementTrust()) == 2
    assert level_with(LISTED) == 3
    assert level_with(EndorsementTrust(listed=frozenset({bytes(32)}))) == 2
    assert level_with(EndorsementTrust(roots=(ROOT.der,)), (ROOT.certify(),)) == 4
    assert level_with(EndorsementTrust(), (ROOT.certify(),)) == 2


def test_the_certificate_of_another_ek_is_refused() -> None:
    chain = (ROOT.certify(OTHER_IDENTITY.private.public_key()),)
    assert reason_of(lambda: appraise(appraiser(POLICY), chain)) is Reason.BAD_EVIDENCE


def test_the_finding_holds_a_tag_and_not_the_name_of_the_ek() -> None:
    judge = appraiser(POLICY, LISTED)
    finding = judge.appraise(SHOWN, Wrong().answer(), BINDING, SECRET, REQUEST, pcr_bitmap=PCR_14, at=NOW)
    assert finding.ek_tag == ek_tag(BINDING.mesh_id, EK.area.name)
    assert (finding.policy_version, finding.ak_name, finding.warnings) == (7, AK.area.name, ())


def reason_of(question: Finding) -> Reason:
    with pytest.raises(Refused) as refusal:
        question()
    return refusal.value.reason


def test_a_level_below_the_policy_is_refused() -> None:
    strict = replace(POLICY, minimum_level=3)
    assert reason_of(lambda: appraise(appraiser(strict))) is Reason.LEVEL_TOO_LOW
    assert appraise(appraiser(strict, LISTED))


def test_a_machine_that_booted_something_else_is_refused() -> None:
    assert reason_of(lambda: appraise(appraiser(replace(POLICY, pcr_digests=(bytes(32),))))) is Reason.PCR_MISMATCH


def test_the_bitmap_is_the_policys() -> None:
    assert appraiser(POLICY).pcr_bitmap == PCR_14


def test_nothing_is_wrapped_for_keys_of_the_wrong_kind() -> None:
    judge = appraiser(POLICY)
    assert judge.wrap(SHOWN, REQUEST, SECRET).blob
    loose = replace(SHOWN, ak_public=AK.without(Attributes.RESTRICTED).area.raw)
    assert reason_of(lambda: judge.wrap(loose, REQUEST, SECRET)) is Reason.BAD_EVIDENCE
    moved = replace(SHOWN, identity_public=OTHER_IDENTITY.area.raw)
    assert reason_of(lambda: judge.wrap(moved, REQUEST, SECRET)) is Reason.ATTESTATION_KEY_MISMATCH


FILE: Request = verify_request(build_request(Ed25519Signer(bytes(32)), "bob"))


def test_a_file_key_gives_level_1_where_the_policy_takes_it() -> None:
    assert appraiser(POLICY).appraise_file_key(FILE).level == 1


def test_a_file_key_is_refused_where_the_policy_wants_a_tpm() -> None:
    wants = replace(POLICY, attestation=Attestation.REQUIRE)
    assert reason_of(lambda: appraiser(wants).appraise_file_key(FILE)) is Reason.EVIDENCE_NOT_ACCEPTED
    assert reason_of(lambda: appraiser(replace(POLICY, minimum_level=2)).appraise_file_key(FILE)) is Reason.LEVEL_TOO_LOW


def test_a_key_as_of_a_tpm_without_one_is_refused() -> None:
    assert reason_of(lambda: appraiser(POLICY).appraise_file_key(REQUEST)) is Reason.EVIDENCE_NOT_ACCEPTED


@pytest.mark.parametrize("changed", [{"nonce": b"short"}, {"nonce": b""}, {"h": b""}, {"csr_hash": b""}, {"invite_id": b""}])
def test_no_part_of_the_binding_may_be_missing(changed: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        replace(BINDING, **changed)  # type: ignore[arg-type]


# --- rules about logs ---------------------------------------------------------------------------------------------------

BOOTED = 0x40FF  # PCRs 0 to 7 and 14
LOADERS = DigestRule(4, required=(sha256(b"grub"),))
RULES = Policy(version=7, mode=Mode.ENFORCE, pcr_bitmap=BOOTED, digest_rules=(LOADERS,), missing_log=MissingLog.REFUSE)
VENDOR = replace(RULES, ek_roots=(ROOT.der,), minimum_level=5)


def judged(
    policy: Policy, *, sent: bytes = log(*BOOT), claimed: bytes | None = None, booted: Sequence[Made] = BOOT
) -> JoinFinding:
    """A joiner with a maker's certificate that booted this, named the hash of that log, and sends this one."""
    boot_hash = sha256(sent) if claimed is None else claimed
    binding = replace(BINDING, boot_log_hash=boot_hash)
    digest = digest_of(dict(replay(parse_boot_log(log(*booted)))), BOOTED)
    machine = Machine(
        qualified_signer=attestation_qualified_name(EK.area, AK.area), selection=pack_selection(BOOTED), pcr_digest=digest
    )
    shown = replace(SHOWN, boot_log_hash=boot_hash, ek_chain=(ROOT.certify(),))
    answer = Wrong(binding=binding, machine=machine).answer()
    found = appraiser(policy).appraise(shown, answer, binding, SECRET, REQUEST, pcr_bitmap=BOOTED, at=NOW)
    while not isinstance(found, JoinFinding):
        wanted = found.wanted
        found = found.take(LogPart(wanted.log, wanted.offset, len(sent), sent[wanted.offset : wanted.offset + LOG_PART]))
    return found


def test_logs_that_meet_the_rules_lead_to_a_certificate_that_does_not_say_level_5() -> None:
    """A policy that wants level 5 is met, and what a neighbour sees anew with each quote stands in no certificate."""
    assert (judged(RULES).level, judged(replace(RULES, ek_roots=(ROOT.der,))).level, judged(VENDOR).level) == (2, 4, 4)


def test_a_mesh_that_wants_level_5_takes_no_joiner_whose_logs_show_less() -> None:
    lax = replace(VENDOR, missing_log=MissingLog.ALLOW)
    assert reason_of(lambda: judged(lax, claimed=b"")) is Reason.LEVEL_TOO_LOW
    assert reason_of(lambda: judged(replace(lax, digest_rules=(), mode=Mode.WARN))) is Reason.LEVEL_TOO_LOW


def test_a_joiner_that_breaks_a_rule_about_its_boot_log_is_refused() -> None:
    forbidden = replace(RULES, digest_rules=(DigestRule(4, forbidden=(sha256(b"grub"),)),))
    assert reason_of(lambda: judged(forbidden)) is Reason.PCR_MISMATCH
    assert judged(replace(forbidden, mode=Mode.WARN)).warnings
    assert judged(replace(forbidden, mode=Mode.LEARN)).level == 2


def test_a_joiner_whose_log_does_not_lead_to_its_quote_is_refused() -> None:
    assert reason_of(lambda: judged(RULES, booted=(*BOOT, Made(4, b"evil")))) is Reason.PCR_MISMATCH


def test_a_joiner_that_sends_another_log_than_it_named_is_refused() -> None:
    assert reason_of(lambda: judged(RULES, claimed=sha256(b"another log"))) is Reason.BAD_EVIDENCE


def test_a_joiner_that_shows_no_log_is_judged_by_what_the_policy_says_of_that() -> None:
    assert reason_of(lambda: judged(RULES, claimed=b"")) is Reason.LOG_MISSING
    assert judged(replace(RULES, missing_log=MissingLog.WARN), claimed=b"").warnings
    assert judged(replace(RULES, missing_log=MissingLog.ALLOW), claimed=b"").level == 2


def test_no_log_is_asked_for_where_no_rule_needs_one() -> None:
    assert appraise(appraiser(POLICY))  # a finding, at once
    assert not hasattr(appraise(appraiser(POLICY)), "wanted")
