"""Enrolment by file: the request that a node writes and the bundle that it gets back, as text that survives mail.

    request = {0:1, 1:CSR, 2:EK public?, 3:AK public?, 4:identity public area?, 5:certify attest?,
               6:certify signature?, 7:parent name?}
    bundle  = {0:1, 1:mesh name, 2:root, 3:leaf, 4:[chain], 5:gate key number, 6:gate key, 7:signed policy,
               8:authority object}
    sealed  = {0:1, 1:credential blob, 2:encrypted secret, 3:nonce, 4:bundle under AES-256-GCM}

A request with TPM parts is answered by a sealed bundle: its key comes from the secret that TPM2_ActivateCredential
gives out, so only the TPM that holds both EK and AK can open it. Nothing is believed because it is in such a file.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from overlay.core.authority.objects import OBJECT_MAX
from overlay.core.limits import CHAIN_BYTES_MAX, CHAIN_DEPTH_MAX
from overlay.core.policy import POLICY_MAX
from overlay.core.wire import Array, Bytes, Maybe, Text, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import Label, Reason

FILE_MAX: Final = 512 * 1024  # characters: the largest bundle, armored
REQUEST_MAX: Final = 16 * 1024
BUNDLE_MAX: Final = OBJECT_MAX + POLICY_MAX + 4 * CHAIN_BYTES_MAX
SEALED_MAX: Final = BUNDLE_MAX + 4096
SECRET_SIZES: Final = (16, 64)  # bytes that MakeCredential can carry: our guess, at most the largest EK name's digest

_PUBLIC: Final = Bytes(1, 2048)  # a TPM public area with an RSA key has 314 bytes
_CERTIFICATE: Final = Bytes(1, CHAIN_BYTES_MAX)
_LINE: Final = 64  # RFC 7468, section 2
_ARMOR: Final = re.compile(r"-----BEGIN OVERLAY ([A-Z ]+)-----\n([A-Za-z0-9+/=\n]+)\n-----END OVERLAY ([A-Z ]+)-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmParts:
    """What shows that the identity key lives in the same TPM as EK and AK. TPM structures, opaque here."""

    ek_public: bytes = field(repr=False)
    ak_public: bytes = field(repr=False)
    identity_public: bytes = field(repr=False)
    certify_attest: bytes = field(repr=False)
    certify_signature: bytes = field(repr=False)
    parent_name: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What a node asks with; `tpm` is None where the identity key lies in a file."""

    csr: bytes = field(repr=False)  # PKCS#10 DER, not verified
    tpm: TpmParts | None = None

    def to_text(self) -> str:
        """The file."""
        tpm = self.tpm
        parts = () if tpm is None else (
            tpm.ek_public, tpm.ak_public, tpm.identity_public, tpm.certify_attest, tpm.certify_signature,
            tpm.parent_name,
        )
        return armor("REQUEST", make_map(self.csr, *parts))

    @classmethod
    def from_text(cls, text: str) -> "EnrolmentRequest":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        csr, *parts = open_map(
            unarmor("REQUEST", text), _CERTIFICATE, Maybe(_PUBLIC), Maybe(_PUBLIC), Maybe(_PUBLIC), Maybe(_PUBLIC),
            Maybe(_PUBLIC), Maybe(Bytes(4, 66)), limit=REQUEST_MAX,
        )
        if all(part is None for part in parts):
            return cls(csr)
        if any(part is None for part in parts):
            malformed("a request has all TPM parts or none")
        ek_public, ak_public, identity_public, attest, signature, parent_name = parts
        return cls(
            csr,
            TpmParts(
                ek_public=ek_public, ak_public=ak_public, identity_public=identity_public, certify_attest=attest,
                certify_signature=signature, parent_name=parent_name,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """All that a node needs to be a member, as it came: nothing verified."""

    mesh_name: str
    root: bytes = field(repr=False)  # DER
    leaf: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    gate_number: int
    gate_key: bytes = field(repr=False)  # 32
    policy: bytes = field(repr=False)  # signed
    authority_object: bytes = field(repr=False)

    def pack(self) -> bytes:
        """The plain bytes."""
        return make_map(
            self.mesh_name, self.root, self.leaf, list(self.chain), self.gate_number, self.gate_key, self.policy,
            self.authority_object,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Bundle":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        name, root, leaf, chain, gate_number, gate_key, policy, authority_object = open_map(
            data, Text(63), _CERTIFICATE, _CERTIFICATE, Array(_CERTIFICATE, CHAIN_DEPTH_MAX), UInt(), Bytes(32),
            Bytes(1, POLICY_MAX), Bytes(1, OBJECT_MAX), limit=BUNDLE_MAX,
        )
        return cls(
            mesh_name=name, root=root, leaf=leaf, chain=tuple(chain), gate_number=gate_number, gate_key=gate_key,
            policy=policy, authority_object=authority_object,
        )

    def to_text(self) -> str:
        """The file. It holds the gate key of the mesh: not for strangers' eyes."""
        return armor("BUNDLE", self.pack())

    @classmethod
    def from_text(cls, text: str) -> "Bundle":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        return cls.unpack(unarmor("BUNDLE", text))

    def seal(self, secret: bytes, *, credential_blob: bytes, encrypted_secret: bytes, nonce: bytes) -> "SealedBundle":
        """For the TPM for which MakeCredential wrapped `secret`. `nonce`: 12 bytes, fresh, as the secret must be."""
        ciphertext = AESGCM(_sealing_key(secret)).encrypt(nonce, self.pack(), Label.REQUEST)
        return SealedBundle(credential_blob, encrypted_secret, nonce, ciphertext)


@dataclass(frozen=True, slots=True)
class SealedBundle:
    """A bundle that only one TPM can open."""

    credential_blob: bytes = field(repr=False)
    encrypted_secret: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)

    def to_text(self) -> str:
        """The file."""
        data = make_map(self.credential_blob, self.encrypted_secret, self.nonce, self.ciphertext)
        return armor("SEALED BUNDLE", data)

    @classmethod
    def from_text(cls, text: str) -> "SealedBundle":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        fields = open_map(
            unarmor("SEALED BUNDLE", text), _PUBLIC, _PUBLIC, Bytes(12), Bytes(16, BUNDLE_MAX + 16), limit=SEALED_MAX
        )
        return cls(*fields)

    def open(self, secret: bytes) -> Bundle:
        """With the secret that the TPM gave out.

        Raises:
            Refused: BAD_SIGNATURE if it is another secret or a byte has changed; MALFORMED, TOO_LARGE or UNSUPPORTED.
        """
        try:
            plain = AESGCM(_sealing_key(secret)).decrypt(self.nonce, self.ciphertext, Label.REQUEST)
        except InvalidTag:
            raise Refused(Reason.BAD_SIGNATURE, "the bundle is for another TPM, or was changed") from None
        return Bundle.unpack(plain)


def read_bundle(text: str) -> Bundle | SealedBundle:
    """Either kind of bundle; raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    return SealedBundle.from_text(text) if "BEGIN OVERLAY SEALED" in text else Bundle.from_text(text)


def _sealing_key(secret: bytes) -> bytes:
    """32 bytes from the credential's secret (RFC 5869)."""
    low, high = SECRET_SIZES
    if not low <= len(secret) <= high:
        malformed(f"a credential's secret has {low} to {high} bytes")
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=Label.REQUEST).derive(secret)


# --- armor ----------------------------------------------------------------------------------------------------------


def armor(kind: str, data: bytes) -> str:
    """Base64 between a line BEGIN and a line END, as RFC 7468 has it."""
    text = base64.b64encode(data).decode()
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join((f"-----BEGIN OVERLAY {kind}-----", *lines, f"-----END OVERLAY {kind}-----", ""))


def unarmor(kind: str, text: str) -> bytes:
    """The bytes between the lines; text around them, line ends and trailing blanks do not matter.

    Raises:
        Refused: TOO_LARGE or MALFORMED.
    """
    if len(text) > FILE_MAX:
        raise Refused(Reason.TOO_LARGE, f"a file of {len(text)} characters where {FILE_MAX} are allowed")
    found = _ARMOR.search("\n".join(line.strip() for line in text.splitlines()))
    if found is None:
        malformed(f"there is no complete OVERLAY {kind} in the file")
    if found[1] != kind or found[3] != kind:
        malformed(f"the file holds an OVERLAY {found[1]} and not an OVERLAY {kind}")
    try:
        return base64.b64decode(found[2].replace("\n", ""), validate=True)
    except binascii.Error:
        malformed("not base64")
