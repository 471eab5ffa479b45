"""Signed work as it is carried, with all that it takes to check it: bytes <-> values, and nothing of them is verified here.

    workload   = COSE_Sign1 by the originator, or COSE_Sign by two under dual control:
                 kid = H(endorsement), AAD = "overlay/1 workload\\0" || mesh_id
    placement  = COSE_Sign1 by the scheduler, AAD = "overlay/1 placement\\0" || mesh_id
    result     = COSE_Sign1 by the worker, AAD = "overlay/1 work result\\0" || mesh_id
    carried    = {0:1, 1:one of these, 2:[[endorsement, leaf, [chain]], ...]}        credentials in the order of the signatures
    assignment = {0:1, 1:carried workload, 2:carried placement}                      what a scheduler hands to a worker

The hash of a workload, a placement or a result is SHA-256 of its COSE bytes; credentials are no part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from overlay.core.keys import MeshId
from overlay.core.limits import CHAIN_BYTES_MAX, CHAIN_DEPTH_MAX, ENDORSEMENT_MAX
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.core.wire import (
    Array,
    Bytes,
    Kind,
    Tuple,
    UnverifiedSign1,
    make_map,
    malformed,
    open_map,
    parse_sign1,
    sha256,
)
from overlay.core.work.cose_sign import PER_SIGNATURE, UnverifiedSign, parse_sign
from overlay.core.work.placement import PLACEMENT_MAX, Placement
from overlay.core.work.result import RESULT_MAX, WorkResult
from overlay.core.work.workload import WORKLOAD_MAX, Workload
from overlay.errors import Refused
from overlay.registry import COSE_SIGN_TAG, Label, Reason

SIGNERS_MAX: Final = 2  # protocol: dual control
ENVELOPE_MAX: Final = 256  # of a COSE_Sign1 around a payload, rounded up
WORKLOAD_COSE_MAX: Final = WORKLOAD_MAX + 16 + SIGNERS_MAX * PER_SIGNATURE
CREDENTIALS_MAX: Final = CHAIN_BYTES_MAX + ENDORSEMENT_MAX + 64  # of one signer
SIGNED_WORKLOAD_MAX: Final = WORKLOAD_COSE_MAX + SIGNERS_MAX * CREDENTIALS_MAX + 16
SIGNED_PLACEMENT_MAX: Final = PLACEMENT_MAX + ENVELOPE_MAX + CREDENTIALS_MAX + 16
SIGNED_RESULT_MAX: Final = RESULT_MAX + ENVELOPE_MAX + CREDENTIALS_MAX + 16
ASSIGNMENT_MAX: Final = SIGNED_WORKLOAD_MAX + SIGNED_PLACEMENT_MAX + 16

_CREDENTIALS: Final = Tuple((
    Bytes(1, ENDORSEMENT_MAX), Bytes(1, CHAIN_BYTES_MAX), Array(Bytes(1, CHAIN_BYTES_MAX), CHAIN_DEPTH_MAX),
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignedWorkload:
    """A workload as it is carried: nothing of it is verified. Under dual control it may still lack its second signature."""

    says: Workload
    raw: bytes = field(repr=False)  # COSE
    credentials: tuple[Credentials, ...] = field(repr=False)  # one for each signature
    signed: UnverifiedSign1 | UnverifiedSign = field(repr=False, compare=False)

    @property
    def hash(self) -> bytes:
        """What a placement names. 32 bytes."""
        return sha256(self.raw)

    @property
    def is_complete(self) -> bool:
        """Whether all have signed who must."""
        return len(self.credentials) == len(self.says.signers)

    def pack(self) -> bytes:
        """The carried form."""
        return _pack(self.raw, self.credentials)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        raw, credentials = _unpack(data, Bytes(1, WORKLOAD_COSE_MAX), SIGNERS_MAX, SIGNED_WORKLOAD_MAX)
        return cls.read(raw, credentials)

    @classmethod
    def read(cls, raw: bytes, credentials: Sequence[Credentials]) -> Self:
        """From COSE bytes. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        several = raw.startswith(COSE_SIGN_TAG)
        signed: UnverifiedSign1 | UnverifiedSign
        if several:
            signed = parse_sign(raw, limit=WORKLOAD_COSE_MAX, most=SIGNERS_MAX)
        else:
            signed = parse_sign1(raw, limit=WORKLOAD_COSE_MAX)
        says = Workload.unpack(signed.payload)
        if several != (says.second is not None):
            malformed("a workload is a COSE_Sign under dual control, and else a COSE_Sign1")
        if len(credentials) != (len(signed.signatures) if isinstance(signed, UnverifiedSign) else 1):
            malformed("each signature comes with its credentials")
        return cls(says, raw, tuple(credentials), signed)

    def check_signature(self, index: int, peer: VerifiedPeer, mesh_id: MeshId) -> None:
        """Whether this peer made that signature. Raises Refused: WRONG_AUTHOR, BAD_SIGNATURE."""
        aad = Label.WORKLOAD + mesh_id
        if isinstance(self.signed, UnverifiedSign):
            one = self.signed.signatures[index]
            _check_kid(one.kid, peer)
            one.verify(self.signed.payload, peer.message_public, aad=aad)
        else:
            _check_kid(self.signed.kid, peer)
            self.signed.verify(peer.message_public, aad=aad)


@dataclass(frozen=True, slots=True)
class SignedPlacement:
    """A placement as it is carried: nothing of it is verified."""

    says: Placement
    raw: bytes = field(repr=False)  # COSE
    credentials: Credentials = field(repr=False)
    signed: UnverifiedSign1 = field(repr=False, compare=False)

    @property
    def hash(self) -> bytes:
        """What a result names. 32 bytes."""
        return sha256(self.raw)

    def pack(self) -> bytes:
        """The carried form."""
        return _pack(self.raw, [self.credentials])

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        raw, [credentials] = _unpack(data, Bytes(1, PLACEMENT_MAX + ENVELOPE_MAX), 1, SIGNED_PLACEMENT_MAX)
        return cls.read(raw, credentials)

    @classmethod
    def read(cls, raw: bytes, credentials: Credentials) -> Self:
        """From COSE bytes. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        signed = parse_sign1(raw, limit=PLACEMENT_MAX + ENVELOPE_MAX)
        return cls(Placement.unpack(signed.payload), raw, credentials, signed)

    def check_signature(self, peer: VerifiedPeer, mesh_id: MeshId) -> None:
        """Whether this peer signed it. Raises Refused: WRONG_AUTHOR, BAD_SIGNATURE."""
        _check_kid(self.signed.kid, peer)
        self.signed.verify(peer.message_public, aad=Label.PLACEMENT + mesh_id)


@dataclass(frozen=True, slots=True)
class SignedResult:
    """A result as it is carried: nothing of it is verified."""

    says: WorkResult
    raw: bytes = field(repr=False)  # COSE
    credentials: Credentials = field(repr=False)
    signed: UnverifiedSign1 = field(repr=False, compare=False)

    @property
    def hash(self) -> bytes:
        """32 bytes."""
        return sha256(self.raw)

    def pack(self) -> bytes:
        """The carried form."""
        return _pack(self.raw, [self.credentials])

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        raw, [credentials] = _unpack(data, Bytes(1, RESULT_MAX + ENVELOPE_MAX), 1, SIGNED_RESULT_MAX)
        return cls.read(raw, credentials)

    @classmethod
    def read(cls, raw: bytes, credentials: Credentials) -> Self:
        """From COSE bytes. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        signed = parse_sign1(raw, limit=RESULT_MAX + ENVELOPE_MAX)
        return cls(WorkResult.unpack(signed.payload), raw, credentials, signed)

    def check_signature(self, peer: VerifiedPeer, mesh_id: MeshId) -> None:
        """Whether this peer signed it. Raises Refused: WRONG_AUTHOR, BAD_SIGNATURE."""
        _check_kid(self.signed.kid, peer)
        self.signed.verify(peer.message_public, aad=Label.WORK_RESULT + mesh_id)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a scheduler hands to a worker: the workload as its originators signed it, and the placement."""

    workload: SignedWorkload
    placement: SignedPlacement

    def pack(self) -> bytes:
        """As it is sent."""
        return make_map(self.workload.pack(), self.placement.pack())

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        workload, placement = open_map(
            data, Bytes(1, SIGNED_WORKLOAD_MAX), Bytes(1, SIGNED_PLACEMENT_MAX), limit=ASSIGNMENT_MAX
        )
        return cls(SignedWorkload.unpack(workload), SignedPlacement.unpack(placement))


def _pack(raw: bytes, credentials: Sequence[Credentials]) -> bytes:
    return make_map(raw, [[one.endorsement, one.leaf, list(one.chain)] for one in credentials])


def _unpack(data: bytes, kind: Kind, most: int, limit: int) -> tuple[bytes, list[Credentials]]:
    raw, rows = open_map(data, kind, Array(_CREDENTIALS, most), limit=limit)
    if not rows:
        malformed("no credentials")
    return raw, [Credentials(endorsement, leaf, tuple(chain)) for endorsement, leaf, chain in rows]


def _check_kid(kid: bytes | None, peer: VerifiedPeer) -> None:
    if kid != peer.kid:
        raise Refused(Reason.WRONG_AUTHOR, "signed under another endorsement than the one that is shown")
