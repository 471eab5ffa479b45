"""Certificates: what is accepted, and every way in which something near it is refused."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from overlay.core import certificate_profile as profile
from overlay.core.certificate_profile import Issuer, LeafFacts, Life, seal, serial_number, spiffe_id
from overlay.core.certificates import VerifiedCertificate, parse_root, verify_leaf
from overlay.core.keys import Ed25519Signer, MeshId, NodeId, base32, verify_ed25519
from overlay.core.limits import CHAIN_BYTES_MAX, CLOCK_TOLERANCE
from overlay.core.wire import encode, make_map, sha256
from overlay.errors import Refused
from overlay.registry import CERTIFICATE_EXTENSION_OID, Reason
from tests.unit.core.authority_kit import DAY, HOUR, NOW, Mesh, P256Signer, make_member, make_mesh, seed
from tests.unit.core.mixed_order import add_order_two, sign_mixed

MESH = make_mesh()
ALICE = make_member(MESH, "alice")
TPM_FACTS = LeafFacts(
    roles=("operator", "signer"),
    person="Ann",
    level=2,
    ak_name=b"\0\x0b" + bytes(32),
    ak_qualified_name=b"\0\x0b" + bytes([1]) * 32,
    ek_tag=bytes([2]) * 32,
    policy_version=7,
)
SECOND = timedelta(seconds=1)
TOLERANCE = timedelta(seconds=CLOCK_TOLERANCE)


def refusal(action: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value


def reason_for(leaf: bytes, *chain: bytes, mesh: Mesh = MESH) -> Reason:
    return refusal(lambda: verify_leaf(leaf, chain, mesh.root, NOW)).reason


# --- what is accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tpm_like", [False, True])
def test_a_leaf_of_either_key_kind_is_accepted_and_says_what_was_issued(tpm_like: bool) -> None:
    member = make_member(MESH, "bob", facts=TPM_FACTS, tpm_like=tpm_like)
    found = verify_leaf(member.credentials.leaf, (), MESH.root, NOW)
    assert found.name == "bob"
    assert found.facts == TPM_FACTS
    assert (found.roles, found.level) == (("operator", "signer"), 2)
    assert (found.ak_name, found.ak_qualified_name) == (TPM_FACTS.ak_name, TPM_FACTS.ak_qualified_name)
    assert found.node_id == NodeId.of_key(member.signer.spki) == member.node_id
    assert found.hash == sha256(member.credentials.leaf)
    assert found.not_after - found.not_before == DAY
    assert found.serial == serial_number(MESH.mesh_id, member.node_id, found.not_before)


def test_the_root_names_the_mesh() -> None:
    root = parse_root(MESH.root.der)
    assert root == MESH.root
    assert root.name == "lab"
    assert root.mesh_id == MeshId.of_root(root.spki)
    assert root.life.not_after - root.life.not_before > timedelta(days=19 * 365)


def test_a_serial_is_positive_has_twenty_bytes_and_depends_on_mesh_node_and_begin() -> None:
    serials = {
        serial_number(mesh.mesh_id, node, begin)
        for mesh in (MESH, make_mesh("other"))
        for node in (bytes(32), bytes([1]) * 32)
        for begin in (NOW, NOW + SECOND)
    }
    assert len(serials) == 8
    assert all(0x40 <= serial >> 152 < 0x80 for serial in serials)


# --- times ----------------------------------------------------------------------------------------------------------


def test_five_minutes_of_wrong_clock_are_tolerated_and_not_more() -> None:
    leaf, certificate = ALICE.credentials.leaf, ALICE.peer.certificate
    verify_leaf(leaf, (), MESH.root, certificate.not_before - TOLERANCE)
    verify_leaf(leaf, (), MESH.root, certificate.not_after + TOLERANCE)
    early = refusal(lambda: verify_leaf(leaf, (), MESH.root, certificate.not_before - TOLERANCE - SECOND))
    late = refusal(lambda: verify_leaf(leaf, (), MESH.root, certificate.not_after + TOLERANCE + SECOND))
    assert early.reason is Reason.CERTIFICATE_NOT_YET_VALID
    assert late.reason is Reason.CERTIFICATE_EXPIRED


def test_an_error_about_time_shows_both_times_in_utc() -> None:
    error = refusal(lambda: verify_leaf(ALICE.credentials.leaf, (), MESH.root, NOW + 2 * DAY))
    assert "alice's certificate expired on 2026-03-02T11:59:00Z" in str(error)
    assert "it is now 2026-03-03T12:00:00Z" in str(error)


def test_nothing_counts_once_the_root_has_ended() -> None:
    end = MESH.root.life.not_after
    content = profile.leaf_to_be_signed(
        MESH.root.issuer, ALICE.signer.spki, "alice", LeafFacts(), Life.between(end, end + DAY)
    )
    leaf = seal(content, profile.ED25519_OID, MESH.authority.key.sign(content))
    error = refusal(lambda: verify_leaf(leaf, (), MESH.root, end + HOUR))
    assert error.reason is Reason.CERTIFICATE_EXPIRED
    assert "root" in str(error)


def test_a_leaf_that_lives_longer_than_seven_days_is_refused() -> None:
    life = Life.between(NOW, NOW + 7 * DAY + SECOND)
    content = profile.leaf_to_be_signed(MESH.root.issuer, ALICE.signer.spki, "alice", LeafFacts(), life)
    assert reason_for(seal(content, profile.ED25519_OID, MESH.authority.key.sign(content))) is Reason.BAD_CERTIFICATE


def test_a_life_has_two_aware_times_in_order() -> None:
    for begin, end in ((NOW, NOW), (NOW.replace(tzinfo=None), NOW), (NOW, NOW.replace(tzinfo=None))):
        with pytest.raises(ValueError, match="two aware times"):
            Life.between(begin, end)


# --- whose it is ----------------------------------------------------------------------------------------------------


def test_a_leaf_of_another_mesh_is_refused_as_such() -> None:
    stranger = make_member(make_mesh("other"), "alice")
    assert reason_for(stranger.credentials.leaf) is Reason.OTHER_MESH


def test_a_leaf_signed_by_another_key_in_the_name_of_our_root_is_refused() -> None:
    life = Life.between(NOW, NOW + DAY)
    content = profile.leaf_to_be_signed(MESH.root.issuer, ALICE.signer.spki, "alice", LeafFacts(), life)
    forged = seal(content, profile.ED25519_OID, Ed25519Signer(seed("thief")).sign(content))
    assert reason_for(forged) is Reason.BAD_CERTIFICATE


def test_a_member_cannot_issue_for_others() -> None:
    mallory = Ed25519Signer(seed("identity", "lab", "mallory"))
    own = make_member(MESH, "mallory").credentials.leaf
    issuer = Issuer(MESH.mesh_id, "mallory", mallory.spki)
    life = Life.between(NOW, NOW + DAY)
    content = profile.leaf_to_be_signed(issuer, ALICE.signer.spki, "alice", LeafFacts(roles=("operator",)), life)
    assert reason_for(seal(content, profile.ED25519_OID, mallory.sign(content)), own) is Reason.BAD_CERTIFICATE


def test_a_member_that_bears_the_name_of_the_mesh_cannot_issue_for_others_either() -> None:
    mallory = make_member(MESH, "lab")
    issuer = Issuer(MESH.mesh_id, "lab", mallory.signer.spki)
    content = profile.leaf_to_be_signed(
        issuer, ALICE.signer.spki, "alice", LeafFacts(roles=("operator",)), Life.between(NOW, NOW + DAY)
    )
    forged = seal(content, profile.ED25519_OID, mallory.signer.sign(content))
    assert reason_for(forged, mallory.credentials.leaf) is Reason.BAD_CERTIFICATE


def test_one_flipped_bit_in_any_byte_is_refused() -> None:
    for leaf in (ALICE.credentials.leaf, make_member(MESH, "bob", tpm_like=True, facts=TPM_FACTS).credentials.leaf):
        for place in range(len(leaf)):
            damaged = bytearray(leaf)
            damaged[place] ^= 1 << place % 8
            assert reason_for(bytes(damaged)) in (Reason.BAD_CERTIFICATE, Reason.OTHER_MESH)


def test_a_leaf_signed_by_another_kind_of_key_is_refused() -> None:
    forged = builder().sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
    assert reason_for(forged) is Reason.BAD_CERTIFICATE


# --- signed by the root, but not of our profile ---------------------------------------------------------------------


def builder(**other: object) -> x509.CertificateBuilder:
    """Our profile written out a second time, with the parts in `other` replaced or, where None, left out."""
    spki = ALICE.signer.spki
    parts: dict[str, object] = {
        "serial": serial_number(MESH.mesh_id, ALICE.node_id, NOW),
        "issuer": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")]),
        "subject": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")]),
        "key": ed25519.Ed25519PublicKey.from_public_bytes(ALICE.signer.public_key),
        "ski": x509.SubjectKeyIdentifier(sha256(spki)),
        "aki": x509.AuthorityKeyIdentifier(sha256(MESH.root.spki), None, None),
        "constraints": (x509.BasicConstraints(ca=False, path_length=None), True),
        "usage": (usage(), True),
        "purposes": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
        "san": uris(spiffe_id(MESH.mesh_id, ALICE.node_id)),
        "ours": ours(LeafFacts().pack()),
        "extra": None,
    }
    assert other.keys() <= parts.keys()
    parts |= other
    made = x509.CertificateBuilder().not_valid_before(NOW).not_valid_after(NOW + DAY)
    made = made.serial_number(parts["serial"]).issuer_name(parts["issuer"]).subject_name(parts["subject"])  # type: ignore[arg-type]
    made = made.public_key(parts["key"])  # type: ignore[arg-type]
    for name in ("ski", "aki", "constraints", "usage", "purposes", "san", "ours", "extra"):
        if parts[name] is not None:
            value, critical = parts[name] if isinstance(parts[name], tuple) else (parts[name], False)  # type: ignore[misc]
            made = made.add_extension(value, critical=critical)  # type: ignore[has-type]
    return made


def usage(**other: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**({name: name == "digital_signature" for name in names} | other))


def uris(*values: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(value) for value in values])


def ours(value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(CERTIFICATE_EXTENSION_OID), value)


def by_root(made: x509.CertificateBuilder) -> bytes:
    return made.sign(MESH.authority.key.private_key, None).public_bytes(Encoding.DER)


def test_the_profile_written_out_a_second_time_gives_the_same_bytes() -> None:
    issued = make_member(MESH, "alice", not_before=NOW).credentials.leaf
    assert by_root(builder()) == issued
    assert verify_leaf(issued, (), MESH.root, NOW).node_id == ALICE.node_id


BOB = NodeId(sha256(b"bob"))
NAME_OF_TWO = x509.Name(
    [x509.NameAttribute(NameOID.COMMON_NAME, "alice"), x509.NameAttribute(NameOID.COMMON_NAME, "bob")]
)
P384 = ec.generate_private_key(ec.SECP384R1()).public_key()
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()

DEFECTS: dict[str, dict[str, object]] = {
    "another serial": {"serial": 1},
    "another issuer's name": {"issuer": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])},
    "two common names": {"subject": NAME_OF_TWO},
    "no common name": {"subject": x509.Name([])},
    "a name that is none": {"subject": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Alice")])},
    "a country": {
        "subject": x509.Name(
            [x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, "alice")]
        )
    },
    "another key than the identifiers say": {"key": P256},
    "a key on P-384": {"key": P384},
    "an Ed448 key": {"key": ed448.Ed448PrivateKey.generate().public_key()},
    "an RSA key": {"key": rsa.generate_private_key(65537, 2048).public_key()},
    "an authority": {"constraints": (x509.BasicConstraints(ca=True, path_length=None), True)},
    "constraints not critical": {"constraints": x509.BasicConstraints(ca=False, path_length=None)},
    "no constraints": {"constraints": None},
    "leave to sign certificates": {"usage": (usage(key_cert_sign=True), True)},
    "usage not critical": {"usage": usage()},
    "no usage": {"usage": None},
    "another purpose": {"purposes": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])},
    "no purposes": {"purposes": None},
    "another subject key identifier": {"ski": x509.SubjectKeyIdentifier(bytes(32))},
    "no subject key identifier": {"ski": None},
    "another authority key identifier": {"aki": x509.AuthorityKeyIdentifier(bytes(32), None, None)},
    "no authority key identifier": {"aki": None},
    "another node's id": {"san": uris(spiffe_id(MESH.mesh_id, BOB))},
    "two ids": {"san": uris(spiffe_id(MESH.mesh_id, ALICE.node_id), spiffe_id(MESH.mesh_id, BOB))},
    "a critical alternative name": {"san": (uris(spiffe_id(MESH.mesh_id, ALICE.node_id)), True)},
    "a DNS name too": {
        "san": x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(spiffe_id(MESH.mesh_id, ALICE.node_id)), x509.DNSName("alice.example")]
        )
    },
    "no id": {"san": None},
    "our extension critical": {"ours": (ours(LeafFacts().pack()), True)},
    "our extension missing": {"ours": None},
    "our extension not CBOR": {"ours": ours(b"\xff")},
    "our extension of another format": {"ours": ours(encode({0: 2, 1: [], 3: 1, 7: 1}))},
    "our extension too long": {"ours": ours(bytes(4096))},
    "another extension": {"extra": x509.OCSPNoCheck()},
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_certificate_by_the_root_that_is_not_of_our_profile_is_refused(defect: str) -> None:
    assert reason_for(by_root(builder(**DEFECTS[defect]))) is Reason.BAD_CERTIFICATE


def test_a_certificate_by_the_root_for_another_mesh_is_refused() -> None:
    elsewhere = uris(spiffe_id(make_mesh("other").mesh_id, ALICE.node_id))
    assert reason_for(by_root(builder(san=elsewhere))) is Reason.OTHER_MESH


# --- the envelope ---------------------------------------------------------------------------------------------------


def test_an_envelope_that_is_not_ours_is_refused() -> None:
    leaf = ALICE.credentials.leaf
    signed = profile.open_signed(leaf)
    content, signature = leaf_content(leaf), signed.signature.as_bytes()
    for changed in (
        seal(content, profile.ED25519_OID, signature + b"\0"),
        seal(content, profile.ED25519_OID, signature[:63]),
        seal(content, x509.ObjectIdentifier("1.3.101.113"), signature),
        leaf + b"\0",
        b"",
        b"\x30\x00",
    ):
        assert reason_for(changed) is Reason.BAD_CERTIFICATE
    assert seal(content, profile.ED25519_OID, signature) == leaf


def leaf_content(leaf: bytes) -> bytes:
    return x509.load_der_x509_certificate(leaf).tbs_certificate_bytes


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    assert reason_for(bytes(CHAIN_BYTES_MAX + 1)) is Reason.BAD_CERTIFICATE
    assert refusal(lambda: parse_root(bytes(CHAIN_BYTES_MAX + 1))).reason is Reason.BAD_CERTIFICATE


# --- chains of roots ------------------------------------------------------------------------------------------------


def key_of(generation: int) -> Ed25519Signer:
    """The mesh key of a generation; 0 is the founding one."""
    return MESH.authority.key if generation == 0 else Ed25519Signer(seed("root", str(generation)))


def issuer_of(generation: int) -> Issuer:
    return Issuer(MESH.mesh_id, "lab", key_of(generation).spki)


def cross(
    generation: int, *, name: str = "lab", life: Life | None = None, signer: Ed25519Signer | None = None
) -> bytes:
    """The certificate of the root of a generation by the one before."""
    content = profile.authority_to_be_signed(
        issuer_of(generation - 1), key_of(generation).spki, name, life or Life.between(NOW - HOUR, NOW + 100 * DAY)
    )
    return seal(content, profile.ED25519_OID, (signer or key_of(generation - 1)).sign(content))


def leaf_under(generation: int) -> bytes:
    content = profile.leaf_to_be_signed(
        issuer_of(generation), ALICE.signer.spki, "alice", LeafFacts(), Life.between(NOW, NOW + DAY)
    )
    return seal(content, profile.ED25519_OID, key_of(generation).sign(content))


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_leaf_of_a_later_root_is_accepted_with_the_chain_to_the_founding_one(generation: int) -> None:
    chain = [cross(number) for number in range(generation, 0, -1)]
    found = verify_leaf(leaf_under(generation), chain, MESH.root, NOW)
    assert isinstance(found, VerifiedCertificate)
    assert found.node_id == ALICE.node_id


def test_a_chain_with_a_gap_the_wrong_order_or_too_much_is_refused() -> None:
    assert reason_for(leaf_under(2), cross(2)) is Reason.BAD_CERTIFICATE
    assert reason_for(leaf_under(2), cross(1), cross(2)) is Reason.BAD_CERTIFICATE
    assert reason_for(leaf_under(1)) is Reason.BAD_CERTIFICATE
    assert reason_for(leaf_under(0), cross(1)) is Reason.BAD_CERTIFICATE
    assert reason_for(leaf_under(1), cross(1), MESH.root.der) is Reason.BAD_CERTIFICATE


def test_a_chain_deeper_than_twelve_or_longer_than_its_limit_is_refused() -> None:
    deep = [cross(number) for number in range(13, 0, -1)]
    assert reason_for(leaf_under(13), *deep) is Reason.BAD_CERTIFICATE
    assert reason_for(leaf_under(0), bytes(CHAIN_BYTES_MAX)) is Reason.BAD_CERTIFICATE


def test_a_later_root_by_a_stranger_of_another_name_or_out_of_date_is_refused() -> None:
    assert reason_for(leaf_under(1), cross(1, signer=Ed25519Signer(seed("thief")))) is Reason.BAD_CERTIFICATE
    assert reason_for(leaf_under(1), cross(1, name="other")) is Reason.BAD_CERTIFICATE
    old = Life.between(NOW - 2 * DAY, NOW - DAY)
    assert reason_for(leaf_under(1), cross(1, life=old)) is Reason.CERTIFICATE_EXPIRED
    young = Life.between(NOW + DAY, NOW + 2 * DAY)
    assert reason_for(leaf_under(1), cross(1, life=young)) is Reason.CERTIFICATE_NOT_YET_VALID


def test_a_later_root_that_is_the_same_key_again_is_refused() -> None:
    content = profile.authority_to_be_signed(issuer_of(0), key_of(0).spki, "lab", MESH.root.life)
    again = seal(content, profile.ED25519_OID, key_of(0).sign(content))
    assert reason_for(leaf_under(0), again) is Reason.BAD_CERTIFICATE


# --- roots ----------------------------------------------------------------------------------------------------------


def root_reason(der: bytes) -> Reason:
    return refusal(lambda: parse_root(der)).reason


def test_a_leaf_or_a_cross_certificate_is_no_root() -> None:
    assert root_reason(ALICE.credentials.leaf) is Reason.BAD_CERTIFICATE
    assert root_reason(cross(1)) is Reason.BAD_CERTIFICATE


def test_a_root_not_signed_by_itself_is_refused() -> None:
    content = leaf_content(MESH.root.der)
    forged = seal(content, profile.ED25519_OID, Ed25519Signer(seed("thief")).sign(content))
    assert root_reason(forged) is Reason.BAD_CERTIFICATE


@pytest.mark.filterwarnings("ignore:Parsed a serial")
def test_a_root_with_one_flipped_bit_in_any_byte_is_refused() -> None:
    for place in range(len(MESH.root.der)):
        damaged = bytearray(MESH.root.der)
        damaged[place] ^= 1 << place % 8
        assert root_reason(bytes(damaged)) is Reason.BAD_CERTIFICATE


def test_a_root_on_another_curve_or_on_a_point_of_small_order_is_refused() -> None:
    key = P256Signer(seed("p256 root"))
    life = Life.between(NOW, NOW + DAY)
    content = profile.authority_to_be_signed(Issuer(MeshId.of_root(key.spki), "lab", key.spki), key.spki, "lab", life)
    assert root_reason(seal(content, profile.ED25519_OID, bytes(64))) is Reason.BAD_CERTIFICATE
    point = ed25519.Ed25519PublicKey.from_public_bytes(bytes([1]) + bytes(31))
    spki = point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    content = profile.authority_to_be_signed(Issuer(MeshId.of_root(spki), "lab", spki), spki, "lab", life)
    assert root_reason(seal(content, profile.ED25519_OID, bytes([1]) + bytes(63))) is Reason.BAD_CERTIFICATE


def test_a_root_whose_key_is_not_of_prime_order_is_refused_although_its_signature_verifies() -> None:
    secret = seed("mixed")
    public = add_order_two(Ed25519Signer(secret).public_key)
    key = ed25519.Ed25519PublicKey.from_public_bytes(public)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    issuer = Issuer(MeshId.of_root(spki), "lab", spki)
    content = profile.authority_to_be_signed(issuer, spki, "lab", Life.between(NOW, NOW + DAY))
    root = seal(content, profile.ED25519_OID, sign_mixed(secret, public, content))
    verify_ed25519(public, profile.open_signed(root).signature.as_bytes(), content)
    assert "not a good Ed25519 key" in str(refusal(lambda: parse_root(root)))


def test_a_self_signed_authority_that_is_not_of_our_profile_is_no_root() -> None:
    key = MESH.authority.key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    made = (
        x509.CertificateBuilder()
        .serial_number(1)
        .issuer_name(name)
        .subject_name(name)
        .public_key(key.private_key.public_key())
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    assert root_reason(made.sign(key.private_key, None).public_bytes(Encoding.DER)) is Reason.BAD_CERTIFICATE


# --- facts ----------------------------------------------------------------------------------------------------------


@given(
    st.builds(
        LeafFacts,
        roles=st.sets(st.sampled_from(["operator", "signer", "worker", "a", "x-1"])).map(sorted).map(tuple),
        person=st.none() | st.text(max_size=30),
        level=st.integers(0, 5),
        ek_tag=st.none() | st.binary(min_size=32, max_size=32),
        policy_version=st.integers(0, 2**63),
    )
)
def test_facts_are_read_as_they_were_written(facts: LeafFacts) -> None:
    assert LeafFacts.unpack(facts.pack()) == facts


@pytest.mark.parametrize(
    "values",
    [
        (["b", "a"], None, 1, None, None, None, 1),  # not sorted
        (["a", "a"], None, 1, None, None, None, 1),  # twice
        (["A"], None, 1, None, None, None, 1),  # not a role
        ([f"r{number:02}" for number in range(17)], None, 1, None, None, None, 1),  # too many
        ([], "x" * 129, 1, None, None, None, 1),
        ([], None, 6, None, None, None, 1),
        ([], None, None, None, None, None, 1),
        ([], None, 1, bytes(34), None, None, 1),  # a name without the qualified name
        ([], None, 1, None, bytes(34), None, 1),
        ([], None, 1, bytes(33), bytes(34), None, 1),
        ([], None, 1, None, None, bytes(31), 1),
        ([], None, 1, None, None, None, 1, 1),  # a field too many
    ],
)
def test_facts_of_another_form_are_refused(values: tuple[object, ...]) -> None:
    assert refusal(lambda: LeafFacts.unpack(make_map(*values))).reason is Reason.MALFORMED


def test_the_tag_of_a_machine_differs_from_mesh_to_mesh() -> None:
    assert profile.ek_tag(MESH.mesh_id, b"ek") != profile.ek_tag(make_mesh("other").mesh_id, b"ek")


@pytest.mark.parametrize("name", ["a", "7", "a-b", "a" * 63])
def test_a_name(name: str) -> None:
    assert profile.is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a\n", "a" * 64])
def test_not_a_name(name: str) -> None:
    assert not profile.is_name(name)


def test_the_spiffe_id_is_of_52_letters_each() -> None:
    text = spiffe_id(MESH.mesh_id, ALICE.node_id)
    assert text == f"spiffe://{base32(MESH.mesh_id)}/node/{base32(ALICE.node_id)}"
    assert len(base32(MESH.mesh_id)) == 52


# --- any bytes ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.lists(st.binary(max_size=50), max_size=4))
def test_any_bytes_are_refused_and_nothing_else(data: bytes, chain: list[bytes]) -> None:
    refusal(lambda: verify_leaf(data, chain, MESH.root, NOW))
    refusal(lambda: parse_root(data))


@given(st.data())
def test_a_change_of_content_is_refused_even_under_the_roots_signature_unless_it_says_something_else(
    data: st.DataObject,
) -> None:
    content = bytearray(leaf_content(ALICE.credentials.leaf))
    place = data.draw(st.integers(0, len(content) - 1))
    before = bytes(content)
    content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    if bytes(content) == before:
        return
    try:
        changed = seal(bytes(content), profile.ED25519_OID, MESH.authority.key.sign(bytes(content)))
    except ValueError:
        return  # not DER at all: covered by the test above
    certificate = ALICE.peer.certificate
    try:
        found = verify_leaf(changed, (), MESH.root, NOW)
    except Refused:
        return
    said = (certificate.name, certificate.facts, certificate.not_before, certificate.not_after)
    assert (found.name, found.facts, found.not_before, found.not_after) != said


@pytest.mark.filterwarnings("ignore:Parsed a serial")
@given(st.data())
def test_a_root_with_any_change_inside_is_refused_and_nothing_else(data: st.DataObject) -> None:
    content = bytearray(MESH.root.der)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    refusal(lambda: parse_root(bytes(content)))
