"""What a node tells about itself, as frozen values: for logs, tables and tests. Ids are base32 text."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from overlay.registry import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent:
    """Base of all events."""

    def fields(self) -> dict[str, Any]:
        """`event` (the kind in kebab-case) and the fields, ready for JSON."""
        values = {key: value.name if isinstance(value, Reason) else value for key, value in asdict(self).items()}
        return {"event": kind_of(type(self)), **values}

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> "NodeEvent | None":
        """The event behind what `fields` gave; None for a kind that this release does not know."""
        kinds = {kind_of(kind): kind for kind in NodeEvent.__subclasses__()}
        kind = kinds.get(fields.get("event", ""))
        values = {key: value for key, value in fields.items() if key != "event"}
        if "reason" in values:
            values["reason"] = Reason[values["reason"]]
        return None if kind is None else kind(**values)


def kind_of(event: type[NodeEvent]) -> str:
    """The name of an event's kind: `PeerUp` is "peer-up"."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in event.__name__).lstrip("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted(NodeEvent):
    """The node listens."""

    name: str
    node: str
    mesh: str
    port: int
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStopping(NodeEvent):
    """The node is about to end."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUp(NodeEvent):
    """A member is admitted, on both sides.

    `kid` is the hash of its endorsement in hex, `evidence` is "software" or "tpm", `dialled` says that we opened the link.
    """

    name: str
    node: str
    level: int
    address: str
    dialled: bool
    kid: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDown(NodeEvent):
    """There is no link to this member any more."""

    name: str
    node: str
    reason: Reason
    detail: str
    by_peer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRefused(NodeEvent):
    """A connection ended before it was open. `node` is empty for a stranger. `by_peer`: it was the other side who refused."""

    reason: Reason
    detail: str
    address: str
    node: str
    name: str
    by_peer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustLost(NodeEvent):
    """A member was admitted and is not trusted any more."""

    name: str
    node: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRefused(NodeEvent):
    """A member wanted a service that is not offered to it."""

    name: str
    node: str
    service: str
    reason: Reason = Reason.NOT_ALLOWED


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryRefused(NodeEvent):
    """A batch of telemetry went to quarantine; told once per node, reason and minute.

    `name` and `node`: who handed it over, or whose log contradicts it. `author`: who signed it; empty if unproven.
    """

    name: str
    node: str
    author: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryGap(NodeEvent):
    """Batches of telemetry never came, and are missing in the sums."""

    name: str
    node: str
    stream: str
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRekeyed(NodeEvent):
    """A link uses fresh keys."""

    name: str
    node: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAttested(NodeEvent):
    """A member proved again what it runs."""

    name: str
    node: str
    level: int
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerWarning(NodeEvent):
    """A member's evidence is not what the policy lists, and the policy says to warn only."""

    name: str
    node: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFailed(NodeEvent):
    """Our own prover could not make evidence."""

    detail: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRejected(NodeEvent):
    """A peer sent a chain item that does not hold."""

    name: str
    node: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkExposed(NodeEvent):
    """A node has told two stories in its log, and that is proven: nobody speaks to it any more."""

    name: str
    node: str
    kind: str
    detail: str  # what it has signed
    proof: str  # SHA-256 of the proof, hex


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkSuspected(NodeEvent):
    """A peer holds another history of this node's log than we, and nobody shows what would prove it."""

    node: str
    by: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityCloned(NodeEvent):
    """Two processes seem to run under one identity."""

    name: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinderFailed(NodeEvent):
    """One way of finding peers does not work here."""

    detail: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTaken(NodeEvent):
    """An operator's order counts from now on. `order` is its hash in hex, `kind` as in the registry, lower case."""

    operator: str
    name: str
    kind: str
    number: int
    order: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSigned(NodeEvent):
    """We gave a share of the signature of a certificate. `leaf` is the hash of what was signed, in hex, `ends` is Unix time."""

    name: str
    node: str
    serial: str
    leaf: str
    ends: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationsChanged(NodeEvent):
    """A newer revocation list is in force here. `nodes` are those that it adds."""

    number: int
    nodes: tuple[str, ...]
    list: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged(NodeEvent):
    """Another policy is in force here."""

    version: int
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityChanged(NodeEvent):
    """Another authority object is in force here: who holds the mesh key, and how many of them it takes to sign."""

    number: int
    kind: str
    members: tuple[str, ...]
    threshold: int
    object: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineBegan(NodeEvent):
    """This node is in quarantine, by an operator's order: it stays out of everything until then."""

    until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineEnded(NodeEvent):
    """The quarantine of this node is over: it looks for its peers again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndComes(NodeEvent):
    """Half or three quarters of the life of a root, of our share or of a token of ours are over, or all of it."""

    kind: str
    name: str
    percent: int
    ends: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityAlarm(NodeEvent):
    """Somebody who signs or orders has done what no honest one does, or our certificate is not renewed."""

    node: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStarted(NodeEvent):
    """A run of signed work has begun here. `name` and `node`: its scheduler; `placement`: its hash, in hex."""

    name: str
    node: str
    workload: str
    run: int
    placement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStopped(NodeEvent):
    """A run was ended, or never began: a signer does not count any more, or its files were wrong."""

    name: str
    node: str
    workload: str
    run: int
    placement: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkEnded(NodeEvent):
    """A run is over. `state` as in the registry, lower case; `number` is its exit code or signal."""

    workload: str
    run: int
    placement: str
    state: str
    number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRefused(NodeEvent):
    """What a member handed over does not run here; told once per node, reason and minute."""

    name: str
    node: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlacedTwice(NodeEvent):
    """Two workers have started one run of signed work: proof against the scheduler that placed both, where it is one.

    `workload` is the hash of the workload, in hex. The placements are in the workers' logs.
    """

    names: tuple[str, ...]  # of the schedulers: one, or two
    schedulers: tuple[str, ...]
    workload: str
    run: int
    workers: tuple[str, ...]
