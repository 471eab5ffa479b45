"""What a scene is, and how it is judged: the control must succeed, then the attack must fail for the named reason."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Event, Machine, peer_up, refused
from overlay.app.lab.options import Choice
from overlay.app.lab.report import SceneRow, Status
from overlay.errors import CheckFailed, OverlayError
from overlay.registry import Reason

ADMITTED_WITHIN = 45.0  # seconds, of which most pass on a machine that is busy: our guess
REFUSED_WITHIN = 20.0  # seconds: our guess


@dataclass(frozen=True, slots=True)
class Observation:
    """What a victim's log said, and which victim."""

    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One attack. `control` raises CheckFailed if the same actor without the defect does not succeed."""

    name: str
    about: str
    expected: Reason
    control: Callable[[Lab, Machine], Awaitable[None]]
    attack: Callable[[Lab, Machine], Awaitable[Observation]]
    needs_tpm: bool = False
    expected_software: Reason | None = None  # where another reason holds without TPMs
    lacks: Callable[[], str] = str  # what this host would need besides; "" if nothing

    def expects(self, choice: Choice) -> str:
        """The name of the reason that has to be in a victim's log."""
        with_tpm = choice.evidence == "tpm"
        return (self.expected if with_tpm else self.expected_software or self.expected).name

    def unfinished(self, choice: Choice) -> SceneRow:
        """The row of a scene that cannot be played here, or did not come to its end."""
        why = self._unplayable(choice)
        if why:
            return self._row(choice, status="skipped", why=why)
        return self._row(choice, status="failed", why="it did not come to its end")

    async def play(self, lab: Lab) -> SceneRow:
        """Control, attack, verdict. Never raises for what went wrong in the scene."""
        if self._unplayable(lab.choice):
            return self.unfinished(lab.choice)

        async def perform() -> Observation:
            actor = await lab.actor()
            await self.control(lab, actor)
            return await self.attack(lab, actor)

        return await judge(self.name, self.expects(lab.choice), perform)

    def _unplayable(self, choice: Choice) -> str:
        """Why it cannot be played here; "" if it can."""
        return "needs TPM evidence" if self.needs_tpm and choice.evidence != "tpm" else self.lacks()

    def _row(self, choice: Choice, *, status: Status, why: str) -> SceneRow:
        return SceneRow(name=self.name, expected=self.expects(choice), observed="", by="", status=status, why=why)


async def judge(name: str, expected: str, perform: Callable[[], Awaitable[Observation]]) -> SceneRow:
    """The row of a scene: it passed if what was observed is what was expected. Never raises for what went wrong in it."""
    began = trio.current_time()
    observed, by, why = "", "", ""
    try:
        found = await perform()
        observed, by = found.reason, found.by
    except OverlayError as error:
        why = str(error)
    status: Status = "passed" if observed == expected and not why else "failed"
    if status == "failed" and not why:
        why = "another reason than expected"
    return SceneRow(
        name=name, expected=expected, observed=observed, by=by, status=status, why=why,
        seconds=round(trio.current_time() - began, 1),
    )


async def admitted(lab: Lab, actor: Machine, since: dict[str, int]) -> None:
    """Until some victim has admitted the actor. Raises CheckFailed."""
    await lab.first_seen(peer_up(actor.node_id), since, within=ADMITTED_WITHIN, what=f"{actor.name} admitted")


async def is_admitted(lab: Lab, actor: Machine) -> None:
    """The usual control: the actor, without any defect, is admitted."""
    since = await lab.positions()
    async with lab.running(actor):
        await admitted(lab, actor, since)


async def is_refused(
    lab: Lab, actor: Machine, expected: Reason, *, defect: str, argument: str = "", within: float = REFUSED_WITHIN,
    stranger: bool = False,
) -> Observation:
    """The usual attack: with the defect, a victim turns it away for the expected reason, and nobody ever admits it."""
    since = await lab.positions()
    node_id = None if stranger else actor.node_id
    async with lab.running(actor, defect=defect, argument=argument):
        victim, event = await lab.first_seen(
            refused(expected.name, node_id), since, within=within, what=expected.name
        )
        never_admitted(lab, actor, since)
    return observation(victim, event)


def never_admitted(lab: Lab, actor: Machine, since: dict[str, int]) -> None:
    """Raises CheckFailed if a victim admitted the actor after those positions."""
    for victim in lab.victims:
        if any(peer_up(actor.node_id)(event) for event in victim.events[since[victim.name] :]):
            raise CheckFailed(f"{victim.name} admitted {actor.name}")


def observation(victim: Machine, event: Event) -> Observation:
    """From a line of a victim's log."""
    return Observation(event["reason"], victim.name)
