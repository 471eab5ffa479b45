"""Vectors of logs, by hand: what is said of them on a link, and the quoted digest to which they lead, or do not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.unit.attest.event_log_kit import BOOT, Made, Measured, locality, log
from tests.vectors.by_hand import sha256
from tests.vectors.cose_by_hand import fields
from tests.vectors.vector_kit import Json

PCRS = [*range(8), 10, 14]
FILES = (Measured("boot_aggregate"), Measured("/usr/bin/ls", b"ls", b"ima-sig"), Measured("/var/log/x", violation=True))
START = (locality(3), *BOOT)


def pcrs(events: Sequence[Made], files: Sequence[Measured], start: int = 3) -> dict[int, bytes]:
    """Each PCR after these, as a TPM extends it."""
    found = {pcr: bytes(32) for pcr in PCRS} | {0: bytes(31) + bytes([start])}
    for pcr, digest in [(one.pcr, one.sha256) for one in events if one.type != 3] + [(10, one.extended) for one in files]:
        if pcr in found:
            found[pcr] = sha256(found[pcr] + digest)
    return found


def digest(values: dict[int, bytes]) -> bytes:
    return sha256(b"".join(values[pcr] for pcr in sorted(values)))


def case(name: str, events: Sequence[Made], files: Sequence[Measured], expect: str = "ok", *, later: int = 0) -> Json:
    """Logs, and the quote of a machine that measured START and FILES; `later` entries of the list came after it."""
    quoted = FILES[: len(FILES) - later]
    values = pcrs(START, quoted)
    found: Json = {
        "name": name, "expect": expect, "kind": "replay", "pcrs": PCRS, "pcr_digest": digest(values),
        "boot": log(*events), "files": b"".join(one.pack() for one in files),
    }  # fmt: skip
    if expect == "ok":
        offset = sum(len(one.pack()) for one in quoted)
        found["values"] = {
            "pcr_values": [values[pcr] for pcr in sorted(values)], "files_offset": offset, "files_entries": len(quoted),
        }  # fmt: skip
    return found


def logs() -> Iterator[Json]:
    for name, parts in (
        ("the boot log is wanted", [1, 0]), ("a list is wanted from where it was", [2, 4096]),
        ("a whole boot log", [1, 0, 3, b"log"]), ("the end of a list", [2, 122_880, 122_883, b"end"]),
        ("nothing more", [2, 4096, 4096, b""]), ("no log", [1, 0, 0, b""]),
    ):  # fmt: skip
        yield {"name": name, "expect": "ok", "kind": "part", "fields": parts, "body": fields(*parts)}
    for name, expect, parts in (
        ("less than there is", "malformed", [1, 0, 5, b"four"]), ("more than is said", "malformed", [1, 0, 3, b"four"]),
        ("no length", "malformed", [1, 0, b"four"]),
        ("log 0", "malformed", [0, 0]), ("log 3", "malformed", [3, 0]),
    ):  # fmt: skip
        yield {"name": name, "expect": expect, "kind": "part", "body": fields(*parts)}
    yield case("both logs lead to the quote", START, FILES)
    yield case("a file that was measured after the quote", START, FILES, later=1)
    yield case("an event that was measured after the quote", (*START, Made(14, b"late")), FILES)
    other = replace(FILES[1], content=b"evil")
    for name, events, files in (
        ("another locality at the start", (locality(0), *BOOT), FILES), ("an event is missing", START[:11] + START[12:], FILES),
        ("two events changed places", (*START[:3], START[4], START[3], *START[5:-4], START[-3], START[-4], *START[-2:]), FILES),
        ("an event was put in", (*START[:5], Made(4, b"injected"), *START[5:]), FILES),
        ("an event is hidden by its type", (*START[:-1], replace(START[-1], type=3)), FILES),
        ("another file", START, (FILES[0], other, FILES[2])), ("a file is missing", START, FILES[:2]),
        ("files changed places", START, (FILES[1], FILES[0], FILES[2])), ("no list", START, ()),
    ):  # fmt: skip
        yield case(name, events, files, "pcr_mismatch")
