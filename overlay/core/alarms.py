"""When to warn of an end that comes: at half and at three quarters of the life of a root, a share or a token.

Users of other meshes have found theirs dead after a year, without a word before.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, unique
from typing import Final

from overlay.core.certificate_profile import Life


@unique
class Lifelong(Enum):
    """What ends."""

    ROOT = "root"
    SHARE = "share"
    TOKEN = "token"  # noqa: S105 - a word


@unique
class Stage(IntEnum):
    """Per cent of a life that are gone."""

    FRESH = 0
    HALF = 50
    LATE = 75
    ENDED = 100


_STAGES: Final = (Stage.ENDED, Stage.LATE, Stage.HALF)  # protocol: alarms at 50 and 75 %


@dataclass(frozen=True, slots=True)
class Mortal:
    """Something that ends, and how an operator knows it."""

    kind: Lifelong
    name: str
    life: Life


@dataclass(frozen=True, slots=True)
class Alarm:
    """One warning, given once for each stage."""

    of: Mortal
    stage: Stage


def stage_of(life: Life, at: datetime) -> Stage:
    """How far gone it is; before its beginning it is fresh."""
    gone, whole = at - life.not_before, life.not_after - life.not_before
    return next((stage for stage in _STAGES if gone * 100 >= whole * stage), Stage.FRESH)


def alarms(things: Iterable[Mortal], since: datetime | None, at: datetime) -> tuple[Alarm, ...]:
    """What is to be said at `at`: all that has reached a stage, or only what did after `since`, the time of the last look.

    A stage that was passed unseen is not told beside the later one.
    """
    found = []
    for thing in things:
        stage = stage_of(thing.life, at)
        if stage > (Stage.FRESH if since is None else stage_of(thing.life, since)):
            found.append(Alarm(thing, stage))
    return tuple(found)


def next_alarm(things: Iterable[Mortal], at: datetime) -> datetime | None:
    """When the next stage is reached by one of them; None if all have ended."""
    times = (
        thing.life.not_before + (thing.life.not_after - thing.life.not_before) * stage / 100
        for thing in things
        for stage in _STAGES
    )
    return min((time for time in times if time > at), default=None)
