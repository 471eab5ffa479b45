"""What the two machines of a signature tell their driver, and what they ask of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from overlay.core.authority.bindings import Binding, Bindings
from overlay.core.authority.requests import Request
from overlay.core.keys import NodeId
from overlay.registry import Reason

# --- of a signer ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class SessionKey:
    """Which signature: sessions of different coordinators never meet, whatever numbers they choose."""

    coordinator: NodeId
    session: bytes  # 16


@dataclass(frozen=True, slots=True)
class ApprovalWanted:
    """Is this right? The shell compares with the orders, invites and evidence of its own: `approve` or `decline`."""

    session: SessionKey
    request: Request = field(repr=False)


@dataclass(frozen=True, slots=True)
class MakeDurable:
    """Write these down, so that they outlive a crash, then call `durable`. `added` is what is new: a journal is enough."""

    session: SessionKey
    bindings: Bindings
    added: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class GivenUp:
    """These rows are bound no more: no share has left that rests on them, and none will. Write that down some time."""

    rows: frozenset[Binding]


@dataclass(frozen=True, slots=True)
class Signing:
    """A share of this signature goes out: the issuance log wants to know."""

    session: SessionKey
    request: Request = field(repr=False)
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Declined:
    """We take no part, or no longer; the detail is for our log only."""

    session: SessionKey
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Equivocated:
    """A coordinator asked for two signatures under one nonce. Its two signed messages had these bodies."""

    session: SessionKey
    bodies: tuple[bytes, bytes] = field(repr=False)


SignerEvent = ApprovalWanted | MakeDurable | GivenUp | Signing | Declined | Equivocated

# --- of a coordinator -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signed:
    """The signature, verified. `requests.seal` makes of it what others verify."""

    request: Request = field(repr=False)
    message: bytes = field(repr=False)
    signature: bytes  # 64
    signers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """No signature. `said` is what was wrong with whom; TIMEOUT for those who said nothing."""

    reason: Reason
    said: Mapping[NodeId, Reason]


@dataclass(frozen=True, slots=True)
class Misbehaved:
    """A signer sent what no honest one sends. The bodies, out of its signed messages and ours, show it."""

    node_id: NodeId
    reason: Reason
    evidence: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutOfStep:
    """A signer has a share of another generation than ours: it missed a refresh, or has an old share; or we do."""

    node_id: NodeId
    ours: bool  # so many say so that ours is the old one


CoordinatorEvent = Signed | Failed | Misbehaved | OutOfStep
