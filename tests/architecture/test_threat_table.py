"""Each promise of docs/protocol/security.md, and each attack of attestation.md, names a test or a scene that exists."""

import pytest

from tests.architecture.threat_table import ATTACKS, ATTACKS_HEADER, PAGE, exists, names, rows


def test_the_threat_table_has_rows() -> None:
    assert rows(PAGE.read_text()) != []


@pytest.mark.parametrize("row", rows(PAGE.read_text()), ids=lambda row: f"{row[0]}: {row[1]}"[:60])
def test_a_promise_names_tests_that_exist(row: tuple[str, str, str]) -> None:
    _, promise, cell = row
    assert names(cell), f"{promise!r} names no test"
    assert [name for name in names(cell) if not exists(name)] == []


@pytest.mark.parametrize("row", rows(ATTACKS.read_text(), ATTACKS_HEADER), ids=lambda row: row[0][:60])
def test_an_attack_on_attestation_names_tests_that_exist(row: tuple[str, str, str]) -> None:
    assert names(row[2])
    assert [name for name in names(row[2]) if not exists(name)] == []
