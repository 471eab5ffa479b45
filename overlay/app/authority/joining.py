"""`overlay join`: finds the mesh of a token, asks its signers one after the other, and gives what makes a member.

Nothing is written here: a join that fails leaves the folder as it was, but for the identity, with which it can be tried again.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import trio

from discovery.mdns import MdnsFinder
from overlay.app.config import Config
from overlay.app.enrol import make_identity
from overlay.app.identity import attestation_blob, blob_of, identity_signer
from overlay.app.machine_logs import OwnLogs
from overlay.core.authority.objects import payload_of
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificate_profile import is_name
from overlay.core.certificate_request import build_request
from overlay.core.certificates import VerifiedCertificate, parse_root
from overlay.core.chance import Chance
from overlay.core.enrolment_files import Bundle
from overlay.core.guests import joiner
from overlay.core.handshake import Entrance
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import JoinChallenge, JoinTpm, TpmAnswer
from overlay.core.join_key import JoinKey
from overlay.core.join_plan import JoinPlan, Quorum
from overlay.core.joining import AnswerWanted, Joined, Joiner, JoinFailed, LinkDone
from overlay.core.keys import NodeId, Signer
from overlay.core.limits import CHAIN_BYTES_MAX
from overlay.core.log_parts import LogSource, NoLogs
from overlay.core.mesh.found import Address, AnnouncementFacts, Candidate
from overlay.core.token import Token
from overlay.core.wire import Bytes, decode
from overlay.errors import HostLacks, OverlayError, PeerUnreachable, Refused, UsageError
from overlay.net.background import background
from overlay.net.guest import GuestLink, dial_guest
from overlay.net.ports import Finder
from overlay.net.system import SystemChance, wall_clock
from overlay.registry import Mode, Reason
from overlay.store import membership
from overlay.store.clock import raise_floor
from overlay.store.identity import TpmKey, load_identity
from overlay.store.membership import load_mesh
from overlay.store.peers import PeerBook, save_peers
from overlay.store.restored import load_count
from overlay.store.state import StateFolder

if TYPE_CHECKING:
    from attest.tpm import Tpm

PATIENCE: Final = 60.0  # seconds to find enough signers: our guess
AGAIN: Final = 2.0  # seconds until an address that did not answer is tried again
TAG_SIZE: Final = 8
PORT_MAX: Final = 65_535
NOBODY: Final = "is a signer of the mesh up, and in this network? Else have a token made with `overlay invite --address`"

Prove = Callable[[JoinTpm, JoinChallenge, JoinBinding], Awaitable[TpmAnswer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinWish:
    """Who joins, and by what."""

    token: Token
    node_id: NodeId
    csr: bytes = field(repr=False)
    name: str | None
    tpm: JoinTpm | None
    prove: Prove | None  # lets the TPM answer
    chance: Chance
    at: Callable[[], datetime]
    finders: Sequence[Finder]
    logs: LogSource = field(default_factory=NoLogs, repr=False)  # of this machine


@dataclass(frozen=True, slots=True)
class Admission:
    """What makes a member, and the authority that has admitted it."""

    bundle: Bundle
    authority: AuthorityChain | None


@dataclass(slots=True)
class _Place:
    """Somewhere a member may answer."""

    address: Address
    tag: bytes = bytes(TAG_SIZE)
    peer: NodeId | None = None
    again: float = -math.inf


async def join(wish: JoinWish, *, patience: float = PATIENCE, met: dict[NodeId, Address] | None = None) -> Admission:
    """Become a member, or say why not. `met` takes down who was found where.

    Raises:
        Refused: BAD_TOKEN or CLOCK for the token; the reason of the last signer that could have helped.
        PeerUnreachable: nobody of the mesh was found in time.
        OverlayError: the TPM fails.
    """
    wish.token.check_time(wish.at())
    search = _Search(wish)
    with trio.move_on_after(patience):
        async with background() as tasks:
            for finder in wish.finders:
                tasks.start_soon(search.find, finder)
            bundle = await search.run()
            if met is not None:
                met.update(search.known())
            return Admission(bundle, search.authority)
    raise PeerUnreachable(search.story(), hint=NOBODY)


class _Search:
    """One join."""

    def __init__(self, wish: JoinWish) -> None:
        self._wish = wish
        self._places: dict[Address, _Place] = {address: _Place(address) for address in wish.token.addresses}
        self._news = trio.Event()
        self.authority: AuthorityChain | None = None
        self._joiner = Joiner(self._plan())
        self._last = "nobody of the mesh was found"

    def _plan(self) -> JoinPlan:
        wish, token = self._wish, self._wish.token
        key = JoinKey.of(token.seed, token.mesh_id)
        return JoinPlan(
            mesh_id=token.mesh_id, node_id=wish.node_id, csr=wish.csr, invite=token.invite, invite_id=key.invite_id,
            not_before=wish.at().replace(microsecond=0), name=wish.name, tpm=wish.tpm, logs=wish.logs,
            prove=lambda h, signer: key.prove(mesh_id=token.mesh_id, h=h, signer=signer, csr=wish.csr),
            read_authority=self._read_authority,
            recovered=lambda: {} if self.authority is None else self.authority.recovered_roots,
        )

    def _read_authority(self, objects: tuple[bytes, ...]) -> Quorum:
        """Who signs, as this signer shows it; the last one's word is kept with the certificate."""
        self.authority = found = read_authority(objects, self._wish.token, self._wish.at())
        return Quorum(found.newest.threshold, frozenset(found.newest.member_ids))

    def story(self) -> str:
        """How far it came."""
        return f"{self._last}; {len(self._joiner.approved)} signers have agreed"

    def known(self) -> dict[NodeId, Address]:
        """Who answered where, or is said to be there."""
        return {place.peer: place.address for place in self._places.values() if place.peer is not None}

    # --- finding ----------------------------------------------------------------------------------------------------

    async def find(self, finder: Finder) -> None:
        """Listen for members."""
        facts = AnnouncementFacts(
            port=1, tag=self._wish.chance.token(TAG_SIZE), node_id=self._wish.node_id,
            gate_keys=(self._wish.token.gate_key,), known=lambda: (),
        )
        try:
            await finder.run(facts, self._found)
        except HostLacks as error:
            self._last = str(error)

    def _found(self, candidate: Candidate) -> None:
        if not candidate.ours:
            return
        for address in candidate.addresses:
            self._places.setdefault(address, _Place(address)).tag = candidate.tag
        self._stir()

    def _stir(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _next(self) -> _Place | None:
        """Where to go now: to those whose yes is still needed, else to whom we do not know yet."""
        wanted = {hint.node_id for hint in self._joiner.candidates}
        for hint in self._joiner.candidates:
            for address in hint.addresses:
                self._add(address, hint.node_id)
        now = trio.current_time()
        ready = [place for place in self._places.values() if place.again <= now]
        known = [place for place in ready if place.peer in wanted]
        return next(iter(known or [place for place in ready if place.peer is None]), None)

    def _add(self, address: str, node_id: NodeId) -> None:
        host, _, port = address.rpartition(" ")
        if host and port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX:
            place = self._places.setdefault((host, int(port)), _Place((host, int(port))))
            place.peer = place.peer or node_id

    # --- asking -----------------------------------------------------------------------------------------------------

    async def run(self) -> Bundle:
        """Ask one after the other until there is a certificate."""
        while True:
            place = self._next()
            if place is None:
                await self._wait()
                continue
            bundle = await self._try(place)
            if bundle is not None:
                return bundle

    async def _wait(self) -> None:
        soonest = min((place.again for place in self._places.values()), default=math.inf)
        with trio.move_on_at(max(soonest, trio.current_time() + 0.05)):
            await self._news.wait()

    async def _try(self, place: _Place) -> Bundle | None:
        token, wish = self._wish.token, self._wish
        place.again = trio.current_time() + AGAIN
        side = joiner(token.mesh_id, token.root_hash, wish.chance.x25519(), wish.at)
        entrance = Entrance(chance=wish.chance, gate_keys=(token.gate_key,), tag=place.tag)
        try:
            async with dial_guest(place.address, entrance, lambda _mode: side, Mode.JOIN) as link:
                return await self._converse(link, place)
        except (Refused, PeerUnreachable) as error:
            self._last = f"{place.address[0]} {place.address[1]}: {error}"
            self._judge(self._joiner.lost(Reason.LOST))
        return None

    async def _converse(self, link: GuestLink, place: _Place) -> Bundle | None:
        ready = await link.ready()
        assert ready.peer is not None  # `joiner` verifies one
        place.peer = ready.peer.node_id
        machine = self._joiner
        if place.peer in machine.approved:
            place.again = math.inf
        machine.begin(ready.peer.certificate, ready.first_h, trio.current_time())
        while True:
            for kind, body in machine.messages_to_send():
                await link.send(kind, body)
            with trio.move_on_at(machine.deadline) as scope:
                frame = await link.receive()
            if scope.cancelled_caught:
                events = machine.tick(trio.current_time())
            else:
                events = machine.receive(frame.type, frame.body, trio.current_time(), self._wish.at())
            for event in events:
                if isinstance(event, AnswerWanted):
                    await self._answer(event)
                elif isinstance(event, LinkDone):
                    place.again = math.inf
                    self._stir()
            found = self._judge(events)
            if found is not None or any(isinstance(event, LinkDone) for event in events):
                return found

    async def _answer(self, wanted: AnswerWanted) -> None:
        wish = self._wish
        if wish.prove is None or wish.tpm is None:
            raise Refused(Reason.UNEXPECTED_FRAME, "asked for a TPM that we have not shown")
        answer = await wish.prove(wish.tpm, wanted.challenge, wanted.binding)
        self._joiner.supply_answer(answer, trio.current_time())

    def _judge(self, events: Sequence[object]) -> Bundle | None:
        """The bundle, if this was the end; raises Refused if it was a bad one."""
        for event in events:
            if isinstance(event, LinkDone) and event.refused is not None:
                self._last = f"{event.peer.short} refused: {event.refused.name.lower()}"
            if isinstance(event, Joined):
                return event.bundle
            if isinstance(event, JoinFailed):
                raise JoinOver(event.reason, f"too few signers agree; the last one said {event.detail}")
        return None


ASK: Final = "ask an operator, who sees the reason in a signer's log"
HINTS: Final = {
    Reason.LEVEL_TOO_LOW: "with a TPM that operators know: `overlay attest show --mesh ID` prints what they can list",
    Reason.EVIDENCE_NOT_ACCEPTED: "the policy wants a TPM: run `overlay doctor` to see whether there is one, and join with it",
}


class JoinOver(OverlayError):
    """No signer is left who could say yes."""

    exit_code = Refused.exit_code

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.name.lower()}: {detail}", hint=HINTS.get(reason, ASK))
        self.reason = reason


def read_authority(objects: tuple[bytes, ...], token: Token, at: datetime) -> AuthorityChain:
    """Who signs, if these objects lead from the mesh of the token to the root that it pins.

    Raises:
        Refused: OTHER_MESH, or any reason of `AuthorityChain.begin` and `with_object`.
    """
    if not objects:
        raise Refused(Reason.OTHER_MESH, "a member that shows no authority")
    root = parse_root(_root_in(objects[0]))
    if root.mesh_id != token.mesh_id:
        raise Refused(Reason.OTHER_MESH, "the authority of another mesh")
    return AuthorityChain.leading_to(objects, root, token.root_hash, at)


def _root_in(founding: bytes) -> bytes:
    """The root that object 0 names, DER, not verified."""
    payload = decode(payload_of(founding), limit=len(founding))
    der = payload.get(3) if isinstance(payload, dict) else None
    Bytes(1, CHAIN_BYTES_MAX).check(der)
    return bytes(der or b"")

# --- from a state folder ------------------------------------------------------------------------------------------------


async def join_mesh(
    folder: StateFolder, token: Token, config: Config, tpm: "Tpm | None", *, name: str | None, patience: float = PATIENCE
) -> VerifiedCertificate:
    """Make an identity where there is none yet, join, and keep what makes this machine a member.

    A node that was restored may join its own mesh again, as who it is: its certificate may be one that was renewed since, and
    that is renewed once only.

    Raises:
        UsageError: the folder belongs to a mesh already, or what is no name.
        Refused, JoinOver, PeerUnreachable: see `join`.
        OverlayError: the TPM fails.
    """
    mesh = load_mesh(folder)
    if mesh is not None and not (load_count(folder) and mesh.root.mesh_id == token.mesh_id):
        raise UsageError(f"{folder.path} belongs to a mesh already", hint="choose another folder with --state")
    if name is not None and not is_name(name):
        raise UsageError(f"{name!r} is not a name for a node", hint="1 to 63 of a-z, 0-9 and inner hyphens")
    logs = OwnLogs.of(config.boot_log, config.ima, config.tcti)
    ready = await trio.to_thread.run_sync(_Machine.of, folder, tpm, logs)
    chosen = token.says.name or name or f"node-{ready.node_id.short}"
    csr = await trio.to_thread.run_sync(build_request, ready.signer, chosen)
    finders: list[Finder] = []
    if config.mdns:
        finders.append(MdnsFinder(include_loopback=config.include_loopback, only=config.interfaces, announce=False))
    wish = JoinWish(
        token=token, node_id=ready.node_id, csr=csr, name=None if token.says.name else chosen, tpm=ready.shown,
        prove=ready.prove if ready.shown else None, chance=SystemChance(), at=wall_clock, finders=finders,
        logs=logs,
    )
    met: dict[NodeId, Address] = {}
    found = await join(wish, patience=patience, met=met)
    certificate = await trio.to_thread.run_sync(
        membership.install, folder, found.bundle, ready.node_id, wall_clock(), found.authority
    )
    book = PeerBook()
    for node_id, address in met.items():
        book = book.with_peer(node_id, node_id.short, [address], wall_clock())
    await trio.to_thread.run_sync(save_peers, folder, book)
    await trio.to_thread.run_sync(raise_floor, folder, certificate.not_before)
    return certificate


@dataclass(frozen=True, slots=True)
class _Machine:
    """The keys of this machine, and what it can show of them."""

    signer: Signer = field(repr=False)
    shown: JoinTpm | None
    prove: Prove | None = field(default=None, repr=False)

    @property
    def node_id(self) -> NodeId:
        """Ours."""
        return NodeId.of_key(self.signer.spki)

    @classmethod
    def of(cls, folder: StateFolder, tpm: "Tpm | None", logs: OwnLogs) -> "_Machine":
        """Blocks; makes and keeps keys where there are none. Raises OverlayError."""
        make_identity(folder, tpm)
        signer, key, ak = identity_signer(folder, tpm), load_identity(folder), attestation_blob(folder)
        if tpm is None or ak is None or not isinstance(key, TpmKey):
            return cls(signer, None)
        from attest.join_tpm import answer_join, show_join  # there is a TPM, so it loads

        identity = blob_of(key)

        async def prove(shown: JoinTpm, challenge: JoinChallenge, binding: JoinBinding) -> TpmAnswer:
            def work() -> TpmAnswer:
                answer = answer_join(tpm, ak=ak, identity=identity, shown=shown, challenge=challenge, binding=binding)
                logs.look()  # after the quote, so that nothing it covers is missing in them
                return answer

            return await trio.to_thread.run_sync(work)

        return cls(signer, show_join(tpm, ak=ak, identity=identity, boot_log_hash=logs.look() or b""), prove)
