"""The picture of the lab: nothing is cut off at 80 columns and 24 lines, and nothing is left unexplained."""

import io
from typing import Any

import pytest
from rich.console import Console

from overlay.app.lab.catalogue import SCENES
from overlay.app.lab.report import SceneRow
from overlay.app.lab.table import LEGEND, WIDE, Attack, picture
from overlay.registry import Reason

NAMES = ("alice", "bob", "carol", "dave", "erin")
ATTACKS = [Attack(scene.name, scene.about) for scene in SCENES]
LONGEST = max((reason.name for reason in Reason), key=len)


def link(name: str, *, epoch: int = 3, age: float = 1.4) -> dict[str, Any]:
    return {"name": name, "level": 2, "epoch": epoch, "epoch_age": age, "rounds": 2, "evidence_age": 59.6}


def mesh() -> dict[str, dict[str, Any]]:
    chains = [{"log": "a", "size": 123_456, "root": "r"}]
    return {
        name: {"node": f"{name}id234567890", "links": [link(other) for other in NAMES if other != name], "chains": chains}
        for name in NAMES
    }


def ended(name: str, **fields: Any) -> SceneRow:
    row = {"expected": "BAD_GATE", "observed": LONGEST, "by": "alice", "status": "passed"} | fields
    return SceneRow(name=name, **row)


def lines(statuses: dict[str, dict[str, Any]], rows: list[SceneRow], *, width: int = 80) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(picture(statuses, ATTACKS, rows, "under attack", width=width))
    return [line.rstrip() for line in output.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, WIDE, 200])
def test_nothing_is_cut_off_or_folded(width: int) -> None:
    shown = lines(mesh(), [ended(attack.name) for attack in ATTACKS], width=width)
    assert len(shown) < 24
    assert not any("…" in line for line in shown)
    assert shown[0] == "under attack"
    assert shown[-2:] == LEGEND.splitlines()
    assert shown[2].split() == ["machine", "id", "level", "peers", "epoch", "key", "age", "evidence", "age", "entries", "heads"]
    assert shown[3].split() == ["alice", "aliceid2", "2", "4", "3", "1", "s", "60", "s", "123456", "agree"]
    assert sum(LONGEST in line for line in shown) == len(SCENES)


def test_a_wide_terminal_shows_what_the_attacks_do() -> None:
    text = "\n".join(lines(mesh(), [], width=WIDE))
    assert all(scene.about in text for scene in SCENES)
    assert SCENES[0].about not in "\n".join(lines(mesh(), [], width=WIDE - 1))


def test_every_attack_has_its_row_from_the_start() -> None:
    before, after = lines(mesh(), []), lines(mesh(), [ended("stranger")])
    assert len(before) == len(after)
    assert any(line.split() == ["stranger", "…"] for line in before)
    assert any(line.split() == ["stranger", "refused", LONGEST, "alice"] for line in after)


def test_a_scene_that_failed_or_was_skipped_says_why() -> None:
    rows = [ended("stranger", status="failed", why="it did"), ended("pcr-drift", status="skipped", why="no TPM", by="")]
    shown = [" ".join(line.split()) for line in lines(mesh(), rows)]
    assert "stranger FAILED it did alice" in shown
    assert "pcr-drift skipped no TPM" in shown


def test_a_machine_that_is_behind_and_one_without_links() -> None:
    statuses = mesh()
    statuses["erin"] |= {"links": [], "chains": [{"log": "a", "size": 1, "root": "q"}]}
    statuses["alice"]["links"][0] |= {"epoch": 1, "epoch_age": 7.0}
    shown = [line.split() for line in lines(statuses, [])]
    assert shown[3][4:7] == ["1-3", "7", "s"]
    assert shown[7] == ["erin", "erinid23", "2", "0", "-", "-", "-", "1", "syncing"]


def test_links_to_actors_do_not_count() -> None:
    statuses = mesh()
    statuses["alice"]["links"].append(link("actor-1", epoch=1, age=99))
    assert lines(statuses, []) == lines(mesh(), [])


def test_a_mesh_that_is_not_there_yet_has_an_empty_table() -> None:
    assert lines({}, [])[2].startswith("machine")
