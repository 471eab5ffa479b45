"""The clock floor: the latest time that our own trusted data proves. It never falls: a clock set back revives nothing.

What may raise it: the notBefore of our own certificate, later the newest CRL and the newest cosigned checkpoint. The
node's own entries may not: one jump of the clock forward would lock it out for good.
"""

from datetime import UTC, datetime

from overlay.core.endorsement import TIME_MAX
from overlay.core.wire import UInt, make_map, open_map
from overlay.errors import Refused
from overlay.store.files import damaged
from overlay.store.state import CLOCK_FLOOR, StateFolder


def load_floor(folder: StateFolder) -> datetime | None:
    """The floor; None before anything has raised it. Raises StateDamaged."""
    content = folder.read(CLOCK_FLOOR)
    if content is None:
        return None
    try:
        (seconds,) = open_map(content, UInt(TIME_MAX), limit=64)
    except Refused as error:
        raise damaged(folder.file(CLOCK_FLOOR), str(error)) from None
    return datetime.fromtimestamp(seconds, UTC)


def raise_floor(folder: StateFolder, proven: datetime) -> datetime:
    """Lift the floor to `proven` if that is later; durable, and gives the floor in force. Raises StateDamaged."""
    before = load_floor(folder)
    after = proven.astimezone(UTC).replace(microsecond=0)
    if before is not None and after <= before:
        return before
    folder.write(CLOCK_FLOOR, make_map(int(after.timestamp())))
    return after

