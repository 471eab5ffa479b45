"""An event of a node as one line for people."""

from datetime import datetime

from overlay.events import (
    AuthorityAlarm,
    AuthorityChanged,
    CertificateSigned,
    ChainRejected,
    EndComes,
    EvidenceFailed,
    FinderFailed,
    ForkExposed,
    ForkSuspected,
    IdentityCloned,
    LinkRefused,
    LinkRekeyed,
    NodeEvent,
    NodeStarted,
    NodeStopping,
    OrderTaken,
    PeerAttested,
    PeerDown,
    PeerUp,
    PeerWarning,
    PolicyChanged,
    QuarantineBegan,
    QuarantineEnded,
    RevocationsChanged,
    RunPlacedTwice,
    ServiceRefused,
    TelemetryGap,
    TelemetryRefused,
    TrustLost,
    WorkEnded,
    WorkRefused,
    WorkStarted,
    WorkStopped,
)
from overlay.registry import Reason


def describe(event: NodeEvent) -> str:
    """Without line ends; names and details are as the peer gave them."""
    match event:
        case NodeStarted():
            return f"{event.name} is up, level {event.level}, listening on port {event.port}"
        case PeerUp():
            return f"{event.name} is linked, level {event.level}, at {event.address}"
        case PeerDown():
            return f"{event.name} is gone: {_why(event.reason, event.detail, by_peer=event.by_peer)}"
        case LinkRefused():
            who = event.name or "a stranger"
            return f"{who} at {event.address} was not linked: {_why(event.reason, event.detail, by_peer=event.by_peer)}"
        case TrustLost():
            return f"{event.name} is not trusted any more: {_why(event.reason, event.detail)}"
        case LinkRekeyed():
            return f"{event.name} and we have fresh keys, epoch {event.epoch}"
        case PeerAttested():
            return f"{event.name} proved its software again, level {event.level}, round {event.round}"
        case _:
            return _describe_authority(event) or _of_telemetry(event) or _describe_rest(event)


def _describe_authority(event: NodeEvent) -> str:
    """Empty for what is not of the authority."""
    match event:
        case OrderTaken():
            return f"{event.name} has ordered: {event.kind}, number {event.number}"
        case CertificateSigned():
            return f"we have signed a certificate for {event.name}, serial {event.serial[:8]}"
        case RevocationsChanged():
            return f"revocation list {event.number} is in force: {len(event.nodes)} more"
        case PolicyChanged():
            return f"policy {event.version} is in force"
        case AuthorityChanged():
            return f"authority {event.number} is in force: {event.threshold} of {len(event.members)} sign ({event.kind})"
        case AuthorityAlarm():
            return f"alarm, {event.node[:8]}: {_why(event.reason, event.detail)}"
        case EndComes():
            return f"{event.name}: {event.percent} % of its life are over, it ends on {event.ends[:16].replace('T', ' ')} UTC"
        case _:
            return ""


def _describe_rest(event: NodeEvent) -> str:
    match event:
        case NodeStopping():
            return f"{event.name} is about to end"
        case EvidenceFailed() | FinderFailed():
            what = "no evidence" if isinstance(event, EvidenceFailed) else "cannot look for peers"
            return f"{what}: {event.detail}" + (f" ({event.hint})" if event.hint else "")
        case QuarantineBegan() | QuarantineEnded():
            return _of_quarantine(event)
        case ServiceRefused(name=name, service=service):
            return f"{name} may not use the service {service}"
        case ChainRejected():
            return f"{event.name} sent a log that does not hold: {_why(event.reason, event.detail)}"
        case PeerWarning():
            return f"{event.name} is not what the policy lists, which only warns: {event.detail}"
        case IdentityCloned():
            return f"two processes run as {event.name}: stop one, or its identity was stolen"
    return _of_fork(event)


def _of_telemetry(event: NodeEvent) -> str:
    """What does not count, and what is missing; empty for what is not of telemetry."""
    match event:
        case TelemetryRefused():
            whose = f" of {event.author}" if event.author not in ("", event.name) else ""
            return f"telemetry{whose} from {event.name} does not count: {_why(event.reason, event.detail)}"
        case TelemetryGap():
            last = event.first + event.count - 1
            return f"telemetry of {event.name} is missing: batches {event.first} to {last} of {event.stream}"
        case _:
            return ""


def _of_fork(event: NodeEvent) -> str:
    """Of a node that has told two stories; of what is told nowhere else, its fields."""
    match event:
        case ForkExposed():
            return f"{event.name} has told two stories, proven: it has signed {event.detail}; it is out"
        case ForkSuspected():
            return f"{event.node[:8]} is suspected of two stories, by a copy of {event.by[:8]}: {event.detail}"
        case RunPlacedTwice():
            where = " and ".join(worker[:8] for worker in event.workers)
            return f"alarm: run {event.run} of work {event.workload[:8]} was placed twice, by {_names(event)}: on {where}"
    return _of_work(event)


def _of_work(event: NodeEvent) -> str:
    """Of signed work; of what is told nowhere else, its fields."""
    match event:
        case WorkStarted():
            return f"work: run {event.run} of {event.workload} begins, placed by {event.name}"
        case WorkStopped():
            return f"work: run {event.run} of {event.workload} is stopped: {_why(event.reason, event.detail)}"
        case WorkEnded():
            number = "" if event.number is None else f" {event.number}"
            return f"work: run {event.run} of {event.workload} is over: {event.state}{number}"
        case WorkRefused():
            return f"work: refused from {event.name}: {_why(event.reason, event.detail)}"
    fields = event.fields()
    return " ".join([str(fields.pop("event")), *(f"{key}={value}" for key, value in fields.items())])


def _names(event: RunPlacedTwice) -> str:
    return " and ".join(event.names) + ", proven" * (len(event.names) == 1)


def _of_quarantine(event: QuarantineBegan | QuarantineEnded) -> str:
    if isinstance(event, QuarantineEnded):
        return "the quarantine of this node is over"
    until = f"{datetime.fromisoformat(event.until):%Y-%m-%d %H:%M} UTC"
    return f"this node is in quarantine until {until}: it stays out of everything, and comes back by itself"


def _why(reason: Reason, detail: str, *, by_peer: bool = False) -> str:
    text = reason.name.lower().replace("_", " ")
    return f"{text}: {detail}" * bool(detail) + text * (not detail) + " (says the other side)" * by_peer
