"""How good a TPM is, by its endorsement key: unknown, on the operators' list, or certified by a maker they trust.

EK certificates (TCG EK Credential Profile 2.5, section 3) are X.509 as others make it: RSA or ECC, a critical name of the
TPM where a subject would stand, no purpose that a browser knows. `cryptography` checks the path; the EK's own certificate
is judged by the few things that matter here. Nothing is ever fetched: the joiner brings the chain along.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from attest.areas import PublicArea
from attest.credential import CURVES
from attest.levels import LISTED_TPM, UNKNOWN_TPM, VENDOR_TPM
from attest.structures import ALG_RSA, bad_evidence
from overlay.core.policy import Policy as MeshPolicy
from overlay.errors import UsageError

EK_PURPOSE: Final = x509.ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate: EK Credential Profile 2.5, 3.2.16
DEPTH_MAX: Final = 4  # certificates between the EK's and the root: our guess, vendors have one to three

_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


@dataclass(frozen=True, slots=True)
class EndorsementTrust:
    """What the operators have configured."""

    roots: tuple[bytes, ...] = field(default=(), repr=False)  # DER, of makers of TPMs
    listed: frozenset[bytes] = frozenset()  # tags of single EKs, see `ek_tag`

    def __post_init__(self) -> None:
        """Raises UsageError for a root that cannot be read: found when it is configured, not when somebody joins."""
        for der in self.roots:
            if _read(der) is None:
                raise UsageError("a root for endorsement keys is not a certificate", hint="give it in DER or PEM")

    @classmethod
    def of(cls, policy: MeshPolicy) -> "EndorsementTrust":
        """As the policy has it; a root that this machine cannot read vouches for nobody."""
        return cls(tuple(der for der in policy.ek_roots if _read(der) is not None), frozenset(policy.ek_tags))


def judge_endorsement_key(
    ek: PublicArea, tag: bytes, chain: Sequence[bytes], trust: EndorsementTrust, at: datetime
) -> tuple[int, tuple[str, ...]]:
    """The level, and why it is no higher. A chain that leads nowhere makes no harm; one for another key is a lie.

    Args:
        ek: the endorsement key.
        tag: `ek_tag` of its name in this mesh.
        chain: the EK's certificate, then those above it, DER.
        trust: what the operators say.
        at: now.

    Raises:
        Refused: BAD_EVIDENCE if the first certificate is readable and is not this EK's.
    """
    level, warnings = _by_chain(ek, chain, trust.roots, at)
    if level < LISTED_TPM and tag in trust.listed:
        level = LISTED_TPM
    return level, warnings if level == UNKNOWN_TPM else ()


def _by_chain(
    ek: PublicArea, chain: Sequence[bytes], roots: tuple[bytes, ...], at: datetime
) -> tuple[int, tuple[str, ...]]:
    if not chain:
        return UNKNOWN_TPM, ("the TPM has no EK certificate",)
    certificates = [_read(der) for der in chain]
    own = certificates[0]
    certified = None if own is None else _spki(own)
    if own is None or certified is None:
        return UNKNOWN_TPM, ("the EK certificate cannot be read",)
    if certified != spki_of(ek):
        bad_evidence("the EK certificate is for another key")
    if not _is_for_an_ek(own):
        return UNKNOWN_TPM, ("the certificate was not issued for an EK",)
    between = [one for one in certificates[1:] if one is not None]
    if not roots or not _leads_to(own, between, roots, at):
        return UNKNOWN_TPM, ("the EK certificate leads to no root that the operators trust",)
    return VENDOR_TPM, ()


def spki_of(ek: PublicArea) -> bytes:
    """SubjectPublicKeyInfo DER of the key in a public area; raises Refused(BAD_EVIDENCE) for what is no key."""
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    try:
        if ek.kind == ALG_RSA:
            key = rsa.RSAPublicNumbers(ek.exponent, int.from_bytes(ek.modulus, "big")).public_key()
        else:
            key = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[ek.curve], ek.point)
    except ValueError:
        bad_evidence("endorsement key: not a key")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _spki(certificate: x509.Certificate) -> bytes | None:
    """None for a key that cannot be read: some makers wrote RSA keys under an algorithm of their own (id-RSAES-OAEP)."""
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except _UNREADABLE:
        return None


def _is_for_an_ek(certificate: x509.Certificate) -> bool:
    """A maker's root may stand above other keys, too: no authority, and where a purpose is named, it must be this one."""
    try:
        found = {type(one.value): one.value for one in certificate.extensions}
    except _UNREADABLE:
        return False
    basic, purposes = found.get(x509.BasicConstraints), found.get(x509.ExtendedKeyUsage)
    if isinstance(basic, x509.BasicConstraints) and basic.ca:
        return False
    return not isinstance(purposes, x509.ExtendedKeyUsage) or EK_PURPOSE in purposes


def _leads_to(
    own: x509.Certificate, between: list[x509.Certificate], roots: tuple[bytes, ...], at: datetime
) -> bool:
    """Whether a path of good signatures, lives and authorities leads to one of the roots."""
    verifier = (
        PolicyBuilder()
        .store(_store(roots))
        .time(at)
        .max_chain_depth(DEPTH_MAX)
        .extension_policies(ca_policy=_authorities(), ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(own, between)
    except (VerificationError, *_UNREADABLE):
        return False
    return True


def _authorities() -> ExtensionPolicy:
    """Of those above: authorities (the library sees to that) that may sign certificates, whatever else they say."""
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _must_sign_certificates)
    )


def _must_sign_certificates(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an authority that signs no certificates")


@lru_cache(maxsize=4)
def _store(roots: tuple[bytes, ...]) -> Store:
    return Store([x509.load_der_x509_certificate(der) for der in roots])


def _read(der: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE:
        return None
