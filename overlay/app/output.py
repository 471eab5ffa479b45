"""How commands speak: results on standard output, everything else on standard error, and no control characters of others."""

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from overlay.app.json_text import compact
from overlay.errors import OverlayError

PROGRAM: Final = "overlay"


def plain(text: str) -> str:
    """Text that cannot move the cursor, whoever wrote it: control and formatting characters are shown as escapes."""
    return "".join(letter if _is_harmless(letter) else letter.encode("unicode_escape").decode() for letter in text)


def _is_harmless(letter: str) -> bool:
    return unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def say(text: str = "") -> None:
    """A line of the result, written at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_json(value: object) -> None:
    """The result as JSON on one line; what could move the cursor of a terminal is written as escapes of JSON."""
    say("".join(letter if _is_harmless(letter) else _json_escape(letter) for letter in compact(value)))


def _json_escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def say_bytes(data: bytes) -> None:
    """The result as it is; at a terminal made harmless, with a line end."""
    if sys.stdout.isatty():
        say("\n".join(plain(line) for line in data.decode("utf-8", "replace").split("\n")))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns; with colour at a terminal."""
    texts = [[plain(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(*headings, box=None, pad_edge=False, header_style="bold")
        for row in texts:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in [list(headings), *texts]) for column in range(len(headings))]
    for row in [list(headings), *texts]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def counted(number: int, what: str) -> str:
    """`1 peer`, `2 peers`."""
    return f"{number} {what}" + "s" * (number != 1)


def note(text: str) -> None:
    """Something that one should know, beside the result."""
    click.echo(f"{PROGRAM}: note: {plain(text)}", err=True)


def complain(error: OverlayError) -> None:
    """An error and what to do about it."""
    click.echo(f"{PROGRAM}: error: {plain(sentence(str(error)))}", err=True)
    if error.hint:
        click.echo(f"{PROGRAM}: hint: {plain(sentence(error.hint))}", err=True)


def sentence(text: str) -> str:
    """One line, no full stop, and lower case unless the first word is a name such as TPM."""
    line = " ".join(text.split()).rstrip(".")
    return line[:1].lower() + line[1:] if line[1:2].islower() else line
