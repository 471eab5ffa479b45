"""The TPM part of a request for a certificate: what the node shows, and what the signer checks before it believes it.

The signer needs no TPM. It learns that a key which only ever lived in one TPM (the attestation key) vouches for the
identity key of the CSR: it lives in the same TPM. That this TPM holds the EK, and that there is a TPM at all, shows
only when the node opens what `make_credential` wrapped.
"""

from dataclasses import dataclass, field
from typing import Final

from attest.areas import Attributes, PublicArea, parse_area
from attest.credential import parse_endorsement_key
from attest.quote import check_signature, parse_certification
from attest.structures import ALG_ECC, ALG_SHA256, CURVE_P256, RH_ENDORSEMENT, RH_OWNER, bad_evidence
from overlay.core.keys import IdentityKey
from overlay.core.wire import lv, sha256
from overlay.errors import Refused
from overlay.registry import COSE_ES256, Label, Reason

NAME_SIZE: Final = 34  # the algorithm and a SHA-256


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmRequest:
    """What goes with a CSR whose key lives in a TPM."""

    ek_public: bytes = field(repr=False)
    ak_public: bytes = field(repr=False)
    identity_public: bytes = field(repr=False)
    parent_name: bytes = field(repr=False)  # of the storage key above the identity key
    attested: bytes = field(repr=False)  # TPM2_Certify of the identity key by the attestation key
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRequest:
    """What the signer may write into a certificate, and whom it makes the credential for."""

    ek: PublicArea
    ek_name: bytes
    ak_name: bytes
    ak_qualified_name: bytes


def ek_tag(mesh_id: bytes, ek_name: bytes) -> bytes:
    """32 bytes that stand for an EK within one mesh; a plain hash would track hardware across meshes."""
    return sha256(Label.EK, mesh_id, ek_name)


def certify_data(request: bytes, ak_name: bytes, ek_name: bytes) -> bytes:
    """The qualifying data of the certification: ties CSR, attestation key and EK together."""
    return sha256(Label.ATTEST_CERTIFY, lv(sha256(request), ak_name, ek_name))


def handle_name(handle: int) -> bytes:
    """The name of a hierarchy, the parent of a primary key: its handle."""
    return handle.to_bytes(4, "big")


def attestation_qualified_name(ek: PublicArea, ak: PublicArea) -> bytes:
    """The qualified name of an attestation key that is a child of the EK."""
    return ak.qualified_name(ek.qualified_name(handle_name(RH_ENDORSEMENT)))


def check_request(shown: TpmRequest, request: bytes, identity: IdentityKey) -> CheckedRequest:
    """Check all that a node shows about its TPM, for this CSR and the identity key in it.

    Raises:
        Refused: BAD_EVIDENCE for a key of the wrong kind, EVIDENCE_SIGNATURE, EVIDENCE_NOT_BOUND for another CSR,
            ATTESTATION_KEY_MISMATCH for names that do not fit.
    """
    ek = parse_endorsement_key(shown.ek_public)
    ak = parse_area(shown.ak_public)
    area = parse_area(shown.identity_public)
    check_identity_key(area, identity)
    check_signature(ak, shown.attested, shown.signature)
    certification = parse_certification(shown.attested)
    ak_qualified_name = attestation_qualified_name(ek, ak)
    if certification.header.qualified_signer != ak_qualified_name:
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "certified by a key that is not a child of the EK")
    if certification.header.extra_data != certify_data(request, ak.name, ek.name):
        raise Refused(Reason.EVIDENCE_NOT_BOUND, "certified for another request")
    if certification.name != area.name:
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "another key was certified")
    if certification.qualified_name != _identity_qualified_name(area, shown.parent_name):
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "the identity key does not live under that storage key")
    return CheckedRequest(ek=ek, ek_name=ek.name, ak_name=ak.name, ak_qualified_name=ak_qualified_name)


def check_identity_key(area: PublicArea, identity: IdentityKey) -> None:
    """A P-256 key made in the TPM, bound to it, that signs and nothing else, and is the one in the CSR."""
    if not area.is_kind(Attributes.SIGN):
        bad_evidence("identity key: attributes")
    if (area.kind, area.curve, area.name_algorithm) != (ALG_ECC, CURVE_P256, ALG_SHA256):
        bad_evidence("identity key: type")
    if identity.algorithm != COSE_ES256 or area.point != identity.public_key:
        raise Refused(Reason.ATTESTATION_KEY_MISMATCH, "the request is for another identity key")


def _identity_qualified_name(area: PublicArea, parent_name: bytes) -> bytes:
    """Under a primary storage key of the owner hierarchy with a SHA-256 name."""
    algorithm = ALG_SHA256.to_bytes(2, "big")
    if len(parent_name) != NAME_SIZE or not parent_name.startswith(algorithm):
        bad_evidence("name of the storage key")
    return area.qualified_name(algorithm + sha256(handle_name(RH_OWNER), parent_name))
