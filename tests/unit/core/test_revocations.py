"""Revocation lists: one form, what they say, what they say together, and every way in which one is refused."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from overlay.core import certificate_profile as profile
from overlay.core import revocation_profile
from overlay.core.certificate_profile import common_name, seal
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import (
    LIST_LIFE,
    LIST_MAX,
    LIST_OID,
    LogEnd,
    Mark,
    RevocationReason,
    Revocations,
    key_hash,
    node_revocation,
    revocation_list_to_be_signed,
    serial_bytes,
)
from overlay.core.revocations import RevocationList, newest_of, numbers_used_twice, verify_revocation_list
from overlay.core.wire import encode, make_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, make_member, make_mesh
from tests.unit.core.revocation_kit import MARK, MINUTE, cross, facts_of, make_list, revoked, root_issuer

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
BOB = make_member(MESH, "bob", tpm_like=True)
SECOND = timedelta(seconds=1)
SERIAL = serial_bytes(BOB.peer.certificate.serial)
EARLIER = Mark(NOW - DAY, NOW - HOUR, RevocationReason.SUPERSEDED)
FULL = Revocations(
    nodes={bytes(BOB.node_id): MARK, bytes(ALICE.node_id): EARLIER},
    keys={key_hash(b"a key"): MARK},
    machines={bytes(32): MARK},
    serials={SERIAL: MARK, serial_bytes(ALICE.peer.certificate.serial): EARLIER},
    ends={(bytes(BOB.node_id), bytes(16)): LogEnd(7, bytes(32)), (bytes(BOB.node_id), bytes([1]) * 16): LogEnd(0, bytes(32))},
)


def refusal(action: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value


def read(der: bytes) -> RevocationList:
    return verify_revocation_list(der, [MESH.root])


def reason_for(der: bytes) -> Reason:
    return refusal(lambda: read(der)).reason


# --- what a list says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revocations", [Revocations(), FULL, revoked(BOB)])
def test_a_list_says_what_was_put_into_it(revocations: Revocations) -> None:
    der = make_list(MESH, revocations, number=9)
    found = read(der)
    assert found.facts == facts_of(revocations, number=9)
    assert (found.number, found.revocations) == (9, revocations)
    assert (found.der, found.hash) == (der, sha256(der))


@pytest.mark.parametrize("reason", RevocationReason)
def test_every_reason_comes_back(reason: RevocationReason) -> None:
    found = read(make_list(MESH, revoked(BOB, replace(MARK, reason=reason))))
    assert {mark.reason for mark in (*found.revocations.nodes.values(), *found.revocations.serials.values())} == {reason}
    assert "_" not in reason.words


def test_a_list_that_goes_beyond_2049_has_dates_of_the_other_form_and_is_read() -> None:
    late = datetime(2060, 1, 1, tzinfo=profile.UTC)
    mark = Mark(late - DAY, late - HOUR, RevocationReason.CESSATION)
    assert read(make_list(MESH, revoked(BOB, mark), this_update=late)).revocations == revoked(BOB, mark)


def test_a_node_is_revoked_by_id_with_its_serials_its_machine_and_the_ends_of_its_logs() -> None:
    found = node_revocation(
        BOB.node_id, MARK, serials=[SERIAL], machine=bytes([3]) * 32, ends={bytes(16): LogEnd(5, bytes([4]) * 32)}
    )
    assert found.nodes == {bytes(BOB.node_id): MARK}
    assert found.serials == {SERIAL: MARK}
    assert found.machines == {bytes([3]) * 32: MARK}
    assert found.ends == {(bytes(BOB.node_id), bytes(16)): LogEnd(5, bytes([4]) * 32)}
    assert node_revocation(BOB.node_id, MARK) == Revocations(nodes={bytes(BOB.node_id): MARK})


def test_other_tools_read_serials_dates_and_reasons() -> None:
    found = x509.load_der_x509_crl(make_list(MESH, FULL))
    entry = found.get_revoked_certificate_by_serial_number(BOB.peer.certificate.serial)
    assert entry is not None
    assert entry.revocation_date_utc == MARK.revoked
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc == MARK.since
    assert not any(extension.critical for extension in found.extensions)


def test_a_list_binds_before_its_time_and_after_it_and_says_whether_it_is_current() -> None:
    found = read(make_list(MESH, FULL))
    assert found.is_current(NOW - 5 * MINUTE)
    assert found.is_current(NOW + LIST_LIFE + 5 * MINUTE)
    assert not found.is_current(NOW - 5 * MINUTE - SECOND)
    assert not found.is_current(NOW + LIST_LIFE + 5 * MINUTE + SECOND)


def test_a_list_may_be_of_any_root_of_the_mesh() -> None:
    der = make_list(MESH, FULL, generation=1)
    later = replace(MESH.root, der=cross(MESH, 1), spki=root_issuer(MESH, 1).spki, public_key=key_one())
    assert verify_revocation_list(der, [MESH.root, later]).revocations == FULL
    assert reason_for(der) is Reason.BAD_REVOCATION_LIST


def key_one() -> bytes:
    return root_issuer(MESH, 1).spki[-32:]


# --- what is refused ------------------------------------------------------------------------------------------------


def test_one_flipped_bit_in_any_byte_is_refused() -> None:
    der = make_list(MESH, revoked(BOB))
    for place in range(len(der)):
        damaged = bytearray(der)
        damaged[place] ^= 1 << place % 8
        assert reason_for(bytes(damaged)) is Reason.BAD_REVOCATION_LIST


def test_a_list_of_another_mesh_is_refused() -> None:
    assert reason_for(make_list(make_mesh("other"), FULL)) is Reason.BAD_REVOCATION_LIST


def test_a_list_by_a_member_is_refused() -> None:
    content = revocation_list_to_be_signed(MESH.root.issuer, facts_of(FULL))
    assert reason_for(seal(content, profile.ED25519_OID, ALICE.signer.sign(content))) is Reason.BAD_REVOCATION_LIST


def test_what_is_larger_than_one_message_is_refused_before_it_is_read() -> None:
    assert reason_for(bytes(LIST_MAX + 1)) is Reason.TOO_LARGE
    assert reason_for(bytes(LIST_MAX)) is Reason.BAD_REVOCATION_LIST


def test_no_list_is_made_that_is_too_large_to_be_sent() -> None:
    node = (NodeId(sha256(number.to_bytes(4, "big"))) for number in range(23_000))
    with pytest.raises(ValueError, match="at most"):
        revocation_list_to_be_signed(MESH.root.issuer, facts_of(Revocations(nodes=dict.fromkeys(node, MARK))))


def ours(value: bytes | None = None) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(LIST_OID, Revocations().pack() if value is None else value)


def entry(**other: object) -> x509.RevokedCertificate:
    parts: dict[str, object] = {
        "serial": BOB.peer.certificate.serial, "reason": (x509.CRLReason(x509.ReasonFlags.key_compromise), False),
        "since": (x509.InvalidityDate(MARK.since.replace(tzinfo=None)), False), "extra": None, "revoked": MARK.revoked,
    } | other  # fmt: skip
    built = x509.RevokedCertificateBuilder().serial_number(parts["serial"]).revocation_date(parts["revoked"])  # type: ignore[arg-type]
    for name in ("reason", "since", "extra"):
        if parts[name] is not None:
            value, critical = parts[name]  # type: ignore[misc]
            built = built.add_extension(value, critical=critical)  # type: ignore[has-type]
    return built.build()


def builder(**other: object) -> bytes:
    """Our form written out a second time, with the parts in `other` replaced or, where None, left out; by the root."""
    parts: dict[str, object] = {
        "issuer": common_name("lab"), "next": NOW + LIST_LIFE, "entries": [entry()],
        "aki": (x509.AuthorityKeyIdentifier(sha256(MESH.root.spki), None, None), False),
        "number": (x509.CRLNumber(1), False), "ours": (ours(), False), "extra": None,
    }  # fmt: skip
    assert other.keys() <= parts.keys()
    parts |= other
    made = x509.CertificateRevocationListBuilder().issuer_name(parts["issuer"]).last_update(NOW).next_update(parts["next"])  # type: ignore[arg-type]
    for one in parts["entries"]:  # type: ignore[attr-defined]
        made = made.add_revoked_certificate(one)
    for name in ("aki", "number", "ours", "extra"):
        if parts[name] is not None:
            value, critical = parts[name]  # type: ignore[misc]
            made = made.add_extension(value, critical=critical)  # type: ignore[has-type]
    key: ed25519.Ed25519PrivateKey = MESH.authority.key.private_key
    return made.sign(key, None).public_bytes(Encoding.DER)


def test_the_form_written_out_a_second_time_gives_the_same_bytes() -> None:
    assert builder() == make_list(MESH, Revocations(serials={SERIAL: MARK}))
    assert read(builder()).revocations.serials == {SERIAL: MARK}


LATE = [[bytes(32), int((NOW + SECOND).timestamp()), int((NOW + SECOND).timestamp()), 1]]
MARKED = [[bytes(32), 0, 0, 1]]
DEFECTS: dict[str, dict[str, object]] = {
    "another issuer's name": {"issuer": common_name("other")},
    "no authority key identifier": {"aki": None},
    "another authority key identifier": {"aki": (x509.AuthorityKeyIdentifier(bytes(32), None, None), False)},
    "no number": {"number": None},
    "number 0": {"number": (x509.CRLNumber(0), False)},
    "a number that is too large": {"number": (x509.CRLNumber(2**63), False)},
    "a critical number": {"number": (x509.CRLNumber(1), True)},
    "our extension missing": {"ours": None},
    "our extension critical": {"ours": (ours(), True)},
    "our extension not CBOR": {"ours": (ours(b"\xff"), False)},
    "our extension of another format": {"ours": (ours(encode({0: 2, 1: [], 2: [], 3: [], 4: []})), False)},
    "nodes twice": {"ours": (ours(make_map(MARKED * 2, [], [], [])), False)},
    "nodes out of order": {"ours": (ours(make_map([[bytes([1]) * 32, 0, 0, 1], *MARKED], [], [], [])), False)},
    "an unknown reason": {"ours": (ours(make_map([[bytes(32), 0, 0, 6]], [], [], [])), False)},
    "a node revoked before it was bad": {"ours": (ours(make_map([[bytes(32), 1, 0, 1]], [], [], [])), False)},
    "a node revoked after the list": {"ours": (ours(make_map(LATE, [], [], [])), False)},
    "a machine revoked after the list": {"ours": (ours(make_map([], [], LATE, [])), False)},
    "a limited list": {"extra": (x509.IssuingDistributionPoint(None, None, True, False, None, False, False), True)},
    "another extension": {"extra": (x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.1"), b""), False)},
    "a delta": {"extra": (x509.DeltaCRLIndicator(1), True)},
    "a serial that is none of ours": {"entries": [entry(serial=1)]},
    "a serial twice": {"entries": [entry(), entry()]},
    "serials out of order": {"entries": [entry(serial=0x42 << 152), entry(serial=0x41 << 152)]},
    "an entry without a reason": {"entries": [entry(reason=None)]},
    "an entry on hold": {"entries": [entry(reason=(x509.CRLReason(x509.ReasonFlags.certificate_hold), False))]},
    "an entry that comes back": {"entries": [entry(reason=(x509.CRLReason(x509.ReasonFlags.remove_from_crl), False))]},
    "an entry without an invalidity date": {"entries": [entry(since=None)]},
    "an entry of another issuer": {
        "entries": [entry(extra=(x509.CertificateIssuer([x509.DirectoryName(common_name("lab"))]), True))]
    },
    "an entry revoked after the list": {"entries": [entry(revoked=NOW + SECOND)]},
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_list_by_the_root_that_is_not_of_our_form_is_refused(defect: str) -> None:
    assert reason_for(builder(**DEFECTS[defect])) is Reason.BAD_REVOCATION_LIST


def test_a_list_without_a_next_update_is_refused() -> None:
    content = x509.load_der_x509_crl(builder()).tbs_certlist_bytes
    dates = b"\x17\x0d260301120000Z"
    after = b"\x17\x0d260331120000Z"
    assert content.count(dates + after) == 1
    shorter = content.replace(dates + after, dates)
    assert shorter[:2] == b"\x30\x81"
    shorter = shorter[:2] + bytes([shorter[2] - len(after)]) + shorter[3:]
    again = seal(shorter, profile.ED25519_OID, MESH.authority.key.sign(shorter))
    assert x509.load_der_x509_crl(again).next_update_utc is None
    assert reason_for(again) is Reason.BAD_REVOCATION_LIST


def test_what_is_signed_but_no_list_at_all_is_refused() -> None:
    content = b"\x30\x03\x02\x01\x01"
    signed = seal(content, profile.ED25519_OID, MESH.authority.key.sign(content))
    assert reason_for(signed) is Reason.BAD_REVOCATION_LIST
    assert reason_for(ALICE.credentials.leaf) is Reason.BAD_REVOCATION_LIST


def test_facts_that_no_verifier_would_accept_are_our_own_mistake() -> None:
    good = facts_of(revoked(BOB))
    naive = replace(MARK, since=MARK.since.replace(tzinfo=None))
    elsewhere = replace(MARK, since=MARK.since.astimezone(timezone(HOUR)))
    for wrong in (
        {"number": 0},
        {"number": 2**63},
        {"next_update": NOW},
        {"this_update": NOW + timedelta(microseconds=1)},
        {"revocations": revoked(BOB, naive)},
        {"revocations": revoked(BOB, elsewhere)},
        {"revocations": revoked(BOB, replace(MARK, since=NOW, revoked=NOW - SECOND))},
        {"revocations": Revocations(keys={bytes(32): replace(MARK, revoked=NOW + SECOND)})},
        {"revocations": Revocations(serials={bytes(20): MARK})},
        {"revocations": Revocations(serials={bytes([0x40]) * 21: MARK})},
    ):
        with pytest.raises(ValueError, match=r"number|update|times|bad before|serial"):
            replace(good, **wrong)  # type: ignore[arg-type]


# --- what lists say together ----------------------------------------------------------------------------------------


def test_of_two_marks_and_of_two_ends_the_lower_one_counts() -> None:
    first = Revocations(nodes={bytes(32): MARK}, ends={(bytes(32), bytes(16)): LogEnd(7, bytes(32))})
    second = Revocations(nodes={bytes(32): EARLIER}, ends={(bytes(32), bytes(16)): LogEnd(6, bytes([9]) * 32)})
    for merged in (first.merged(second), second.merged(first)):
        assert merged.nodes == {bytes(32): EARLIER}
        assert merged.ends == {(bytes(32), bytes(16)): LogEnd(6, bytes([9]) * 32)}
    assert second.covers(first)
    assert not first.covers(second)


def test_a_newer_list_replaces_an_older_one_only_if_it_repeats_it() -> None:
    old, more, other = (
        read(make_list(MESH, what, number=number))
        for what, number in ((revoked(BOB), 1), (revoked(BOB).merged(revoked(ALICE)), 2), (revoked(ALICE), 3))
    )
    assert more.replaces(old)
    assert not old.replaces(more)
    assert not other.replaces(old)
    assert newest_of([old, more]) == newest_of([more, old]) == (more,)
    assert newest_of([other, old]) == (old, other)
    assert newest_of([old, old]) == (old,)


def test_two_lists_with_one_number_are_both_kept_and_told() -> None:
    first, second = (read(make_list(MESH, revoked(who), number=4)) for who in (ALICE, BOB))
    assert len(newest_of([first, second])) == 2
    assert numbers_used_twice([first, second]) == (4,)
    assert numbers_used_twice([first]) == ()
    both = read(make_list(MESH, revoked(ALICE).merged(revoked(BOB)), number=5))
    assert newest_of([first, second, both]) == (both,)
    longer = read(make_list(MESH, revoked(ALICE).merged(revoked(BOB)), number=4))
    assert len(newest_of([first, longer])) == 2


def test_an_empty_set_is_false_and_any_revocation_makes_it_true() -> None:
    assert not Revocations()
    for part in ({"nodes": {bytes(32): MARK}}, {"ends": {(bytes(32), bytes(16)): LogEnd(1, bytes(32))}}):
        assert Revocations(**part)  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    assert reason_for(data) is Reason.BAD_REVOCATION_LIST
    content = seal_if_possible(data)
    if content is not None:
        assert reason_for(content) is Reason.BAD_REVOCATION_LIST


def seal_if_possible(data: bytes) -> bytes | None:
    try:
        return seal(data, profile.ED25519_OID, MESH.authority.key.sign(data))
    except ValueError:
        return None


def test_the_size_of_a_list_fits_into_one_message_that_moves_trust() -> None:
    assert LIST_MAX + revocation_profile.SERIAL_SIZE < 1024 * 1024
