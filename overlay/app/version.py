"""The version of the installed package."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

try:
    VERSION: Final = version("attested-overlay")
except PackageNotFoundError:  # run from a folder that was never installed
    VERSION = "0+unknown"  # type: ignore[misc]
