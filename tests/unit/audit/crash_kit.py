"""A run whose writes are recorded, and what a disk may hold after a crash at any moment of it.

What was synced is there. Of what was written since, any part may be: all of it, nothing, some writes and others not, a write
torn at a sector. A file whose folder was not synced since it was made may be gone.
"""

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SECTOR = 512  # bytes that a disk writes whole
GCC = shutil.which("gcc")


@dataclass(frozen=True)
class Row:
    """Something that the process did."""

    kind: str  # w, s, t, u, r, n: see record_writes.c
    path: str
    offset: int
    data: bytes = field(repr=False)


class Lost(Enum):
    """What of the writes that were not synced is lost."""

    NOTHING = auto()
    ALL = auto()
    SOME = auto()
    TORN = auto()


def record(folder: Path, work: Path, program: str, *arguments: str, fail: Mapping[str, str] | None = None) -> list[Row]:
    """Run a Python program and give all that it did below a folder, and what it printed, in order.

    `fail`: FAIL_KIND, FAIL_AFTER and FAIL_ERRNO, see record_writes.c.
    """
    library, rows = work / "record.so", work / "rows"
    assert GCC is not None
    subprocess.run([GCC, "-shared", "-fPIC", "-O2", "-o", library, HERE / "record_writes.c", "-ldl"], check=True)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(library), "RECORD_FOLDER": str(folder),
        "RECORD_FILE": str(rows), "RECORD_NOTES": "1", **(fail or {}),
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", program, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    return list(_read(rows.read_bytes()))


def _read(data: bytes) -> Iterator[Row]:
    at = 0
    while at < len(data):
        kind, size = chr(data[at]), struct.unpack_from("<H", data, at + 1)[0]
        at += 3
        path = data[at : at + size].decode()
        offset, length = struct.unpack_from("<QI", data, at + size)
        at += size + 12
        yield Row(kind, path, offset, data[at : at + length])
        at += length


@dataclass
class _File:
    """What is surely on the disk, and what was done since."""

    synced: bytes = b""
    pending: list[Row] = field(default_factory=list)
    exists: bool = False  # the folder was synced since it was made

    def content(self, lost: Lost, chance: random.Random) -> bytes:
        found = bytearray(self.synced)
        for row in self.pending:
            if lost is Lost.ALL or (lost is not Lost.NOTHING and chance.random() < 0.5):
                continue
            _apply(found, row if lost is not Lost.TORN else _torn(row, chance))
        return bytes(found)

    def sync(self) -> None:
        self.synced = self.content(Lost.NOTHING, random.Random(0))
        self.pending = []


def _apply(content: bytearray, row: Row) -> None:
    if row.kind == "t":
        del content[row.offset :]
        content.extend(bytes(row.offset - len(content)))
        return
    content.extend(bytes(max(row.offset - len(content), 0)))
    content[row.offset : row.offset + len(row.data)] = row.data


def _torn(row: Row, chance: random.Random) -> Row:
    """Some sectors of a write from its beginning on, at places where sectors end."""
    end = row.offset + len(row.data)
    ends = range(row.offset - row.offset % SECTOR + SECTOR, end, SECTOR)
    cut = chance.choice([*ends, end]) if row.kind == "w" else end
    return Row(row.kind, row.path, row.offset, row.data[: cut - row.offset])


class Disk:
    """The disk while the rows happen one after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._files: dict[str, _File] = {}
        self.notes: list[str] = []

    def happen(self, row: Row) -> None:
        """The next one."""
        if row.kind == "n":
            self.notes += row.data.decode().split()
        elif row.kind == "s" and row.path.rstrip("/") == self._folder.rstrip("/"):
            for file in self._files.values():
                file.exists = True
        elif row.kind == "s":
            self._file(row.path).sync()
        elif row.kind in "wt":
            self._file(row.path).pending.append(row)
        elif row.kind == "u":
            self._files.pop(row.path, None)
        elif row.kind == "r":
            self._files[row.data.decode()] = self._files.pop(row.path, _File())

    def _file(self, path: str) -> _File:
        return self._files.setdefault(path, _File())

    def write_to(self, target: Path, lost: Lost, chance: random.Random) -> None:
        """What is there after a crash now. The shared memory of SQLite is not on the disk."""
        target.mkdir()
        for path, file in self._files.items():
            if not path.endswith("-shm") and (file.exists or lost is Lost.NOTHING):
                written = target / Path(path).name
                written.write_bytes(file.content(lost, chance))
                written.chmod(0o600)
