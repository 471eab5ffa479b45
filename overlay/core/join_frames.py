"""The bodies of JOIN, JOIN_CHALLENGE, JOIN_ANSWER and RENEWAL: formats only (docs/protocol/joining.md).

What the TPM parts mean is known in `attest/`; here they are bytes of a bounded size.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from overlay.core.certificate_profile import TPM_NAME
from overlay.core.keys import NodeId
from overlay.core.limits import CHAIN_BYTES_MAX, GUEST_BYTES_MAX, NONCE_SIZE
from overlay.core.wire import Array, Bytes, Maybe, Text, UInt, make_map, malformed, open_map

INVITE_MAX: Final = 4096  # our guess: an invite has some 400 bytes
EK_CHAIN_MAX: Final = 5  # our guess: vendors' chains have two to four certificates
EK_CERTIFICATE_MAX: Final = 4096  # our guess: they have 1 to 2 KiB
PUBLIC_MAX: Final = 512  # of a TPM public area: RSA-2048 takes 314 bytes
ATTESTED_MAX: Final = 512  # TPMS_ATTEST: a quote takes 145 bytes, a certification 161
SIGNATURE_MAX: Final = 128  # TPMT_SIGNATURE: ECDSA takes 72 bytes
SIGNERS_MAX: Final = 64  # our guess: far above any useful n
NAME_MAX: Final = 63
SERIAL_SIZE: Final = 20
RENEWAL_MAX: Final = 16 * 1024  # the largest request and a full list of approvers
SECONDS_MAX: Final = 253_402_300_799  # the end of the year 9999, as far as certificates and datetime reach

_AREA: Final = Bytes(1, PUBLIC_MAX)
_CSR: Final = Bytes(1, CHAIN_BYTES_MAX)
_ID: Final = Bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTpm:
    """What a joiner shows of its TPM before it is challenged."""

    ek_public: bytes = field(repr=False)
    ek_chain: tuple[bytes, ...] = field(default=(), repr=False)  # DER, the EK's own certificate first
    ak_public: bytes = field(repr=False)
    identity_public: bytes = field(repr=False)
    parent_name: bytes = field(repr=False)  # of the storage key above the identity key
    boot_log_hash: bytes = b""  # 32 bytes; none where there are no logs: that is a state for the policy to judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """JOIN{invite, csr, proof, not_before, name?, EK public?, EK chain?, AK public?, identity public?, parent?,
    H(boot log)?}. The logs follow in parts, when a signer asks for them."""

    invite: bytes = field(repr=False)  # COSE, not verified
    csr: bytes = field(repr=False)
    proof: bytes = field(repr=False)  # 64, by the token's join key
    not_before: datetime  # proposed by the joiner, so that all signers come to one serial
    name: str | None = None  # wanted, where the invite leaves it open
    tpm: JoinTpm | None = None

    def pack(self) -> bytes:
        """JOIN's body."""
        tpm = self.tpm
        parts = () if tpm is None else (
            tpm.ek_public, list(tpm.ek_chain), tpm.ak_public, tpm.identity_public, tpm.parent_name,
            tpm.boot_log_hash or None,
        )
        return make_map(self.invite, self.csr, self.proof, _seconds(self.not_before), self.name, *parts)

    @classmethod
    def unpack(cls, body: bytes) -> "Join":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        invite, csr, proof, not_before, name, *parts = open_map(
            body, Bytes(1, INVITE_MAX), _CSR, Bytes(64), UInt(SECONDS_MAX), Maybe(Text(NAME_MAX)), Maybe(_AREA),
            Maybe(Array(Bytes(1, EK_CERTIFICATE_MAX), EK_CHAIN_MAX)), Maybe(_AREA), Maybe(_AREA), Maybe(TPM_NAME),
            Maybe(Bytes(32)), limit=GUEST_BYTES_MAX,
        )
        return cls(
            invite=invite, csr=csr, proof=proof, not_before=_time(not_before), name=name, tpm=_read_tpm(parts)
        )


def _read_tpm(parts: list[Any]) -> JoinTpm | None:
    *must, boot_log_hash = parts
    if not _all_or_none(must, "a joiner shows all parts of its TPM or none"):
        if boot_log_hash is not None:
            malformed("a boot log without a TPM")
        return None
    ek_public, ek_chain, ak_public, identity_public, parent_name = must
    return JoinTpm(
        ek_public=ek_public, ek_chain=tuple(ek_chain), ak_public=ak_public, identity_public=identity_public,
        parent_name=parent_name, boot_log_hash=boot_log_hash or b"",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinChallenge:
    """JOIN_CHALLENGE{nonce32, credential blob, encrypted seed, PCR bitmap}: only a joiner that shows a TPM gets one."""

    nonce: bytes  # 32
    blob: bytes = field(repr=False)
    encrypted_seed: bytes = field(repr=False)
    pcr_bitmap: int  # the PCRs of the SHA-256 bank to quote

    def pack(self) -> bytes:
        """JOIN_CHALLENGE's body."""
        return make_map(self.nonce, self.blob, self.encrypted_seed, self.pcr_bitmap)

    @classmethod
    def unpack(cls, body: bytes) -> "JoinChallenge":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        nonce, blob, seed, bitmap = open_map(
            body, Bytes(NONCE_SIZE), Bytes(1, 132), Bytes(1, 512), UInt(2**24 - 1), limit=1024
        )
        return cls(nonce=nonce, blob=blob, encrypted_seed=seed, pcr_bitmap=bitmap)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmAnswer:
    """What the TPM makes of a challenge."""

    activation: bytes = field(repr=False)  # 32: HMAC with the secret that only this TPM opens
    quote: bytes = field(repr=False)
    quote_signature: bytes = field(repr=False)
    certify_attest: bytes = field(repr=False)  # of the identity key, by the attestation key
    certify_signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finish:
    """What an approved joiner asks one signer for: the certificate, with the approvals of these signers."""

    approvers: tuple[NodeId, ...]


def pack_answer(answer: TpmAnswer | Finish) -> bytes:
    """JOIN_ANSWER{activation?, quote?, quote signature?, certification?, its signature?, finish?}."""
    if isinstance(answer, Finish):
        return make_map(None, None, None, None, None, [bytes(node) for node in answer.approvers])
    return make_map(
        answer.activation, answer.quote, answer.quote_signature, answer.certify_attest, answer.certify_signature
    )


def unpack_answer(body: bytes) -> TpmAnswer | Finish:
    """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    *parts, finish = open_map(
        body, Maybe(Bytes(32)), Maybe(Bytes(1, ATTESTED_MAX)), Maybe(Bytes(1, SIGNATURE_MAX)),
        Maybe(Bytes(1, ATTESTED_MAX)), Maybe(Bytes(1, SIGNATURE_MAX)), Maybe(Array(_ID, SIGNERS_MAX)), limit=4096,
    )
    shown = _all_or_none(parts, "an answer has all parts or none")
    if shown == (finish is not None):
        malformed("an answer is a TPM's or asks to finish")
    if finish is not None:
        return Finish(_node_ids(finish))
    activation, quote, quote_signature, certify_attest, certify_signature = parts
    return TpmAnswer(
        activation=activation, quote=quote, quote_signature=quote_signature, certify_attest=certify_attest,
        certify_signature=certify_signature,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """RENEWAL{csr, serial20, not_before, finish?}: leaf and endorsement are those of the handshake of this link."""

    csr: bytes = field(repr=False)
    serial: int  # of the certificate that is replaced
    not_before: datetime
    finish: Finish | None = None  # with the approvals of these signers

    def pack(self) -> bytes:
        """RENEWAL's body."""
        serial = self.serial.to_bytes(SERIAL_SIZE, "big")
        approvers = None if self.finish is None else [bytes(node) for node in self.finish.approvers]
        return make_map(self.csr, serial, _seconds(self.not_before), approvers)

    @classmethod
    def unpack(cls, body: bytes) -> "Renewal":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        csr, serial, not_before, approvers = open_map(
            body, _CSR, Bytes(SERIAL_SIZE), UInt(SECONDS_MAX), Maybe(Array(_ID, SIGNERS_MAX)), limit=RENEWAL_MAX
        )
        return cls(
            csr=csr, serial=int.from_bytes(serial, "big"), not_before=_time(not_before),
            finish=None if approvers is None else Finish(_node_ids(approvers)),
        )


def _all_or_none(parts: list[Any], complaint: str) -> bool:
    """Whether the parts are there; raises Refused(MALFORMED) if only some are."""
    missing = [part is None for part in parts]
    if any(missing) and not all(missing):
        malformed(complaint)
    return not any(missing)


def _node_ids(found: list[bytes]) -> tuple[NodeId, ...]:
    if found != sorted(set(found)):
        malformed("approvers are sorted and different")
    return tuple(map(NodeId, found))


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
