"""Looks whether the certificates of linked peers stand in the logs of enough signers, and gives the alarm where they do not."""

from collections.abc import Callable, Iterable
from typing import Final

import trio
from cryptography import x509

from audit.bodies import read_body
from audit.entry import Entry
from audit.log import AuditLog
from overlay.app.authority.keeper import Keeper
from overlay.core.authority.issuance_log import IssuanceLog, Issued
from overlay.core.authority.objects import AuthorityObject
from overlay.core.certificates import VerifiedCertificate
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import serial_bytes
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import EntryType, Reason

LOOK: Final = 10.0  # seconds: our guess


class Watching:
    """Of one node, for as long as it runs."""

    def __init__(self, keeper: Keeper, log: AuditLog, certificates: Callable[[], tuple[VerifiedCertificate, ...]]) -> None:
        """`certificates`: in use by linked peers and us, by the root in force."""
        self.issuance = IssuanceLog()
        self.look = LOOK
        self.loaded = trio.Event()  # what was stored before the start is known
        self._keeper = keeper
        self._log = log
        self._certificates = certificates
        log.listen(self._take)

    async def run(self) -> None:
        """Until cancelled."""
        self._take(await self._log.newest())
        self.loaded.set()
        while True:
            self._look()
            await trio.sleep(self.look)

    def logs(self, certificate: VerifiedCertificate) -> int:
        """In the logs of how many signers it stands."""
        return self.issuance.logs(issued_as(certificate), self.signers)

    @property
    def signers(self) -> frozenset[NodeId]:
        """All who have ever held the key in force: who holds no share any more has logged what it signed."""
        return frozenset(member for one in self._under_root() for member in one.member_ids)

    @property
    def wanted(self) -> int:
        """How many of them it took at least."""
        return min(one.threshold for one in self._under_root())

    def _under_root(self) -> list[AuthorityObject]:
        chain = self._keeper.ledger.chain
        return [one for one in chain.objects if one.root == chain.newest_root]

    def _take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.type == EntryType.ISSUANCE:
                self._take_one(entry)

    def _take_one(self, entry: Entry) -> None:
        try:
            found = read_body(EntryType.ISSUANCE, entry.body)
        except Refused:
            return  # another release may write more in it; who writes nonsense has not logged
        self.issuance.entry(entry.node_id, Issued(found["serial"], found["leaf_hash"]))

    def _look(self) -> None:
        if len(self._keeper.ledger.chain.newest.members) == 1:
            return  # one machine signs, and its log is all there is
        now = trio.current_time()
        shown = {issued_as(one): (one.node_id, one.name) for one in self._certificates()}
        self.issuance.shown(shown, now)
        for one in self.issuance.tick(self.signers, self.wanted, now):
            detail = f"{one.name}: {one.issued.serial.hex()[:8]} stands in {one.logs} of {one.wanted} logs: `overlay ca audit`"
            self._keeper.alarm(one.node_id, Reason.UNLOGGED_CERTIFICATE, detail)


def issued_as(certificate: VerifiedCertificate) -> Issued:
    """As an entry names it."""
    content = x509.load_der_x509_certificate(certificate.der).tbs_certificate_bytes
    return Issued(serial_bytes(certificate.serial), sha256(content))
