"""A token as a command takes it: as a word, `-` for the input, `@FILE` for a file, so that it is in no shell history."""

import sys
from pathlib import Path
from typing import Final

from overlay.core.token import TEXT_MAX
from overlay.errors import UsageError
from overlay.store.exchange import read_text

STREAM: Final = "-"


def read_token(text: str) -> str:
    """Raises UsageError."""
    if text == STREAM:
        text = sys.stdin.read(TEXT_MAX + 1)
    elif text.startswith("@"):
        text = read_text(Path(text[1:]))
    if not text.strip():
        raise UsageError("there is no token", hint="`overlay invite` prints one on a node of an operator")
    return text.strip()
