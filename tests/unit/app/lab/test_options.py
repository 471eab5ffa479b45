"""What the lab takes when it is not told, and that it never takes something else than it was told."""

from collections.abc import Callable
from math import inf, nan

import pytest

from overlay.app.lab.options import Choice, LabOptions, choose
from overlay.errors import HostLacks, UsageError


def has() -> str | None:
    return None


def lacks(what: str) -> Callable[[], str | None]:
    return lambda: what


def test_the_best_there_is_is_taken_when_nothing_is_said() -> None:
    assert choose(LabOptions(), tpm_lacks=has, network_lacks=has) == Choice("tpm", "namespaces", [])


def test_what_is_missing_is_listed_where_nothing_was_asked_for() -> None:
    choice = choose(LabOptions(), tpm_lacks=lacks("no swtpm"), network_lacks=lacks("no namespaces"))
    assert choice == Choice(
        "software", "loopback",
        ["software evidence instead of a TPM: no swtpm", "loopback instead of network namespaces: no namespaces"],
    )  # fmt: skip


def test_what_was_asked_for_is_taken_though_there_is_better() -> None:
    options = LabOptions(evidence="software", network="loopback")
    assert choose(options, tpm_lacks=has, network_lacks=has) == Choice("software", "loopback", [])


def test_what_was_asked_for_is_no_degradation_where_there_is_nothing_better() -> None:
    options = LabOptions(evidence="software", network="loopback")
    assert choose(options, tpm_lacks=lacks("x"), network_lacks=lacks("y")) == Choice("software", "loopback", [])


def test_a_tpm_that_was_asked_for_never_falls_back() -> None:
    with pytest.raises(HostLacks, match="--evidence tpm: no swtpm") as error:
        choose(LabOptions(evidence="tpm"), tpm_lacks=lacks("no swtpm"), network_lacks=has)
    assert "swtpm" in error.value.hint


def test_namespaces_that_were_asked_for_never_fall_back() -> None:
    with pytest.raises(HostLacks, match="--network namespaces: not allowed") as error:
        choose(LabOptions(network="namespaces"), tpm_lacks=has, network_lacks=lacks("not allowed"))
    assert error.value.hint


@pytest.mark.parametrize("nodes", [-1, 0, 1, 21])
def test_a_lab_has_two_to_twenty_machines(nodes: int) -> None:
    with pytest.raises(UsageError, match="2 to 20"):
        LabOptions(nodes=nodes)
    assert (LabOptions(nodes=2).nodes, LabOptions(nodes=20).nodes) == (2, 20)


@pytest.mark.parametrize("seconds", [0.9, 0, -5, 3601, inf, nan])
def test_periods_are_what_a_node_takes(seconds: float) -> None:
    with pytest.raises(UsageError, match="1 to 3600 seconds"):
        LabOptions(rekey_after=seconds)
    with pytest.raises(UsageError, match="1 to 3600 seconds"):
        LabOptions(attest_every=seconds)
