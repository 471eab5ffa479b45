"""What a TPM's maker has stored about its EK: the certificate, and since 2021 often those above it.

Indices: TCG EK Credential Profile 2.5, 2.2.1.4 (EK certificates) and 2.2.1.5.2 (chains). Makers write what they like and fill
up with zeros or ones, so what cannot be read or does not belong to the chain is left out; signers judge what is sent.
"""

from typing import Final

from tpm2_pytss.constants import TPM2_CAP
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception

from attest.ek_certificates import certificates_in, chain_above
from attest.structures import der_of
from attest.tpm_handles import BUSY, is_transport
from overlay.core.join_frames import EK_CERTIFICATE_MAX, EK_CHAIN_MAX

EK_CERTIFICATE: Final = 0x01C0000A  # for template L-2, our EK
CHAIN: Final = range(0x01C00100, 0x01C00200)
CHAIN_INDICES_MAX: Final = 16  # our guess: makers use one to three
CHAIN_BYTES: Final = 2 * EK_CHAIN_MAX * EK_CERTIFICATE_MAX  # our guess: also certificates above other EKs may stand there
READ_MAX: Final = 512  # bytes at once: our guess, every TPM gives so many


def endorsement_chain(esapi: ESAPI) -> tuple[bytes, ...]:
    """The EK's certificate and those above it that are stored, DER; empty where there is none for our EK."""
    if EK_CERTIFICATE not in _indices(esapi, EK_CERTIFICATE, 1):
        return ()
    own = der_of(_read(esapi, EK_CERTIFICATE, EK_CERTIFICATE_MAX))
    if own is None:
        return ()
    stored = b""
    for index in _indices(esapi, CHAIN.start, CHAIN_INDICES_MAX):
        if index not in CHAIN or len(stored) >= CHAIN_BYTES:
            break
        stored += _read(esapi, index, CHAIN_BYTES - len(stored))
    return (own, *chain_above(own, certificates_in(stored)))


def _indices(esapi: ESAPI, first: int, most: int) -> list[int]:
    """Those that are defined, from the first on, rising."""
    _, found = esapi.get_capability(TPM2_CAP.HANDLES, first, most)
    return [int(handle) for handle in found.data.handles]  # `found` must stay alive: tpm2_pytss frees what it points to


def _read(esapi: ESAPI, number: int, most: int) -> bytes:
    """What is stored there; nothing where the TPM does not let us."""
    index = esapi.tr_from_tpmpublic(number)
    try:
        public, _ = esapi.nv_read_public(index)
        size = min(int(public.nvPublic.dataSize), most)
        starts = range(0, size, READ_MAX)
        return b"".join(bytes(esapi.nv_read(index, min(READ_MAX, size - start), start)) for start in starts)
    except TSS2_Exception as error:
        if is_transport(error) or error.rc in BUSY:
            raise
        return b""
    finally:
        esapi.tr_close(index)
