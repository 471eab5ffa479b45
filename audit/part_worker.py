"""A process that judges parts of logs for `audit.lookahead`: `python -m audit.part_worker`, messages on its standard streams.

    in   u32 length, {0:1, 1:path, 2:log number, 3:start, 4:count, then the fields of a Run}
    out  u32 length, {0:1, 1:hash before the part, 2:clock before it, 3:hashes, 4:clock at its end}
"""

import sys
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from audit.fast_chain import Run
from audit.store import AuditStore
from overlay.core.merkle import HASH_SIZE
from overlay.core.wire import Bytes, Text, UInt, make_map, open_map, u32
from overlay.errors import Refused, StateDamaged
from overlay.registry import GENESIS

MESSAGE_MAX: Final = 4 * 1024 * 1024
_BYTES: Final = Bytes(0, MESSAGE_MAX)
_TASK: Final = (Text(4096), UInt(), UInt(), UInt(), _BYTES, _BYTES, UInt(), UInt(), _BYTES, _BYTES, _BYTES)


@dataclass(frozen=True, slots=True)
class Part:
    """What was found of the entries from `start` on, if the log stands before them as it is recorded."""

    start: int
    last: bytes
    hlc: int
    hashes: list[bytes]
    end_hlc: int


def pack_task(path: Path, number: int, start: int, count: int, run: Run) -> bytes:
    """What a worker is asked."""
    return make_map(str(path), number, start, count, *astuple(run))


def read_part(start: int, answer: bytes) -> Part:
    """What it says. Raises Refused(MALFORMED)."""
    last, hlc, hashes, end = open_map(answer, _BYTES, UInt(), _BYTES, UInt(), limit=MESSAGE_MAX)
    return Part(start, last, hlc, [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)], end)


def judge(task: bytes) -> bytes:
    """Answer one task; a part of which nothing can be said has no hashes."""
    path, number, start, count, *fields = open_map(task, *_TASK, limit=MESSAGE_MAX)
    run = Run(*fields)
    try:
        store = AuditStore.open_readonly(Path(path))
        try:
            last, hlc = store.recorded(number, start - 1) if start else (GENESIS, 0)
            rows = store.block(number, start, count)
        finally:
            store.close()
    except StateDamaged:
        return make_map(b"", 0, b"", 0)
    hashes, end = run.follow(rows, start, last, hlc)
    return make_map(last, hlc, b"".join(hashes), end) if hashes else make_map(b"", 0, b"", 0)


def send(stream: BinaryIO, message: bytes) -> None:
    """One message."""
    stream.write(u32(len(message)) + message)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """The next message; None at the end."""
    head = stream.read(4)
    size = int.from_bytes(head, "big")
    body = stream.read(size) if len(head) == 4 and size <= MESSAGE_MAX else b""
    return body if len(head) == 4 and len(body) == size else None


def main() -> None:
    """Answer until nobody asks any more."""
    while (task := receive(sys.stdin.buffer)) is not None:
        try:
            answer = judge(task)
        except Refused:
            return
        send(sys.stdout.buffer, answer)


if __name__ == "__main__":
    main()
