"""The first 53 bytes of a connection, judged before there is a session: do they show that the sender holds our gate key?

Nothing is remembered of them, and nothing is decided but whose quota the connection counts under
(`core/mesh/load.py`): the session checks the gate again, and says why it refuses.
"""

import hmac
from collections.abc import Sequence
from typing import Final

from overlay.core.gate import EPHEMERAL_SIZE, SeenEphemerals, make_hello
from overlay.core.limits import HELLO_SIZE
from overlay.registry import Mode

RECORD_LENGTH: Final = EPHEMERAL_SIZE.to_bytes(2, "big")  # message 1 is one record that holds `e` and no payload
EPHEMERAL_BEGINS: Final = HELLO_SIZE + len(RECORD_LENGTH)
GREETING_SIZE: Final = EPHEMERAL_BEGINS + EPHEMERAL_SIZE  # 53
MODE_AT: Final = 2
MODES: Final = frozenset(Mode)


def shows_gate_key(greeting: bytes, gate_keys: Sequence[bytes], tags: Sequence[bytes], seen: SeenEphemerals) -> bool:
    """Whether it was made with one of these keys for one of these tags, and did not come in before."""
    hello, ephemeral = greeting[:HELLO_SIZE], greeting[EPHEMERAL_BEGINS:]
    if len(greeting) != GREETING_SIZE or greeting[HELLO_SIZE:EPHEMERAL_BEGINS] != RECORD_LENGTH:
        return False
    if hello[MODE_AT] not in MODES or ephemeral in seen:
        return False
    mode = Mode(hello[MODE_AT])
    fits = [hmac.compare_digest(hello, make_hello(key, mode, tag, ephemeral)) for key in gate_keys for tag in tags]
    return any(fits)
