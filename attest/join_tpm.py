"""What a joiner does with its TPM: show its keys, then answer a signer's challenge. Blocks: run it in a thread."""

from attest.areas import parse_area
from attest.credential import Credential
from attest.key_blob import KeyBlob
from attest.tpm import Tpm
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import JoinChallenge, JoinTpm, TpmAnswer


def show_join(
    tpm: Tpm, *, ak: KeyBlob, identity: KeyBlob, ek_chain: tuple[bytes, ...] | None = None, boot_log_hash: bytes = b""
) -> JoinTpm:
    """The TPM parts of JOIN; `ek_chain` is DER, the EK's certificate first, instead of what the TPM has stored.

    `boot_log_hash`: 32 bytes; none for a machine that shows no logs.

    Raises:
        OverlayError: the TPM fails.
    """
    chain = tpm.endorsement_chain() if ek_chain is None else ek_chain
    return JoinTpm(
        ek_public=tpm.endorsement_public(), ek_chain=chain, ak_public=ak.public, identity_public=identity.public,
        parent_name=parse_area(tpm.storage_public()).name, boot_log_hash=boot_log_hash,
    )


def answer_join(
    tpm: Tpm, *, ak: KeyBlob, identity: KeyBlob, shown: JoinTpm, challenge: JoinChallenge, binding: JoinBinding
) -> TpmAnswer:
    """Open the credential, quote, certify: all bound to this conversation.

    Raises:
        Refused: MALFORMED for a credential that is too large.
        OverlayError: the TPM fails, or the credential is not for it.
    """
    credential = Credential(challenge.blob, challenge.encrypted_seed)
    bound = binding.pack(ak_name=ak.area.name, ek_name=parse_area(shown.ek_public).name)
    secret = tpm.activate(ak, credential)
    quote, quote_signature = tpm.quote(ak, bound.quoted, challenge.pcr_bitmap)
    attested, signature = tpm.certify(ak, identity, bound.certified)
    return TpmAnswer(
        activation=bound.activation(secret), quote=quote, quote_signature=quote_signature, certify_attest=attested,
        certify_signature=signature,
    )
