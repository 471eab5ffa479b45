"""What an identity key says of today's keys: Noise and message key, for one start of a node, under one certificate.

A COSE_Sign1 by the identity key, as RFC 9345 delegates, and like it bound to the certificate. So the identity key,
which may live in a TPM, signs a few times a day and not for each link or message.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from overlay.core import limits
from overlay.core.certificates import TOLERANCE, VerifiedCertificate, show_time
from overlay.core.keys import MeshId, NodeId, Signer, point_has_prime_order, verify_ed25519, x25519_is_safe
from overlay.core.wire import Bytes, Maybe, UInt, make_map, open_map, parse_sign1, sha256, sign1
from overlay.errors import Refused
from overlay.registry import Label, Reason

ENDORSEMENT_MAX: Final = limits.ENDORSEMENT_MAX
LIFE_MAX: Final = timedelta(seconds=limits.ENDORSEMENT_LIFE)
LIFE_IN_GRACE: Final = timedelta(hours=1)  # protocol: under a certificate that has ended, for its renewal
TIME_MAX: Final = 2**34  # seconds: the year 2514, so that no sum of times overflows
START_ID_SIZE: Final = 16

_FORM: Final = (
    Bytes(32), Bytes(32), Bytes(32), Bytes(32), Bytes(START_ID_SIZE), UInt(TIME_MAX), UInt(TIME_MAX), Bytes(64),
    Maybe(Bytes(32)), Maybe(Bytes(64)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """An endorsement that has passed every check of `verify_endorsement`."""

    node_id: NodeId
    leaf_hash: bytes = field(repr=False)  # 32
    noise_public: bytes = field(repr=False)  # 32
    message_public: bytes = field(repr=False)  # 32
    start_id: bytes  # 16: which start of the node this is
    not_before: datetime
    not_after: datetime
    witness_public: bytes | None = field(repr=False)  # 32
    raw: bytes = field(repr=False)
    hash: bytes = field(repr=False)  # SHA-256 of raw: the kid of every message under it


def make_endorsement(  # noqa: PLR0913 - one argument per field
    signer: Signer, *, mesh_id: MeshId, leaf: bytes, noise_public: bytes, message: Signer, start_id: bytes,
    not_before: datetime, not_after: datetime, witness: Signer | None = None,
) -> bytes:
    """COSE_Sign1 by the identity key; blocks as long as the signer does.

    Args:
        leaf: the certificate, DER.
        message: the key that will sign messages, here asked to show that we hold it.
        witness: the key that will sign checkpoints, where the node is a witness.
    """
    node_id = NodeId.of_key(signer.spki)
    payload = make_map(
        node_id, sha256(leaf), noise_public, message.public_key, start_id, int(not_before.timestamp()),
        int(not_after.timestamp()), message.sign(_pop(Label.ENDORSE_POP, mesh_id, node_id, noise_public, start_id)),
        witness and witness.public_key,
        witness and witness.sign(_pop(Label.WITNESS_POP, mesh_id, node_id, witness.public_key, start_id)),
    )
    return sign1(payload, signer=signer, aad=Label.ENDORSE + mesh_id, kid=None)


def verify_endorsement(raw: bytes, certificate: VerifiedCertificate, mesh_id: MeshId, at: datetime) -> Endorsement:
    """Check an endorsement under a verified certificate.

    Raises:
        Refused: BAD_ENDORSEMENT, ENDORSEMENT_EXPIRED, CLOCK (not valid yet), MALFORMED or TOO_LARGE.
    """
    found = _read(raw, certificate, mesh_id)
    _check_ids(found, certificate)
    _check_life(found, certificate, at)
    _check_keys(found)
    return found


def _read(raw: bytes, certificate: VerifiedCertificate, mesh_id: MeshId) -> Endorsement:
    """The fields, with all signatures checked."""
    signed = parse_sign1(raw, limit=ENDORSEMENT_MAX, with_kid=False)
    if signed.algorithm != certificate.identity.algorithm:
        _bad("algorithm is not the identity key's")
    try:
        payload = signed.verify(certificate.identity.public_key, aad=Label.ENDORSE + mesh_id)
    except Refused:
        _bad("not signed by the identity key")
    node_id, leaf_hash, noise, message, start_id, not_before, not_after, pop, witness, witness_pop = open_map(
        payload, *_FORM, limit=ENDORSEMENT_MAX
    )
    _check_pop(message, pop, _pop(Label.ENDORSE_POP, mesh_id, node_id, noise, start_id))
    if (witness is None) != (witness_pop is None):
        _bad("a witness key comes with its proof")
    if witness is not None:
        _check_pop(witness, witness_pop, _pop(Label.WITNESS_POP, mesh_id, node_id, witness, start_id))
    return Endorsement(
        node_id=NodeId(node_id), leaf_hash=leaf_hash, noise_public=noise, message_public=message, start_id=start_id,
        not_before=datetime.fromtimestamp(not_before, UTC), not_after=datetime.fromtimestamp(not_after, UTC),
        witness_public=witness, raw=raw, hash=sha256(raw),
    )


def _check_ids(found: Endorsement, certificate: VerifiedCertificate) -> None:
    """It is this node's, under this very certificate."""
    if found.node_id != certificate.node_id:
        _bad("names another node")
    if found.leaf_hash != certificate.hash:
        _bad("made under another certificate")


def _check_life(found: Endorsement, certificate: VerifiedCertificate, at: datetime) -> None:
    """At most a day and not beyond the certificate, or at most an hour under one in grace; and in force."""
    longest = LIFE_IN_GRACE if certificate.in_grace else LIFE_MAX
    if not timedelta(0) < found.not_after - found.not_before <= longest:
        _bad(f"its life is not between nothing and {longest}")
    if found.not_after > certificate.not_after and not certificate.in_grace:
        _bad("outlives the certificate")
    whose, now = f"{certificate.name}'s endorsement", f"it is now {show_time(at)}"
    if at + TOLERANCE < found.not_before:
        raise Refused(Reason.CLOCK, f"{whose} is valid from {show_time(found.not_before)}, {now}")
    if at - TOLERANCE > found.not_after:
        raise Refused(Reason.ENDORSEMENT_EXPIRED, f"{whose} expired on {show_time(found.not_after)}, {now}")


def _check_keys(found: Endorsement) -> None:
    """No key with which others could share a secret or a signature."""
    if not x25519_is_safe(found.noise_public):
        _bad("Noise key of low order")
    if not point_has_prime_order(found.message_public):
        _bad("message key is not of prime order")
    if found.witness_public is not None and not point_has_prime_order(found.witness_public):
        _bad("witness key is not of prime order")


def _check_pop(public_key: bytes, proof: bytes, data: bytes) -> None:
    """Whoever asked for the endorsement held the key."""
    try:
        verify_ed25519(public_key, proof, data)
    except Refused:
        _bad("proof of possession")


def _pop(label: bytes, mesh_id: bytes, node_id: bytes, public_key: bytes, start_id: bytes) -> bytes:
    """What a proof of possession signs."""
    return label + mesh_id + node_id + public_key + start_id


def _bad(detail: str) -> NoReturn:
    raise Refused(Reason.BAD_ENDORSEMENT, detail)
