"""What a signer has agreed to renew: of each node the newest certificate that was to be replaced, and by what.

- The same CSR with the same notBefore is a retry. Anything else in the place of one certificate is a second machine with the
  same identity, and so is whoever renews a certificate that is older than one that was replaced.
- An attempt leads to a certificate of a day. When that would have ended, and this signer has promised its share for none in
  this place, the node may begin anew: of those who signed, 2t - n have promised, and go on refusing.
- One row for each node, so a book is as long as the mesh is large, however often nodes renew.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from overlay.core.certificates import TOLERANCE, VerifiedCertificate, show_time
from overlay.core.grace import GraceTimes
from overlay.core.join_frames import SECONDS_MAX, SERIAL_SIZE, Renewal
from overlay.core.join_ports import LEAF_LIFE
from overlay.core.keys import NodeId
from overlay.core.wire import Array, Bytes, Tuple, UInt, make_map, malformed, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason

USUAL: Final = GraceTimes()
BOOK_MAX: Final = 65_536  # nodes: our guess, four times the names that a mesh has
BOOK_BYTES_MAX: Final = BOOK_MAX * 120 + 64  # packed: 32, 20 and 32 bytes and three times of at most 9, with their heads
NO_SERIAL: Final = 0  # no certificate has it: the first bits of a serial are 01

_ROW: Final = Tuple((Bytes(32), Bytes(SERIAL_SIZE), UInt(SECONDS_MAX), Bytes(32), UInt(SECONDS_MAX), UInt(2 * SECONDS_MAX)))


@dataclass(frozen=True, slots=True)
class _Replaced:
    """The newest certificate of a node that was to be replaced. Times are Unix seconds."""

    serial: int  # NO_SERIAL: none, but for those that began earlier
    begun: int  # when it began; what began before was replaced before
    request_hash: bytes
    not_before: int  # of what takes its place
    forget: int  # from then on it is beyond every grace, and so are those before


@dataclass(frozen=True, slots=True)
class RenewalBook:
    """Who was renewed, and how. A value: make the new one durable, then answer."""

    replaced: Mapping[NodeId, _Replaced] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def bind(
        self, old: VerifiedCertificate, renewal: Renewal, at: datetime, grace: GraceTimes = USUAL, *, promised: bool = True
    ) -> "RenewalBook":
        """The book with this renewal in it; the same book for a retry.

        `promised`: whether our share was promised to a certificate in the old one's place, see `Bindings.is_renewed`.

        Raises:
            Refused: CLONED_IDENTITY if the certificate was replaced by something else, or one after it was; CLOCK for a
                notBefore in the future; TOO_MANY if the book is full.
        """
        hashed, seconds = sha256(renewal.csr), int(renewal.not_before.timestamp())
        known = self.replaced.get(old.node_id)
        if known is not None and known.serial == old.serial:
            if (known.request_hash, known.not_before) == (hashed, seconds):
                return self
            if promised or at.timestamp() < known.not_before + LEAF_LIFE.total_seconds():
                raise Refused(Reason.CLONED_IDENTITY, f"a certificate of {old.name} was to be renewed in two ways")
        elif known is not None and _begun(old) <= known.begun:
            raise Refused(Reason.CLONED_IDENTITY, f"a certificate of {old.name} that has a successor was to be renewed again")
        if renewal.not_before - TOLERANCE > at:  # the past is no fault: another signer may have bound it an hour ago
            detail = f"the node's clock says {show_time(renewal.not_before)}, it is {show_time(at)} here"
            raise Refused(Reason.CLOCK, detail)
        kept = {node: one for node, one in self.replaced.items() if one.forget > at.timestamp()}
        if old.node_id not in kept and len(kept) >= BOOK_MAX:
            raise Refused(Reason.TOO_MANY, "the book of renewals is full")
        longest = max(grace.of_members, grace.with_tpm, grace.with_file)  # its office and level may change meanwhile
        forget = max(int((old.not_after + longest + 2 * TOLERANCE).timestamp()), 0 if known is None else known.forget)
        row = _Replaced(old.serial, _begun(old), hashed, seconds, forget)
        return replace(self, replaced=MappingProxyType(kept | {old.node_id: row}))

    def without(self, serials: Container[int]) -> "RenewalBook":
        """For a new authority: renewals that the one before it has begun and can never finish. Older ones stay replaced."""
        free = {
            node: replace(one, serial=NO_SERIAL, begun=one.begun - 1)
            for node, one in self.replaced.items() if one.serial in serials
        }
        return replace(self, replaced=MappingProxyType({**self.replaced, **free}))

    def pack(self) -> bytes:
        """{0:1, 1:[[node_id, serial20, begun, H(CSR), not_before, forget]]}, sorted."""
        return make_map([
            [node, one.serial.to_bytes(SERIAL_SIZE, "big"), one.begun, one.request_hash, one.not_before, one.forget]
            for node, one in sorted(self.replaced.items())
        ])

    @classmethod
    def unpack(cls, data: bytes) -> "RenewalBook":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        (rows,) = open_map(data, Array(_ROW, BOOK_MAX), limit=BOOK_BYTES_MAX)
        nodes = [node for node, *_ in rows]
        if nodes != sorted(set(nodes)):
            malformed("nodes of a book are sorted and different")
        return cls(MappingProxyType({
            NodeId(node): _Replaced(int.from_bytes(serial, "big"), *values) for node, serial, *values in rows
        }))


def _begun(certificate: VerifiedCertificate) -> int:
    return int(certificate.not_before.timestamp())
