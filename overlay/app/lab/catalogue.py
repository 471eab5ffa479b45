"""All scenes, in the order in which they are told."""

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


def select(names: tuple[str, ...] | None) -> tuple[Scene, ...]:
    """The named ones, or all. Raises UsageError for a name that is not there."""
    if names is None:
        return SCENES
    by_name = {scene.name: scene for scene in SCENES}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UsageError(f"there is no scene {unknown[0]!r}", hint=f"there are {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)
