"""The clock floor: the latest time that our own trusted data proves. It never falls: a clock set back revives nothing.

What may raise it: the notBefore of our own certificate, later the newest CRL and the newest cosigned checkpoint. The
node's own entries may not: one jump of the clock forward would lock it out for good.
"""

from datetime import UTC, datetime
from typing import Final

from overlay.core.endorsement import TIME_MAX
from overlay.core.wire import UInt, make_map, open_map
from overlay.errors import Refused, StateDamaged
from overlay.store.state import CLOCK_FLOOR, StateFolder

HINT: Final = "it was left as it is; delete it: it rises again at the next start, to the begin of the certificate in use"


def load_floor(folder: StateFolder) -> datetime | None:
    """The floor; None before anything has raised it. Raises StateDamaged."""
    try:
        content = folder.read(CLOCK_FLOOR)
        if content is None:
            return None
        (seconds,) = open_map(content, UInt(TIME_MAX), limit=64)
    except StateDamaged as error:
        raise StateDamaged(str(error), hint=HINT) from None
    except Refused as error:
        raise StateDamaged(f"{folder.file(CLOCK_FLOOR)} is damaged: {error}", hint=HINT) from None
    return datetime.fromtimestamp(seconds, UTC)


def raise_floor(folder: StateFolder, proven: datetime) -> datetime:
    """Lift the floor to `proven` if that is later; durable, and gives the floor in force. Raises StateDamaged."""
    before = load_floor(folder)
    after = proven.astimezone(UTC).replace(microsecond=0)
    if before is not None and after <= before:
        return before
    folder.write(CLOCK_FLOOR, make_map(int(after.timestamp())))
    return after

