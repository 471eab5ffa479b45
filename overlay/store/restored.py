"""The number from which a restored node counts. What it numbered after its backup was made, it does not know any more.

A log or an order with a number that was used already would be a second story told by one key. So whatever this node numbers
by itself goes on from here: the time of the restore, in Unix seconds, which is beyond all that was counted one by one.
"""

from typing import Final

from overlay.core.wire import UInt, make_map, open_map
from overlay.errors import Refused
from overlay.store.files import damaged
from overlay.store.state import RESTORED, StateFolder

COUNT_MAX: Final = 2**32 - 2  # the number of a log has 32 bits; Unix seconds reach that in 2106


def load_count(folder: StateFolder) -> int:
    """The lowest number of a log or an order to come; 0 for a folder that was never restored. Raises StateDamaged."""
    content = folder.read(RESTORED)
    if content is None:
        return 0
    try:
        (count,) = open_map(content, UInt(COUNT_MAX), limit=64)
    except Refused as error:
        raise damaged(folder.file(RESTORED), str(error)) from None
    return int(count)


def save_count(folder: StateFolder, count: int) -> None:
    """Durable on return."""
    folder.write(RESTORED, make_map(min(count, COUNT_MAX)))
