"""Writes docs/protocol/registry.md from overlay/registry.py: `python -m tests.architecture.registry_page`."""

import inspect
import io
import tokenize
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from pathlib import Path

from overlay import registry
from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "protocol" / "registry.md"
HEAD = """\
# Registry

Every label and every number of the protocol. A number is never used again for something else; what is marked *reserved*
has no meaning yet and is answered with UNSUPPORTED where it can be.

Written from `overlay/registry.py` by `python -m tests.architecture.registry_page`; a test compares the two.
"""


def notes(source: str) -> dict[str, str]:
    """Name to the comment at the end of the line that defines it."""
    found = {}
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and line:
            found[line[0].string] = token.string.removeprefix("#").strip()
        line = [] if token.type in {tokenize.NEWLINE, tokenize.NL} else line
        if token.type == tokenize.NAME:
            line.append(token)
    return found


def shown(value: object) -> str:
    """A constant as the page shows it."""
    if isinstance(value, bytes):
        zeros = value == bytes(len(value))
        return f"{len(value)} bytes 0x00" if zeros else repr(value)[2:-1].replace("\\x00", "\\0")
    return str(value)


def constants() -> Iterator[str]:
    """The module's plain constants."""
    comments = notes(inspect.getsource(registry))
    yield from ("", "## Constants", "", "| name | value | note |", "| --- | --- | --- |")
    for name, value in vars(registry).items():
        if name.isupper() and isinstance(value, int | str | bytes):
            yield f"| {name} | `{shown(value)}` | {comments.get(name, '')} |"


def labels() -> Iterator[str]:
    """The labels that begin whatever is signed, hashed or quoted."""
    yield from ("", "## Labels", "", inspect.getdoc(registry.Label) or "", "", "| name | bytes |", "| --- | --- |")
    for name, value in registry.Label.all().items():
        yield f"| {name} | `{shown(value)}` |"


def numbers(kind: type[IntEnum | IntFlag]) -> Iterator[str]:
    """One enum."""
    comments = notes(inspect.getsource(kind))
    yield from ("", f"## {kind.__name__}", "", inspect.getdoc(kind) or "", "")
    yield from ("| number | name | note |", "| --- | --- | --- |")
    for name, member in kind.__members__.items():
        number = f"0x{member.value:02x}" if kind is registry.FrameType else str(member.value)
        note = comments.get(name, "")
        if kind is registry.FrameType:
            note = "reserved" if member in registry.RESERVED_FRAMES else ""
        yield f"| {number} | {name} | {note} |"


def page() -> str:
    """The whole page."""
    lines = [*constants(), *labels()]
    for value in vars(registry).values():
        if inspect.isclass(value) and issubclass(value, IntEnum | IntFlag) and value.__module__ == registry.__name__:
            lines += numbers(value)
    return HEAD + "\n".join(lines) + "\n"


def write(path: Path = PAGE) -> None:
    """Replace the page."""
    path.write_text(page())


if __name__ == "__main__":
    write()
