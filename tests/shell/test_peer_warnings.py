"""What a status says of linked peers."""

from dataclasses import replace

import trio

from overlay.net.peer_warnings import peer_warnings
from overlay.registry import Reason
from overlay.testing import mesh


async def test_a_peer_whose_evidence_is_late_is_named_with_the_time_that_is_left() -> None:
    async with mesh("alice", "bob") as (alice, _):
        (link,) = alice.engine.pool.all_links
        lease = link.session.lease
        assert lease is not None
        assert peer_warnings([link], lease.since + 75.0, 75.0) == ()
        assert peer_warnings([link], lease.since + 80.0, 75.0) == (
            f"bob has shown no evidence for 80 s; its link ends in {lease.ends - lease.since - 80:.0f} s",
        )
        assert alice.engine.peer_warnings == ()


async def test_what_passes_with_a_warning_is_named_while_the_link_is_open() -> None:
    async with mesh("alice", "bob") as (alice, _):
        (link,) = alice.engine.pool.all_links
        lease = link.session.lease
        assert lease is not None
        link.session._lease = replace(lease, appraisal=replace(lease.appraisal, warnings=("pcr mismatch: other",)))
        assert alice.engine.peer_warnings == ("bob: pcr mismatch: other",)
        link.close(Reason.SHUTDOWN)
        assert peer_warnings([link], trio.current_time(), 75.0) == ()
