"""All scenes, in the order in which they are told: attacks on a mesh that stays as it is, then acts, which change it."""

from dataclasses import dataclass
from typing import Final

from overlay.app.lab.act import Act
from overlay.app.lab.acts import (
    cold_start,
    distribute,
    join_by_token,
    policy_grace,
    refresh,
    reshare,
    revoke,
    signer_killed,
    tpm_pulled,
)
from overlay.app.lab.scene import Scene
from overlay.app.lab.scenes import (
    cloned_folder,
    edited_entry,
    edited_metric,
    edited_software,
    expired_endorsement,
    flipped_bytes,
    forked_log,
    forward_postgres,
    other_mesh,
    pcr_drift,
    replayed_quote,
    replayed_rekey,
    restored_folder,
    revoked_scheduler,
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
    forked_log.SCENE,
    flipped_bytes.SCENE,
    replayed_rekey.SCENE,
)


MORE_ABOUT_LOGS: tuple[Scene, ...] = (restored_folder.SCENE, cloned_folder.SCENE)
MORE_ABOUT_SERVICES: tuple[Scene, ...] = (forward_postgres.SCENE, revoked_scheduler.SCENE, edited_metric.SCENE)
SERVICES: Final = "services"  # all of these
AUDIT: Final = "audit"  # these, and those of SCENES that are about logs

ACTS: tuple[Act, ...] = (
    distribute.ACT,
    signer_killed.ACT,
    join_by_token.ACT,
    revoke.ACT,
    refresh.ACT,
    reshare.ACT,
    cold_start.ACT,
)
AUTHORITY: Final = "authority"  # all of these

ATTESTATION_ACTS: tuple[Act, ...] = (tpm_pulled.ACT, policy_grace.ACT)
ATTESTATION: Final = "attestation"  # all of these
GROUPS: Final = frozenset({AUDIT, SERVICES, AUTHORITY, ATTESTATION})


@dataclass(frozen=True, slots=True)
class Programme:
    """What is played: attacks at the same time, then acts one after the other."""

    attacks: tuple[Scene, ...]
    acts: tuple[Act, ...]

    @property
    def scenes(self) -> tuple[Scene | Act, ...]:
        """All of them."""
        return (*self.attacks, *self.acts)

    @property
    def about_authority(self) -> bool:
        """Whether the mesh key changes hands."""
        return any(act in ACTS for act in self.acts)


EVERYTHING: Final = Programme((*SCENES, *MORE_ABOUT_LOGS, *MORE_ABOUT_SERVICES), (*ACTS, *ATTESTATION_ACTS))


def select(names: tuple[str, ...] | None) -> Programme:
    """The named ones; acts about the authority with all before them; without names the attacks.

    Raises:
        UsageError: an unknown name, or acts of both kinds: each leaves another mesh behind.
    """
    if names is None:
        return Programme(SCENES, ())
    known = {scene.name for scene in EVERYTHING.scenes}
    unknown = [name for name in names if name not in {*known, *GROUPS}]
    if unknown:
        all_names = ", ".join(scene.name for scene in EVERYTHING.scenes)
        kinds = f"{AUDIT} for all about logs, {SERVICES} about services, {AUTHORITY} and {ATTESTATION} for acts"
        hint = f"there are {all_names}; {kinds}"
        raise UsageError(f"there is no scene {unknown[0]!r}", hint=hint)
    about_logs = [edited_entry.SCENE.name, forked_log.SCENE.name, *(scene.name for scene in MORE_ABOUT_LOGS)]
    groups = {AUDIT: about_logs, SERVICES: [scene.name for scene in MORE_ABOUT_SERVICES]}
    names = tuple(name for one in names for name in groups.get(one, [one]))
    attacks = {scene.name: scene for scene in EVERYTHING.attacks}
    places = {AUTHORITY: len(ACTS), **{act.name: place for place, act in enumerate(ACTS, 1)}}
    last = max((places.get(name, 0) for name in names), default=0)
    others = tuple(act for act in ATTESTATION_ACTS if act.name in names or ATTESTATION in names)
    if last and others:
        both = f"{others[0].name} and {ACTS[last - 1].name}"
        raise UsageError(f"{both} are not played in one lab", hint="play them one after the other")
    return Programme(tuple(attacks[name] for name in dict.fromkeys(names) if name in attacks), ACTS[:last] or others)
