"""The one place that copes with a machine without psutil and prometheus_client: everything else asks here for them."""

from importlib import import_module
from typing import Any, Final

from overlay.errors import HostLacks

HINT: Final = "`pip install attested-overlay[telemetry]`"


def psutil() -> Any:
    """The module. Raises HostLacks where it does not load."""
    return _load("psutil")


def prometheus_client() -> Any:
    """The module. Raises HostLacks where it does not load."""
    return _load("prometheus_client")


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise HostLacks(f"the Python package {name} does not load: {error}", hint=HINT) from None
