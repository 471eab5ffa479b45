"""The package manifest: one hash over the program text of the four packages that a node runs."""

from pathlib import Path
from typing import Final

from overlay.core.wire import lv, sha256
from overlay.errors import HostLacks
from overlay.registry import Label

PACKAGES: Final = ("attest", "audit", "discovery", "overlay")


def installed_root() -> Path:
    """The folder that holds the packages from which this runs."""
    return Path(__file__).parents[1]


def package_manifest(root: Path) -> bytes:
    """SHA-256 over the sorted (path, SHA-256) of every .py file of the four packages under `root`. Reads all of them.

    Raises:
        HostLacks: a package is not there, or a file cannot be read.
    """
    try:
        files = sorted((path.relative_to(root).as_posix(), path) for name in PACKAGES for path in _sources(root / name))
        rows = [lv(name.encode()) + sha256(path.read_bytes()) for name, path in files]
    except OSError as error:
        raise HostLacks(f"cannot read the installed package: {error}", hint="install attested-overlay again") from None
    return sha256(Label.MANIFEST, *rows)


def _sources(package: Path) -> list[Path]:
    found = list(package.rglob("*.py"))
    if not found:
        raise HostLacks(f"no package at {package}", hint="install attested-overlay again")
    return found
