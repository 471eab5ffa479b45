"""A TPM made of Python for tests: it writes the same structures, and lets a test make one thing wrong at a time."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attest.areas import AK_TEMPLATE, EK_TEMPLATE, IDENTITY_TEMPLATE, SRK_TEMPLATE, Attributes, PublicArea, parse_area
from attest.enrol import TpmRequest, attestation_qualified_name, certify_data, handle_name
from attest.evidence import Claims, Proof, prove_all
from attest.structures import RH_OWNER, EcdsaSignature, pack_selection, sized
from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificates import VerifiedCertificate
from overlay.core.endorsement import Endorsement
from overlay.core.evidence import Binding, Evidence
from overlay.core.keys import Ed25519Signer, IdentityKey, NodeId
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import sha256
from overlay.registry import EvidenceKind, Role

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PCR_14 = 1 << 14
GOOD_PCRS = sha256(b"the value of PCR 14")
MESH = sha256(b"mesh")


@dataclass(frozen=True, slots=True)
class SoftwareKey:
    """A P-256 key with the public area that a template would give it."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    area: PublicArea

    @classmethod
    def make(cls, template: bytes, number: int) -> "SoftwareKey":
        private = ec.derive_private_key(number, ec.SECP256R1())
        numbers = private.public_key().public_numbers()
        head = template[: -len(parse_area(template).x) * 2 - 4]
        point = sized(numbers.x.to_bytes(32, "big")) + sized(numbers.y.to_bytes(32, "big"))
        return cls(private, parse_area(head + point))

    def with_attributes(self, attributes: int) -> "SoftwareKey":
        raw = self.area.raw
        return replace(self, area=parse_area(raw[:4] + attributes.to_bytes(4, "big") + raw[8:]))

    def without(self, attribute: Attributes) -> "SoftwareKey":
        return self.with_attributes(self.area.attributes & ~attribute)

    def having(self, attribute: Attributes) -> "SoftwareKey":
        return self.with_attributes(self.area.attributes | attribute)

    @property
    def identity(self) -> IdentityKey:
        spki = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return IdentityKey.parse(spki)

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return EcdsaSignature.lowered(r.to_bytes(32, "big"), s.to_bytes(32, "big")).pack()


EK = SoftwareKey.make(EK_TEMPLATE, 11)
AK = SoftwareKey.make(AK_TEMPLATE, 12)
SRK = SoftwareKey.make(SRK_TEMPLATE, 13)
IDENTITY = SoftwareKey.make(IDENTITY_TEMPLATE, 14)
OTHER_AK = SoftwareKey.make(AK_TEMPLATE, 15)
AK_QUALIFIED = attestation_qualified_name(EK.area, AK.area)
MESSAGE = Ed25519Signer(sha256(b"message key"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the TPM says of itself in a quote."""

    ak: SoftwareKey = AK
    qualified_signer: bytes = AK_QUALIFIED
    magic: bytes = bytes.fromhex("ff544347")
    structure: bytes = bytes.fromhex("8018")
    clock: tuple[int, int, int] = (3, 1, 5_000)  # reset count, restart count, milliseconds
    safe: int = 1
    selection: bytes = pack_selection(PCR_14)
    pcr_digest: bytes = GOOD_PCRS
    firmware: int = 0

    def header(self, data: bytes) -> bytes:
        reset_count, restart_count, clock = self.clock
        return (
            self.magic + self.structure + sized(self.qualified_signer) + sized(data) + clock.to_bytes(8, "big")
            + reset_count.to_bytes(4, "big") + restart_count.to_bytes(4, "big") + bytes([self.safe])
            + self.firmware.to_bytes(8, "big")
        )

    def attested(self, data: bytes) -> bytes:
        return self.header(data) + self.selection + sized(self.pcr_digest)

    def quote(self, data: bytes) -> Proof:
        attested = self.attested(data)
        return Proof(ak_public=self.ak.area.raw, quote=attested, signature=self.ak.sign(attested))

    def evidence(self, *bindings: Binding, claims: bytes | None = None) -> Evidence:
        """For the first binding, in a tree with the others."""
        return prove_all(bindings, claims or tpm_claims().pack(), self.quote)[0]


def show(*, ak: SoftwareKey = AK, identity: SoftwareKey = IDENTITY, request: bytes = b"csr") -> TpmRequest:
    """A good TPM's part of a request, made with these keys."""
    data = certify_data(request, ak.area.name, EK.area.name)
    qualified = identity.area.qualified_name(SRK.area.qualified_name(handle_name(RH_OWNER)))
    signer = attestation_qualified_name(EK.area, ak.area)
    machine = Machine(structure=bytes.fromhex("8017"), qualified_signer=signer)
    attested = machine.header(data) + sized(identity.area.name) + sized(qualified)
    return TpmRequest(
        ek_public=EK.area.raw, ak_public=ak.area.raw, identity_public=identity.area.raw,
        parent_name=SRK.area.name, attested=attested, signature=ak.sign(attested),
    )


def tpm_claims(pcr_bitmap: int = PCR_14) -> Claims:
    return Claims(
        software_version="0.1",
        policy_version=1,
        kind=EvidenceKind.TPM,
        pcr_bitmap=pcr_bitmap,
        manifest=sha256(b"files"),
    )


def software_claims() -> Claims:
    return replace(tpm_claims(0), kind=EvidenceKind.SOFTWARE)


def a_binding(number: int = 0) -> Binding:
    return Binding(
        mesh_id=MESH,
        h=sha256(b"h"),
        role=Role.OPENER,
        attester_leaf=sha256(b"attester"),
        verifier_leaf=sha256(b"verifier"),
        nonce=number.to_bytes(32, "big"),
        epoch=1,
    )


def a_peer(facts: LeafFacts) -> VerifiedPeer:
    """A peer with this certificate, whose message key is MESSAGE."""
    node_id, life = NodeId(IDENTITY.identity.node_id), (NOW, NOW + timedelta(hours=24))
    certificate = VerifiedCertificate(
        der=b"",
        hash=bytes(32),
        node_id=node_id,
        name="bob",
        facts=facts,
        identity=IDENTITY.identity,
        not_before=life[0],
        not_after=life[1],
        serial=1,
    )
    endorsement = Endorsement(
        node_id=node_id, leaf_hash=bytes(32), noise_public=bytes(32), message_public=MESSAGE.public_key,
        start_id=bytes(16), not_before=life[0], not_after=life[1], witness_public=None, raw=b"", hash=sha256(b"kid"),
    )
    return VerifiedPeer(certificate, endorsement)


TPM_PEER = a_peer(LeafFacts(level=2, ak_name=AK.area.name, ak_qualified_name=AK_QUALIFIED))
SOFTWARE_PEER = a_peer(LeafFacts(level=1))
