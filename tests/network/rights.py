"""A user without rights, who may run our Python wherever it lies."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.lab_kit import PACKAGES, ROOT, Python

NOBODY = 54_321  # no line of /etc/passwd knows this number
EXEC = ("sh", "-c", 'exec "$@"', "sh")  # a second exec: the one by setpriv still has rights
USER = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *EXEC)


def python_without_rights(folder: Path) -> Python:
    """Our Python as a user who may do nothing that root may; as we are, if we are no root. `folder` gets to be theirs."""
    if os.geteuid() != 0:
        return Python()
    (folder / "mounts").mkdir()
    os.chown(folder, NOBODY, NOBODY)
    opened = ("unshare", "--mount", "sh", "-ec", "\n".join(opening(folder / "mounts")), "sh")
    for prefix in (USER, (*opened, *USER)):
        python = Python(prefix)
        test = [*prefix, sys.executable, "-P", "-c", "import overlay.app.lab.world"]
        if subprocess.run(test, env=python.environment(folder), check=False, capture_output=True).returncode == 0:
            return python
    pytest.skip(f"others than root cannot run {sys.executable}, and we may not mount: take a Python outside of /root")


def opening(stash: Path) -> Iterator[str]:
    """Shell commands: what our Python needs becomes visible, in their mount namespace, where others may not look in."""
    needed = {Path(path).resolve() for path in (sys.base_prefix, sys.prefix, ROOT, *PACKAGES)}
    hidden = {path: closed for path in needed if (closed := closed_above(path)) is not None}
    for number, path in enumerate(hidden):
        yield f"mkdir -p '{stash}/{number}'; mount --bind '{path}' '{stash}/{number}'"
    for closed in set(hidden.values()):
        yield f"mount -t tmpfs -o mode=755 none '{closed}'"
    for number, path in enumerate(hidden):
        yield f"mkdir -p '{path}'; mount --move '{stash}/{number}' '{path}'"
    yield 'exec "$@"'


def closed_above(path: Path) -> Path | None:
    """The first folder on the way to the path that others may not enter."""
    return next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001), None)
