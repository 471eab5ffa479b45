"""How good a TPM is by its EK: which chains are believed, and which make no difference."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from attest.areas import EK_TEMPLATE, PublicArea, parse_area
from attest.endorsement_chain import EK_PURPOSE, EndorsementTrust, judge_endorsement_key, spki_of
from attest.structures import sized
from overlay.core.certificate_profile import ek_tag
from overlay.core.keys import MeshId
from overlay.core.policy import Policy
from overlay.errors import Refused, UsageError
from overlay.registry import Reason
from tests.unit.attest.software_tpm import EK, NOW, SoftwareKey

FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
EK_KEY = EK.private.public_key()


@dataclass(frozen=True, slots=True)
class Maker:
    """An authority of a maker of TPMs."""

    name: str
    key: ec.EllipticCurvePrivateKey
    der: bytes

    @classmethod
    def make(
        cls, name: str, number: int, above: "Maker | None" = None, *, ca: bool = True, signs: bool = True,
        path_length: int | None = None, until: datetime = FOREVER,
    ) -> "Maker":
        key = ec.derive_private_key(number, ec.SECP256R1())
        builder = (
            start(name, above or cls(name, key, b""), key.public_key(), until)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True)
            .add_extension(usage(signs=signs), critical=True)
        )
        return cls(name, key, (above or cls(name, key, b"")).sign(builder))

    def sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def certify(
        self, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey = EK_KEY, *, purpose: x509.ObjectIdentifier | None = EK_PURPOSE,
        ca: bool = False, until: datetime = FOREVER,
    ) -> bytes:
        """An EK certificate as makers write it: an empty subject, the TPM in a critical alternative name."""
        model = x509.Name([x509.NameAttribute(x509.ObjectIdentifier("2.23.133.2.2"), "model")])
        builder = start(None, self, key, until).add_extension(
            x509.SubjectAlternativeName([x509.DirectoryName(model)]), critical=True
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return self.sign(builder)


def start(
    name: str | None, issuer: Maker, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([] if name is None else [x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer.name)]))
        .public_key(key)
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(until)
    )


def usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )


ROOT = Maker.make("root", 101)
BETWEEN = Maker.make("between", 102, ROOT)
MESH = MeshId(bytes(32))
TRUST = EndorsementTrust(roots=(ROOT.der,))


def level_of(*chain: bytes, trust: EndorsementTrust = TRUST, ek: PublicArea = EK.area, at: datetime = NOW) -> int:
    level, warnings = judge_endorsement_key(ek, ek_tag(MESH, ek.name), chain, trust, at)
    assert (level == 2) == bool(warnings)
    return level


def test_an_ek_that_a_trusted_maker_has_certified_gives_level_4() -> None:
    assert level_of(ROOT.certify()) == 4
    assert level_of(BETWEEN.certify(), BETWEEN.der) == 4
    assert level_of(BETWEEN.certify(), BETWEEN.der, ROOT.der) == 4


def test_an_rsa_ek_that_a_trusted_maker_has_certified_gives_level_4() -> None:
    key = rsa.generate_private_key(65_537, 2048).public_key()
    assert level_of(BETWEEN.certify(key), BETWEEN.der, ek=rsa_area(key.public_numbers().n)) == 4


def rsa_area(modulus: int) -> PublicArea:
    head = b"\x00\x01\x00\x0b" + EK_TEMPLATE[4:42] + b"\x00\x06\x00\x80\x00\x43\x00\x10\x08\x00" + bytes(4)
    return parse_area(head + sized(modulus.to_bytes(256, "big")))


def test_an_ek_without_a_certificate_gives_level_2() -> None:
    assert level_of() == 2


def test_a_chain_to_an_unknown_root_gives_level_2() -> None:
    stranger = Maker.make("stranger", 103)
    assert level_of(stranger.certify()) == 2
    assert level_of(stranger.certify(), stranger.der) == 2
    assert level_of(ROOT.certify(), trust=EndorsementTrust()) == 2


def test_a_chain_to_another_key_under_the_name_of_a_trusted_root_gives_level_2() -> None:
    assert level_of(Maker.make("root", 104).certify()) == 2


def test_a_chain_that_misses_a_link_gives_level_2() -> None:
    assert level_of(BETWEEN.certify()) == 2


def test_a_listed_ek_gives_level_3() -> None:
    trust = EndorsementTrust(listed=frozenset({ek_tag(MESH, EK.area.name)}))
    assert level_of(trust=trust) == 3
    assert level_of(Maker.make("stranger", 103).certify(), trust=trust) == 3


def test_the_list_names_single_keys() -> None:
    assert level_of(trust=EndorsementTrust(listed=frozenset({ek_tag(MESH, SoftwareKey.make(EK_TEMPLATE, 99).area.name)}))) == 2


def test_a_makers_chain_is_more_than_the_list() -> None:
    trust = EndorsementTrust(roots=(ROOT.der,), listed=frozenset({ek_tag(MESH, EK.area.name)}))
    assert level_of(ROOT.certify(), trust=trust) == 4


def test_the_certificate_of_another_ek_is_a_lie() -> None:
    other = SoftwareKey.make(EK_TEMPLATE, 99)
    with pytest.raises(Refused) as refusal:
        level_of(ROOT.certify(other.private.public_key()))
    assert refusal.value.reason is Reason.BAD_EVIDENCE


@pytest.mark.parametrize("purpose", [ExtendedKeyUsageOID.CLIENT_AUTH, x509.ObjectIdentifier("2.23.133.8.3")])
def test_a_certificate_for_another_purpose_gives_level_2(purpose: x509.ObjectIdentifier) -> None:
    assert level_of(ROOT.certify(purpose=purpose)) == 2


def test_a_certificate_that_names_no_purpose_is_taken() -> None:
    assert level_of(ROOT.certify(purpose=None)) == 4


def test_an_authority_is_no_ek() -> None:
    assert level_of(ROOT.certify(ca=True)) == 2
    assert level_of(ROOT.certify(ca=True, purpose=None)) == 2


@pytest.mark.parametrize(
    "between",
    [
        Maker.make("between", 102, ROOT, ca=False),
        Maker.make("between", 102, ROOT, signs=False),
        Maker.make("between", 102, ROOT, until=NOW - timedelta(hours=1)),
    ],
)
def test_a_certificate_that_may_sign_none_gives_level_2(between: Maker) -> None:
    assert level_of(between.certify(), between.der) == 2


def test_a_certificate_that_does_not_say_what_it_is_signs_none() -> None:
    key = ec.derive_private_key(102, ec.SECP256R1())
    bare = Maker("between", key, ROOT.sign(start("between", ROOT, key.public_key(), FOREVER)))
    assert level_of(bare.certify(), bare.der) == 2


def test_a_root_that_allows_no_authority_below_it_is_obeyed() -> None:
    root = Maker.make("root", 101, path_length=0)
    below = Maker.make("between", 102, root)
    assert level_of(below.certify(), below.der, trust=EndorsementTrust(roots=(root.der,))) == 2


def test_a_certificate_that_has_expired_gives_level_2() -> None:
    assert level_of(ROOT.certify(until=NOW + timedelta(hours=1))) == 4
    assert level_of(ROOT.certify(until=NOW + timedelta(hours=1)), at=NOW + timedelta(hours=2)) == 2


@pytest.mark.parametrize("damage", [lambda der: b"", lambda der: der[:-1], lambda der: der + b"\0"])
def test_a_certificate_that_cannot_be_read_gives_level_2(damage: Callable[[bytes], bytes]) -> None:
    assert level_of(damage(ROOT.certify())) == 2
    assert level_of(BETWEEN.certify(), damage(BETWEEN.der)) == 2


def test_a_key_of_a_kind_that_cannot_be_read_gives_level_2() -> None:
    certificate = ROOT.certify()
    p256 = bytes.fromhex("06082a8648ce3d030107")
    assert certificate.count(p256) == 1
    assert level_of(certificate.replace(p256, p256[:-1] + b"\x7f")) == 2


def test_extensions_that_cannot_be_read_give_level_2() -> None:
    damaged = x509.UnrecognizedExtension(x509.ExtendedKeyUsage.oid, b"no list")
    assert level_of(ROOT.sign(start("ek", ROOT, EK_KEY, FOREVER).add_extension(damaged, critical=False))) == 2


def test_a_root_that_cannot_be_read_is_found_when_it_is_configured() -> None:
    with pytest.raises(UsageError):
        EndorsementTrust(roots=(b"no certificate",))


def test_an_ek_off_its_curve_is_no_key() -> None:
    raw = EK.area.raw
    with pytest.raises(Refused) as refusal:
        spki_of(parse_area(raw[:-1] + bytes([raw[-1] ^ 1])))
    assert refusal.value.reason is Reason.BAD_EVIDENCE


def test_the_policy_names_whom_to_trust_and_a_root_that_cannot_be_read_vouches_for_nobody() -> None:
    tag = ek_tag(MESH, EK.area.name)
    trust = EndorsementTrust.of(Policy(version=1, ek_roots=(b"no certificate", ROOT.der), ek_tags=(tag,)))
    assert trust == EndorsementTrust(roots=(ROOT.der,), listed=frozenset({tag}))
    assert EndorsementTrust.of(Policy(version=1)) == EndorsementTrust()


def test_the_tag_of_one_mesh_lists_nobody_in_another() -> None:
    elsewhere = EndorsementTrust(listed=frozenset({ek_tag(MeshId(b"\1" * 32), EK.area.name)}))
    assert level_of(trust=elsewhere) == 2
