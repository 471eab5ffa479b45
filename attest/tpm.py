"""The TPM 2.0 of this machine, by tpm2_pytss: without it this file raises ImportError, and so do its parts.

- One thread owns the context, which is not thread-safe. Every method blocks: call it from a worker thread.
- A TPM may have room for three objects and three sessions only. Each command loads what it needs and flushes it, so a
  TPM that was started again in between changes nothing.
- After a transport error the context is useless for ever: it is made anew, and the command is tried once more.
- Commands with our keys run in an HMAC session that is salted to the EK and encrypts its parameters, against readers on
  the bus.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_SENSITIVE_CREATE,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMT_HA,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
    TPMU_HA,
)

from attest.areas import AK_TEMPLATE, EK_TEMPLATE, IDENTITY_TEMPLATE, SRK_TEMPLATE
from attest.credential import Credential
from attest.device import STILL_THERE, DeviceThread
from attest.key_blob import KeyBlob
from attest.sealed_key import SealedKey
from attest.structures import EcdsaSignature, pack_selection
from attest.tpm_certificates import endorsement_chain
from attest.tpm_handles import (
    BUSY,
    area_of,
    attestation_key,
    endorsement_policy,
    identity_key,
    is_transport,
    primary,
    primary_public,
    salted,
)
from attest.tpm_sealing import seal, unseal
from overlay.errors import HostLacks, LocalProtocolError, OverlayError

T = TypeVar("T")

TIMEOUT: Final = 30.0  # our guess: slow hardware takes about 2 s for all commands of a quote
PCRS: Final = 24  # TCG PC Client Platform TPM Profile, section 4.6
SEALED_SIZE: Final = 32  # a key of AES-256
QUALIFYING_MAX: Final = 32  # the digest size of our attestation key
PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # our guess; a TPM tests itself for up to a second
INTEGRITY: Final = 0x9F  # TPM_RC_INTEGRITY
AUTH_FAILURES: Final = frozenset({0x8E, 0xA2})  # TPM_RC_AUTH_FAIL, TPM_RC_BAD_AUTH
TRANSIENT_FIRST: Final = 0x80000000
LOADED_SESSION_FIRST: Final = 0x02000000

# TPM_PT numbers, part 2, section 6.13
PT_MANUFACTURER: Final = 0x105
PT_VENDOR_STRINGS: Final = range(0x106, 0x10A)
PT_FIRMWARE: Final = (0x10B, 0x10C)
EMULATORS: Final = ("SW", "xCG")  # libtpms says "SW   TPM", Microsoft's reference "xCG fTPM"


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmFacts:
    """What the TPM says about itself; nobody vouches for it."""

    manufacturer: str
    model: str
    firmware: str
    emulated: bool


class Tpm:
    """A TPM, from any thread; each method blocks up to 30 s and raises OverlayError when the device fails."""

    def __init__(self, tcti: str, *, timeout: float = TIMEOUT) -> None:
        os.environ.setdefault("TSS2_LOG", "all+NONE")  # libtss2 writes to standard error; we raise errors instead
        self._tcti = tcti
        self._timeout = timeout
        self._context: ESAPI | None = None  # touched by the thread only
        self._thread = DeviceThread(f"TPM {tcti}", expected=(TSS2_Exception, OverlayError), farewell=self._drop)

    @classmethod
    def open(cls, tcti: str, *, ours: bool = False, timeout: float = TIMEOUT) -> Self:
        """Open and try it: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`.

        `ours`: nobody else uses this TPM and there is no resource manager, so whatever a killed process left in its few
        slots is flushed.

        Raises:
            HostLacks: no TPM answers there.
        """
        tpm = cls(tcti, timeout=timeout)
        try:
            tpm.describe()
            if ours:
                tpm._run(_flush_orphans)
        except OverlayError as error:
            tpm.close()
            hint = "check the device and its permissions, or the emulator's port"
            raise HostLacks(f"no TPM answers at {tcti}: {error}", hint=hint) from None
        return tpm

    def close(self) -> None:
        """Give the device back. Safe to call twice."""
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it does

    def describe(self) -> TpmFacts:
        """For status and doctor."""
        return self._run(_describe)

    def endorsement_public(self) -> bytes:
        """The public area of the EK of template L-2 (P-256)."""
        return self._run(lambda esapi: primary_public(esapi, ESYS_TR.ENDORSEMENT, EK_TEMPLATE))

    def endorsement_chain(self) -> tuple[bytes, ...]:
        """What the maker has stored about that EK, DER: its certificate, then those above it; empty if there is none."""
        return self._run(endorsement_chain)

    def storage_public(self) -> bytes:
        """The public area of the storage key above identity keys."""
        return self._run(lambda esapi: primary_public(esapi, ESYS_TR.OWNER, SRK_TEMPLATE))

    def create_attestation_key(self) -> KeyBlob:
        """A restricted signing key under the EK; it lives in its blob, not in the TPM."""
        return self._run(_create_ak)

    def create_identity_key(self) -> KeyBlob:
        """A signing key under the storage key; it lives in its blob, not in the TPM."""
        return self._run(_create_identity)

    def quote(self, ak: KeyBlob, data: bytes, pcr_bitmap: int) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE, s lowered, over these PCRs of the SHA-256 bank and up to 32 bytes of data."""
        if not 0 <= pcr_bitmap < 1 << PCRS or len(data) > QUALIFYING_MAX:
            raise LocalProtocolError("PCR bitmap or qualifying data of a quote")
        return self._run(lambda esapi: _quote(esapi, ak, data, pcr_bitmap))

    def certify(self, ak: KeyBlob, identity: KeyBlob, data: bytes) -> tuple[bytes, bytes]:
        """TPM2_Certify of the identity key by the attestation key: TPMS_ATTEST and TPMT_SIGNATURE, s lowered."""
        return self._run(lambda esapi: _certify(esapi, ak, identity, data))

    def sign(self, identity: KeyBlob, digest: bytes) -> bytes:
        """ECDSA over a SHA-256 digest: r || s, 64 bytes, s lowered."""
        return self._run(lambda esapi: _sign(esapi, identity, digest))

    def activate(self, ak: KeyBlob, credential: Credential) -> bytes:
        """The secret that was wrapped for this EK and this attestation key."""
        return self._run(lambda esapi: _activate(esapi, ak, credential))

    def seal(self, secret: bytes) -> SealedKey:
        """32 bytes that this TPM alone gives back, in any state of the machine: no PCR has a say."""
        if len(secret) != SEALED_SIZE:
            raise LocalProtocolError("size of a sealed secret")
        return self._run(lambda esapi: seal(esapi, secret))

    def unseal(self, sealed: SealedKey) -> bytes:
        """What was sealed."""
        return self._run(lambda esapi: unseal(esapi, sealed))

    def read_pcr(self, index: int) -> bytes:
        """32 bytes of the SHA-256 bank."""
        if not 0 <= index < PCRS:
            raise LocalProtocolError("PCR index")
        return self._run(lambda esapi: _read_pcr(esapi, index))

    def extend_pcr(self, index: int, digest: bytes) -> None:
        """Extend the SHA-256 bank by 32 bytes. Not tried again after a transport error: it might count twice."""
        if not 0 <= index < PCRS or len(digest) != 32:
            raise LocalProtocolError("PCR index or digest")
        self._run(lambda esapi: _extend_pcr(esapi, index, digest), again=False)

    # --- how commands run

    def _run(self, command: Callable[[ESAPI], T], *, again: bool = True) -> T:
        return self._thread.call(lambda: self._perform(command, again=again), timeout=self._timeout)

    def _perform(self, command: Callable[[ESAPI], T], *, again: bool) -> T:
        """In the thread: run a command, once more with a new context if the old one broke."""
        try:
            return self._patiently(command)
        except TSS2_Exception as error:
            if is_transport(error):
                self._drop()
                if again:
                    return self._perform(command, again=False)
            raise _explained(error) from None

    def _patiently(self, command: Callable[[ESAPI], T]) -> T:
        """Wait while the TPM says that it is busy."""
        for pause in PAUSES:
            try:
                return command(self._opened())
            except TSS2_Exception as error:
                if error.rc not in BUSY:
                    raise
            time.sleep(pause)
        return command(self._opened())

    def _opened(self) -> ESAPI:
        if self._context is None:
            self._context = ESAPI(self._tcti)
        return self._context

    def _drop(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            context.close()


def _explained(error: TSS2_Exception) -> OverlayError:
    """The error in our words, with what to do about it."""
    if is_transport(error):
        return OverlayError(f"cannot talk to the TPM: {error}", hint=STILL_THERE)
    code = error.error  # without the number of the handle or parameter
    if code == INTEGRITY:
        hint = "this key is not of this TPM, or the TPM was cleared: the node must be enrolled again"
    elif code in AUTH_FAILURES:
        hint = "the owner or endorsement hierarchy of this TPM has a password; that is not supported"
    else:
        hint = "run `overlay status` to see what the TPM says"
    return OverlayError(f"the TPM refused: {error}", hint=hint)


# --- commands ---------------------------------------------------------------------------------------------------------


def _create(esapi: ESAPI, parent: ESYS_TR, template: bytes, session: ESYS_TR) -> KeyBlob:
    private, public, *_ = esapi.create(parent, TPM2B_SENSITIVE_CREATE(), area_of(template), session1=session)
    return KeyBlob(private=bytes(private), public=public.publicArea.marshal())


def _create_ak(esapi: ESAPI) -> KeyBlob:
    with primary(esapi, ESYS_TR.ENDORSEMENT, EK_TEMPLATE) as (ek, _), endorsement_policy(esapi) as policy:
        return _create(esapi, ek, AK_TEMPLATE, policy)


def _create_identity(esapi: ESAPI) -> KeyBlob:
    with primary(esapi, ESYS_TR.OWNER, SRK_TEMPLATE) as (storage, _):
        return _create(esapi, storage, IDENTITY_TEMPLATE, ESYS_TR.PASSWORD)


def _scheme_of_key() -> TPMT_SIG_SCHEME:
    return TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)


def _lowered(signature: TPMT_SIGNATURE) -> EcdsaSignature:
    numbers = signature.signature.ecdsa
    return EcdsaSignature.lowered(bytes(numbers.signatureR), bytes(numbers.signatureS))


def _selection(pcr_bitmap: int) -> TPML_PCR_SELECTION:
    """One SHA-256 bank, three bytes of bits, the form in which a TPM gives it back."""
    selection, _ = TPML_PCR_SELECTION.unmarshal(pack_selection(pcr_bitmap))
    return selection


def _quote(esapi: ESAPI, ak: KeyBlob, data: bytes, pcr_bitmap: int) -> tuple[bytes, bytes]:
    with attestation_key(esapi, ak) as (key, session):
        attested, signature = esapi.quote(key, _selection(pcr_bitmap), data, _scheme_of_key(), session1=session)
    return bytes(attested), _lowered(signature).pack()


def _certify(esapi: ESAPI, ak: KeyBlob, identity: KeyBlob, data: bytes) -> tuple[bytes, bytes]:
    with attestation_key(esapi, ak) as (key, session), identity_key(esapi, identity) as certified:
        attested, signature = esapi.certify(
            certified, key, data, _scheme_of_key(), session1=ESYS_TR.PASSWORD, session2=session
        )
    return bytes(attested), _lowered(signature).pack()


def _sign(esapi: ESAPI, identity: KeyBlob, digest: bytes) -> bytes:
    with ExitStack() as loaded:
        with primary(esapi, ESYS_TR.ENDORSEMENT, EK_TEMPLATE) as (ek, _):
            session = loaded.enter_context(salted(esapi, ek))
        key = loaded.enter_context(identity_key(esapi, identity))
        signature = esapi.sign(key, digest, _scheme_of_key(), session1=session)
    return _lowered(signature).raw


def _activate(esapi: ESAPI, ak: KeyBlob, credential: Credential) -> bytes:
    with (
        attestation_key(esapi, ak) as (key, session),
        primary(esapi, ESYS_TR.ENDORSEMENT, EK_TEMPLATE) as (ek, _),
        endorsement_policy(esapi) as policy,
    ):
        secret = esapi.activate_credential(
            key, ek, TPM2B_ID_OBJECT(credential.blob), TPM2B_ENCRYPTED_SECRET(credential.encrypted_seed),
            session1=session, session2=policy,
        )
    return bytes(secret)


def _read_pcr(esapi: ESAPI, index: int) -> bytes:
    _, _, values = esapi.pcr_read(_selection(1 << index))
    return bytes(values[0])


def _extend_pcr(esapi: ESAPI, index: int, digest: bytes) -> None:
    value = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=digest))
    esapi.pcr_extend(ESYS_TR(index), TPML_DIGEST_VALUES([value]))


def _describe(esapi: ESAPI) -> TpmFacts:
    manufacturer = _text(_property(esapi, PT_MANUFACTURER))
    model = "".join(_text(_property(esapi, number)) for number in PT_VENDOR_STRINGS)
    versions = [_property(esapi, number) for number in PT_FIRMWARE]
    firmware = ".".join(f"{part >> 16}.{part & 0xFFFF}" for part in versions)
    emulated = any(mark in model for mark in EMULATORS)
    return TpmFacts(manufacturer=manufacturer.strip(), model=model.strip(), firmware=firmware, emulated=emulated)


def _property(esapi: ESAPI, number: int) -> int:
    _, found = esapi.get_capability(TPM2_CAP.TPM_PROPERTIES, number, 1)
    properties = found.data.tpmProperties  # `found` must stay alive: tpm2_pytss frees what it points to
    return int(properties[0].value) if len(properties) and int(properties[0].property) == number else 0


def _text(number: int) -> str:
    return number.to_bytes(4, "big").rstrip(b"\0").decode("ascii", "replace")


def _flush_orphans(esapi: ESAPI) -> None:
    for first in (TRANSIENT_FIRST, LOADED_SESSION_FIRST):
        _, found = esapi.get_capability(TPM2_CAP.HANDLES, first, 64)
        handles = [int(handle) for handle in found.data.handles]  # `found` must stay alive, as above
        for handle in handles:
            esapi.flush_context(esapi.tr_from_tpmpublic(handle))
