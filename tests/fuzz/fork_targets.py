"""Target: fork proofs, and what a node makes of them."""

from contextlib import suppress
from functools import cache
from typing import Any, Final

from audit.exposer import Exposed, Exposer, Misbehaved
from audit.forks import FORK_PROOF_MAX, parse_fork
from overlay.core.wire import decode, encode
from overlay.errors import Refused
from tests.fuzz.kit import cut
from tests.unit.audit.fork_kit import Forker
from tests.unit.core.session_kit import ALICE, BOB, LAB

SIDES: Final = (2, 3)


@cache
def forker() -> Forker:
    """Who has forked; Alice and Bob have not."""
    return Forker.after(2, 2, 2, mesh=LAB)


def fork(data: bytes) -> None:
    """A proof as it stands, or with known credentials put in (see `shortened`): only who has forked is exposed."""
    first, rest = cut(data)
    with suppress(Refused):
        raw = rest if first & 1 == 0 else completed(decode(rest, limit=FORK_PROOF_MAX))
        with suppress(Refused):
            assert parse_fork(raw).raw == raw
        machine = Exposer(LAB.root, lambda: LAB.at, lambda _kid: None)
        for event in machine.heard(BOB.node_id, raw):
            assert isinstance(event, Misbehaved | Exposed)
        assert set(machine.exposed) <= {forker().member.node_id}


def shortened(raw: bytes) -> bytes:
    """A proof of the forker's without its credentials, which would be most of the bytes."""
    fields = decode(raw, limit=FORK_PROOF_MAX)
    return encode(fields | {at: {key: value for key, value in fields[at].items() if key != 1} for at in SIDES})


def completed(value: Any) -> bytes:
    """With credentials where there are none: the forker's, or where 1 is a number those of Alice."""
    if not isinstance(value, dict):
        return encode(value)
    found = dict(value)
    for at in SIDES:
        side = value.get(at)
        if isinstance(side, dict) and not isinstance(side.get(1), list):
            shown = ALICE.credentials if isinstance(side.get(1), int) else forker().member.credentials
            found[at] = side | {1: [shown.endorsement, shown.leaf, list(shown.chain)]}
    return encode(found)
