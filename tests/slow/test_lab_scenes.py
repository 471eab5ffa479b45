"""All scenes about logs, and all about services, by the command, with TPMs and without."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay.app.lab import namespaces
from overlay.app.lab.postgres import lacking
from tests.network.lab_kit import run, short_folder, traces

pytestmark = [pytest.mark.network, pytest.mark.tpm, pytest.mark.slow]

LOGS = {
    "edited-entry": "BAD_SIGNATURE", "forked-log": "FORKED",
    "restored-folder": "SUPERSEDED", "cloned-folder": "CLONED_IDENTITY",
}  # fmt: skip
SERVICES = {
    "forward-postgres": "NOT_ALLOWED", "revoked-scheduler": "SCHEDULER_REVOKED", "edited-metric": "TELEMETRY_ROOT",
}  # fmt: skip


@pytest.fixture(autouse=True)
def host_can() -> None:
    if lacks := namespaces.available() or lacking():
        pytest.skip(lacks)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.mark.parametrize("evidence", ["tpm", "software"])
@pytest.mark.parametrize(("group", "expected"), [("audit", LOGS), ("services", SERVICES)], ids=["audit", "services"])
async def test_every_scene_of_a_group_passes(folder: Path, group: str, expected: dict[str, str], evidence: str) -> None:
    words = ("--evidence", evidence, "--network", "namespaces", "--scenes", group, "--json", "--keep", "kept")
    ran = await run(*words, folder=folder, patience=300)
    found = {scene["name"]: (scene["status"], scene["observed"], scene["why"]) for scene in ran.report["scenes"]}
    assert found == {name: ("passed", reason, "") for name, reason in expected.items()}
    assert (ran.code, ran.report["ok"]) == (0, True)
    assert traces(folder / "kept") == []
