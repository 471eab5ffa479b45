"""What an act is: a scene that changes the mesh. Acts are played one after the other, and each stands on those before it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from overlay.app.lab.options import Choice
from overlay.app.lab.report import SceneRow, Status
from overlay.app.lab.scene import Observation, judge
from overlay.app.lab.story import Story
from overlay.errors import CheckFailed
from overlay.registry import Reason

ACT_WITHIN: Final = 150.0  # seconds; an act takes 2 to 40 on two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that operators do, what must come of it, and an attack on it.

    `control` raises CheckFailed if what is ordered is not done, or the attack could not succeed even before it; `attack` says
    for which reason the attack was refused then.
    """

    name: str
    phase: str  # what operators do, while they do it
    about: str  # what the attacker does
    expected: Reason
    control: Callable[[Story], Awaitable[None]]
    attack: Callable[[Story], Awaitable[Observation]]
    needs_tpm: bool = False
    expected_software: Reason | None = None  # where another reason holds without TPMs

    def expects(self, choice: Choice) -> str:
        """The name of the reason."""
        with_tpm = choice.evidence == "tpm"
        return (self.expected if with_tpm else self.expected_software or self.expected).name

    def unfinished(self, choice: Choice) -> SceneRow:
        """The row of an act that cannot be played here, or did not come to its end."""
        skipped = self.needs_tpm and choice.evidence != "tpm"
        why = "needs TPM evidence" if skipped else "it did not come to its end"
        status: Status = "skipped" if skipped else "failed"
        return SceneRow(name=self.name, expected=self.expects(choice), observed="", by="", status=status, why=why)

    async def play(self, story: Story) -> SceneRow:
        """Control, attack, verdict. Never raises for what went wrong in the act."""
        if self.needs_tpm and story.lab.choice.evidence != "tpm":
            return self.unfinished(story.lab.choice)

        async def perform() -> Observation:
            with trio.move_on_after(ACT_WITHIN):
                await self.control(story)
                return await self.attack(story)
            raise CheckFailed(f"not within {ACT_WITHIN:g} s")

        return await judge(self.name, self.expects(story.lab.choice), perform)
