"""Warnings before something ends, by real nodes: an event, a line in the log and in every status, once and over restarts."""

from datetime import timedelta
from pathlib import Path

import trio

from overlay.events import AuthorityAlarm, EndComes
from overlay.net.system import wall_clock
from overlay.registry import EntryType, Reason
from overlay.testing import mesh
from tests.shell.authority_kit import DAY, HOUR, Running, founded, join, opened, set_calendar, token_of, until


async def said(one: Running) -> list[str]:
    """What stands in its log about ends that come."""
    entries = await one.node.audit._log.newest(node_id=one.node.node_id)
    return [str(entry.body[3]) for entry in entries if entry.type == EntryType.LIFECYCLE and entry.body[1] == "end-comes"]


async def test_a_token_is_told_of_at_half_of_its_life_once_and_over_restarts(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        await token_of(alice, ttl=10 * DAY)
        await token_of(alice)
        assert not [one for one in alice.node.statistics().warnings if "token" in one]
    set_calendar(path, wall_clock() + 5 * DAY + HOUR)
    async with opened(path) as alice:
        event = await alice.heard(EndComes)
        assert (event.kind, event.percent) == ("token", 50)
        [warning] = [one for one in alice.node.statistics().warnings if "token" in one]
        assert "has lived 50 % of its life" in warning
        status = await alice.node.authority.status()
        assert warning in status.fields["alarms"] and any(warning in line for line in status.said)
        while not await said(alice):  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert event.name in (await said(alice))[0]
    async with opened(path) as alice:
        upkeep = alice.node.seat._upkeep
        assert upkeep is not None
        await upkeep._look()
        assert alice.all(EndComes) == []
        assert [one for one in alice.node.statistics().warnings if "token" in one], "a status shows it as long as it is so"


async def test_roots_are_among_what_ends(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        upkeep = alice.node.seat._upkeep
        assert upkeep is not None
        [root] = upkeep.things()
        assert (root.kind.value, root.life) == ("root", alice.node.seat.ledger.chain.newest.root.life)


async def test_a_withdrawn_token_is_told_of_no_more(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        report = await alice.node.authority.invite(ttl=10 * DAY, addresses=["127.0.0.1:1"])
        upkeep = alice.node.seat._upkeep
        assert upkeep is not None and len(upkeep.things()) == 2
        await alice.node.authority.withdraw(report.fields["invite"])
        assert len(upkeep.things()) == 1


async def test_a_certificate_that_fails_to_be_renewed_twice_is_told_of_once(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        await join(tmp_path / "bob", await token_of(alice), name="bob")
    for folder in (path, tmp_path / "bob"):
        set_calendar(folder, wall_clock() + timedelta(hours=17))
    async with opened(tmp_path / "bob") as bob:
        upkeep = bob.node.seat._upkeep
        assert upkeep is not None
        await bob.heard(AuthorityAlarm, lambda event: event.reason is Reason.CERTIFICATE_EXPIRED)
        serial = upkeep.record.not_renewed
        assert serial is not None
        bob.node.seat._failed("once more")
        bob.node.seat._failed("and again")
        assert len(bob.all(AuthorityAlarm)) == 1
        await until(lambda: not upkeep._unwritten)
    async with opened(tmp_path / "bob") as bob:
        for _ in range(3):
            bob.node.seat._failed("after a restart")
        assert bob.all(AuthorityAlarm) == []


async def test_one_failure_of_a_renewal_is_no_alarm(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        alice.node.seat._failed("a signer restarts")
        assert alice.all(AuthorityAlarm) == []
        alice.node.seat._failed("or not")
        assert len(alice.all(AuthorityAlarm)) == 1


async def test_a_share_of_a_new_key_is_not_taken_for_an_old_one() -> None:
    names = ("alice", "bob", "carol")
    async with mesh(*names, roles={name: ("signer",) for name in names[1:]}) as nodes:
        await nodes[0].authority.distribute(names, 2)
        for node in nodes:
            with trio.fail_after(20):
                while node.seat.ledger.chain.newest.number == 0 or node.seat.ledger.share is None:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert not [one for one in node.statistics().warnings if "share" in one]
