"""Policies that change while nodes with TPMs (swtpm) and without run: who goes with its next round, and who comes back."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.replay import digest_of
from overlay.app.compose import open_node
from overlay.app.config import Config
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.tpm import open_tpm
from overlay.core.policy import Policy
from overlay.core.wire import sha256
from overlay.errors import NotAllowed, UsageError
from overlay.events import PeerDown, PeerUp, TrustLost
from overlay.net.request import Request
from overlay.registry import Reason
from overlay.store.state import StateFolder
from tests.shell.authority_kit import Running, until
from tests.tpm.conftest import Swtpm

pytestmark = pytest.mark.tpm

PCR_14 = 1 << 14
LEASE = 40.0  # seconds within which anything has to happen here
LEARN = 'version = {version}\nmode = "learn"\n'


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Swtpm, Swtpm]]:
    if shutil.which("swtpm") is None:
        pytest.skip("this host lacks swtpm")
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        found.append(Swtpm(tmp_path / name))
    yield found[0], found[1]
    for one in found:
        one.stop()


def enrol(path: Path, tpms: tuple[Swtpm, Swtpm]) -> list[Path]:
    """Alice, who founds the mesh, and bob have TPMs; carol has none. Blocks."""
    alice, bob, carol = folders = [path / name for name in ("alice", "bob", "carol")]
    with open_tpm(tpms[0].tcti) as tpm, StateFolder.create(alice) as folder:
        found_mesh(folder, "alice", "home", Policy.default(), tpm)
    with open_tpm(tpms[1].tcti) as tpm, StateFolder.create(bob) as folder:
        install(folder, admit(alice, make_request(folder, tpm), "bob", ("worker",)), tpm)
    with StateFolder.create(carol) as folder:
        install(folder, admit(alice, make_request(folder, None), "carol", ("worker",)), None)
    return folders


async def shout(request: Request) -> bytes:
    return request.body.upper()


@asynccontextmanager
async def running(path: Path, tpms: tuple[Swtpm, Swtpm]) -> AsyncIterator[list[Running]]:
    """All three, linked, with a round each second."""
    folders = await trio.to_thread.run_sync(enrol, path, tpms)
    nodes: list[Running] = []
    async with AsyncExitStack() as stack:
        for folder, tcti in zip(folders, (tpms[0].tcti, tpms[1].tcti, ""), strict=True):
            found = Running()
            config = Config(
                listen=("127.0.0.1", 0), mdns=False, attest_every=1.0, seeds=tuple(one.seed for one in nodes),
                evidence="tpm" if tcti else "software", **({"tcti": tcti} if tcti else {}),
            )
            opened = open_node(folder, config=config, observers=[found.take], services={"shout": shout})
            found.node = await stack.enter_async_context(opened)
            nodes.append(found)
        with trio.fail_after(LEASE):
            for one in nodes:
                await one.node.wait_members(3)
        yield nodes


async def in_force(version: int, text: str, nodes: list[Running]) -> None:
    assert (await nodes[0].node.authority.policy(LEARN.format(version=version) + text)).fields["counts"] is True
    await until(lambda: {one.node.seat.ledger.trust.policy.policy.version for one in nodes} == {version})


async def test_a_service_that_needs_a_tpm_is_for_nodes_that_have_shown_one(tmp_path: Path, two: tuple[Swtpm, Swtpm]) -> None:
    async with running(tmp_path, two) as nodes:
        _, bob, carol = nodes
        await in_force(2, "[services.shout]\nlevel = 2\n", nodes)
        assert await (await bob.node.wait_peer("alice")).call("shout", b"x", timeout=LEASE) == b"X"
        with pytest.raises(NotAllowed):
            await (await carol.node.wait_peer("alice")).call("shout", b"x")


async def test_require_drops_nodes_without_tpm_with_their_next_round_and_prefer_lets_them_come_back(
    tmp_path: Path, two: tuple[Swtpm, Swtpm]
) -> None:
    async with running(tmp_path, two) as nodes:
        alice, bob, _ = nodes
        with pytest.raises(UsageError, match="this node itself"):
            await alice.node.authority.policy(LEARN.format(version=2) + "minimum_level = 3\n")
        await in_force(2, 'attestation = "require"\n', nodes)
        for one in (alice, bob):
            await until(lambda: any(event.name == "carol" for event in one.all(TrustLost)), LEASE)  # noqa: B023 (it is awaited)
            lost = next(event for event in one.all(TrustLost) if event.name == "carol")
            assert lost.reason is Reason.EVIDENCE_NOT_ACCEPTED
        assert [peer.name for peer in alice.node.peers] == ["bob"]
        since = len(alice.all(PeerUp))
        assert (await alice.node.authority.policy(LEARN.format(version=3))).fields["counts"] is True
        await until(lambda: any(event.name == "carol" for event in alice.all(PeerUp)[since:]), LEASE)
        await until(lambda: {one.node.seat.ledger.trust.policy.policy.version for one in nodes} == {3}, LEASE)
        assert not any(event.name == "bob" for event in alice.all(PeerDown))


async def test_from_learn_to_enforce_a_tpm_with_other_measurements_goes_and_stays_while_grace_lasts(
    tmp_path: Path, two: tuple[Swtpm, Swtpm]
) -> None:
    def measured() -> bytes:
        with open_tpm(two[1].tcti) as tpm:
            tpm.extend_pcr(14, sha256(b"something else"))
        with open_tpm(two[0].tcti) as tpm:
            return digest_of({pcr: tpm.read_pcr(pcr) for pcr in range(24)}, PCR_14)

    async with running(tmp_path, two) as nodes:
        alice, _, _ = nodes
        good = (await trio.to_thread.run_sync(measured)).hex()
        manifest = "00" * 32
        text = f'version = 2\npcrs = [14]\npcr_digests = ["{good}"]\nmanifests = ["{manifest}"]\ngrace = "8s"\n'
        assert (await alice.node.authority.policy(text)).fields["counts"] is True
        warned = "bob: pcr "
        await until(lambda: any(one.startswith(warned) for one in alice.node.statistics().warnings), LEASE)
        assert alice.all(PeerDown) == []
        await until(lambda: any(event.name == "bob" for event in alice.all(TrustLost)), LEASE)
        lost = next(event for event in alice.all(TrustLost) if event.name == "bob")
        assert lost.reason is Reason.PCR_MISMATCH
        assert lost.detail.endswith("over PCR 14")
        (earlier,) = alice.node.seat.ledger.trust.policy.policy.earlier
        assert alice.node.seat.parts.at().timestamp() >= earlier.until
