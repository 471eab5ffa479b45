"""A lab whose TPM is pulled and whose release changes, by its command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay.app.lab import namespaces
from overlay.app.lab.catalogue import ATTESTATION_ACTS
from tests.network.lab_kit import run, short_folder, traces

pytestmark = [pytest.mark.network, pytest.mark.tpm, pytest.mark.slow]


@pytest.fixture(autouse=True)
def host_can() -> None:
    if (lacking := namespaces.available()) is not None:
        pytest.skip(lacking)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.mark.parametrize("evidence", ["tpm", "software"])
async def test_a_tpm_that_is_pulled_kills_no_node_and_who_does_not_update_in_time_is_out(folder: Path, evidence: str) -> None:
    words = ("--evidence", evidence, "--network", "namespaces", "--scenes", "attestation", "--json", "--keep", "kept")
    ran = await run(*words, folder=folder, patience=300)
    assert ran.code == 0, ran
    assert [(row["name"], row["status"], row["observed"]) for row in ran.report["scenes"]] == [
        ("tpm-pulled", "passed", "LEASE_EXPIRED") if evidence == "tpm" else ("tpm-pulled", "skipped", ""),
        ("policy-grace", "passed", "PCR_MISMATCH" if evidence == "tpm" else "SOFTWARE_MISMATCH"),
    ]
    assert len(ran.report["scenes"]) == len(ATTESTATION_ACTS)
    assert ran.report["ok"] is True
    assert traces(folder / "kept") == []
