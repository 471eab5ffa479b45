"""How often a TPM has to work: it does not depend on how many neighbours its node has. Nodes in one process, one swtpm."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.areas import parse_area
from attest.enrol import attestation_qualified_name
from attest.tpm import Tpm
from attest.tpm_keys import TpmProver
from overlay.core.certificate_profile import LeafFacts
from overlay.core.evidence import Binding, Evidence
from overlay.core.identity import LocalIdentity
from overlay.core.limits import AttestTimes
from overlay.events import PeerAttested
from overlay.net.node import NodeParts
from overlay.registry import EvidenceKind
from tests.shell.node_kit import Watched, fresh_mesh, make_parts, running
from tests.unit.attest.software_tpm import tpm_claims
from tests.unit.core.authority_kit import Mesh, make_member
from tests.unit.core.session_kit import local

pytestmark = pytest.mark.tpm

PATIENCE = 60.0


@dataclass
class Counted:
    """A prover that counts its quotes, and for how many links each was."""

    prover: TpmProver
    quotes: list[int] = field(default_factory=list)
    kind: EvidenceKind = EvidenceKind.TPM

    def prove(self, bindings: Sequence[Binding]) -> list[Evidence]:
        self.quotes.append(len(bindings))
        return self.prover.prove(bindings)


def with_tpm(mesh: Mesh, tpm: Tpm, seeds: Sequence[str], attest: AttestTimes) -> tuple[NodeParts, Counted]:
    """A node whose evidence comes out of this TPM."""
    ak = tpm.create_attestation_key()
    qualified = attestation_qualified_name(parse_area(tpm.endorsement_public()), ak.area)
    facts = LeafFacts(level=2, ak_name=ak.area.name, ak_qualified_name=qualified)
    identity = local(make_member(mesh, "newcomer", facts=facts, tpm_like=True))
    counted = Counted(TpmProver(tpm=tpm, ak=ak, claims=tpm_claims()))

    def prover(_identity: LocalIdentity) -> Counted:
        return counted

    return make_parts(mesh, "newcomer", seeds=seeds, identity=identity, prover=prover, attest=attest), counted


@asynccontextmanager
async def crowd(mesh: Mesh, count: int, attest: AttestTimes) -> AsyncIterator[list[Watched]]:
    """So many nodes that know nothing of each other."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(make_parts(mesh, f"peer-{number}", attest=attest)))
            for number in range(count)
        ]


@asynccontextmanager
async def joined(count: int, tpm: Tpm, every: float) -> AsyncIterator[tuple[Watched, list[Watched], Counted]]:
    """A node with a TPM that was just started, linked to all of them."""
    mesh, attest = fresh_mesh(), AttestTimes.period(every)
    async with crowd(mesh, count, attest) as peers:
        parts, counted = with_tpm(mesh, tpm, [peer.seed for peer in peers], attest)
        async with running(parts) as newcomer:
            with trio.fail_after(PATIENCE):
                while len(newcomer.node.peers) < count:
                    await newcomer.node.wait_peers_change()
            yield newcomer, peers, counted


async def test_joining_fifty_peers_costs_three_quotes_at_most(tpm: Tpm) -> None:
    async with joined(50, tpm, 60.0) as (_, _, counted):
        assert len(counted.quotes) <= 3
        assert sum(counted.quotes) == 50


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.slow)])
async def test_a_round_costs_one_quote_whatever_the_number_of_peers(tpm: Tpm, count: int) -> None:
    rounds = 3
    async with joined(count, tpm, 5.0) as (newcomer, peers, counted):
        before = len(counted.quotes)
        for peer in peers:
            with trio.fail_after(PATIENCE):
                while sum(isinstance(event, PeerAttested) for event in peer.events) < rounds:
                    await peer.saw(PeerAttested, times=1 + sum(isinstance(event, PeerAttested) for event in peer.events))
        after = counted.quotes[before:]
        assert len(after) == rounds
        assert after == [count] * rounds
        assert len(newcomer.node.peers) == count
