"""An actor of the lab: a member that runs the real node with exactly one defect, or none for the control.

A defect is a function that changes one part of a node before it starts; everything else stays as it is. Started as
`python -m overlay.app.lab.actor --state DIR --defect NAME run --json ...`, and prints event lines like any node.
"""

import argparse
import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import trio

from audit.log import AuditLog
from overlay.app.compose import Assembly, open_node
from overlay.app.config import load_config
from overlay.app.identity import Endorser, load_membership
from overlay.app.lab.forking import ForkingLog
from overlay.app.lab.processes import cancel_on_signal
from overlay.app.telemetry.names import BATCH
from overlay.core.endorsement import make_endorsement, verify_endorsement
from overlay.core.evidence import Binding, Evidence, Prover
from overlay.core.handshake import Side
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.core.rekey import Action, Send
from overlay.core.session import Session
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.errors import OverlayError
from overlay.events import NodeEvent
from overlay.net.guest import GuestLink
from overlay.net.ports import TrustKeeper
from overlay.net.request import Request
from overlay.net.system import wall_clock
from overlay.registry import EvidenceKind, FrameType, Mode
from overlay.store.files import write_atomic
from overlay.store.state import StateFolder

Defect = Callable[[Assembly, str], Assembly]


def wrong_gate_key(assembly: Assembly, _: str) -> Assembly:
    """`stranger`: knows the address and nothing else."""
    return replace(assembly, parts=replace(assembly.parts, gate_keys=(secrets.token_bytes(32),)))


def other_mesh(assembly: Assembly, folder: str) -> Assembly:
    """`other-mesh`: everything is right but the authority: its credentials are those of a mesh in `folder`."""
    with StateFolder.open(Path(folder), exclusive=True) as opened:
        membership = load_membership(opened)
        endorser = Endorser(opened, membership.certificate, lambda: membership.trust, None)
        identity = endorser.begin(assembly.parts.calendar())
    return replace(assembly, parts=replace(assembly.parts, identity=identity))


def expired_endorsement(assembly: Assembly, seconds: str) -> Assembly:
    """`expired-endorsement`: it ends (the tolerance for clocks included) so many seconds from now; negative: before now."""
    identity = assembly.parts.identity
    end = assembly.parts.calendar() + timedelta(seconds=float(seconds)) - timedelta(minutes=5)
    endorsement = make_endorsement(
        assembly.signer, mesh_id=assembly.parts.trust().mesh_id, leaf=identity.credentials.leaf,
        noise_public=identity.static.public, message=identity.message, start_id=identity.verified.start_id,
        not_before=end - timedelta(minutes=30), not_after=end,
    )
    credentials = Credentials(endorsement, identity.credentials.leaf, identity.credentials.chain)
    certificate, mesh_id = identity.verified.certificate, assembly.parts.trust().mesh_id
    verified = VerifiedPeer(certificate, verify_endorsement(endorsement, certificate, mesh_id, end))
    expiring = LocalIdentity(
        credentials=credentials, verified=verified, static=identity.static, message=identity.message
    )
    return replace(assembly, parts=replace(assembly.parts, identity=expiring))


def replayed_quote(assembly: Assembly, _: str) -> Assembly:
    """`replayed-quote`: shows every peer the first evidence that it ever made, which was for another link."""
    make = assembly.parts.prover
    return replace(assembly, parts=replace(assembly.parts, prover=lambda identity: _Replayer(make(identity))))


def replayed_rekey(assembly: Assembly, _: str) -> Assembly:
    """`replayed-rekey`: after a rekey it sends the OFFER of that rekey once more."""
    return replace(assembly, session=_ReplayingSession)


def deaf_signer(assembly: Assembly, _: str) -> Assembly:
    """`reshare`: a signer that takes no notice when others become signers in its place."""
    seat = assembly.parts.trust_keeper
    return replace(assembly, parts=replace(assembly.parts, trust_keeper=None if seat is None else _Deaf(seat)))


def forked_log(assembly: Assembly, _: str) -> Assembly:
    """`forked-log`: from its first application entry on, each second peer gets another history of its log."""
    parts = assembly.parts
    keepers = [
        ForkingLog(keeper, parts.trust().root, parts.calendar) if isinstance(keeper, AuditLog) else keeper
        for keeper in parts.keepers
    ]
    return replace(assembly, parts=replace(parts, keepers=keepers))


def feeder(assembly: Assembly, path: str) -> Assembly:
    """`edited-metric`: keeps the first batch of telemetry that it is given in a file, to do with it what it likes."""

    async def keep(request: Request) -> bytes:
        await trio.lowlevel.checkpoint()
        _keep_first(Path(path), request.body)
        return b""

    services = {**assembly.parts.services, BATCH: keep}
    return replace(assembly, parts=replace(assembly.parts, services=services))


def _keep_first(path: Path, data: bytes) -> None:
    if not path.exists():
        write_atomic(path, data)


DEFECTS: dict[str, Defect] = {
    "wrong-gate-key": wrong_gate_key,
    "other-mesh": other_mesh,
    "expired-endorsement": expired_endorsement,
    "replayed-quote": replayed_quote,
    "replayed-rekey": replayed_rekey,
    "deaf-signer": deaf_signer,
    "forked-log": forked_log,
    "feeder": feeder,
}


@dataclass
class _Replayer:
    """A prover that works once, and then repeats itself."""

    genuine: Prover
    recorded: Evidence | None = None

    @property
    def kind(self) -> EvidenceKind:
        return self.genuine.kind

    def prove(self, bindings: Sequence[Binding]) -> list[Evidence]:
        if self.recorded is None:
            self.recorded = self.genuine.prove(bindings[:1])[0]
        return [self.recorded] * len(bindings)


@dataclass(frozen=True)
class _Deaf:
    """A keeper of trust that does not hear of other authorities."""

    genuine: TrustKeeper

    def side(self, mode: Mode) -> Side | None:
        return self.genuine.side(mode)

    def host(self, mode: Mode) -> Callable[[GuestLink], Awaitable[None]] | None:
        return self.genuine.host(mode)

    def peer_opened(self, peer: NodeId) -> None:
        self.genuine.peer_opened(peer)

    def peer_renewed(self, peer: VerifiedPeer) -> None:
        self.genuine.peer_renewed(peer)

    def received(self, peer: VerifiedPeer, kind: FrameType, body: bytes) -> None:
        if kind is not FrameType.AUTHORITY_OBJECT:
            self.genuine.received(peer, kind, body)


class _ReplayingSession(Session):
    """Keeps the body of its last OFFER and sends it again as soon as that epoch is confirmed."""

    _last_offer: bytes = b""

    def _act(self, actions: list[Action]) -> None:
        super()._act(actions)
        for action in actions:
            if isinstance(action, Send) and action.type is FrameType.OFFER:
                self._last_offer = action.body
        if self._last_offer and self.epoch == int.from_bytes(self._last_offer[:8], "big"):
            self._send(FrameType.OFFER, self._last_offer)


def say(event: NodeEvent) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(event.fields()) + "\n")
    sys.stdout.flush()


async def play(state: Path, alter: Callable[[Assembly], Assembly], settings: Sequence[str], ahead: timedelta) -> None:
    """Run until told to stop, on a day that is so far ahead."""
    config = load_config(state, settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(cancel_on_signal, nursery.cancel_scope)
        async with open_node(
            state, config=config, observers=(say,), alter=alter, clock=lambda: wall_clock() + ahead
        ) as node:
            await node.wait_stopped()
        nursery.cancel_scope.cancel()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of an actor; the words after `run --json` are settings, as `overlay run` takes them."""
    parser = argparse.ArgumentParser(prog="overlay lab actor")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--defect", choices=sorted(DEFECTS))
    parser.add_argument("--argument", default="")
    parser.add_argument("--ahead", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("command", choices=["run"])
    options, settings = parser.parse_known_args(argv)
    defect = DEFECTS.get(options.defect) if options.defect else None
    try:
        trio.run(
            play, options.state, lambda assembly: defect(assembly, options.argument) if defect else assembly,
            [word for word in settings if word != "--json"], timedelta(seconds=options.ahead),
        )
    except OverlayError as error:
        sys.stderr.write(f"actor: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
