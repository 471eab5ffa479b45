"""What the lab was asked for, and what this host can give: what was named by option never falls back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from overlay.app import tpm
from overlay.app.config import PERIOD
from overlay.app.lab import namespaces, tpms
from overlay.errors import HostLacks, UsageError

EvidenceChoice = Literal["tpm", "software"]
NetworkChoice = Literal["namespaces", "loopback"]
Probe = Callable[[], str | None]
NODES = 5  # where nobody says how many
NODES_MAX = 20  # our guess: every node is a process with some 60 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """The command line; None where the best there is shall be taken."""

    nodes: int | None = None  # as many as the scenes need
    signers: int = 0  # how many of them are to hold the mesh key one day; 0 where no act is played
    evidence: EvidenceChoice | None = None
    network: NetworkChoice | None = None
    rekey_after: float = 60.0
    attest_every: float = 60.0
    once: bool = False
    json: bool = False
    scenes: tuple[str, ...] | None = None
    keep: Path | None = None

    def __post_init__(self) -> None:
        if self.nodes is not None and not 2 <= self.nodes <= NODES_MAX:
            raise UsageError(f"a lab has 2 to {NODES_MAX} nodes")
        low, high = PERIOD
        if not all(low <= period <= high for period in (self.rekey_after, self.attest_every)):
            raise UsageError(f"--rekey-after and --attest-every are {low:g} to {high:g} seconds")


    @property
    def count(self) -> int:
        """How many machines."""
        return NODES if self.nodes is None else self.nodes


@dataclass(frozen=True, slots=True)
class Choice:
    """What the lab will use; `degraded` lists what was missing where nothing was asked for."""

    evidence: EvidenceChoice
    network: NetworkChoice
    degraded: list[str] = field(default_factory=list)


def tpm_missing() -> str | None:
    """None if software TPMs work here, else what is missing."""
    return tpm.missing() or tpms.available()


def choose(
    options: LabOptions, *, tpm_lacks: Probe = tpm_missing, network_lacks: Probe = namespaces.available
) -> Choice:
    """What to use; the probes say what is missing, or None. Raises HostLacks for what was asked for and is missing."""
    degraded: list[str] = []
    evidence: EvidenceChoice = "tpm"
    missing = tpm_lacks()
    if options.evidence == "software" or (options.evidence is None and missing):
        evidence = "software"
    if missing and options.evidence == "tpm":
        hint = "install swtpm, libtss2-dev and the extra [tpm], or leave the option out"
        raise HostLacks(f"--evidence tpm: {missing}", hint=hint)
    if missing and options.evidence is None:
        degraded.append(f"software evidence instead of a TPM: {missing}")
    network: NetworkChoice = "namespaces"
    missing = network_lacks()
    if options.network == "loopback" or (options.network is None and missing):
        network = "loopback"
    if missing and options.network == "namespaces":
        raise HostLacks(f"--network namespaces: {missing}", hint="leave the option out to run on loopback")
    if missing and options.network is None:
        degraded.append(f"loopback instead of network namespaces: {missing}")
    return Choice(evidence, network, degraded)
