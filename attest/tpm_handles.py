"""What every command of a TPM needs for its length: primary keys, sessions and loaded keys, all flushed at the end."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE, TPMA_SESSION
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception
from tpm2_pytss.types import TPM2B_PRIVATE, TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE, TPMT_PUBLIC, TPMT_SYM_DEF

from attest.areas import EK_TEMPLATE, SRK_TEMPLATE
from attest.key_blob import KeyBlob

BUSY: Final = frozenset({0x908, 0x90A, 0x922})  # TPM_RC_YIELDED, TESTING, RETRY: TPM 2.0 Library, part 2, section 6.6.3
LAYER_MASK: Final = 0xFF0000  # TSS 2.0 Overview and Common Structures, 3.4: who made a return code
TPM_LAYERS: Final = frozenset({0x000000, 0x0B0000, 0x0C0000})  # the TPM itself, or the resource manager in its place


def is_transport(error: TSS2_Exception) -> bool:
    """Whether the TPM was not reached; else it has said no."""
    return error.rc & LAYER_MASK not in TPM_LAYERS


@contextmanager
def flushed(esapi: ESAPI, handle: ESYS_TR) -> Iterator[ESYS_TR]:
    """Out of the TPM at the end of the block, whatever happens."""
    try:
        yield handle
    finally:
        esapi.flush_context(handle)


def area_of(data: bytes) -> TPM2B_PUBLIC:
    """A public area as commands take it."""
    area, _ = TPMT_PUBLIC.unmarshal(data)
    return TPM2B_PUBLIC(publicArea=area)


@contextmanager
def primary(esapi: ESAPI, hierarchy: ESYS_TR, template: bytes) -> Iterator[tuple[ESYS_TR, bytes]]:
    """A primary key, made from its seed each time, and its public area."""
    handle, public, *_ = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), area_of(template), hierarchy)
    with flushed(esapi, handle):
        yield handle, public.publicArea.marshal()


def primary_public(esapi: ESAPI, hierarchy: ESYS_TR, template: bytes) -> bytes:
    """The public area of a primary key."""
    with primary(esapi, hierarchy, template) as (_, public):
        return public


@contextmanager
def endorsement_policy(esapi: ESAPI) -> Iterator[ESYS_TR]:
    """A session that may use the EK, once: PolicySecret(endorsement hierarchy)."""
    session = esapi.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
    )
    with flushed(esapi, session):
        esapi.policy_secret(ESYS_TR.ENDORSEMENT, session)
        yield session


@contextmanager
def salted(esapi: ESAPI, ek: ESYS_TR) -> Iterator[ESYS_TR]:
    """An HMAC session that only the holder of the EK can read; it encrypts the first parameter both ways."""
    symmetric = TPMT_SYM_DEF(algorithm=TPM2_ALG.AES)
    symmetric.keyBits.aes = 128
    symmetric.mode.aes = TPM2_ALG.CFB
    session = esapi.start_auth_session(ek, ESYS_TR.NONE, TPM2_SE.HMAC, symmetric, TPM2_ALG.SHA256)
    with flushed(esapi, session):
        esapi.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION | TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT)
        yield session


def load(esapi: ESAPI, parent: ESYS_TR, blob: KeyBlob, session: ESYS_TR) -> ESYS_TR:
    """A key out of its blob; whoever loads it flushes it."""
    return esapi.load(parent, TPM2B_PRIVATE(blob.private), area_of(blob.public), session1=session)


@contextmanager
def attestation_key(esapi: ESAPI, blob: KeyBlob) -> Iterator[tuple[ESYS_TR, ESYS_TR]]:
    """The loaded attestation key and a salted session; the EK is gone by then."""
    with ExitStack() as loaded:
        with primary(esapi, ESYS_TR.ENDORSEMENT, EK_TEMPLATE) as (ek, _):
            session = loaded.enter_context(salted(esapi, ek))
            with endorsement_policy(esapi) as policy:
                key = loaded.enter_context(flushed(esapi, load(esapi, ek, blob, policy)))
        yield key, session


@contextmanager
def identity_key(esapi: ESAPI, blob: KeyBlob) -> Iterator[ESYS_TR]:
    """The loaded identity key; the storage key is gone by then."""
    with ExitStack() as loaded:
        with primary(esapi, ESYS_TR.OWNER, SRK_TEMPLATE) as (storage, _):
            key = loaded.enter_context(flushed(esapi, load(esapi, storage, blob, ESYS_TR.PASSWORD)))
        yield key
