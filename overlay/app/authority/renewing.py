"""Renews our certificate before it ends, or after, within grace: every signer is asked by itself, then one finishes.

It begins at two thirds of the life, at once where the mesh has a newer root, and tries again with pauses until it works.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import trio

from overlay.core.certificates import VerifiedCertificate
from overlay.core.enrolment_files import Bundle
from overlay.core.join_frames import Finish, Renewal
from overlay.core.join_result import JoinResult
from overlay.core.keys import NodeId
from overlay.core.mesh.backoff import Backoff
from overlay.core.renewal import Attempt, begin_attempt, due_at
from overlay.errors import OverlayError, Refused
from overlay.registry import Reason

LOOK: Final = 5.0  # seconds between two looks at the calendar: it may jump
METHOD: Final = "overlay.renew"  # the call by which a signer is asked on an open link

Ask = Callable[[NodeId, Renewal], Awaitable[JoinResult]]  # raises OverlayError


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalPorts:
    """What renewing needs of the node."""

    certificate: Callable[[], VerifiedCertificate]
    newest_generation: Callable[[], int]
    quorum: Callable[[], tuple[int, tuple[NodeId, ...]]]  # threshold, and members that can be asked now
    ask: Ask
    make_request: Callable[[], bytes]  # a CSR; blocks, for a TPM signs it
    kept: Callable[[], Attempt | None]
    keep: Callable[[Attempt], Awaitable[None]]  # durable on return
    verify: Callable[[Bundle], VerifiedCertificate]  # raises Refused
    install: Callable[[Bundle], Awaitable[None]]
    at: Callable[[], datetime]
    fraction: Callable[[], float]
    failed: Callable[[str], None]


class Renewing:
    """Of one node."""

    def __init__(self, ports: RenewalPorts) -> None:
        self._ports = ports
        self._running = trio.Lock()
        self._wake = trio.Event()

    def look(self) -> None:
        """Something has changed: a link, a root, the clock."""
        self._wake.set()

    @property
    def is_due(self) -> bool:
        """Whether it is time."""
        own, ports = self._ports.certificate(), self._ports
        old_root = len(own.lineage) - 1 < ports.newest_generation()
        return own.in_grace or old_root or ports.at() >= due_at(own.not_before, own.not_after)

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff()
        while True:
            if self.is_due:
                try:
                    await self.renew()
                    backoff = Backoff()
                except OverlayError as error:
                    self._ports.failed(str(error))
                    backoff = backoff.failed(self._ports.fraction())
            with trio.move_on_after(min(backoff.wait, LOOK) if self.is_due else LOOK):
                await self._wake.wait()
            self._wake = trio.Event()

    async def renew(self) -> VerifiedCertificate:
        """A new certificate, now.

        Raises:
            Refused: NOT_ENOUGH_SIGNERS, with what each said.
            OverlayError: the TPM or the disk fails.
        """
        async with self._running:
            ports = self._ports
            attempt = await trio.to_thread.run_sync(
                begin_attempt, ports.kept(), ports.certificate(), ports.make_request, ports.at()
            )
            await ports.keep(attempt)
            bundle, certificate = await self._collect(attempt)
            await ports.install(bundle)
            return certificate

    async def _collect(self, attempt: Attempt) -> tuple[Bundle, VerifiedCertificate]:
        """As soon as t have said yes one of them is to finish. If that fails the others are asked, too, and then finish: so a
        signer that says yes and does not sign, or gives something else, is none that the others cannot do without."""
        threshold, members = self._ports.quorum()
        approved, idle, said = list[NodeId](), list[NodeId](), dict[NodeId, Reason]()
        for member in members:
            result = await self._ask(member, attempt.renewal)
            if not result.approved:
                said[member] = result.reason or Reason.MALFORMED
                continue
            approved.append(member)
            idle.append(member)
            if len(approved) >= threshold:
                first = len(approved) == threshold
                found = await self._finish(idle.pop(0 if first else -1), attempt, approved, said)
                if found is not None:
                    return found
        for member in idle if len(approved) >= threshold else ():
            found = await self._finish(member, attempt, approved, said)
            if found is not None:
                return found
        words = ", ".join(f"{node.short} {reason.name.lower()}" for node, reason in said.items()) or "too few can be reached"
        raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{len(approved)} of {threshold} signers renew: {words}")

    async def _finish(
        self, member: NodeId, attempt: Attempt, approved: list[NodeId], said: dict[NodeId, Reason]
    ) -> tuple[Bundle, VerifiedCertificate] | None:
        """What that signer makes of it, if it is what we want; else `said` tells why not."""
        finish = Renewal(
            csr=attempt.csr, serial=attempt.serial, not_before=attempt.not_before, finish=Finish(tuple(sorted(approved)))
        )
        result = await self._ask(member, finish)
        said[member] = result.reason or Reason.TIMEOUT
        if result.bundle is None:
            return None
        try:
            certificate = self._ports.verify(result.bundle)
        except Refused as error:
            said[member] = error.reason
            return None
        if certificate.not_before != attempt.not_before:  # another one of ours, which would be renewed again at once
            said[member] = Reason.BAD_CERTIFICATE
            return None
        return result.bundle, certificate

    async def _ask(self, member: NodeId, renewal: Renewal) -> JoinResult:
        try:
            return await self._ports.ask(member, renewal)
        except Refused as error:
            return JoinResult(reason=error.reason)
        except OverlayError:
            return JoinResult(reason=Reason.LOST)

