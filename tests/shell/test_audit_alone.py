"""The logs of a member whose node does not run: written and verified by the package alone, then the node goes on."""

from pathlib import Path

import pytest
import trio

import audit
from overlay.errors import StateInUse, UsageError
from tests.shell.folder_kit import enrolled, started


async def test_a_log_is_written_without_its_node_and_the_node_goes_on_with_it(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    async with started(folder) as alice:
        first = await alice.node.audit.append("count", 1)
        with pytest.raises(StateInUse):
            audit.open_log(folder)

    def alone() -> int:
        with audit.open_log(folder) as log:
            return log.append("count", 2).seq

    seq = await trio.to_thread.run_sync(alone)
    assert seq > first.seq
    audit.verify(folder).demand()
    async with started(folder) as alice:
        assert (await alice.node.audit.append("count", 3)).log_id == first.log_id
        found = [view.body["value"] for view in await alice.node.audit.read() if view.type == "application"]
        assert found == [1, 2, 3]


def test_a_node_that_never_ran_has_no_keys_to_sign_with(tmp_path: Path) -> None:
    (folder,) = enrolled(tmp_path, "alice")
    with pytest.raises(UsageError, match="never run"):
        audit.open_log(folder)
    with pytest.raises(UsageError, match="never run"):  # and the folder is free again
        audit.open_log(folder)
