"""A quote is believed only if every check passes; each check has the test in which it alone says no."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.areas import Attributes, parse_area
from attest.evidence import prove_all
from attest.quote import Clock, Enrolled, Quote, check_quote, parse_certification, parse_quote
from attest.structures import EcdsaSignature, pack_selection, sized
from overlay.core.evidence import Binding, Evidence
from overlay.core.keys import P256_ORDER
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason, Role
from tests.unit.attest.software_tpm import (
    AK,
    AK_QUALIFIED,
    GOOD_PCRS,
    OTHER_AK,
    PCR_14,
    Machine,
    SoftwareKey,
    a_binding,
    tpm_claims,
)

ENROLLED = Enrolled(ak_name=AK.area.name, ak_qualified_name=AK_QUALIFIED)
Change = Callable[[Evidence], Evidence]


def check(
    evidence: Evidence, *, binding: Binding | None = None, enrolled: Enrolled = ENROLLED, previous: Clock | None = None
) -> Quote:
    return check_quote(evidence, binding or a_binding(), enrolled, pcr_bitmap=PCR_14, previous=previous)


def refusal_of(evidence: Evidence, **others: object) -> Reason:
    with pytest.raises(Refused) as refusal:
        check(evidence, **others)  # type: ignore[arg-type]
    return refusal.value.reason


def signed(machine: Machine, data: bytes) -> Evidence:
    """Evidence of a machine that signs whatever it is told to."""
    return replace(machine.evidence(a_binding()), quote=data, signature=machine.ak.sign(data))


def enrolled_as(key: SoftwareKey) -> Enrolled:
    return Enrolled(ak_name=key.area.name, ak_qualified_name=AK_QUALIFIED)


def test_a_good_quote_passes_and_says_what_was_measured() -> None:
    quote = check(Machine().evidence(a_binding()))
    assert (quote.pcr_digest, quote.header.clock) == (GOOD_PCRS, (3, 1, 5_000))


def test_a_good_quote_for_many_links_passes_on_each() -> None:
    bindings = [a_binding(number) for number in range(9)]
    for evidence, binding in zip(prove_all(bindings, tpm_claims().pack(), Machine().quote), bindings, strict=True):
        check(evidence, binding=binding)


# 1


@pytest.mark.parametrize(
    "change",
    [
        lambda evidence: replace(evidence, ak_public=bytes(129)),
        lambda evidence: replace(evidence, quote=bytes(513)),
        lambda evidence: replace(evidence, signature=bytes(129)),
    ],
)
def test_a_part_that_is_too_large_is_refused(change: Change) -> None:
    assert refusal_of(change(Machine().evidence(a_binding()))) is Reason.TOO_LARGE


# 2


def test_another_key_than_the_certificates_is_refused() -> None:
    assert refusal_of(Machine(ak=OTHER_AK).evidence(a_binding())) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_quote_where_the_certificate_names_no_key_is_refused() -> None:
    nobody = Enrolled(ak_name=None, ak_qualified_name=None)
    assert refusal_of(Machine().evidence(a_binding()), enrolled=nobody) is Reason.ATTESTATION_KEY_MISMATCH


# 3


@pytest.mark.parametrize(
    "machine",
    [
        Machine(magic=b"\xff\x54\x43\x48"),
        Machine(structure=b"\x80\x17"),
        Machine(structure=b"\x80\x1a"),
        Machine(safe=2),
        Machine(selection=bytes.fromhex("00000001000b05014000") + bytes(2)),
        Machine(selection=bytes.fromhex("00000011")),
    ],
)
def test_bytes_that_are_no_quote_are_refused(machine: Machine) -> None:
    assert refusal_of(machine.evidence(a_binding())) is Reason.BAD_EVIDENCE


def test_bytes_left_over_are_refused() -> None:
    longer = Machine().evidence(a_binding()).quote + b"\0"
    assert refusal_of(signed(Machine(), longer)) is Reason.BAD_EVIDENCE


@pytest.mark.parametrize("size", [0, 3, 6, 50, 100, 144])
def test_a_quote_that_is_cut_short_is_refused(size: int) -> None:
    shorter = Machine().evidence(a_binding()).quote[:size]
    assert refusal_of(signed(Machine(), shorter)) is Reason.BAD_EVIDENCE


# 4


def test_a_signature_of_another_algorithm_is_refused() -> None:
    evidence = Machine().evidence(a_binding())
    for head in (b"\x00\x18\x00\x0c", b"\x00\x14\x00\x0b", b"\x00\x1b\x00\x0b"):
        assert refusal_of(replace(evidence, signature=head + evidence.signature[4:])) is Reason.EVIDENCE_SIGNATURE


@pytest.mark.parametrize(
    "key",
    [
        AK.without(Attributes.RESTRICTED),
        AK.without(Attributes.SIGN),
        AK.having(Attributes.DECRYPT),
        AK.without(Attributes.FIXED_TPM),
        AK.without(Attributes.FIXED_PARENT),
        AK.without(Attributes.SENSITIVE_DATA_ORIGIN),
    ],
)
def test_a_key_that_could_sign_what_others_wrote_is_never_an_attestation_key(key: SoftwareKey) -> None:
    evidence = Machine(ak=key).evidence(a_binding())
    assert refusal_of(evidence, enrolled=enrolled_as(key)) is Reason.BAD_EVIDENCE


def p384(template: bytes) -> bytes:
    """The same key on another curve."""
    return template[:16] + b"\x00\x04" + template[18:]


@pytest.mark.parametrize(
    "raw",
    [
        p384(AK.area.raw),
        AK.area.raw[:12] + b"\x00\x10" + AK.area.raw[16:],  # bound to no scheme
        AK.area.raw[:14] + b"\x00\x0c" + AK.area.raw[16:],  # ECDSA with SHA-384
    ],
)
def test_an_attestation_key_of_another_type_or_scheme_is_refused(raw: bytes) -> None:
    key = replace(AK, area=parse_area(raw))
    assert refusal_of(Machine(ak=key).evidence(a_binding()), enrolled=enrolled_as(key)) is Reason.BAD_EVIDENCE


# 5


def test_a_signature_by_another_key_is_refused() -> None:
    evidence = Machine().evidence(a_binding())
    forged = replace(evidence, signature=OTHER_AK.sign(evidence.quote))
    assert refusal_of(forged) is Reason.EVIDENCE_SIGNATURE


def test_a_high_s_is_refused() -> None:
    evidence = Machine().evidence(a_binding())
    raw = EcdsaSignature.parse(evidence.signature).raw
    high = (P256_ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    assert refusal_of(replace(evidence, signature=EcdsaSignature(raw[:32] + high).pack())) is Reason.EVIDENCE_SIGNATURE


@pytest.mark.parametrize("number", [0, P256_ORDER, 2**256 - 1])
@pytest.mark.parametrize("place", [0, 32])
def test_r_and_s_out_of_range_are_refused(number: int, place: int) -> None:
    evidence = Machine().evidence(a_binding())
    raw = bytearray(EcdsaSignature.parse(evidence.signature).raw)
    raw[place : place + 32] = number.to_bytes(32, "big")
    bad = replace(evidence, signature=EcdsaSignature(bytes(raw)).pack())
    assert refusal_of(bad) is Reason.EVIDENCE_SIGNATURE


def flips(data: bytes) -> list[bytes]:
    """Every way to change one bit."""
    number = int.from_bytes(data, "big")
    return [(number ^ 1 << bit).to_bytes(len(data), "big") for bit in range(8 * len(data))]


def test_every_single_bit_of_the_quote_matters() -> None:
    evidence = Machine().evidence(a_binding())
    assert len(evidence.quote) == 145
    for flipped in flips(evidence.quote):
        assert refusal_of(replace(evidence, quote=flipped)) in {Reason.BAD_EVIDENCE, Reason.EVIDENCE_SIGNATURE}


def test_every_single_bit_of_the_signature_matters() -> None:
    evidence = Machine().evidence(a_binding())
    assert len(evidence.signature) == 72
    for flipped in flips(evidence.signature):
        assert refusal_of(replace(evidence, signature=flipped)) is Reason.EVIDENCE_SIGNATURE


def test_every_single_bit_of_the_public_key_matters() -> None:
    evidence = Machine().evidence(a_binding())
    for flipped in flips(evidence.ak_public):
        assert refusal_of(replace(evidence, ak_public=flipped)) is Reason.ATTESTATION_KEY_MISMATCH


# 6


def test_a_key_under_another_parent_is_refused() -> None:
    evidence = Machine(qualified_signer=b"\x00\x0b" + sha256(b"elsewhere")).evidence(a_binding())
    assert refusal_of(evidence) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_certificate_without_a_qualified_name_is_refused() -> None:
    half = Enrolled(ak_name=AK.area.name, ak_qualified_name=None)
    evidence = Machine(qualified_signer=b"").evidence(a_binding())
    assert refusal_of(evidence, enrolled=half) is Reason.ATTESTATION_KEY_MISMATCH


# 7 and 8


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(a_binding(), nonce=sha256(b"another nonce")),
        replace(a_binding(), h=sha256(b"another link or epoch")),
        replace(a_binding(), epoch=2),
        replace(a_binding(), role=Role.OTHER),
        replace(a_binding(), verifier_leaf=sha256(b"another verifier")),
        replace(a_binding(), attester_leaf=sha256(b"another attester")),
        replace(a_binding(), mesh_id=sha256(b"another mesh")),
    ],
)
def test_a_quote_that_was_made_for_something_else_is_refused(elsewhere: Binding) -> None:
    assert refusal_of(Machine().evidence(elsewhere)) is Reason.EVIDENCE_NOT_BOUND


def test_other_claims_than_the_quoted_ones_are_refused() -> None:
    evidence = Machine().evidence(a_binding())
    lie = replace(evidence, claims=replace(tpm_claims(), software_version="9.9").pack())
    assert refusal_of(lie) is Reason.EVIDENCE_NOT_BOUND


@pytest.mark.parametrize("data", [b"", bytes(32), bytes(31)])
def test_other_qualifying_data_is_refused(data: bytes) -> None:
    assert refusal_of(signed(Machine(), Machine().attested(data))) is Reason.EVIDENCE_NOT_BOUND


@pytest.mark.parametrize(
    "change",
    [
        lambda evidence: replace(evidence, path=evidence.path[:-1]),
        lambda evidence: replace(evidence, path=(*evidence.path, bytes(32))),
        lambda evidence: replace(evidence, path=evidence.path[::-1]),
        lambda evidence: replace(evidence, index=(evidence.index + 1) % 5),
        lambda evidence: replace(evidence, count=6),
        lambda evidence: replace(evidence, index=5),
    ],
)
def test_another_place_in_the_tree_is_refused(change: Change) -> None:
    evidence = Machine().evidence(*(a_binding(number) for number in range(5)))
    check(evidence)
    assert refusal_of(change(evidence)) is Reason.EVIDENCE_NOT_BOUND


# 9


@pytest.mark.parametrize(
    "selection",
    [
        pack_selection(0),
        pack_selection(PCR_14 | 1),
        pack_selection(1 << 15),
        bytes.fromhex("00000000"),
        bytes.fromhex("000000010004") + pack_selection(PCR_14)[6:],  # the SHA-1 bank
        bytes.fromhex("00000002") + pack_selection(PCR_14)[4:] * 2,
    ],
)
def test_other_pcrs_or_banks_than_asked_for_are_refused(selection: bytes) -> None:
    assert refusal_of(Machine(selection=selection).evidence(a_binding())) is Reason.PCR_SELECTION


# 10


@pytest.mark.parametrize("digest", [b"", bytes(20), bytes(48)])
def test_a_pcr_digest_of_another_length_is_refused(digest: bytes) -> None:
    assert refusal_of(Machine(pcr_digest=digest).evidence(a_binding())) is Reason.PCR_MISMATCH


# 11


@pytest.mark.parametrize("previous", [None, (3, 1, 5_000), (3, 1, 4_999), (3, 0, 9_000), (2, 7, 9_000)])
def test_a_reboot_a_wake_and_time_that_passes_are_fine(previous: Clock | None) -> None:
    check(Machine().evidence(a_binding()), previous=previous)


@pytest.mark.parametrize("previous", [(4, 0, 0), (3, 2, 0), (3, 1, 5_001)])
def test_a_tpm_that_counts_down_is_refused(previous: Clock) -> None:
    assert refusal_of(Machine().evidence(a_binding()), previous=previous) is Reason.TPM_CLOCK


# parsers


@given(st.binary(max_size=300))
def test_any_bytes_are_a_structure_or_refused(data: bytes) -> None:
    for parse in (parse_quote, parse_certification):
        try:
            parse(data)
        except Refused as error:
            assert error.reason is Reason.BAD_EVIDENCE


@given(st.binary(max_size=120))
def test_any_rest_after_a_good_beginning_is_a_structure_or_refused(rest: bytes) -> None:
    for head in (Machine().header(bytes(32)), Machine(structure=b"\x80\x17").header(bytes(32))):
        for parse in (parse_quote, parse_certification):
            try:
                parse(head + rest)
            except Refused as error:
                assert error.reason is Reason.BAD_EVIDENCE


@given(st.binary(max_size=140), st.binary(max_size=200), st.binary(max_size=80), st.binary(max_size=90))
def test_any_evidence_is_refused(ak_public: bytes, quote: bytes, signature: bytes, claims: bytes) -> None:
    evidence = replace(
        Machine().evidence(a_binding()), claims=claims, ak_public=ak_public, quote=quote, signature=signature
    )
    named = Enrolled(ak_name=b"\x00\x0b" + sha256(ak_public), ak_qualified_name=AK_QUALIFIED)
    assert isinstance(refusal_of(evidence, enrolled=named), Reason)


def test_a_certification_is_no_quote_and_a_quote_no_certification() -> None:
    certification = Machine(structure=b"\x80\x17").header(bytes(32)) + sized(b"name") + sized(b"qualified")
    assert parse_certification(certification).name == b"name"
    with pytest.raises(Refused):
        parse_quote(certification)
    with pytest.raises(Refused):
        parse_certification(Machine().attested(bytes(32)))
