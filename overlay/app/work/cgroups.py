"""A control group for one run, where this process may make one: memory and processes of all of it together.

Version 2 (kernel documentation, cgroup-v2.rst) where memory and pids are there, else version 1.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path("/sys/fs/cgroup")
PREFIX: Final = "overlay-work-"


class Group:
    """Its folders; `held` says what they bound. Made ahead of the run: to enter one takes the kernel many milliseconds."""

    def __init__(self, folders: Mapping[str, Path], held: tuple[str, ...]) -> None:
        self._folders = folders
        self.held = held

    @classmethod
    def make(cls) -> Self:
        """Without bounds yet; nothing of it where nothing can be made."""
        _remove_old()
        name = f"{PREFIX}{os.getpid()}"
        if (ROOT / "cgroup.controllers").exists():
            made = {"": ROOT / name} if _make(ROOT / name, "memory.max", "pids.max") else {}
            return cls(made, ("memory", "processes") if made else ())
        places = {"memory": (ROOT / "memory" / name, "memory.limit_in_bytes"), "pids": (ROOT / "pids" / name, "pids.max")}
        made = {kind: folder for kind, (folder, wanted) in places.items() if _make(folder, wanted)}
        return cls(made, tuple({"memory": "memory", "pids": "processes"}[kind] for kind in made))

    def bound(self, memory: int, processes: int) -> None:
        """From now on. Raises OSError."""
        for kind, folder in self._folders.items():
            if kind != "memory":
                (folder / "pids.max").write_text(str(processes))
            if kind == "memory":
                (folder / "memory.limit_in_bytes").write_text(str(memory))
            if not kind:
                (folder / "memory.max").write_text(str(memory))
                if (folder / "memory.swap.max").exists():
                    (folder / "memory.swap.max").write_text("0")

    def add(self, pid: int) -> None:
        """This process and all that it starts. Raises OSError."""
        for folder in self._folders.values():
            (folder / "cgroup.procs").write_text(str(pid))

    @property
    def killed(self) -> bool:
        """Whether the kernel has ended a process of it for want of memory."""
        paths = (folder / name for folder in self._folders.values() for name in ("memory.events", "memory.oom_control"))
        return any(_counts_kill(path) for path in paths)

    def remove(self) -> None:
        """When nothing runs in it any more."""
        for folder in self._folders.values():
            _remove(folder)


def _remove_old() -> None:
    """Of launchers that were killed."""
    for folder in (*_old(""), *_old("memory"), *_old("pids")):
        if not Path("/proc", folder.name.removeprefix(PREFIX)).exists():
            _remove(folder)


def _old(kind: str) -> list[Path]:
    return list((ROOT / kind).glob(f"{PREFIX}*"))


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # the kernel needs a moment; an empty group holds nothing


def _make(folder: Path, *wanted: str) -> bool:
    """Whether it is there now, with what it is for."""
    try:
        folder.mkdir()
    except OSError:
        return False
    if all((folder / name).exists() for name in wanted):
        return True
    folder.rmdir()
    return False


def _counts_kill(path: Path) -> bool:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)
