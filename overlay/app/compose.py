"""The composition root: from a state folder and a configuration to a running node."""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from attest.appraiser import PolicyAppraiser
from attest.evidence import Claims
from attest.join import TpmJoinAppraiser
from attest.manifest import installed_root, package_manifest
from attest.policy import DEFAULT_PCRS
from attest.software import SoftwareProver
from audit.author import LogSigner
from audit.chain import ChainState
from audit.log import AuditLog
from audit.witnessing import Witnessing
from discovery.mdns import MdnsFinder
from discovery.static import BookFinder, StaticFinder
from overlay.app.authority.closings import read_copy
from overlay.app.authority.gating import GateRing
from overlay.app.authority.ledger import Ledger
from overlay.app.authority.seat import Seat, SeatParts
from overlay.app.authority.share_vault import PlainVault, TpmVault
from overlay.app.authority.shares import Shares
from overlay.app.chronicle import Chronicle
from overlay.app.config import Config, load_config
from overlay.app.control import serve_control
from overlay.app.fork_watch import ForkWatch
from overlay.app.identity import Endorser, Membership, attestation_blob, identity_signer, load_membership
from overlay.app.local import Faces, LocalNode
from overlay.app.local_audit import LocalAudit
from overlay.app.machine_logs import OwnLogs
from overlay.app.peer_memory import PeerMemory
from overlay.app.standing_telemetry import standing_telemetry
from overlay.app.standings import Standings
from overlay.app.telemetry.face import Telemetry
from overlay.app.topic_keeper import TopicKeeper
from overlay.app.tpm import missing, open_tpm, open_tpm_later, tpm_prover
from overlay.app.version import VERSION
from overlay.app.witnesses import WitnessPorts
from overlay.app.work.part import WorkPart
from overlay.app.work.start_alarms import StartAlarms
from overlay.core.authority.closing import Copy
from overlay.core.authority.contents import ClosingCheckpoint
from overlay.core.certificate_request import build_request
from overlay.core.certificates import Root
from overlay.core.evidence import Prover
from overlay.core.forwarding import parse_exposed, parse_forwarded
from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId, Signer
from overlay.core.limits import AttestTimes, RekeyTimes
from overlay.core.mesh.topics import TopicCheck
from overlay.core.policy import Policy
from overlay.core.revocation_profile import LogEnd, LogName
from overlay.core.session import Session
from overlay.core.trust import Credentials, TrustSet
from overlay.errors import OverlayError, Refused, UsageError
from overlay.events import NodeEvent, ServiceRefused
from overlay.net.background import background
from overlay.net.forward import Forwarding
from overlay.net.node import Node, NodeParts, StreamHandler, run_node
from overlay.net.ports import Finder
from overlay.net.request import Handler, PeerInfo
from overlay.net.system import SystemChance, calendar, wall_clock
from overlay.registry import EvidenceKind, Reason
from overlay.store.clock import load_floor, raise_floor
from overlay.store.identity import TpmKey, load_identity
from overlay.store.state import AUDIT_STORE, TOPIC_STORE, StateFolder, default_location
from overlay.store.topics import TopicStore

if TYPE_CHECKING:
    from attest.tpm import Tpm

PORT_MAX = 65_535
COME_BACK_POLL = 0.1  # seconds
STORE_WARNS_AT = 0.8  # of audit_max_bytes: design
LAST_WORDS = 1.0  # seconds for the last entries of the log
Observer = Callable[[NodeEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """The parts of a node before it runs, so that whoever embeds it, or plays an attacker, can exchange one."""

    parts: NodeParts
    signer: Signer = field(repr=False)  # the identity key
    session: type[Session] = Session


@dataclass(frozen=True, slots=True)
class Offers:
    """What peers may use, by name."""

    services: Mapping[str, Handler]
    streams: Mapping[str, StreamHandler]


def unaltered(assembly: Assembly) -> Assembly:
    """The node as it is."""
    return assembly


@asynccontextmanager
async def open_node(
    state: str | Path | None = None,
    *,
    services: Mapping[str, Handler] | None = None,
    streams: Mapping[str, StreamHandler] | None = None,
    listen: tuple[str, int] | None = None,
    config: Config | None = None,
    observers: Sequence[Observer] = (),
    alter: Callable[[Assembly], Assembly] = unaltered,
    clock: Callable[[], datetime] = wall_clock,
) -> AsyncIterator[LocalNode]:
    """Run the node of a state folder for the length of the block; it answers on the folder's control socket, too.

    Args:
        state: the folder; None for $OVERLAY_STATE or the default place.
        services: what peers may call, by name: `async def f(request: Request) -> bytes`.
        streams: to what peers may open streams, by name: `async def f(stream: Stream) -> None`.
        listen: address and TCP port, instead of the configuration's; port 0 for any.
        config: instead of `overlay.toml` and the environment.
        observers: called with every event, at once; they must not block.
        alter: for tests that need a node with a defect.
        clock: the time of day, aware; for tests and simulations on another day.

    Raises:
        UsageError: the folder belongs to no mesh, or a setting is wrong.
        StateInUse: another process runs this node: use `connect_local`.
        StateDamaged: the folder does not hold what it should.
        HostLacks: what was asked for is not to be had on this host: an address to listen on, a TPM.
        Refused: the node's own certificate has ended.
    """
    path = Path(state) if state is not None else default_location()
    settings = config or load_config(path)
    listen = listen or settings.listen
    if not 0 <= listen[1] <= PORT_MAX:
        raise UsageError(f"{listen[1]} is not a port", hint="0 to 65535; 0 is any free one")
    with ExitStack() as stack:
        folder = stack.enter_context(StateFolder.open(path, exclusive=True))
        setup = await trio.to_thread.run_sync(Setup.of, folder, settings, stack, clock)
        setup.work = await trio.to_thread.run_sync(_work_part, setup, stack)
        offers = Offers(services or {}, streams or {})
        async with _running(setup, offers, listen, observers, alter) as node:
            yield node


@asynccontextmanager
async def _running(
    setup: "Setup", offers: "Offers", listen: tuple[str, int], observers: Sequence[Observer],
    alter: Callable[[Assembly], Assembly],
) -> AsyncIterator[LocalNode]:
    """The node, its audit log and its control server, each ended before what it stands on."""
    if setup.identity.verified.certificate.in_grace:
        await _come_back(setup, listen, observers)
    async with _open_log(setup) as log, _open_topics(setup, log) as topics:
        setup.log = log
        setup.witnesses = WitnessPorts(log, setup.current_identity, setup.trust, setup.at)
        setup.witnessing = witnessing = await setup.witnesses.open(setup.root, setup.config.witness_wait)
        setup.forks = await ForkWatch.open(log, setup.root, setup.at, setup.trust)
        setup.witnesses.forked = setup.forks.two_heads
        chronicle, memory = Chronicle(log, setup.at), setup.memory
        assembly = alter(Assembly(parts=setup.parts(log, topics, offers, listen), signer=setup.signer))
        try:
            async with background() as tasks:
                tasks.start_soon(chronicle.run)
                tasks.start_soon(memory.run)
                tasks.start_soon(witnessing.run)
                await setup.standings.load(log)
                await setup.starts.load(log)
                watching = (chronicle.observe, memory.observe, setup.standings.observe, setup.work.observe, *observers)
                async with _engine(setup, assembly, log, topics, watching, witnessing) as node:
                    yield node
        finally:
            with trio.move_on_after(LAST_WORDS, shield=True):
                await chronicle.farewell()


async def _come_back(setup: "Setup", listen: tuple[str, int], observers: Sequence[Observer]) -> None:
    """The certificate has ended, within grace: speak of nothing but its renewal until there is another one.

    The log is not open yet: what is written under a certificate that has ended, nobody would believe.
    """
    async with run_node(setup.parts_to_come_back(listen), observers) as engine:
        setup.engine = engine
        async with setup.seat.begin(engine):
            while engine.identity.verified.certificate.in_grace:  # noqa: ASYNC110 (its renewal tells nobody)
                await trio.sleep(COME_BACK_POLL)
        setup.identity = engine.identity
    setup.engine = None


@asynccontextmanager
async def _engine(
    setup: "Setup", assembly: Assembly, log: AuditLog, topics: TopicKeeper, observers: Sequence[Observer],
    witnessing: Witnessing,
) -> AsyncIterator[LocalNode]:
    """The running engine, and the control server before it."""
    async with run_node(assembly.parts, observers, assembly.session) as engine:
        setup.engine = setup.standings.engine = setup.starts.engine = engine
        topics.engine = engine
        setup.forwarding.engine = engine
        if setup.witnesses is not None:
            setup.witnesses.engine = engine
        flush = engine.replicators[log.kind].flush
        log.listen(lambda _entries: flush())
        async with setup.seat.begin(engine) as seat, background() as servers:
            faces = Faces(LocalAudit(log, engine, witnessing), topics, setup.forwarding, setup.telemetry, setup.exposed)
            node = LocalNode(
                engine, faces, folder=setup.folder.path, seat=seat, mesh_name=setup.membership.mesh.root.name,
                evidence=setup.prover_kind.name.lower(), warnings=setup.warnings,
            )
            servers.start_soon(topics.run)
            if setup.forks is not None:
                servers.start_soon(setup.forks.run, engine, seat.keeper)
            servers.start_soon(setup.forwarding.run)
            servers.start_soon(setup.work.run, node, log)
            setup.telemetry.attach(engine, log, node.statistics)
            async with _standing(setup.forwarding, setup.config), standing_telemetry(setup.telemetry, setup.config):
                await servers.start(_serve_control, node, setup.folder.path)
                yield node


@asynccontextmanager
async def _standing(forwarding: Forwarding, config: Config) -> AsyncIterator[None]:
    """The services that the settings name, for the length of the block."""
    async with AsyncExitStack() as stack:
        for text in config.expose:
            exposed = parse_exposed(text)
            await stack.enter_async_context(forwarding.expose(exposed.service, str(exposed.to), map(str, exposed.rules)))
        for text in config.forward:
            wanted = parse_forwarded(text)
            await stack.enter_async_context(forwarding.forward(wanted.service, wanted.listen, peer=wanted.peer))
        yield


@asynccontextmanager
async def _open_log(setup: "Setup") -> AsyncIterator[AuditLog]:
    """The audit log, being written until the end of the block."""
    path, count = setup.folder.file(AUDIT_STORE), setup.ledger.lowest_count
    signer = log_signer(setup.identity)
    log = await AuditLog.open(path, root=setup.root, signer=signer, at=setup.at, lowest_k=count, ask=True)
    try:
        async with background() as tasks:
            tasks.start_soon(log.run)
            yield log
    finally:
        log.close()


@asynccontextmanager
async def _open_topics(setup: "Setup", log: AuditLog) -> AsyncIterator[TopicKeeper]:
    store = TopicStore.open(setup.folder.file(TOPIC_STORE))
    check = TopicCheck(setup.mesh_id, log.replica.author_of, setup.at, store.states(), setup.may_publish)
    try:
        yield TopicKeeper(
            store, mesh_id=setup.mesh_id, identity=setup.current_identity, audit_log_id=lambda: log.state.log_id,
            check=check, calendar=setup.at,
        )
    finally:
        store.close()


def _work_part(setup: "Setup", stack: ExitStack) -> WorkPart:
    config = setup.config
    return WorkPart.of(setup.folder, stack, setup.at(), work=config.work, dual_control=config.work_dual_control)


def log_signer(identity: LocalIdentity) -> LogSigner:
    """What signs the entries of our log."""
    return LogSigner(identity.message, identity.credentials)


async def _serve_control(node: LocalNode, folder: Path, *, task_status: trio.TaskStatus[None]) -> None:
    await serve_control(node, folder, stop=node.ask_to_stop, task_status=task_status)


class Setup:
    """What is made from the folder before anything runs; all of it may block."""

    def __init__(
        self, folder: StateFolder, config: Config, membership: Membership, tpm: "Tpm | None", clock: Callable[[], datetime]
    ) -> None:
        self.folder = folder
        self.config = config
        self.membership = membership
        self.engine: Node | None = None
        self.forwarding = Forwarding(self._denied)
        self.telemetry = Telemetry()
        self.log: AuditLog | None = None
        self.forks: ForkWatch | None = None
        self.witnesses: WitnessPorts | None = None
        self.witnessing: Witnessing | None = None
        self._floor = load_floor(folder)
        self.at = calendar(lambda: self._floor, clock)
        self.memory = PeerMemory(folder, self.at)
        self.ring = GateRing(folder, membership.mesh, self.at())
        self._tpm = tpm
        self._vault = PlainVault() if tpm is None else TpmVault(tpm, membership.mesh.root.mesh_id)
        self.ledger = Ledger(folder, membership.mesh, self._vault)
        self._manifest = package_manifest(installed_root())
        self._ak = attestation_blob(folder)
        self._logs = OwnLogs.of(config.boot_log, config.ima, config.tcti)
        self._appraiser = PolicyAppraiser(self.policy, self.at)
        self.prover_kind = _kind(config, has_key=self._ak is not None and tpm is not None)
        self._endorser = Endorser(folder, membership.certificate, self.trust, tpm)
        self.identity = self._endorser.begin(self.at())
        self.signer = identity_signer(folder, tpm)
        self._floor = raise_floor(folder, self.identity.verified.certificate.not_before)
        self.standings = Standings(self.identity.node_id, self.ledger, self.at)
        self.starts = StartAlarms(self.trust)
        self.work: WorkPart
        self.seat = self._make_seat()

    @classmethod
    def of(cls, folder: StateFolder, config: Config, stack: ExitStack, clock: Callable[[], datetime]) -> "Setup":
        """Open the TPM if this node has one, and make the endorsement of this start."""
        membership = load_membership(folder)
        if not isinstance(load_identity(folder), TpmKey) and config.evidence != "tpm":
            return cls(folder, config, membership, None, clock)
        tpm, away = _open_tpm(config.tcti)
        stack.callback(tpm.close)
        try:
            return cls(folder, config, membership, tpm, clock)
        except OverlayError as error:
            if away is None or not _for_lack_of_tpm(error):
                raise
            raise away from None

    @property
    def mesh_id(self) -> bytes:
        """The mesh."""
        return self.ledger.trust.mesh_id

    @property
    def root(self) -> Root:
        """The mesh's, by which logs are verified."""
        ledger = self.ledger
        return replace(self.membership.mesh.root, recovered=lambda: ledger.chain.recovered_roots)

    def _store_warnings(self) -> tuple[str, ...]:
        """Before the disk, or what operators want of it, is full."""
        path, limit = self.folder.file(AUDIT_STORE), self.config.audit_max_bytes
        files = (path, path.with_name(path.name + "-wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
        if size < STORE_WARNS_AT * limit:
            return ()
        full = f"the store of audit logs has {size / 2**20:.0f} MiB, {size / limit:.0%} of audit_max_bytes"
        return (f"{full}: make room, or raise it",)

    def exposed(self) -> tuple[str, ...]:
        """Nodes that have told two stories, proven."""
        return () if self.forks is None else tuple(str(proof.node_id) for proof in self.forks.exposed)

    def trust(self) -> TrustSet:
        """The trust set in force."""
        return self.ledger.trust

    def policy(self) -> Policy:
        """The policy in force."""
        return self.ledger.trust.policy.policy

    def may_publish(self, author: NodeId, topic: str) -> bool:
        """Whether the policy lets this author publish on this topic now."""
        engine = self.engine
        return engine is None or engine.rights.may_publish(engine.info_of(author, ""), topic)

    def current_identity(self) -> LocalIdentity:
        """The identity in force."""
        return self.engine.identity if self.engine is not None else self.identity

    def warnings(self) -> tuple[str, ...]:
        """What someone should know."""
        replicators = () if self.engine is None else self.engine.replicators.values()
        unread = (f"what a peer asked for cannot be read: {one.warning}" for one in replicators if one.warning)
        found = (self._endorser.warning, self.memory.warning, self.telemetry.warning, *unread, *self.standings.warnings)
        if self.witnessing is not None:
            found += self.witnessing.warnings
        found += () if self.forks is None else self.forks.warnings
        found += self._store_warnings()
        return tuple(warning for warning in found if warning)

    def parts(
        self, log: AuditLog, topics: TopicKeeper, offers: Offers, listen: tuple[str, int]
    ) -> NodeParts:
        """Everything that the engine needs."""
        config = self.config

        async def renew() -> LocalIdentity:
            identity = await trio.to_thread.run_sync(self._endorser.renew, self.at())
            await log.change_signer(log_signer(identity))
            return identity

        return NodeParts(
            identity=self.identity, trust=self.trust, gate_keys=self.ring.passing, tag=secrets.token_bytes(8),
            calendar=self.at, chance=SystemChance(), appraiser=self._appraiser, prover=self._prover, logs=self._logs,
            renew=renew, finders=self._finders(), known=self._known, keepers=(log, topics),
            services={
                **offers.services, **self.seat.services, **self.forwarding.services, **self.work.services,
                **self.telemetry.services,
            },
            standings=self.standings, trust_keeper=self.seat,
            streams={**self.work.streams, **offers.streams, **self.forwarding.streams},  # files may come from elsewhere
            witnesses=self.witnessing,
            transient=topics.on_transient_batch, forks=self.forks, rekey=RekeyTimes.every(config.rekey_after),
            attest=AttestTimes.period(config.attest_every), listen=listen,
        )

    def parts_to_come_back(self, listen: tuple[str, int]) -> NodeParts:
        """The same for a node whose certificate has ended: no log, no topics, no services."""

        async def renew() -> LocalIdentity:
            return await trio.to_thread.run_sync(self._endorser.renew, self.at())

        return NodeParts(
            identity=self.identity, trust=self.trust, gate_keys=self.ring.passing, tag=secrets.token_bytes(8),
            calendar=self.at, chance=SystemChance(), appraiser=self._appraiser, prover=self._prover, logs=self._logs,
            renew=renew, finders=self._finders(), known=self._known, keepers=(), services={}, trust_keeper=self.seat,
            transient=_nothing_transient, listen=listen,
        )

    def _prover(self, identity: LocalIdentity) -> Prover:
        policy = self.policy()
        tpm, blob = self._tpm, self._ak
        kind = self.prover_kind
        claims = Claims(
            software_version=VERSION, policy_version=policy.version, kind=kind,
            pcr_bitmap=(policy.pcr_bitmap or DEFAULT_PCRS) if kind is EvidenceKind.TPM else 0, manifest=self._manifest,
        )
        if kind is EvidenceKind.TPM and tpm is not None and blob is not None:
            return tpm_prover(tpm, blob, claims, self._logs.look)
        return SoftwareProver(signer=identity.message, kid=identity.kid, mesh_id=self.mesh_id, claims=claims)

    def _make_seat(self) -> Seat:
        name = self.identity.verified.name

        def policy() -> Policy:
            found = self.policy()
            return replace(found, pcr_bitmap=found.pcr_bitmap or DEFAULT_PCRS)

        return Seat(SeatParts(
            folder=self.folder, ledger=self.ledger, appraiser=TpmJoinAppraiser(policy), at=self.at,
            gate=lambda: self.ring.newest, ring=self.ring, addresses_of=self._addresses_of, learn=self.memory.learn,
            make_request=lambda: build_request(self.signer, name), install=self._endorser.install,
            shares=Shares(self.folder, self.ledger, self.identity.node_id, self._vault), sign=self.signer.sign,
            heads=self._heads, copy_of=self._copy_of, log_ends=self._log_ends, refresh_wait=self.config.refresh_wait,
            recovery_wait=self.config.recovery_wait, refresh_every=self.config.refresh_every, log=lambda: self.log,
            credentials_of=self._credentials_of,
        ))

    def _denied(self, peer: PeerInfo, service: str) -> None:
        if self.engine is not None:
            self.engine.emit(ServiceRefused(name=peer.name, node=str(peer.node_id), service=service))

    def _heads(self, nodes: tuple[NodeId, ...]) -> tuple[ClosingCheckpoint, ...]:
        """Where the open logs of these nodes end, as far as they are held here."""
        newest = [logs[0] for node in nodes if (logs := self._logs_of(node))]
        return tuple(ClosingCheckpoint(log.node_id, log.log_id, log.size, log.root) for log in newest)

    async def _copy_of(self, checkpoint: ClosingCheckpoint, settled: datetime) -> Copy:
        """What is held here of a log that somebody would close."""
        if self.log is None:
            return Copy(knows_author=False)
        return await self.log.read_store(partial(
            read_copy, checkpoint=checkpoint, logs=self._logs_of(checkpoint.node_id), settled=settled
        ))

    def _log_ends(self, nodes: tuple[NodeId, ...]) -> dict[LogName, LogEnd]:
        """The last entry of each of their logs."""
        return {(node, log.log_id): LogEnd(log.size, log.last) for node in nodes for log in self._logs_of(node)}

    def _credentials_of(self, kid: bytes) -> Credentials | None:
        """As some log has shown them."""
        return None if self.log is None else self.log.replica.credentials_of(kid)

    def _logs_of(self, node: NodeId) -> tuple[ChainState, ...]:
        return () if self.log is None else self.log.replica.logs_of(node)

    def _addresses_of(self, node_id: NodeId) -> tuple[str, ...]:
        """Where a member may be found, as `host port`, the surest first."""
        found = list(self.memory.addresses().get(node_id, ()))
        if self.engine is not None:
            found += self.engine.pool.addresses_of(node_id)
        return tuple(dict.fromkeys(f"{host} {port}" for host, port in found))

    def _finders(self) -> tuple[Finder, ...]:
        config = self.config
        finders: list[Finder] = [BookFinder(self.memory.addresses)]
        if config.seeds:
            finders.append(StaticFinder(config.seeds))
        if config.mdns:
            finders.append(MdnsFinder(include_loopback=config.include_loopback, only=config.interfaces))
        return tuple(finders)

    def _known(self) -> tuple[NodeId, ...]:
        linked = () if self.engine is None else tuple(self.engine.pool.links)
        return (*self.memory.known(), *linked)


def _nothing_transient(raw: bytes, peer: PeerInfo) -> None:
    """No member link is open while the certificate has ended."""
    raise Refused(Reason.UNSUPPORTED, f"{len(raw)} bytes from {peer.name}")


def _open_tpm(tcti: str) -> "tuple[Tpm, OverlayError | None]":
    """The TPM; if it does not answer, one that is tried again at each use, and why. Raises HostLacks without the library."""
    try:
        return open_tpm(tcti), None
    except OverlayError as error:
        if missing() is not None:
            raise
        return open_tpm_later(tcti), error


def _for_lack_of_tpm(error: OverlayError) -> bool:
    """Whether this came of a TPM that does not answer: there was no endorsement to go on under, or it has ended."""
    return type(error) is OverlayError or (isinstance(error, Refused) and error.reason is Reason.ENDORSEMENT_EXPIRED)


def _kind(config: Config, *, has_key: bool) -> EvidenceKind:
    if config.evidence == "tpm" and not has_key:
        raise UsageError(
            "this node was enrolled without a TPM",
            hint="enrol it again with --evidence tpm, or start it with --evidence software",
        )
    return EvidenceKind.TPM if has_key and config.evidence != "software" else EvidenceKind.SOFTWARE


