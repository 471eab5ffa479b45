"""A secret that one TPM alone gives back: sealed under its storage key, without a policy on PCRs.

Whoever updates the firmware must not lose it, so no PCR has a say: it keeps a stolen disk or a copied folder from being of use,
and nothing else. In both directions it crosses the bus encrypted, in a session that is salted to the EK.
"""

from contextlib import ExitStack

from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import TPM2B_PRIVATE, TPM2B_SENSITIVE_CREATE, TPM2B_SENSITIVE_DATA, TPMS_SENSITIVE_CREATE

from attest.areas import EK_TEMPLATE, SEALED_TEMPLATE, SRK_TEMPLATE
from attest.sealed_key import SealedKey
from attest.tpm_handles import area_of, flushed, primary, salted


def seal(esapi: ESAPI, secret: bytes) -> SealedKey:
    """TPM2_Create of a data object (TPM 2.0 Library, part 1, section 25.2.5 "Sealed data")."""
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=TPM2B_SENSITIVE_DATA(secret)))
    with ExitStack() as loaded:
        with primary(esapi, ESYS_TR.ENDORSEMENT, EK_TEMPLATE) as (ek, _):
            session = loaded.enter_context(salted(esapi, ek))
        storage, _ = loaded.enter_context(primary(esapi, ESYS_TR.OWNER, SRK_TEMPLATE))
        private, public, *_ = esapi.create(storage, sensitive, area_of(SEALED_TEMPLATE), session1=session)
    return SealedKey(private=bytes(private), public=public.publicArea.marshal())


def unseal(esapi: ESAPI, sealed: SealedKey) -> bytes:
    """TPM2_Unseal."""
    with ExitStack() as loaded:
        with primary(esapi, ESYS_TR.ENDORSEMENT, EK_TEMPLATE) as (ek, _):
            session = loaded.enter_context(salted(esapi, ek))
        with primary(esapi, ESYS_TR.OWNER, SRK_TEMPLATE) as (storage, _):
            handle = esapi.load(
                storage, TPM2B_PRIVATE(sealed.private), area_of(sealed.public), session1=ESYS_TR.PASSWORD
            )
            loaded.enter_context(flushed(esapi, handle))
        return bytes(esapi.unseal(handle, session1=session))
