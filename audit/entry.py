"""One audit entry: its bytes, what they say, and who signed them (docs/protocol/audit.md).

    {0:1, 1:node_id, 2:log_id16, 3:seq, 4:prev32, 5:hlc, 6:type, 7:body, 8:[hash32, ...], 9:[reset, restart, clock]?}

as COSE_Sign1 by the author's message key: kid = H(endorsement), AAD = "overlay/1 audit\\0" || mesh_id. The clock `hlc`
is Unix milliseconds << 16 | counter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from overlay.core.keys import MeshId, NodeId, Signer
from overlay.core.limits import ENTRY_MAX
from overlay.core.mesh.chains import HLC_MAX, SEQ_LAST, hlc_time, item_hash
from overlay.core.wire import (
    Anything,
    Array,
    Bytes,
    Maybe,
    Tuple,
    UInt,
    UnverifiedSign1,
    make_map,
    malformed,
    open_map,
    parse_sign1,
    sha256,
    sign1,
    u32,
)
from overlay.errors import Refused, UsageError
from overlay.registry import EntryType, Label, Reason

LOG_ID_SIZE: Final = 16
REFERENCES_MAX: Final = 8
TYPE_MAX: Final = 255
U32_MAX: Final = 2**32 - 1

_FORM: Final = (
    Bytes(32), Bytes(LOG_ID_SIZE), UInt(SEQ_LAST), Bytes(32), UInt(HLC_MAX), UInt(TYPE_MAX), Anything(),
    Array(Bytes(32), REFERENCES_MAX), Maybe(Tuple((UInt(U32_MAX), UInt(U32_MAX), UInt()))),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TpmTime:
    """The TPM's own clock: resets, restarts, milliseconds (TPM 2.0 part 2, section 10.11.6)."""

    reset: int
    restart: int
    clock: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry whose signature has been checked, unless it hangs in an `UnverifiedEntry`."""

    node_id: NodeId
    log_id: bytes  # 16
    seq: int  # from 0: the index in the tree
    prev: bytes  # 32: hash of the entry before, zeros for the first
    hlc: int
    type: int  # an EntryType, or a number of a later version
    body: Mapping[int, Any]
    references: tuple[bytes, ...] = ()  # hashes of others' entries
    tpm_time: TpmTime | None = None
    kid: bytes = field(repr=False)  # 32: hash of the endorsement
    hash: bytes = field(repr=False)  # 32
    raw: bytes = field(repr=False)

    @property
    def at(self) -> datetime:
        """The author's time."""
        return hlc_time(self.hlc)

    @property
    def type_name(self) -> str:
        """As in the registry, lower case; a number that we do not know stands as such."""
        try:
            return EntryType(self.type).name.lower()
        except ValueError:
            return f"type {self.type}"


@dataclass(frozen=True, slots=True)
class UnverifiedEntry:
    """An entry of the right form whose signature nobody has checked yet: what it says must not be believed."""

    says: Entry
    signed: UnverifiedSign1 = field(repr=False)

    def verify(self, message_public: bytes, mesh_id: MeshId) -> Entry:
        """The entry, if that message key signed it in that mesh. Raises Refused(BAD_SIGNATURE)."""
        self.signed.verify(message_public, aad=Label.AUDIT + mesh_id)
        return self.says


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an entry goes: which log, after which entry, when."""

    node_id: NodeId
    log_id: bytes
    seq: int
    prev: bytes
    hlc: int


def sign_entry(
    place: Place, entry_type: int, body: Mapping[int, Any], *, signer: Signer, kid: bytes, mesh_id: MeshId,
    references: tuple[bytes, ...] = (), tpm_time: TpmTime | None = None,
) -> Entry:
    """Encode and sign an entry. The signer is the message key of the endorsement whose hash is `kid`.

    Raises:
        UsageError: the entry is larger than 60 KiB, or the body or a reference is not of the right form.
    """
    times = None if tpm_time is None else [tpm_time.reset, tpm_time.restart, tpm_time.clock]
    try:
        payload = make_map(
            place.node_id, place.log_id, place.seq, place.prev, place.hlc, int(entry_type), body, list(references),
            times,
        )
        raw = sign1(payload, signer=signer, aad=Label.AUDIT + mesh_id, kid=kid)
        return parse_entry(raw).says
    except (Refused, TypeError) as error:
        hint = f"an entry has at most {ENTRY_MAX} bytes"
        raise UsageError(f"this cannot be an audit entry: {error}", hint=hint) from None


def parse_entry(raw: bytes) -> UnverifiedEntry:
    """Read the bytes of an entry. Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
    signed = parse_sign1(raw, limit=ENTRY_MAX)
    found = open_map(signed.payload, *_FORM, limit=ENTRY_MAX)
    node_id, log_id, seq, prev, hlc, entry_type, body, references, times = found
    if not isinstance(body, dict):
        malformed("the body of an entry is a map")
    says = Entry(
        node_id=NodeId(node_id), log_id=log_id, seq=seq, prev=prev, hlc=hlc, type=entry_type, body=body,
        references=tuple(references), tpm_time=None if times is None else TpmTime(*times),
        kid=signed.kid or b"", hash=item_hash(raw), raw=raw,
    )
    return UnverifiedEntry(says, signed)


def make_log_id(mesh_id: MeshId, node_id: NodeId, k: int, last: bytes, start_id: bytes) -> bytes:
    """Names incarnation k of a node's log. 16 bytes.

    Args:
        last: hash of the last known entry of incarnation k - 1; 32 zeros for k = 0.
        start_id: from the endorsement in entry 0.
    """
    return sha256(Label.LOG, mesh_id, node_id, u32(k), last, start_id)[:LOG_ID_SIZE]


def refuse_entry(reason: Reason, entry: Entry, detail: str) -> Refused:
    """The error for one entry of a log."""
    return Refused(reason, f"entry {entry.seq} of log {entry.log_id.hex()}: {detail}")


