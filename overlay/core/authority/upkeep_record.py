"""What a node remembers of its upkeep over restarts: since when it has its share, and which alarms it has given.

    upkeep.cbor = {0:1, 1:H(SPKI of the root), 2:generation, 3:since, 4:repaired, 5:[[kind, name, per cent], ...], 6:serial?}

A value. Fields 1 to 4 are of the share that was seen last; 32 zeros for none. Field 6 is of the certificate whose renewal has
failed twice. Times are Unix seconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from overlay.core.alarms import Alarm, Lifelong, Mortal, Stage, alarms
from overlay.core.revocation_profile import TIME_MAX
from overlay.core.wire import Array, Bytes, Maybe, Text, Tuple, UInt, make_map, malformed, open_map

TOLD_MAX: Final = 4096  # objects about which something was said: our guess, as many as there are orders
NAME_MAX: Final = 128  # bytes: our guess
SIZE_MAX: Final = 1024 * 1024

_ROWS: Final = Array(Tuple((Text(16), Text(NAME_MAX), UInt(100))), TOLD_MAX)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_NONE: Final = bytes(32)

Told = tuple[Lifelong, str]


@dataclass(frozen=True, slots=True)
class UpkeepRecord:
    """Of one node."""

    root: bytes = _NONE  # 32: hash of the key that the share is of
    generation: int = 0
    since: datetime = _EPOCH
    repaired: bool = False  # given back by others, who may have had it for longer
    told: Mapping[Told, Stage] = field(default_factory=dict)
    not_renewed: bytes | None = None  # serial, 20 bytes

    def with_share(self, root: bytes, generation: int, at: datetime) -> "UpkeepRecord":
        """There is this share; the same where it is known."""
        if (self.root, self.generation) == (root, generation):
            return self
        since = at.astimezone(UTC).replace(microsecond=0)
        return replace(self, root=root, generation=generation, since=since, repaired=False)

    def due(self, things: Iterable[Mortal], at: datetime) -> tuple[Alarm, ...]:
        """What is to be said at `at` and was not said yet, whatever happened between."""
        found = alarms(things, None, at)
        return tuple(one for one in found if one.stage > self.told.get((one.of.kind, one.of.name), Stage.FRESH))

    def with_told(self, given: Iterable[Alarm], things: Iterable[Mortal]) -> "UpkeepRecord":
        """These alarms are given; what is not among the things any more is forgotten."""
        there = {(one.kind, one.name) for one in things}
        told = {key: stage for key, stage in self.told.items() if key in there}
        told |= {(one.of.kind, one.of.name): one.stage for one in given}
        return self if told == self.told else replace(self, told=dict(list(told.items())[-TOLD_MAX:]))

    def pack(self) -> bytes:
        """For a file."""
        rows = sorted([kind.value, name, int(stage)] for (kind, name), stage in self.told.items())
        return make_map(self.root, self.generation, int(self.since.timestamp()), int(self.repaired), rows, self.not_renewed)

    @classmethod
    def unpack(cls, data: bytes) -> "UpkeepRecord":
        """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        root, generation, since, repaired, rows, not_renewed = open_map(
            data, Bytes(32), UInt(), UInt(TIME_MAX), UInt(1), _ROWS, Maybe(Bytes(20)), limit=SIZE_MAX
        )
        try:
            told = {(Lifelong(kind), name): Stage(stage) for kind, name, stage in rows}
        except ValueError:
            malformed("an alarm of a kind or stage that there is not")
        return cls(root, generation, datetime.fromtimestamp(since, UTC), bool(repaired), told, not_renewed)
