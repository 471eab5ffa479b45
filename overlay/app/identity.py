"""From a state folder to who we are now: the identity key, and an endorsement for the keys of this start."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from attest.key_blob import KeyBlob
from overlay.app.tpm import tpm_signer
from overlay.core import limits
from overlay.core.endorsement import LIFE_IN_GRACE, make_endorsement
from overlay.core.grace import verify_expired_leaf
from overlay.core.identity import LocalIdentity
from overlay.core.keys import Ed25519Signer, Signer
from overlay.core.trust import Credentials, TrustSet
from overlay.errors import OverlayError, Refused, StateDamaged, UsageError
from overlay.store.identity import (
    SessionKeys,
    TpmKey,
    load_attestation_key,
    load_identity,
    load_session_keys,
    save_session_keys,
)
from overlay.store.membership import MeshRecord, StoredCertificate, load_certificate, load_mesh, save_certificate
from overlay.store.state import StateFolder

if TYPE_CHECKING:
    from attest.tpm import Tpm

NOT_A_MEMBER = "this node belongs to no mesh yet"
HOW_TO_JOIN = "found one with `overlay init NAME --mesh M`, or use `overlay request`, `overlay admit` and `overlay install`"


@dataclass(frozen=True, slots=True)
class Membership:
    """What makes the node a member."""

    mesh: MeshRecord
    certificate: StoredCertificate
    trust: TrustSet


def load_membership(folder: StateFolder) -> Membership:
    """Raises UsageError for a folder that belongs to no mesh yet, StateDamaged."""
    mesh, certificate = load_mesh(folder), load_certificate(folder)
    if mesh is None or certificate is None:
        raise UsageError(NOT_A_MEMBER, hint=HOW_TO_JOIN)
    return Membership(mesh, certificate, mesh.trust)


def blob_of(key: TpmKey) -> KeyBlob:
    """A stored TPM key as the TPM code wants it."""
    return KeyBlob(private=key.private, public=key.public)


def identity_signer(folder: StateFolder, tpm: "Tpm | None") -> Signer:
    """The identity key; blocks when it lives in a TPM and signs. Raises HostLacks if there is no TPM for it."""
    key = load_identity(folder)
    if isinstance(key, bytes):
        return Ed25519Signer(key)
    if tpm is None:
        raise OverlayError(
            "the identity key lives in a TPM, and none answers", hint="see `overlay doctor`, or name it with --tcti"
        )
    return tpm_signer(tpm, blob_of(key))


def attestation_blob(folder: StateFolder) -> KeyBlob | None:
    """The AK, if this node was enrolled with a TPM."""
    key = load_attestation_key(folder)
    return None if key is None else blob_of(key)


class Endorser:
    """Makes the endorsements of one start: the same message key and a fresh Noise static key, a new life each time."""

    def __init__(
        self, folder: StateFolder, certificate: StoredCertificate, trust: Callable[[], TrustSet], tpm: "Tpm | None"
    ) -> None:
        self._folder = folder
        self._certificate = certificate
        self._trust = trust
        self._tpm = tpm
        self._keys = SessionKeys(
            endorsement=b"", noise_private=secrets.token_bytes(32), message_seed=secrets.token_bytes(32),
            start_id=secrets.token_bytes(16), witness_seed=secrets.token_bytes(32),
        )
        self.warning = ""

    def begin(self, at: datetime) -> LocalIdentity:
        """The identity of this start; while the TPM does not answer, that of the last start, until it ends.

        Raises:
            Refused: the certificate has ended.
            OverlayError: the TPM does not answer, and there is nothing to go on with.
        """
        try:
            return self.renew(at)
        except OverlayError as error:
            if isinstance(error, Refused):
                raise
            kept = load_session_keys(self._folder)
            if kept is None:
                raise
            self.warning = f"goes on under the endorsement of an earlier start: {error}"
            self._keys = kept
            return self._local(kept, at)

    def install(self, certificate: StoredCertificate) -> None:
        """The next endorsement is made under this one; durable on return."""
        save_certificate(self._folder, certificate)
        self._certificate = certificate

    def renew(self, at: datetime) -> LocalIdentity:
        """A new endorsement, with a fresh Noise static key for the links to come; blocks while the identity key signs.

        Under a certificate that has ended, and may still be renewed, it lasts an hour and counts for that only.
        """
        trust, leaf = self._trust(), self._certificate.leaf
        roots = trust.roots.above(leaf, self._certificate.chain)
        certificate = verify_expired_leaf(leaf, roots, at, trust.grace)
        end = min(at + timedelta(seconds=limits.ENDORSEMENT_LIFE), certificate.not_after)
        if certificate.in_grace:
            end = at + LIFE_IN_GRACE
        keys = replace(self._keys, noise_private=secrets.token_bytes(32))
        endorsement = make_endorsement(
            identity_signer(self._folder, self._tpm), mesh_id=trust.mesh_id, leaf=leaf,
            noise_public=keys.noise.public, message=keys.message, start_id=keys.start_id, not_before=at, not_after=end,
            witness=keys.witness,
        )
        keys = replace(keys, endorsement=endorsement)
        local = self._local(keys, at)
        save_session_keys(self._folder, keys)
        self._keys, self.warning = keys, ""
        return local

    def _local(self, keys: SessionKeys, at: datetime) -> LocalIdentity:
        certificate = self._certificate
        credentials = Credentials(keys.endorsement, certificate.leaf, certificate.chain)
        trust = replace(self._trust(), quarantines=frozenset())  # in quarantine a node runs, stays out, and says so
        verified = trust.verify_in_grace(credentials, at)
        try:
            return LocalIdentity(
                credentials=credentials, verified=verified, static=keys.noise, message=keys.message, witness=keys.witness
            )
        except ValueError as error:
            raise StateDamaged(f"the keys of the last start do not fit its endorsement: {error}") from None
