"""What people write of a job, in TOML, before it is signed.

    name = "report"
    artifact = "report.py"                  # beside this file, or an absolute path
    type = "python"                         # or "program": ELF, or a script that begins with #!
    arguments = ["--month", "9"]
    life = "2h"                             # until when runs may start; else as long as the keys that sign it
    runs = 3
    level = 3
    second = "<node id>"                    # who else must sign
    schedulers = ["carol"]                  # names; without it, all. The same for workers
    outputs = ["report.csv"]
    [environment]                           # all that the run has
    [inputs]                                # name in the folder of the run = file; one called stdin is its standard input
    [limits]                                # seconds, memory, processes, output, network
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

from overlay.app.work.desk import WorkDesk
from overlay.core.keys import NodeId
from overlay.core.work.workload import Allowed, Artifact, File, RunLimits, Workload
from overlay.errors import UsageError
from overlay.registry import ArtifactType
from overlay.store.artifacts import Kept

SIZE_MAX: Final = 64 * 1024  # as long as a workload may be
TYPES: Final = {"program": ArtifactType.PROGRAM, "python": ArtifactType.PYTHON}
UNITS: Final = {"s": 1, "m": 60, "h": 3600}
KEYS: Final = frozenset({
    "name", "artifact", "type", "arguments", "life", "runs", "level", "second", "schedulers", "workers", "outputs",
    "environment", "inputs", "limits",
})  # fmt: skip
LIMITS: Final = frozenset({"seconds", "memory", "processes", "output", "network"})
_LIFE: Final = re.compile(r"([0-9]{1,6})([smh])")


@dataclass(frozen=True, slots=True)
class Description:
    """As it was read; files are still to be hashed."""

    artifact: Path
    inputs: Mapping[str, Path]
    table: Mapping[str, Any]

    def workload(self, desk: WorkDesk, artifact: Kept, inputs: Mapping[str, Kept]) -> Workload:
        """Raises UsageError: what no workload can say is said when it is signed."""
        table = self.table
        second = table.get("second")
        fields: dict[str, Any] = {
            "arguments": tuple(table.get("arguments", ())), "environment": tuple(sorted(table.get("environment", {}).items())),
            "limits": RunLimits(**table.get("limits", {})), "outputs": tuple(sorted(table.get("outputs", ()))),
            "inputs": tuple(sorted(File(name, one.hash, one.size) for name, one in inputs.items())),
            "runs": table.get("runs", 1), "level": table.get("level", 0),
            "schedulers": Allowed(names=tuple(sorted(table.get("schedulers", ())))),
            "workers": Allowed(names=tuple(sorted(table.get("workers", ())))),
        }  # fmt: skip
        if second is not None:
            fields["second"] = _node(second)
        kind = TYPES[table.get("type", "program")]
        made = Artifact(artifact.hash, artifact.size, kind)
        try:
            return desk.new_workload(table["name"], made, life=_life(table.get("life")), **fields)
        except (TypeError, ValueError) as error:
            raise UsageError(f"this cannot be a workload: {error}") from None


def read_description(path: Path) -> Description:
    """Raises UsageError, naming what is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
        table = tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    if len(data) > SIZE_MAX:
        raise UsageError(f"{path} is longer than {SIZE_MAX} bytes")
    _check(path, table)
    folder = path.parent
    inputs = {name: folder / one for name, one in table.get("inputs", {}).items()}
    return Description(folder / table["artifact"], inputs, table)


def _check(path: Path, table: Mapping[str, Any]) -> None:
    for key in table:
        if key not in KEYS:
            _wrong(path, f"unknown key {key!r}", f"there are {', '.join(sorted(KEYS))}")
    for key in ("name", "artifact"):
        if not isinstance(table.get(key), str):
            _wrong(path, f"no {key}", f'write {key} = "..."')
    if table.get("type", "program") not in TYPES:
        _wrong(path, f"type {table['type']!r}", f"write one of {', '.join(TYPES)}")
    for key in ("environment", "inputs"):
        if not isinstance(table.get(key, {}), dict) or not all(isinstance(one, str) for one in table.get(key, {}).values()):
            _wrong(path, f"{key} is not a table of texts", f"write [{key}] and lines of NAME = TEXT")
    for key in ("arguments", "outputs", "schedulers", "workers"):
        if not isinstance(table.get(key, []), list) or not all(isinstance(one, str) for one in table.get(key, [])):
            _wrong(path, f"{key} is not a list of texts", f'write {key} = ["..."]')
    _check_limits(path, table.get("limits", {}))


def _check_limits(path: Path, limits: object) -> None:
    if not isinstance(limits, dict) or not limits.keys() <= LIMITS:
        _wrong(path, "limits", f"there are {', '.join(sorted(LIMITS))}")
    for key, value in limits.items():
        if isinstance(value, bool) != (key == "network") or not isinstance(value, int):
            _wrong(path, f"limit {key}", "write a whole number; network is true or false")


def _wrong(path: Path, what: str, hint: str) -> NoReturn:
    raise UsageError(f"{path}: {what}", hint=hint)


def _life(text: object) -> timedelta | None:
    if text is None:
        return None
    match = _LIFE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"life {text!r}", hint='write "90s", "30m" or "2h"')
    return timedelta(seconds=int(match[1]) * UNITS[match[2]])


def _node(text: object) -> NodeId:
    try:
        return NodeId.parse(str(text))
    except ValueError:
        raise UsageError(f"{text!r} is no node id", hint="`overlay status --json` shows them") from None
