"""What holds for every test: no deadlines by the wall clock, and a plain reason when the host lacks a TPM simulator."""

import importlib.util
import shutil

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("house", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


def missing_for_tpm() -> list[str]:
    """What a test with the marker `tpm` needs and this host does not have."""
    missing = [] if importlib.util.find_spec("tpm2_pytss") else ["tpm2-pytss"]
    return missing + ([] if shutil.which("swtpm") else ["swtpm"])


def missing_for_network() -> list[str]:
    """What a test with the marker `network` needs and this host does not have."""
    return [] if shutil.which("ip") else ["iproute2"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason, what this host cannot run."""
    wants = {"tpm": missing_for_tpm(), "network": missing_for_network()}
    for item in items:
        for marker, missing in wants.items():
            if missing and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"this host lacks {', '.join(missing)}"))
