"""Runs text files of commands, in the manner of age's testdata. A script holds blocks:

    # a comment
    $ overlay init alice --mesh test > FILE      a command; `< FILE` and `> FILE` as in a shell
    what it prints, line by line                 `...` stands for anything within a line
    ! what it prints to standard error
    ? 2                                          its exit code, where that is not 0

and below, each after a line `-- NAME --`, the files that lie in the folder when it begins.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
OVERLAY = [sys.executable, "-m", "overlay.app.cli.main"]
TIMEOUT = 60
FILE = re.compile(r"-- (\S+) --")


@dataclass
class Block:
    """A command, and what is expected of it."""

    line: int
    command: str
    output: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    code: int = 0


def read_script(text: str) -> tuple[list[Block], dict[str, str]]:
    """The blocks of a script, and its files."""
    blocks: list[Block] = []
    files: dict[str, str] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := FILE.fullmatch(line):
            name = match[1]
            files[name] = ""
        elif name:
            files[name] += line + "\n"
        elif line.startswith("$ "):
            blocks.append(Block(number, line[2:]))
        elif line.startswith("! "):
            blocks[-1].errors.append(line[2:])
        elif line.startswith("? "):
            blocks[-1].code = int(line[2:])
        elif line and not line.startswith("#"):
            blocks[-1].output.append(line)
    return blocks, files


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's settings; the packages of this checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OVERLAY_", "XDG_"))}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8", **more}


def play(text: str, folder: Path) -> Iterator[str]:
    """Run a script in a folder; one text for each thing that is not as expected."""
    blocks, files = read_script(text)
    for name, content in files.items():
        (folder / name).write_text(content)
    for block in blocks:
        result = run(block.command, folder)
        where = f"line {block.line}: {block.command}"
        if result.returncode != block.code:
            yield f"{where}\n  exit code {result.returncode}, expected {block.code}\n{result.stderr}"
        yield from _differences(f"{where}\n  standard output", result.stdout, block.output)
        yield from _differences(f"{where}\n  standard error", result.stderr, block.errors)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One line of a script: `NAME=value` first, `<` and `>` at the end."""
    words = shlex.split(command)
    settings: dict[str, str] = {}
    while "=" in words[0]:
        key, _, value = words.pop(0).partition("=")
        settings[key] = value
    source = _after(words, "<")
    target = _after(words, ">")
    words[:1] = OVERLAY if words[0] == "overlay" else words[:1]
    result = subprocess.run(
        words, cwd=folder, env=environment(folder, **settings), input=(folder / source).read_text() if source else "",
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )
    if target:
        (folder / target).write_text(result.stdout)
        result.stdout = ""
    return result


def _after(words: list[str], mark: str) -> str:
    """The file after `<` or `>`, both taken out."""
    if mark not in words:
        return ""
    at = words.index(mark)
    name = words[at + 1]
    del words[at : at + 2]
    return name


def _differences(what: str, found: str, expected: list[str]) -> Iterator[str]:
    lines = [line for line in found.splitlines() if line]
    if len(lines) != len(expected) or not all(map(_fits, lines, expected)):
        yield f"{what}\n" + "\n".join(f"    {line}" for line in lines) + "\n  expected\n" + "\n".join(
            f"    {line}" for line in expected
        )


def _fits(line: str, expected: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), line) is not None
