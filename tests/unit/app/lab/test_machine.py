"""How the lab reads the lines of a node, and which of them count."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from overlay.app.lab.machine import Machine, peer_up, refused, wait_until, without_settings
from overlay.app.lab.processes import HERE, start
from overlay.app.lab.world import Host
from overlay.errors import CheckFailed
from overlay.net.background import background

ME, OTHER = "n" * 52, "o" * 52


def up(node: str) -> dict[str, Any]:
    return {"event": "peer-up", "name": "x", "node": node, "level": 2}


def link_refused(reason: str, node: str = "", *, by_peer: bool = False) -> dict[str, Any]:
    return {"event": "link-refused", "node": node, "reason": reason, "by_peer": by_peer}


def peer_down(reason: str, node: str, *, by_peer: bool = False) -> dict[str, Any]:
    return {"event": "peer-down", "node": node, "reason": reason, "by_peer": by_peer}


def test_admission_is_of_one_node() -> None:
    assert peer_up(ME)(up(ME))
    assert not peer_up(ME)(up(OTHER))
    assert not peer_up(ME)(peer_down("SHUTDOWN", ME))


@pytest.mark.parametrize(
    "event",
    [
        link_refused("BAD_GATE"),
        link_refused("BAD_GATE", ME),
        peer_down("BAD_GATE", ME),
        {"event": "trust-lost", "node": ME, "reason": "BAD_GATE"},
        {"event": "chain-rejected", "node": ME, "reason": "BAD_GATE"},
    ],
)
def test_a_refusal_is_at_the_door_or_later(event: dict[str, Any]) -> None:
    assert refused("BAD_GATE", ME)(event)
    assert refused("BAD_GATE")(event)


@pytest.mark.parametrize(
    "event",
    [
        link_refused("OTHER_MESH", ME),  # another reason
        link_refused("BAD_GATE", OTHER),  # of somebody else
        link_refused("BAD_GATE", ME, by_peer=True),  # the attacker's word
        peer_down("BAD_GATE", ME, by_peer=True),
        peer_down("BAD_GATE", OTHER),
        {"event": "evidence-failed", "node": ME, "reason": "BAD_GATE"},
        up(ME),
    ],
)
def test_what_is_no_refusal_of_this_node_for_this_reason(event: dict[str, Any]) -> None:
    assert not refused("BAD_GATE", ME)(event)


def test_settings_of_the_caller_are_not_for_the_nodes_of_the_lab() -> None:
    environment = {"PATH": "/bin", "OVERLAY_MDNS": "false", "OVERLAY_STATE": "/x", "NOT_OVERLAY_": "kept"}
    assert without_settings(environment) == {"PATH": "/bin", "NOT_OVERLAY_": "kept"}


# --- a process that writes lines ------------------------------------------------------------------------------------


def machine(folder: Path) -> Machine:
    host = Host(name="alice", number=1, folder=folder, address="127.0.0.1", place=HERE, children=[])
    return Machine("alice", host, folder / "state", ME)


def says(folder: Path, *lines: str, then: str = "import signal; signal.pause()") -> Machine:
    """A machine whose process writes these lines."""
    found = machine(folder)
    code = f"import sys; sys.stdout.write({''.join(line + chr(10) for line in lines)!r}); sys.stdout.flush()\n{then}"
    found.child = start([sys.executable, "-ISc", code], name="alice-node", folder=folder)
    return found


async def test_events_are_kept_so_that_early_ones_are_not_missed(tmp_path: Path) -> None:
    alice = says(tmp_path, "a warning of some library", '"text"', json.dumps(up(OTHER)), json.dumps(up(ME)))
    async with background() as tasks:
        tasks.start_soon(alice._read, alice.child)
        first = await alice.wait(peer_up(ME), within=5)
        assert first == up(ME)
        assert await alice.wait(peer_up(ME), within=5) == first  # and again
        assert alice.events == [up(OTHER), up(ME)]
        with pytest.raises(CheckFailed, match=r"alice did not see it within 0\.01 s"):
            await alice.wait(peer_up(ME), within=0.01, since=2, what="it")
        await alice.stop()
    assert (tmp_path / "alice-events.jsonl").read_text().count("\n") == 2


async def test_waiting_for_a_process_that_ended_is_over_at_once_and_tells_its_last_words(tmp_path: Path) -> None:
    alice = says(tmp_path, then="sys.stderr.write('first\\nno memory\\n'); sys.exit(1)")
    async with background() as tasks:
        tasks.start_soon(alice._read, alice.child)
        with pytest.raises(CheckFailed, match="alice ended while its start was awaited: no memory"):
            await alice.wait(peer_up(ME), within=30, what="its start")


async def test_a_node_that_does_not_answer_has_not_passed(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="alice does not answer"):
        await machine(tmp_path).status()


async def test_when_cancelled_a_machine_is_only_asked_to_end(tmp_path: Path) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
    alice = says(tmp_path, then=ignore)
    assert alice.child is not None
    assert await anext(alice.child.lines) == "up"
    with trio.CancelScope() as scope:
        scope.cancel()
        await alice.stop()
    assert alice.child.returncode is None
    await alice.child.kill()
    assert alice.child.returncode == -signal.SIGKILL


async def test_asking_again_and_again_ends_with_what_was_said_last(autojump_clock: trio.testing.MockClock) -> None:
    asked = 0

    async def check() -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise CheckFailed("not yet")
        return asked == 3

    await wait_until(check, within=10, what="three", every=1)
    assert trio.current_time() == pytest.approx(2)

    async def never() -> bool:
        raise CheckFailed("no answer")

    with pytest.raises(CheckFailed, match=r"not within 5 s: an answer \(no answer\)"):
        await wait_until(never, within=5, what="an answer")
