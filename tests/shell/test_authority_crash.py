"""What a signer makes durable before anything rests on it, and what is left after it was killed in the middle."""

import signal
from pathlib import Path

import pytest
import trio

from overlay.app.authority.carrier import Carrier
from overlay.app.authority.ledger import Ledger
from overlay.app.authority.signing import SigningDesk, Surroundings, hand_in_force
from overlay.core.authority.bindings import Bindings
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.signing_events import Declined
from overlay.core.authority.x509_requests import RevocationList
from overlay.core.keys import NodeId
from overlay.core.revocation_profile import LIST_LIFE, ListFacts, Mark, RevocationReason, Revocations
from overlay.core.token import parse_token
from overlay.errors import HostLacks, PeerUnreachable
from overlay.net.system import SystemChance, wall_clock
from overlay.registry import Reason, RoundKind
from overlay.store.membership import load_mesh
from overlay.store.state import BINDINGS, StateFolder
from tests.cli.node_kit import SOFTWARE, Machine, Process
from tests.shell.authority_kit import Visitor, founded, join
from tests.unit.core.authority_kit import seed

QUIET = {"OVERLAY_MDNS": "false", "OVERLAY_LISTEN": "127.0.0.1:0"}


class Host:
    """A founder in a process of its own, as the kit's visitors want it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.node = self


async def invited(alice: Machine, process: Process) -> Visitor:
    made = await alice.overlay("invite", "--json", "--address", f"127.0.0.1:{process.port}")
    return Visitor(parse_token(made.json["token"]))


async def test_a_founder_that_was_killed_between_approval_and_signature_goes_on_where_it_was(tmp_path: Path) -> None:
    alice = Machine(tmp_path / "alice", QUIET)
    await alice.overlay("init", "alice", "--mesh", "test", *SOFTWARE)
    async with alice.running() as process:
        visitor = await invited(alice, process)
        async with visitor.at(Host(process.port)) as visit:  # type: ignore[arg-type]
            assert (await visit.asks()).approved
            await process.end(signal.SIGKILL)
            with pytest.raises(PeerUnreachable):
                await visit.finishes()
    async with alice.running() as process:
        async with Visitor(visitor.token, word="thief").at(Host(process.port)) as visit:  # type: ignore[arg-type]
            assert (await visit.asks()).reason in {Reason.INVITE_SPENT, Reason.NAME_TAKEN}
        async with visitor.at(Host(process.port)) as visit:  # type: ignore[arg-type]
            assert (await visit.asks()).approved
            assert (await visit.finishes()).bundle is not None


async def test_a_joiner_whose_signer_was_killed_joins_when_it_is_back(tmp_path: Path) -> None:
    alice = Machine(tmp_path / "alice", QUIET)
    await alice.overlay("init", "alice", "--mesh", "test", *SOFTWARE)
    async with alice.running() as process:
        made = await alice.overlay("invite", "--json", "--address", f"127.0.0.1:{process.port}")
        port = process.port
        await process.end(signal.SIGKILL)
    token = parse_token(made.json["token"])
    with pytest.raises(PeerUnreachable):
        await join(tmp_path / "bob", token, name="bob", patience=1)
    async with alice.running("--listen", f"127.0.0.1:{port}"):
        assert (await join(tmp_path / "bob", token, name="bob")).name == "bob"


# --- before a commitment leaves -----------------------------------------------------------------------------------------


class Recording(Carrier):
    """Notes what lies on the disk when a signer's commitment leaves."""

    def __init__(self, folder: StateFolder, ledger: Ledger, own: NodeId) -> None:
        super().__init__(own=lambda: self, mesh_id=ledger.trust.mesh_id, tell=lambda *_: False)  # type: ignore[arg-type, return-value]
        self.node_id = own
        self.folder = folder
        self.on_disk: list[bytes | None] = []

    def send(self, messages: list[Outgoing]) -> None:  # type: ignore[override]
        messages = list(messages)
        if any(message.kind is RoundKind.COMMITMENT for message in messages):
            self.on_disk.append(self.folder.read(BINDINGS))
        super().send(messages)


class Full(Ledger):
    """Its disk takes nothing."""

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()
        raise HostLacks("no space left on the device")


async def sign_a_list(path: Path, kind: type[Ledger]) -> tuple[Recording, object]:
    """What left, and what came of it."""
    with StateFolder.open(path, exclusive=True) as folder:
        mesh = load_mesh(folder)
        assert mesh is not None
        ledger = kind(folder, mesh)
        own = ledger.chain.newest.member_ids[0]
        carrier = Recording(folder, ledger, own)
        begin = wall_clock().replace(microsecond=0)
        mark = Mark(begin, begin, RevocationReason.KEY_COMPROMISE)
        facts = ListFacts(
            number=1, this_update=begin, next_update=begin + LIST_LIFE, revocations=Revocations(nodes={seed("node"): mark})
        )
        async with trio.open_nursery() as nursery:
            around = Surroundings(
                own_id=own, chance=SystemChance(), at=wall_clock, linked=lambda _node: False, nursery=nursery
            )
            send, found = trio.open_memory_channel[object](8)
            desk = SigningDesk(
                around, ledger, carrier, approve=lambda _request, _node: None, note=send.send_nowait,
                hand=lambda: hand_in_force(ledger),
            )
            carrier.listen_to_others(desk.heard)

            async def sign() -> None:
                send.send_nowait(await desk.sign(RevocationList(facts)))

            nursery.start_soon(sign)
            with trio.fail_after(15):
                async for result in found:
                    if isinstance(result, bytes | Declined):
                        break
            nursery.cancel_scope.cancel()
        return carrier, result


async def test_what_a_signer_binds_is_on_the_disk_before_its_commitment_leaves(tmp_path: Path) -> None:
    carrier, result = await sign_a_list(founded(tmp_path), Ledger)
    assert isinstance(result, bytes)
    [content] = carrier.on_disk
    assert content is not None and Bindings.unpack(content) != Bindings()


async def test_a_signer_whose_disk_is_full_says_nothing(tmp_path: Path) -> None:
    carrier, result = await sign_a_list(founded(tmp_path), Full)
    assert carrier.on_disk == [] and isinstance(result, Declined)
    assert result.reason is Reason.INTERNAL
