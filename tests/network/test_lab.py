"""The whole lab by its command: what it reports, how it ends, and what it says where it cannot."""

import os
import signal
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from overlay.app.lab import namespaces
from overlay.app.lab.catalogue import EVERYTHING, SCENES
from overlay.app.lab.postgres import lacking
from overlay.registry import SUITE_NAME
from tests.network.lab_kit import Python, Ran, run, running, short_folder, traces
from tests.network.rights import python_without_rights

pytestmark = [pytest.mark.network, pytest.mark.tpm]

NAMES = [scene.name for scene in SCENES]
FIVE = ["alice", "bob", "carol", "dave", "erin"]
REPORT = ["ok", "version", "evidence", "network", "degraded", "seconds", "nodes", "links", "heads_equal", "scenes", "after"]
NODE = ["name", "id", "level", "peers", "entries", "head"]
LINK = ["a", "b", "epochs", "rounds", "suite"]
SCENE = ["name", "expected", "observed", "by", "status", "why", "seconds"]
FAST = ("--rekey-after", "2", "--attest-every", "2")
ENDS_WITHIN = 2.0  # seconds


@pytest.fixture(autouse=True)
def host_can() -> None:
    if (lacking := namespaces.available()) is not None:
        pytest.skip(lacking)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


def check_mesh(mesh: dict[str, Any], names: list[str], *, level: int) -> None:
    """Everyone is linked to everyone, at that level, and holds the same logs."""
    assert all(list(node) == NODE for node in mesh["nodes"])
    assert [(node["name"], node["level"]) for node in mesh["nodes"]] == [(name, level) for name in names]
    assert all(node["peers"] == [name for name in names if name != node["name"]] for node in mesh["nodes"])
    assert all(len(node["id"]) == 52 for node in mesh["nodes"])
    assert len({(node["entries"], node["head"]) for node in mesh["nodes"]}) == 1
    assert all(list(link) == LINK for link in mesh["links"])
    assert [(link["a"], link["b"]) for link in mesh["links"]] == list(combinations(names, 2))
    assert all(link["epochs"] >= 2 and link["rounds"] >= 2 for link in mesh["links"])
    assert {link["suite"] for link in mesh["links"]} == {SUITE_NAME}
    assert mesh["heads_equal"] is True


def what_is_wrong(report: dict[str, Any]) -> str:
    """The lines that say why a run was not good, for whoever reads the failure."""
    scenes = [scene for scene in report["scenes"] if scene["status"] != "passed"]
    heads = [{node["name"]: (node["entries"], node["head"][:8]) for node in one["nodes"]} for one in (report, report["after"])]
    return f"why: {report.get('why')}\ndegraded: {report['degraded']}\nscenes: {scenes}\nheads before and after: {heads}\n"


def check_report(ran: Ran, names: list[str], *, level: int, skipped: tuple[str, ...] = ()) -> dict[str, Any]:
    """What every good run of all scenes has in common."""
    report = ran.report
    assert ran.code == 0, what_is_wrong(report) + ran.errors[-2000:]
    assert list(report) == REPORT
    assert list(report["after"]) == ["nodes", "links", "heads_equal"]
    check_mesh(report, names, level=level)
    check_mesh(report["after"], names, level=level)
    assert all(list(scene) == SCENE for scene in report["scenes"])
    assert [scene["name"] for scene in report["scenes"]] == NAMES
    played = [scene for scene in report["scenes"] if scene["name"] not in skipped]
    assert [(scene["status"], scene["why"]) for scene in played] == [("passed", "")] * len(played)
    assert all(scene["observed"] == scene["expected"] and scene["by"] in names for scene in played)
    assert [scene["status"] for scene in report["scenes"] if scene["name"] in skipped] == ["skipped"] * len(skipped)
    assert (report["ok"], report["network"], report["degraded"]) == (True, "namespaces", [])
    assert 0 < report["seconds"] < 120
    return report


async def test_five_machines_with_tpms_stand_every_attack(folder: Path) -> None:
    words = ("--evidence", "tpm", "--network", "namespaces", "--rekey-after", "5", "--attest-every", "5", "--once", "--json")
    report = check_report(await run(*words, folder=folder), FIVE, level=2)
    assert report["evidence"] == "tpm"
    assert len(report["links"]) == 10
    assert traces(folder) == []
    assert os.listdir(folder) == []


async def test_three_machines_without_tpms_stand_every_attack_but_one(folder: Path) -> None:
    """In a folder with other modules of our names, which nobody takes for ours."""
    for name in ("overlay", "attest", "trio"):
        (folder / f"{name}.py").write_text("raise SystemExit('not this one')")
    words = ("--evidence", "software", "--network", "namespaces", "--nodes", "3", *FAST, "--json")
    ran = await run(*words, folder=folder, OVERLAY_MDNS="no", OVERLAY_EVIDENCE="tpm")
    report = check_report(ran, FIVE[:3], level=1, skipped=("pcr-drift",))
    reasons = {scene["name"]: scene["observed"] for scene in report["scenes"]}
    assert reasons["edited-software"] == "SOFTWARE_MISMATCH"
    assert reasons["pcr-drift"] == ""


async def test_the_lab_needs_no_rights(folder: Path) -> None:
    python = python_without_rights(folder)
    words = ("--evidence", "tpm", "--network", "namespaces", "--nodes", "3", *FAST, "--scenes", "stranger,pcr-drift", "--json")
    ran = await run(*words, python=python, folder=folder)
    assert ran.code == 0, ran
    check_mesh(ran.report["after"], FIVE[:3], level=2)
    assert [scene["status"] for scene in ran.report["scenes"]] == ["passed", "passed"]
    assert ran.report["degraded"] == []


async def test_without_a_terminal_people_get_lines_and_a_verdict(folder: Path) -> None:
    words = ("--evidence", "software", "--network", "loopback", "--nodes", "2", "--scenes", "edited-entry", "--once")
    ran = await run(*words, "--keep", "kept", folder=folder)
    assert ran.code == 0, ran
    lines = ran.output.splitlines()
    assert "scene edited-entry: passed: expected BAD_SIGNATURE, observed BAD_SIGNATURE" in lines
    assert lines[-1].startswith("2 machines, 1 link, 1 of 1 attacks refused, heads agree: ok")
    assert ran.complaint == []
    assert {"alice", "bob"} < set(os.listdir(folder / "kept"))


async def test_psql_on_one_machine_uses_a_database_on_another(folder: Path) -> None:
    if lacking():
        pytest.skip(lacking())
    words = ("--evidence", "software", "--network", "namespaces", "--nodes", "3", "--scenes", "forward-postgres", "--json")
    ran = await run(*words, folder=folder)
    assert ran.code == 0, ran
    assert [(scene["name"], scene["status"], scene["observed"]) for scene in ran.report["scenes"]] == [
        ("forward-postgres", "passed", "NOT_ALLOWED")
    ]


async def test_a_metric_edited_on_its_way_stays_out_of_the_graph(folder: Path) -> None:
    words = ("--evidence", "software", "--network", "namespaces", "--nodes", "3", "--scenes", "edited-metric", "--json")
    ran = await run(*words, folder=folder)
    assert ran.code == 0, ran
    assert [(scene["name"], scene["status"], scene["observed"]) for scene in ran.report["scenes"]] == [
        ("edited-metric", "passed", "TELEMETRY_ROOT")
    ]


async def test_the_mesh_key_is_distributed_among_machines_without_tpms(folder: Path) -> None:
    """The other acts follow in `./run slow`."""
    words = ("--evidence", "software", "--network", "namespaces", "--scenes", "distribute", "--json", "--keep", "kept")
    ran = await run(*words, folder=folder)
    assert ran.code == 0, ran
    assert [(scene["name"], scene["status"], scene["observed"]) for scene in ran.report["scenes"]] == [
        ("distribute", "passed", "WRONG_GENERATION")
    ]
    assert len(ran.report["after"]["nodes"]) == 9
    assert not list((folder / "kept").glob("*/state*/founding.key"))


# --- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_lab_under_attack_ends_within_two_seconds(folder: Path, number: signal.Signals) -> None:
    words = ("--evidence", "tpm", "--network", "namespaces", "--scenes", "flipped-bytes,stranger", "--json")
    async with running(*words, folder=folder) as lab:
        await lab.runs("overlay.app.cli.main", "overlay.app.lab.actor", "wire.py", "swtpm")
        code, seconds = await lab.end(number)
        assert seconds < ENDS_WITHIN
        assert lab.output == b""
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert traces(folder) == []
    left = os.listdir(folder)
    assert len(left) == (1 if number == signal.SIGKILL else 0), left


async def test_ctrl_c_while_the_machines_are_made_ends_it_too(folder: Path) -> None:
    async with running("--evidence", "tpm", "--network", "namespaces", "--json", "--keep", "kept", folder=folder) as lab:
        await lab.makes(folder / "kept" / "bob" / "state-bob")
        code, seconds = await lab.end(signal.SIGINT)
    assert (code, lab.output) == (130, b"")
    assert seconds < ENDS_WITHIN
    assert "Traceback" not in "\n".join(lab.lines)


async def test_a_reader_that_goes_ends_it_quietly(folder: Path) -> None:
    python = Python(("bash", "-o", "pipefail", "-c", '"$@" | head -n 1', "bash"))
    ran = await run("--evidence", "software", "--network", "loopback", "--nodes", "2", python=python, folder=folder)
    assert (ran.code, ran.complaint) == (0, [])
    assert ran.output == "a lab of 2 machines, each with software evidence and a port on loopback\n"
    assert os.listdir(folder) == []


# --- where it cannot ------------------------------------------------------------------------------------------------


async def test_a_tpm_that_was_asked_for_never_falls_back(folder: Path) -> None:
    ran = await run("--evidence", "tpm", "--json", folder=folder, PATH=str(folder))
    assert (ran.code, ran.output) == (3, "")
    assert ran.complaint[0] == "overlay: error: --evidence tpm: the program swtpm is missing"
    assert "install swtpm" in ran.complaint[1]


async def test_a_tpm_that_nobody_asked_for_is_missed_and_named(folder: Path) -> None:
    words = ("--network", "loopback", "--nodes", "2", "--scenes", "edited-entry", "--json")
    ran = await run(*words, folder=folder, PATH=str(folder))
    assert ran.code == 0, ran
    assert (ran.report["evidence"], ran.report["network"]) == ("software", "loopback")
    assert ran.report["degraded"] == ["software evidence instead of a TPM: the program swtpm is missing"]


async def test_namespaces_that_were_asked_for_never_fall_back(folder: Path) -> None:
    """A user namespace in which no more network namespaces can be made stands for such a host."""
    shell = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'
    python = Python(("unshare", "-Ur", "sh", "-c", shell, "sh"))
    ran = await run("--evidence", "software", "--network", "namespaces", "--json", python=python, folder=folder)
    assert (ran.code, ran.output) == (3, "")
    assert ran.complaint[0].startswith("overlay: error: --network namespaces: network namespaces are not allowed here")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--scenes", "stranger,nonesuch"), "there is no scene 'nonesuch'"),
        (("--scenes", "distribute", "--nodes", "5"), "the scene distribute needs 9 machines"),
        (("--nodes", "1"), "a lab has 2 to 20 nodes"),
        (("--nodes", "many"), "invalid value for '--nodes'"),
        (("--rekey-after", "nan"), "--rekey-after and --attest-every are 1 to 3600 seconds"),
        (("--evidence", "paper"), "invalid value for '--evidence'"),
    ],
)
async def test_a_wrong_option_is_usage(folder: Path, words: tuple[str, ...], error: str) -> None:
    ran = await run(*words, "--json", folder=folder)
    assert (ran.code, ran.output) == (2, "")
    assert ran.complaint[0].startswith(f"overlay: error: {error}")


async def test_the_scenes_can_be_listed(folder: Path) -> None:
    ran = await run("--list", folder=folder)
    assert (ran.code, ran.complaint) == (0, [])
    assert [line.split()[0] for line in ran.output.splitlines()] == [scene.name for scene in EVERYTHING.scenes]
