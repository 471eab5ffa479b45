"""What a node shows when somebody, or everybody together, takes more of its disk than they should."""

from dataclasses import replace
from pathlib import Path

from audit.log import AuditLog
from audit.quotas import Quotas
from overlay.app.compose import Assembly, open_node
from tests.shell.authority_kit import until
from tests.shell.folder_kit import ALONE, enrolled, started


async def test_of_a_member_that_writes_more_than_its_share_no_more_is_taken_and_the_status_says_so(tmp_path: Path) -> None:
    alices, bobs = enrolled(tmp_path, "alice", "bob")

    def small(assembly: Assembly) -> Assembly:
        for keeper in assembly.parts.keepers:
            if isinstance(keeper, AuditLog):
                keeper.quotas = Quotas(bytes_per_day=200_000)
        return assembly

    async with open_node(alices, config=ALONE, alter=small) as alice, started(bobs, alice) as bob:
        for number in range(40):  # 50 KB each, ten times the share
            await bob.node.audit.append("blob", [number, "x" * 50_000])
        await until(lambda: any("bob writes more than its share" in line for line in alice.statistics().warnings))
        held = [one for one in await alice.audit.read(node="bob") if one.type == "application"]
        assert len(held) < 20
        assert len(alice.peers) == 1


async def test_a_store_that_becomes_full_stands_in_the_status(tmp_path: Path) -> None:
    (alices,) = enrolled(tmp_path, "alice")
    async with open_node(alices, config=replace(ALONE, audit_max_bytes=40_000)) as alice:
        (line,) = [line for line in alice.statistics().warnings if "store of audit logs" in line]
        assert line.endswith("of audit_max_bytes: make room, or raise it")
    async with open_node(alices, config=ALONE) as alice:
        assert not any("store of audit logs" in line for line in alice.statistics().warnings)
