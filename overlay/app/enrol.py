"""How nodes become members by file: found a mesh; request, admit, install. Every function blocks; a TPM takes seconds.

Whatever can fail comes first; what is written into a state folder, last.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attest.areas import parse_area
from attest.credential import Credential, make_credential, parse_endorsement_key
from attest.enrol import TpmRequest, check_request
from attest.levels import SOFTWARE_KEY, UNKNOWN_TPM
from attest.policy import accepted_kinds, check_level
from overlay.app.identity import attestation_blob, blob_of, identity_signer
from overlay.app.tpm import tpm_signer
from overlay.core.authority.issuance import FoundingAuthority
from overlay.core.authority.objects import NO_RECOVERY
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.certificate_profile import LeafFacts, ek_tag, is_name
from overlay.core.certificate_request import Request, build_request, verify_request
from overlay.core.certificates import LEAF_LIFE_MAX
from overlay.core.enrolment_files import Bundle, EnrolmentRequest, SealedBundle, TpmParts, read_bundle
from overlay.core.keys import Ed25519Signer, MeshId, NodeId, Signer
from overlay.core.policy import Policy
from overlay.errors import Refused, StateDamaged, UsageError
from overlay.net.system import wall_clock
from overlay.registry import COSE_ES256, EvidenceKind, Reason
from overlay.store import membership
from overlay.store.clock import raise_floor
from overlay.store.identity import (
    TpmKey,
    has_identity,
    load_founding_key,
    load_identity,
    save_attestation_key,
    save_founding_key,
    save_identity,
)
from overlay.store.membership import MeshRecord, load_mesh
from overlay.store.state import StateFolder

if TYPE_CHECKING:
    from attest.tpm import Tpm

# The longest that a certificate may live, and not the usual day: what came by file does not renew itself.
LIFE: Final = LEAF_LIFE_MAX
FOUNDER_ROLES: Final = ("operator", "signer")
FIRST_GATE: Final = 1
SECRET_SIZE: Final = 32
NONCE_SIZE: Final = 12  # NIST SP 800-38D, section 8.2


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewIdentity:
    """Keys that are not yet in any folder."""

    signer: Signer
    key: bytes | TpmKey = field(repr=False)
    ak: TpmKey | None = None

    @classmethod
    def make(cls, tpm: "Tpm | None") -> "_NewIdentity":
        """In the TPM if there is one, else a seed."""
        if tpm is None:
            seed = secrets.token_bytes(32)
            return cls(signer=Ed25519Signer(seed), key=seed)
        identity, ak = tpm.create_identity_key(), tpm.create_attestation_key()
        return cls(
            signer=tpm_signer(tpm, identity), key=TpmKey(identity.public, identity.private),
            ak=TpmKey(ak.public, ak.private),
        )

    def save(self, folder: StateFolder) -> None:
        """Before anything that was made with them leaves the machine."""
        if self.ak is not None:
            save_attestation_key(folder, self.ak)
        save_identity(folder, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A bundle, and what the certificate in it says."""

    bundle: str = field(repr=False)  # the text of the file
    node_id: NodeId
    facts: LeafFacts
    not_after: datetime
    sealed: bool  # only the TPM of that node can open it


# --- the founder ----------------------------------------------------------------------------------------------------


def found_mesh(
    folder: StateFolder, name: str, mesh_name: str, policy: Policy, tpm: "Tpm | None",
    recovery: Callable[[MeshId], RecoveryKeys] = lambda _mesh: NO_RECOVERY,
) -> NodeId:
    """Make a mesh and its first member in a new state folder, which then holds the mesh key.

    Args:
        recovery: makes the recovery keys of that mesh, brings their secrets to where they are kept, and gives the public ones.

    Raises:
        UsageError: for what is no name, or a folder with an identity.
        Refused: LEVEL_TOO_LOW if the policy would not let the founder in.
        OverlayError: the TPM fails.
    """
    _check_name(name, "a node")
    _check_name(mesh_name, "a mesh")
    if has_identity(folder):
        raise UsageError(f"{folder.path} holds an identity already", hint="choose another folder with --state")
    at, seed = wall_clock(), secrets.token_bytes(32)
    identity = _NewIdentity.make(tpm)
    authority = FoundingAuthority.create(mesh_name, seed, at)
    csr = build_request(identity.signer, name)
    shown = None if tpm is None or identity.ak is None else _shown(tpm, identity.key, identity.ak, csr)
    request = verify_request(csr)
    facts = _facts(authority, request, shown, FOUNDER_ROLES, policy)
    keys = recovery(authority.root.mesh_id)
    bundle = Bundle(
        mesh_name=mesh_name, root=authority.root.der, gate_number=FIRST_GATE, gate_key=secrets.token_bytes(32),
        leaf=authority.issue(request, name=name, facts=facts, not_before=at, not_after=at + LIFE),
        policy=authority.sign_policy(policy), authority_object=authority.object_zero(identity.signer, keys),
    )
    identity.save(folder)
    save_founding_key(folder, seed)
    _install(folder, bundle, request.node_id, at)
    return request.node_id


# --- a node that wants to become a member ---------------------------------------------------------------------------


def make_request(folder: StateFolder, tpm: "Tpm | None") -> str:
    """The text of a request; makes the identity in a folder that has none yet, and else writes nothing.

    Raises:
        StateDamaged: what is in the folder cannot be read.
        OverlayError: the TPM fails, or the identity lives in one and none is given.
    """
    make_identity(folder, tpm)
    signer = identity_signer(folder, tpm)
    csr = build_request(signer, f"node-{NodeId.of_key(signer.spki).short}")  # its name is for the signer to give
    key, ak = load_identity(folder), attestation_blob(folder)
    if not isinstance(key, TpmKey):
        return EnrolmentRequest(csr).to_text()
    if tpm is None or ak is None:
        raise StateDamaged(f"{folder.path} holds an identity of a TPM and no attestation key")
    return EnrolmentRequest(csr, _shown(tpm, key, TpmKey(ak.public, ak.private), csr)).to_text()


def make_identity(folder: StateFolder, tpm: "Tpm | None") -> None:
    """Keys for a folder that has none yet: in the TPM if there is one, else in a file. Raises OverlayError."""
    if not has_identity(folder):
        _NewIdentity.make(tpm).save(folder)


def install(folder: StateFolder, text: str, tpm: "Tpm | None") -> NodeId:
    """Take in a bundle; from now on the node is a member. Nothing is kept if anything is wrong.

    Raises:
        Refused: the bundle is for another node or another TPM, or a part of it does not verify.
        UsageError: the folder belongs to another mesh.
        OverlayError: the TPM fails, or the bundle is for one and none is given.
    """
    bundle = read_bundle(text)
    if isinstance(bundle, SealedBundle):
        bundle = _open(folder, bundle, tpm)
    node_id = NodeId.of_key(identity_signer(folder, tpm).spki)
    _install(folder, bundle, node_id, wall_clock())
    return node_id


def _open(folder: StateFolder, sealed: SealedBundle, tpm: "Tpm | None") -> Bundle:
    ak = attestation_blob(folder)
    if ak is None or tpm is None:
        what = "is for a node with a TPM" if ak is None else "can be opened by this node's TPM only, and none answers"
        raise Refused(Reason.BAD_CERTIFICATE, f"the bundle {what}", hint="install it where its request was made")
    return sealed.open(tpm.activate(ak, Credential(sealed.credential_blob, sealed.encrypted_secret)))


def _install(folder: StateFolder, bundle: Bundle, node_id: NodeId, at: datetime) -> None:
    certificate = membership.install(folder, bundle, node_id, at)
    raise_floor(folder, certificate.not_before)


def _shown(tpm: "Tpm", key: bytes | TpmKey, ak: TpmKey, csr: bytes) -> TpmParts:
    """What shows that the identity key lives in the TPM."""
    from attest.tpm_keys import show_tpm  # there is a TPM, so it loads

    assert isinstance(key, TpmKey)
    shown = show_tpm(tpm, ak=blob_of(ak), identity=blob_of(key), request=csr)
    return TpmParts(
        ek_public=shown.ek_public, ak_public=shown.ak_public, identity_public=shown.identity_public,
        certify_attest=shown.attested, certify_signature=shown.signature, parent_name=shown.parent_name,
    )


# --- the signer -----------------------------------------------------------------------------------------------------


def admit(founder: Path, text: str, name: str, roles: Sequence[str]) -> str:
    """The text of a bundle for a request; see `admit_request`."""
    return admit_request(founder, text, name, roles).bundle


def admit_request(founder: Path, text: str, name: str, roles: Sequence[str], life: timedelta = LIFE) -> Admitted:
    """Check a request and issue a certificate; reads the founder's folder only, so the node there may be running.

    Raises:
        UsageError: this machine does not hold the mesh key, or for what is no name or role.
        Refused: the request does not verify, or the policy would not let the node in.
    """
    _check_name(name, "a node")
    with StateFolder.open(founder, exclusive=False) as folder:
        authority, mesh = _authority(folder)
        at = wall_clock()
    asked = EnrolmentRequest.from_text(text)
    request = verify_request(asked.csr)
    policy = mesh.trust.policy.policy
    facts = _facts(authority, request, asked.tpm, tuple(sorted(set(roles))), policy)
    bundle = Bundle(
        mesh_name=mesh.root.name, root=mesh.root.der, gate_number=mesh.gate_number, gate_key=mesh.gate_key,
        leaf=authority.issue(request, name=name, facts=facts, not_before=at, not_after=at + life),
        policy=mesh.policy, authority_object=mesh.authority_object,
    )
    return Admitted(
        bundle=bundle.to_text() if asked.tpm is None else _seal(bundle, asked.tpm), node_id=request.node_id,
        facts=facts, not_after=at + life, sealed=asked.tpm is not None,
    )


def _authority(folder: StateFolder) -> tuple[FoundingAuthority, MeshRecord]:
    seed, mesh = load_founding_key(folder), load_mesh(folder)
    if seed is None or mesh is None:
        hint = "admit nodes on the machine where `overlay init` ran"
        raise UsageError(f"{folder.path} does not hold the key of a mesh", hint=hint)
    try:
        return FoundingAuthority.load(seed, mesh.root), mesh
    except ValueError as error:
        raise StateDamaged(f"{folder.path}: {error}") from None


def _facts(
    authority: FoundingAuthority, request: Request, shown: TpmParts | None, roles: tuple[str, ...], policy: Policy
) -> LeafFacts:
    """What the certificate will say, all of it checked; raises Refused or UsageError."""
    if shown is None and request.identity.algorithm == COSE_ES256:
        raise Refused(Reason.EVIDENCE_NOT_ACCEPTED, "the key is of the kind that a TPM makes, and nothing shows that one did")
    level, kind = (SOFTWARE_KEY, EvidenceKind.SOFTWARE) if shown is None else (UNKNOWN_TPM, EvidenceKind.TPM)
    if kind not in accepted_kinds(policy):
        raise Refused(Reason.EVIDENCE_NOT_ACCEPTED, "the policy wants a TPM, and the request shows none")
    check_level(policy, level, roles)
    facts = LeafFacts(roles=roles, level=level, policy_version=policy.version)
    if shown is not None:
        checked = check_request(_tpm_request(shown), request.der, request.identity)
        facts = replace(
            facts, ak_name=checked.ak_name, ak_qualified_name=checked.ak_qualified_name,
            ek_tag=ek_tag(authority.root.mesh_id, checked.ek_name),
        )
    try:
        return LeafFacts.unpack(facts.pack())
    except Refused as error:
        hint = "roles are of a-z, 0-9 and inner hyphens, 32 letters at most"
        raise UsageError(f"these cannot be roles: {error.detail}", hint=hint) from None


def _tpm_request(shown: TpmParts) -> TpmRequest:
    return TpmRequest(
        ek_public=shown.ek_public, ak_public=shown.ak_public, identity_public=shown.identity_public,
        parent_name=shown.parent_name, attested=shown.certify_attest, signature=shown.certify_signature,
    )


def _seal(bundle: Bundle, shown: TpmParts) -> str:
    """For the one TPM that holds both the EK and the AK of the request, which `_facts` has checked."""
    secret = secrets.token_bytes(SECRET_SIZE)
    credential = make_credential(parse_endorsement_key(shown.ek_public), parse_area(shown.ak_public).name, secret)
    return bundle.seal(
        secret, credential_blob=credential.blob, encrypted_secret=credential.encrypted_seed,
        nonce=secrets.token_bytes(NONCE_SIZE),
    ).to_text()


def _check_name(name: str, whose: str) -> None:
    if not is_name(name):
        hint = "1 to 63 of a-z, 0-9 and inner hyphens"
        raise UsageError(f"{name!r} is not a name for {whose}", hint=hint)
