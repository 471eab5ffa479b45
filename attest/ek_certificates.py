"""Certificates above an EK, out of what a TPM has stored: which are there, and which of them lead upwards from one."""

from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from attest.structures import der_of
from overlay.core.join_frames import EK_CERTIFICATE_MAX, EK_CHAIN_MAX

UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


def certificates_in(data: bytes) -> tuple[bytes, ...]:
    """DER values that stand one behind the other, up to what is none; filling between two is not expected."""
    found: list[bytes] = []
    while (der := der_of(data)) is not None:
        found.append(der)
        data = data[len(der) :]
    return tuple(found)


def chain_above(der: bytes, stored: Iterable[bytes]) -> tuple[bytes, ...]:
    """The issuer of a certificate, its issuer, and so on, by name, as far as JOIN has room; no signature is checked."""
    by_subject: dict[x509.Name, tuple[x509.Certificate, bytes]] = {}
    for one in stored:
        certificate = read_certificate(one)
        if certificate is not None and len(one) <= EK_CERTIFICATE_MAX:
            by_subject.setdefault(certificate.subject, (certificate, one))
    found: list[bytes] = []
    below = read_certificate(der)
    while below is not None and below.issuer in by_subject and len(found) < EK_CHAIN_MAX - 1:
        below, raw = by_subject.pop(below.issuer)
        found.append(raw)
    return tuple(found)


def read_certificate(der: bytes) -> x509.Certificate | None:
    """None for what cannot be read, names included."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.subject, certificate.issuer
    except UNREADABLE:
        return None
    return certificate
