"""All scenes, in the order in which they are told: attacks on a mesh that stays as it is, then acts, which change it."""

from dataclasses import dataclass
from typing import Final

from overlay.app.lab.act import Act
from overlay.app.lab.acts import cold_start, distribute, join_by_token, refresh, reshare, revoke, signer_killed
from overlay.app.lab.scene import Scene
from overlay.app.lab.scenes import (
    edited_entry,
    edited_software,
    expired_endorsement,
    flipped_bytes,
    other_mesh,
    pcr_drift,
    replayed_quote,
    replayed_rekey,
    stranger,
)
from overlay.errors import UsageError

SCENES: tuple[Scene, ...] = (
    stranger.SCENE,
    other_mesh.SCENE,
    replayed_quote.SCENE,
    edited_software.SCENE,
    pcr_drift.SCENE,
    expired_endorsement.SCENE,
    edited_entry.SCENE,
    flipped_bytes.SCENE,
    replayed_rekey.SCENE,
)


ACTS: tuple[Act, ...] = (
    distribute.ACT,
    signer_killed.ACT,
    join_by_token.ACT,
    revoke.ACT,
    refresh.ACT,
    reshare.ACT,
    cold_start.ACT,
)
AUTHORITY: Final = "authority"  # all acts


@dataclass(frozen=True, slots=True)
class Programme:
    """What is played: attacks at the same time, then acts one after the other."""

    attacks: tuple[Scene, ...]
    acts: tuple[Act, ...]

    @property
    def scenes(self) -> tuple[Scene | Act, ...]:
        """All of them."""
        return (*self.attacks, *self.acts)


EVERYTHING: Final = Programme(SCENES, ACTS)


def select(names: tuple[str, ...] | None) -> Programme:
    """The named ones, with all acts before a named one; without names the attacks. Raises UsageError for an unknown name."""
    if names is None:
        return Programme(SCENES, ())
    attacks, acts = {scene.name: scene for scene in SCENES}, [act.name for act in ACTS]
    unknown = [name for name in names if name not in {*attacks, *acts, AUTHORITY}]
    if unknown:
        hint = f"there are {', '.join([*attacks, *acts])}, and {AUTHORITY}, which is all from {acts[0]} on"
        raise UsageError(f"there is no scene {unknown[0]!r}", hint=hint)
    last = max((len(acts) if name == AUTHORITY else acts.index(name) + 1 for name in names if name not in attacks), default=0)
    return Programme(tuple(attacks[name] for name in names if name in attacks), ACTS[:last])
