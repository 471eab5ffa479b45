"""The port through which a node finds others. `discovery/` implements it; a user's own finder plugs in the same way."""

from collections.abc import Callable
from typing import Protocol

import trio

from overlay.core.mesh.found import AnnouncementFacts, Candidate


class Finder(Protocol):
    """Looks for peers and says that we are here."""

    async def run(
        self,
        announcement: AnnouncementFacts,
        found: Callable[[Candidate], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Announce and look until cancelled; `started()` once it is looking.

        `found` is called in trio's thread, must not block, and may be called again for the same peer: after an address
        change, a restart, or when a name was heard anew.

        Raises:
            HostLacks: this way of finding does not work on this host; other finders go on.
        """
        ...
