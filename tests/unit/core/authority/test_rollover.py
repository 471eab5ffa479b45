"""Roll-over: the power goes before every single write, of one node or of all, for a moment or for two days."""

from datetime import timedelta

import pytest

from overlay.core.authority.contents import ObjectKind
from overlay.core.authority.rollover_actions import ROLLOVER_WITHIN
from tests.unit.core.authority.rollover_kit import BEFORE, FINISHED, NEW, OLD, OLD_KEY, THRESHOLD, Machines


def check_nothing_is_lost(machines: Machines) -> None:
    """At any moment: one successor at most, as many shares of the key in force as it takes, and nobody gave up the old one
    before the new object stood in its own chain.
    """
    successors = {node.chain.objects[2].hash for node in machines.nodes.values() if len(node.chain.objects) > 2}
    assert len(successors) <= 1
    assert all(node.chain.fork is None for node in machines.nodes.values())
    newest = max((node.chain for node in machines.nodes.values()), key=lambda chain: len(chain.objects)).newest_root
    assert sum(node.holds(newest.public_key) for node in machines.nodes.values()) >= THRESHOLD
    for node in machines.nodes.values():
        assert node.name not in OLD or node.holds(OLD_KEY.public_key) or len(node.chain.objects) > 2


def check_one_authority(machines: Machines) -> bool:
    """At the end: the same root everywhere, and nothing left of any other. Whether it is the new one."""
    (root,) = {node.chain.newest_root for node in machines.nodes.values()}
    rolled = root.public_key != OLD_KEY.public_key
    holders = {node.name for node in machines.nodes.values() if node.holds(root.public_key)}
    assert holders == set(NEW if rolled else OLD)
    if rolled:
        assert all(node.disk.shares <= {root.public_key} for node in machines.nodes.values())
        assert all(node.disk.record == FINISHED for node in machines.nodes.values())
    else:
        kept = [node for node in machines.nodes.values() if node.disk.record != FINISHED]
        assert all(node.record and node.record.promised for node in kept)
        assert all(node.disk.shares <= {root.public_key} for node in machines.nodes.values() if node not in kept)
    return rolled


def test_a_rollover_ends_with_the_new_key_in_force_and_the_old_one_gone() -> None:
    machines = Machines(after_write=check_nothing_is_lost)
    machines.run()
    assert check_one_authority(machines)
    newest = machines.nodes["a"].chain.newest
    assert (newest.number, newest.kind) == (2, ObjectKind.ROLLOVER)


def whole() -> int:
    machines = Machines()
    machines.run()
    return machines.writes


WRITES = whole()


@pytest.mark.parametrize("all_at_once", [False, True])
@pytest.mark.parametrize("off", [timedelta(0), ROLLOVER_WITHIN - timedelta(hours=1), 2 * ROLLOVER_WITHIN])
def test_after_a_crash_before_any_write_the_mesh_has_one_root_and_no_key_is_lost(off: timedelta, all_at_once: bool) -> None:
    ends = set()
    for cut in range(WRITES):
        machines = Machines(
            cut=cut, all_at_once=all_at_once, back_at_once=not off, after_write=check_nothing_is_lost
        )  # fmt: skip
        machines.run()  # the others go on
        check_nothing_is_lost(machines)
        machines.at += off
        machines.start()
        machines.run()
        check_nothing_is_lost(machines)
        machines.at += 2 * ROLLOVER_WITHIN
        machines.run()
        check_nothing_is_lost(machines)
        ends.add(check_one_authority(machines))
    assert ends == {True, False}  # some cut ends it, some does not


@pytest.mark.parametrize("groups", [("de", "abc"), ("cde", "ab"), ("ab", "cde")])
def test_when_the_power_goes_everywhere_and_comes_back_days_later_here_and_there_no_key_is_lost(
    groups: tuple[str, str]
) -> None:
    for cut in range(WRITES):
        machines = Machines(cut=cut, all_at_once=True, after_write=check_nothing_is_lost)
        machines.run()
        for group in groups:
            machines.at += ROLLOVER_WITHIN
            machines.start(group)
            machines.run()
            check_nothing_is_lost(machines)
        check_one_authority(machines)


def test_a_member_that_never_comes_leaves_the_old_authority_in_force() -> None:
    machines = Machines(after_write=check_nothing_is_lost)
    machines.nodes["e"].alive = False
    machines.run()
    machines.at += ROLLOVER_WITHIN
    machines.run()
    assert all(node.chain == BEFORE for node in machines.nodes.values())
    assert all(node.disk.record == FINISHED for node in machines.alive())
