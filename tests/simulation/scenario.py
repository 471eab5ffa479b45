"""What is played in a world of nodes, and what has to be true of it afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

from overlay.core.keys import NodeId
from overlay.registry import FrameType
from tests.simulation.nodes import Node, Verified, fork
from tests.simulation.world import World
from tests.unit.core.authority_kit import make_mesh

MESH = make_mesh()


class Scenario:
    """So many nodes, each linked to about so many others; `honest` are those that do not lie."""

    def __init__(self, seed: int, *, nodes: int, degree: int) -> None:
        self.world = World(seed)
        self.shared = Verified(MESH)
        self.nodes = [Node(self.world, self.shared, f"node{number}", number).start() for number in range(nodes)]
        self.twins: list[Node] = []
        self._link(degree)

    @contextmanager
    def told(self) -> Iterator["Scenario"]:
        """What fails in here says with which seed."""
        with self.world.told():
            yield self

    @property
    def honest(self) -> list[Node]:
        """Those that do not lie."""
        return [node for node in self.nodes if not node.lies]

    def _link(self, degree: int) -> None:
        """A ring, so that all hang together, and further links at random."""
        nodes, pairs = self.nodes, set()
        for at in range(len(nodes)):
            pairs.add((at, (at + 1) % len(nodes)))
            for other in self.world.chance.sample(range(len(nodes)), max(0, degree // 2 - 1)):
                if other != at:
                    pairs.add((at, other))
        linked: set[frozenset[int]] = set()
        for one, other in sorted(pairs):
            if frozenset((one, other)) not in linked:
                linked.add(frozenset((one, other)))
                self.world.link(nodes[one], nodes[other])

    # --- what happens -----------------------------------------------------------------------------------------------

    def settle_down(self) -> None:
        """Everybody has heard of everybody."""
        assert self.world.run_until(self.is_complete, 60), "the first entries did not reach everybody"

    def part_in_halves(self) -> None:
        """Each half stays in one piece, for it lies on one arc of the ring."""
        half = len(self.nodes) // 2
        self.world.part([self.nodes[:half], self.nodes[half:]])

    def heal(self) -> None:
        """All is well from here on."""
        self.world.heal()
        for node in self.nodes:
            if not node.up:
                self.world.up(node.start())

    def write(self, entries: int, *, commit: int, during: float = 10.0) -> None:
        """So many entries in all, by everybody in turn, so many in one commit; returns when that time is over."""
        times = entries // commit
        writers = [*self.nodes, *self.twins]
        for number in range(times):
            node = writers[number % len(writers)]
            self.world.after(during * number / times, lambda node=node: node.write(commit))  # type: ignore[misc]
        self.world.run(during)

    def trouble(self, *, breaks: int, crashes: int, restores: int, during: float) -> None:
        """In the time that comes links break, nodes crash, and some come back from a backup that they made before."""
        chance = self.world.chance
        for _ in range(breaks):
            self.world.after(chance.uniform(0, during), self.world.break_one)
        for _ in range(crashes):
            node = chance.choice(self.honest)
            self.world.after(chance.uniform(0, during), lambda node=node: node.crash(chance.uniform(0.1, 5)))  # type: ignore[misc]
        for node in chance.sample(self.honest, restores):
            made = chance.uniform(0, during / 2)
            self.world.after(made, lambda node=node, left=during - made: self._restore_later(node, left))  # type: ignore[misc]

    def _restore_later(self, node: Node, within: float) -> None:
        disk = deepcopy(node.disk)
        self.world.after(self.world.chance.uniform(0, within), lambda: node.restore(disk))

    def fork(self, count: int) -> list[NodeId]:
        """So many nodes have two faces from now on, each of which writes on."""
        liars = self.world.chance.sample(self.nodes, count)
        for number, node in enumerate(liars):
            twin = fork(node, len(self.nodes) + number)
            self.twins.append(twin)
            for half in (node, twin):
                half.write(1 + number)
        return [node.node_id for node in liars]

    # --- what has to be true ----------------------------------------------------------------------------------------

    def is_complete(self) -> bool:
        """Whether every honest node holds all that any honest node has written."""
        wanted: dict[bytes, int] = {}
        for node in self.honest:
            for log_id, state in node.disk.states.items():
                if state.node_id == node.node_id:
                    wanted[log_id] = state.size
        return all(
            log_id in node.disk.states and node.disk.states[log_id].size >= size
            for node in self.honest for log_id, size in wanted.items()
        )

    def all_is_complete(self, *, within: float) -> None:
        """Every honest log, the same on every honest node."""
        assert self.world.run_until(self.is_complete, within), "some honest log is not complete everywhere"
        honest = {node.node_id for node in self.honest}
        reference = self.honest[0].disk
        for node in self.honest[1:]:
            for log_id, state in reference.states.items():
                if state.node_id in honest:
                    assert node.disk.raws[log_id] == reference.raws[log_id], f"{node.name} holds another history"

    def exposed_everywhere(self, forkers: Sequence[NodeId], *, within: float) -> None:
        """Whoever has forked is exposed on every honest node, if both branches have reached honest nodes."""
        wanted = set(forkers)
        done = self.world.run_until(lambda: all(set(node.exposer.exposed) >= wanted for node in self.honest), within)
        missing = {node.name: [str(one)[:8] for one in wanted - set(node.exposer.exposed)] for node in self.honest}
        assert done, f"not exposed: { {name: who for name, who in missing.items() if who} }"

    def nobody_is_blamed(self, *, but: Sequence[NodeId] = ()) -> None:
        """No honest node is exposed, suspected or said to have lied."""
        for node in self.honest:
            assert set(node.exposer.exposed) <= set(but), f"{node.name} has exposed an honest node"
            assert set(node.suspects) <= set(but), f"{node.name} suspects an honest node"
            blamed = [(str(peer)[:8], why) for peer, why in node.complaints if peer not in but]
            assert not blamed, f"{node.name} blames honest nodes: {blamed}"

    def no_two_statements_contradict(self) -> None:
        """Nobody who holds all that honest nodes have ever shown can prove anything against one of them."""
        places: dict[tuple[bytes, int], bytes] = {}
        for node in self.honest:
            for log_id, raws in node.disk.raws.items():
                for seq, raw in enumerate(raws):
                    assert places.setdefault((log_id, seq), raw) == raw, f"two entries number {seq} in log {log_id.hex()}"

    def traffic(self) -> int:
        """Bytes on all wires so far."""
        return sum(self.world.sent.values())

    def held(self) -> int:
        """Bytes of entries on all disks."""
        return sum(len(raw) for node in self.nodes for raws in node.disk.raws.values() for raw in raws)

    def sent(self) -> dict[FrameType, int]:
        """Bytes by kind of frame."""
        return dict(self.world.sent)
