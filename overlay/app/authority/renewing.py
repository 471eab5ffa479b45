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
            bundle = await self._collect(attempt)
            certificate = ports.verify(bundle)
            await ports.install(bundle)
            return certificate

    async def _collect(self, attempt: Attempt) -> Bundle:
        threshold, members = self._ports.quorum()
        approved, said = [], {}
        for member in members:
            result = await self._ask(member, attempt.renewal)
            if result.approved:
                approved.append(member)
            elif result.reason is not None:
                said[member] = result.reason
            if len(approved) >= threshold:
                break
        for member in approved if len(approved) >= threshold else ():
            finish = Renewal(
                csr=attempt.csr, serial=attempt.serial, not_before=attempt.not_before, finish=Finish(tuple(sorted(approved)))
            )
            result = await self._ask(member, finish)
            if result.bundle is not None:
                return result.bundle
            said[member] = result.reason or Reason.TIMEOUT
        words = ", ".join(f"{node.short} {reason.name.lower()}" for node, reason in said.items()) or "too few can be reached"
        raise Refused(Reason.NOT_ENOUGH_SIGNERS, f"{len(approved)} of {threshold} signers renew: {words}")

    async def _ask(self, member: NodeId, renewal: Renewal) -> JoinResult:
        try:
            return await self._ports.ask(member, renewal)
        except Refused as error:
            return JoinResult(reason=error.reason)
        except OverlayError:
            return JoinResult(reason=Reason.LOST)

