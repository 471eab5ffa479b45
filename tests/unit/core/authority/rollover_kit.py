"""A mesh of nodes that roll over, each with a disk; any write can be the one before which the power goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from overlay.core.authority.objects import to_be_signed
from overlay.core.authority.rollover import Proposal, Rollover
from overlay.core.authority.rollover_actions import Action, next_action
from overlay.core.authority.stored_chain import pack_chain, unpack_chain
from overlay.core.authority.stored_rollover import pack_rollover, unpack_rollover
from overlay.core.authority.succession import AuthorityChain
from overlay.core.keys import Ed25519Signer, NodeId, Signer
from overlay.core.wire import sha256
from tests.unit.core.authority.generations_kit import MESH, chain_of, checkpoints, founding, keys, nodes
from tests.unit.core.authority_kit import NOW, seed

OLD, NEW, THRESHOLD = "abc", "cde", 2
ONE = founding().rollover("one", OLD, THRESHOLD)
BEFORE = chain_of(founding(), ONE)
OLD_KEY = Ed25519Signer(seed("group", "one"))
PROPOSAL = Proposal.of(ONE.contents, keys(nodes(NEW)), THRESHOLD, NOW)
FINISHED = b""  # instead of a record: the order was carried out or given up


class PowerCut(Exception):
    """Before a write."""


@cache
def read_chain(data: bytes) -> AuthorityChain:
    return unpack_chain(data, MESH.root)


@cache
def read_record(data: bytes, chain: AuthorityChain) -> Rollover:
    return unpack_rollover(data, chain)


@dataclass(slots=True, eq=False)
class Disk:
    """Of one node: chain, record, shares. Each write is whole or not at all."""

    write_begins: Callable[[], None]
    chain: bytes = pack_chain(BEFORE)
    record: bytes | None = None
    shares: frozenset[bytes] = frozenset()  # by the public key of the group

    def write(self, **values: object) -> None:
        (name,) = values
        if getattr(self, name) == values[name]:
            return
        self.write_begins()
        setattr(self, name, values[name])


@dataclass(slots=True, eq=False)
class Node:
    """One machine; all that it knows is on its disk, but for a key generation that runs."""

    name: str
    signer: Signer
    disk: Disk
    alive: bool = True
    generating: bool = True

    @property
    def node_id(self) -> NodeId:
        return NodeId.of_key(self.signer.spki)

    @property
    def chain(self) -> AuthorityChain:
        return read_chain(self.disk.chain)

    @property
    def record(self) -> Rollover | None:
        return read_record(self.disk.record, self.chain) if self.disk.record else None

    def keep(self, record: Rollover) -> None:
        self.disk.write(record=pack_rollover(record))

    def holds(self, public_key: bytes | None) -> bool:
        return public_key in self.disk.shares

    def start(self) -> None:
        self.alive, self.generating = True, False


@dataclass(slots=True, eq=False)
class Machines:
    """All nodes, in turns. The power goes before write number `cut`: of the node that writes, or of all."""

    cut: int = -1
    all_at_once: bool = False
    back_at_once: bool = False
    at: datetime = NOW
    writes: int = 0
    key_runs: int = 0
    nodes: dict[str, Node] = field(default_factory=dict)
    after_write: Callable[["Machines"], None] = lambda _machines: None

    def __post_init__(self) -> None:
        for signer in nodes("abcde"):
            name = next(letter for letter in "abcde" if nodes(letter)[0].spki == signer.spki)
            self.nodes[name] = Node(name, signer, Disk(self._write_begins))
            self.nodes[name].disk.shares = frozenset({OLD_KEY.public_key} if name in OLD else ())

    def _write_begins(self) -> None:
        self.writes += 1
        if self.writes - 1 == self.cut:
            raise PowerCut
        self.after_write(self)

    @contextmanager
    def power(self, node: Node) -> Iterator[None]:
        """What happens on this node until the power goes."""
        try:
            yield
        except PowerCut:
            for dead in self.nodes.values() if self.all_at_once else (node,):
                dead.alive = False
            if self.back_at_once:
                self.start()

    def alive(self, names: str = "abcde") -> list[Node]:
        return [node for name, node in self.nodes.items() if node.alive and name in names]

    def run(self) -> None:
        """Until nothing changes any more."""
        before = -1
        while before != self.writes:
            before = self.writes
            for node in list(self.nodes.values()):
                if node.alive:
                    with self.power(node):
                        self._turn(node)

    def start(self, names: str = "abcde") -> None:
        for node in self.nodes.values():
            if not node.alive and node.name in names:
                node.start()

    def _turn(self, node: Node) -> None:
        if node.disk.record is None:
            node.keep(Rollover(proposal=PROPOSAL))
        self._listen(node)
        record = node.record
        if record is None:
            return
        old = node.holds(OLD_KEY.public_key)
        self._act(node, record, next_action(record, node.chain, self.at, has_old_share=old))

    def _listen(self, node: Node) -> None:
        for other in self.alive():
            if other is node:
                continue
            node.disk.write(chain=pack_chain(node.chain.merged(other.chain.to_show, self.at).chain))
            record = node.record
            if not other.disk.record or record is None or other.record is None:
                continue
            lost = record.lacks_share_of(other.record) and node.name in NEW and not node.generating
            theirs = read_record(other.disk.record, node.chain)
            node.keep(record.give_up() if lost else record.merged(theirs, node.node_id))

    def _act(self, node: Node, record: Rollover, action: Action) -> None:
        data = to_be_signed(MESH.mesh_id, record.payload)
        key = Ed25519Signer(self._seed(record)) if record.public_key else OLD_KEY
        ids = [member.node_id for member in PROPOSAL.members]
        match action:
            case Action.GENERATE_KEY:
                self._generate_key(node)
            case Action.SIGN_ROOT if self._quorum(NEW, record, record.public_key):
                content = PROPOSAL.next_root(key.public_key).root_to_be_signed
                node.keep(record.with_root(key.sign(content)))
            case Action.SIGN_CROSS if self._quorum(OLD, record, OLD_KEY.public_key):
                content = PROPOSAL.next_root(key.public_key).cross_to_be_signed
                node.keep(record.with_cross(OLD_KEY.sign(content), tuple(sorted(checkpoints(ONE.contents)))))
            case Action.SIGN_AS_MEMBER if node.node_id in ids and not record.promised:
                assert node.holds(record.public_key)
                node.keep(record.with_own(ids.index(node.node_id), node.signer.sign(data)))
            case Action.SIGN_WITH_NEW_ROOT if self._quorum(NEW, record, record.public_key):
                node.keep(record.with_new_root(key.sign(data)))
            case Action.BIND if node.name in OLD:
                node.keep(record.with_binding())
            case Action.SIGN_WITH_OLD_ROOT if self._quorum(OLD, record, OLD_KEY.public_key, bound=True):
                node.keep(record.with_old_root(OLD_KEY.sign(data)))
            case Action.PUBLISH if record.object is not None:
                node.disk.write(chain=pack_chain(node.chain.with_object(record.object, self.at).chain))
            case Action.ERASE_OLD_SHARE:
                node.disk.write(shares=node.disk.shares - {OLD_KEY.public_key})
            case Action.GIVE_UP:
                node.disk.write(shares=node.disk.shares & {node.chain.newest_root.public_key})
                node.disk.write(record=FINISHED)
            case Action.DONE:
                node.disk.write(record=FINISHED)

    def _seed(self, record: Rollover) -> bytes:
        seeds = {Ed25519Signer(seed("new", str(run))).public_key: seed("new", str(run)) for run in range(self.key_runs)}
        return seeds[record.public_key or b""]

    def _generate_key(self, leader: Node) -> None:
        """All members at once. Each keeps its share, then the record: any of them may be the one that cannot."""
        members = self.alive(NEW)
        ready = [node for node in members if node.record is not None and node.record.public_key is None]
        if leader not in ready or len(ready) < len(NEW) or any(node.record and node.record.given_up for node in ready):
            return
        public_key = Ed25519Signer(seed("new", str(self.key_runs))).public_key
        self.key_runs += 1
        for node in members:
            with self.power(node):
                node.disk.write(shares=node.disk.shares | {public_key})
                assert node.record is not None
                node.keep(node.record.with_key(public_key, sha256(public_key)))

    def _quorum(self, names: str, record: Rollover, share: bytes | None, *, bound: bool = False) -> bool:
        """Whether as many as it takes are there, hold a share and agree on what is to be signed."""
        there = [node for node in self.alive(names) if node.holds(share) and node.record is not None]
        agree = [
            node
            for node in there
            if node.record and (node.record.root, node.record.payload) == (record.root, record.payload)
            and (node.record.bound or not bound)
        ]  # fmt: skip
        return len(agree) >= THRESHOLD
