"""What is to run, before anyone has signed it.

    workload = {0:1, 1:originator, 2:id16, 3:name, 4:not_before, 5:not_after, 6:[hash32, size, type], 7:[argument, ...],
                8:[[variable, value], ...], 9:[seconds, memory, processes, output, network], 10:[[name, hash32, size], ...],
                11:[output name, ...], 12:level, 13:[[node, ...], [name, ...]]?, 14:[[node, ...], [name, ...]]?, 15:runs,
                16:second signer?}

Times are Unix seconds, sizes bytes. 13 names the schedulers and 14 the workers that are allowed; a field that is absent
allows all. Lists of names and nodes are sorted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from overlay.core.keys import NodeId
from overlay.core.policy_parts import LEVEL_MAX, TIME_MAX
from overlay.core.wire import Array, Bytes, Flag, Maybe, Text, Tuple, UInt, make_map, malformed, open_map
from overlay.core.work import names
from overlay.registry import ArtifactType

WORKLOAD_MAX: Final = 64 * 1024  # bytes of the payload: our guess
ID_SIZE: Final = 16
LIFE_MAX: Final = timedelta(hours=24)  # as long as the keys that sign it (protocol: an endorsement)
ARGUMENTS_MAX: Final = 256  # our guess
VARIABLES_MAX: Final = 256  # our guess
FILES_MAX: Final = 256  # of inputs, and of outputs: our guess
NODES_MAX: Final = 256  # by id, and by name: our guess
RUNS_MAX: Final = 1_000_000  # our guess
SIZE_MAX: Final = 2**50  # bytes of a file: our guess
SECONDS_MAX: Final = 7 * 86_400  # our guess
MEMORY_MIN: Final = 1024 * 1024  # no program starts in less
PROCESSES_MAX: Final = 65_536  # our guess

_HASH: Final = Bytes(32)
_SIZE: Final = UInt(SIZE_MAX)
_NAME: Final = Text(names.FILE_NAME_MAX)
_ALLOWED: Final = Maybe(Tuple((Array(Bytes(32), NODES_MAX), Array(Text(63), NODES_MAX))))
_FORM: Final = (
    Bytes(32), Bytes(ID_SIZE), Text(63), UInt(TIME_MAX), UInt(TIME_MAX), Tuple((_HASH, _SIZE, UInt(255))),
    Array(Text(names.TEXT_MAX), ARGUMENTS_MAX), Array(Tuple((Text(names.VARIABLE_MAX), Text(names.TEXT_MAX))), VARIABLES_MAX),
    Tuple((UInt(SECONDS_MAX), _SIZE, UInt(PROCESSES_MAX), _SIZE, Flag())), Array(Tuple((_NAME, _HASH, _SIZE)), FILES_MAX),
    Array(_NAME, FILES_MAX), UInt(LEVEL_MAX), _ALLOWED, _ALLOWED, UInt(RUNS_MAX), Maybe(Bytes(32)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Artifact:
    """What runs: bytes of this SHA-256 and exactly this size."""

    hash: bytes  # 32
    size: int
    type: ArtifactType


@dataclass(frozen=True, slots=True, order=True)
class File:
    """A file beside the artifact, an input or an output: its name in the folder of the run, SHA-256 and size."""

    name: str
    hash: bytes  # 32
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What one run may take; more than that ends it. `output`: bytes of all outputs together, stdout and stderr too."""

    seconds: int = 600
    memory: int = 1024 * 1024 * 1024
    processes: int = 64
    output: int = 64 * 1024 * 1024
    network: bool = False  # whether it may use the network of the worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Nodes by id or by name, each sorted; where both are empty, all of them."""

    nodes: tuple[NodeId, ...] = ()
    names: tuple[str, ...] = ()

    def has(self, node_id: NodeId, name: str) -> bool:
        """Whether this node is meant; `name` as its certificate says."""
        return self == ANYONE or node_id in self.nodes or name in self.names

    def row(self) -> list[Any] | None:
        """As at the top of this file."""
        return None if self == ANYONE else [list(self.nodes), list(self.names)]

    @classmethod
    def read(cls, row: Sequence[Any] | None) -> "Allowed":
        """What `row` gave. Raises Refused(MALFORMED)."""
        if row is None:
            return ANYONE
        nodes, texts = tuple(NodeId(node) for node in row[0]), tuple(row[1])
        names.check_nodes(nodes, texts)
        if not nodes and not texts:
            malformed("nobody is allowed")
        return cls(nodes=nodes, names=texts)


ANYONE: Final = Allowed()
DEFAULT_LIMITS: Final = RunLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is to run, how often, where, and who may say so. Two with the same fields have the same bytes."""

    originator: NodeId
    id: bytes  # 16, by chance
    name: str  # for people, as nodes are named
    not_before: datetime  # whole seconds
    not_after: datetime  # no run starts after it
    artifact: Artifact
    arguments: tuple[str, ...] = field(default=(), repr=False)  # argv after the program itself
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # all of it, sorted by name
    limits: RunLimits = DEFAULT_LIMITS
    inputs: tuple[File, ...] = ()  # sorted
    outputs: tuple[str, ...] = ()  # sorted names of files; stdout and stderr are always among the results
    level: int = 0  # the lowest of the scheduler, by its lease, and of the worker, by its certificate
    schedulers: Allowed = ANYONE
    workers: Allowed = ANYONE
    runs: int = 1  # runs are numbered from 1 to this
    second: NodeId | None = None  # dual control: who else signs, a node of another person

    @property
    def signers(self) -> tuple[NodeId, ...]:
        """Who must have signed, in this order."""
        return (self.originator,) if self.second is None else (self.originator, self.second)

    def pack(self) -> bytes:
        """The payload, which is signed."""
        limits = self.limits
        return make_map(
            self.originator, self.id, self.name, int(self.not_before.timestamp()), int(self.not_after.timestamp()),
            [self.artifact.hash, self.artifact.size, int(self.artifact.type)], list(self.arguments),
            [list(pair) for pair in self.environment],
            [limits.seconds, limits.memory, limits.processes, limits.output, limits.network],
            [[one.name, one.hash, one.size] for one in self.inputs], list(self.outputs), self.level, self.schedulers.row(),
            self.workers.row(), self.runs, self.second,
        )

    @classmethod
    def unpack(cls, payload: bytes) -> "Workload":
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED."""
        (
            originator, identifier, name, begin, end, artifact, arguments, environment, limits, inputs, outputs, level,
            schedulers, workers, runs, second,
        ) = open_map(payload, *_FORM, limit=WORKLOAD_MAX)  # fmt: skip
        seconds, memory, processes, output, network = limits
        found = cls(
            originator=NodeId(originator), id=identifier, name=name, not_before=read_time(begin), not_after=read_time(end),
            artifact=Artifact(artifact[0], artifact[1], read_type(artifact[2])), arguments=tuple(arguments),
            environment=tuple((key, value) for key, value in environment),
            limits=RunLimits(seconds=seconds, memory=memory, processes=processes, output=output, network=network),
            inputs=tuple(File(*row) for row in inputs), outputs=tuple(outputs), level=level,
            schedulers=Allowed.read(schedulers), workers=Allowed.read(workers), runs=runs,
            second=None if second is None else NodeId(second),
        )
        found.check()
        return found

    def check(self) -> None:
        """What no single field shows. Raises Refused(MALFORMED)."""
        names.check_label(self.name)
        names.check_texts(self.arguments)
        names.check_variables([key for key, _ in self.environment])
        names.check_texts([value for _, value in self.environment])
        inputs = [one.name for one in self.inputs]
        names.check_rising(inputs, "inputs")
        names.check_rising(self.outputs, "outputs")
        names.check_file_names([*inputs, *self.outputs])
        if not timedelta(0) < self.not_after - self.not_before <= LIFE_MAX:
            malformed(f"a workload lives at most {LIFE_MAX}")
        if not self.runs or not self.limits.seconds or not self.limits.processes or self.limits.memory < MEMORY_MIN:
            malformed("no run is possible within these limits")
        if self.second == self.originator:
            malformed("the second signer is the first one")


def read_type(number: int) -> ArtifactType:
    """Raises Refused(MALFORMED) for one that we do not know: it could not be run."""
    if number not in ArtifactType._value2member_map_:
        malformed(f"artifact type {number}")
    return ArtifactType(number)


def read_time(seconds: int) -> datetime:
    """From Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)
