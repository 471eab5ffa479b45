"""When a node tries links of mode 3 because policies seem to differ."""

import pytest

from overlay.app.authority.shut_out import EVERY, RECENT, ShutOut
from overlay.events import LinkRefused, NodeStopping, TrustLost
from overlay.registry import Reason


class World:
    """A clock, and who is linked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.linked: set[str] = set()
        self.shut_out = ShutOut(lambda: self.now, self.linked.__contains__)

    def refused(self, reason: Reason = Reason.PCR_MISMATCH, *, by_peer: bool = False, node: str = "bob") -> None:
        self.shut_out.observe(
            LinkRefused(reason=reason, detail="", address="", node=node, name=node, by_peer=by_peer)
        )


@pytest.mark.parametrize("by_peer", [True, False])
def test_it_is_time_when_the_policy_keeps_somebody_from_us_whoever_refuses_whom(by_peer: bool) -> None:
    world = World()
    assert not world.shut_out.is_time()
    world.refused(by_peer=by_peer)
    assert world.shut_out.is_time()


def test_a_link_that_was_lost_by_the_policy_counts_too_and_other_events_do_not() -> None:
    world = World()
    world.shut_out.observe(NodeStopping(name="bob"))
    world.refused(Reason.REVOKED)
    assert not world.shut_out.is_time()
    world.shut_out.observe(TrustLost(name="bob", node="bob", reason=Reason.EVIDENCE_NOT_ACCEPTED, detail=""))
    assert world.shut_out.is_time()


def test_it_is_tried_now_and_then_and_not_without_end() -> None:
    world = World()
    world.refused()
    assert world.shut_out.is_time()
    world.now += EVERY - 1
    assert not world.shut_out.is_time()
    world.now += 1
    assert world.shut_out.is_time()
    world.now += RECENT
    assert not world.shut_out.is_time()


def test_whoever_is_linked_by_now_is_no_reason() -> None:
    world = World()
    world.refused()
    world.linked.add("bob")
    assert not world.shut_out.is_time()
