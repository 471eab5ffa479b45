"""How a scene is judged: the control first, then the reason, and no other."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio

from overlay.app.lab.catalogue import ACTS, ATTESTATION_ACTS, EVERYTHING, SCENES, Programme, select
from overlay.app.lab.lab import Lab
from overlay.app.lab.machine import Machine, peer_up
from overlay.app.lab.options import Choice
from overlay.app.lab.scene import Observation, Scene, never_admitted
from overlay.app.lab.scenes import stranger
from overlay.errors import CheckFailed, UsageError
from overlay.registry import Reason

TPM, SOFTWARE = Choice("tpm", "namespaces"), Choice("software", "namespaces")


class FakeMachine:
    """A victim or an actor: a name, an id, and what its log says."""

    def __init__(self, name: str, *events: dict[str, Any]) -> None:
        self.name, self.node_id, self.events = name, f"id of {name}", list(events)


class FakeLab:
    """A lab in which scenes find an actor, and no machines."""

    def __init__(self, choice: Choice = TPM, victims: tuple[FakeMachine, ...] = ()) -> None:
        self.choice = choice
        self.victims = victims

    async def actor(self) -> FakeMachine:
        return FakeMachine("actor-1")


Step = Callable[[Lab, Machine], Awaitable[Any]]


async def succeeds(_lab: Lab, _actor: Machine) -> None:
    await trio.lowlevel.checkpoint()


async def fails(_lab: Lab, actor: Machine) -> None:
    raise CheckFailed(f"{actor.name} was not admitted")


def sees(reason: Reason) -> Step:
    async def attack(_lab: Lab, _actor: Machine) -> Observation:
        await trio.sleep(1.26)
        return Observation(reason.name, "alice")

    return attack


def scene(*, control: Step = succeeds, attack: Step, **options: Any) -> Scene:
    return Scene(name="x", about="does x", expected=Reason.PCR_MISMATCH, control=control, attack=attack, **options)


def lab(choice: Choice = TPM) -> Lab:
    return cast("Lab", FakeLab(choice))


async def test_the_named_reason_after_a_good_control_passes(autojump_clock: trio.abc.Clock) -> None:
    row = await scene(attack=sees(Reason.PCR_MISMATCH)).play(lab())
    assert (row.status, row.expected, row.observed, row.by, row.why) == ("passed", "PCR_MISMATCH", "PCR_MISMATCH", "alice", "")
    assert row.seconds == 1.3


async def test_an_attack_is_worth_nothing_when_its_control_fails() -> None:
    async def attack(_lab: Lab, _actor: Machine) -> Observation:
        pytest.fail("the control has failed")

    row = await scene(control=fails, attack=attack).play(lab())
    assert (row.status, row.observed, row.by, row.why) == ("failed", "", "", "actor-1 was not admitted")


async def test_another_reason_does_not_pass(autojump_clock: trio.abc.Clock) -> None:
    row = await scene(attack=sees(Reason.BAD_GATE)).play(lab())
    assert (row.status, row.observed, row.why) == ("failed", "BAD_GATE", "another reason than expected")


async def test_an_attack_that_nobody_refuses_does_not_pass() -> None:
    row = await scene(attack=fails).play(lab())
    assert (row.status, row.observed, row.why) == ("failed", "", "actor-1 was not admitted")


async def test_a_bug_in_a_scene_is_no_verdict() -> None:
    async def attack(_lab: Lab, _actor: Machine) -> Observation:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await scene(attack=attack).play(lab())


async def test_a_scene_that_needs_a_tpm_is_skipped_without_one() -> None:
    row = await scene(attack=fails, needs_tpm=True).play(lab(SOFTWARE))
    assert (row.status, row.why, row.observed) == ("skipped", "needs TPM evidence", "")


async def test_without_tpms_another_reason_may_be_the_right_one(autojump_clock: trio.abc.Clock) -> None:
    both = scene(attack=sees(Reason.SOFTWARE_MISMATCH), expected_software=Reason.SOFTWARE_MISMATCH)
    assert (await both.play(lab(SOFTWARE))).status == "passed"
    assert (await both.play(lab(TPM))).status == "failed"


def test_a_scene_that_did_not_come_to_its_end_has_not_passed() -> None:
    one = scene(attack=fails, needs_tpm=True)
    assert (one.unfinished(TPM).status, one.unfinished(SOFTWARE).status) == ("failed", "skipped")


def test_an_actor_that_was_admitted_in_spite_of_its_defect_fails_the_scene() -> None:
    actor = FakeMachine("actor-1")
    admitted = {"event": "peer-up", "node": actor.node_id}
    assert peer_up(actor.node_id)(admitted)
    victims = (FakeMachine("alice"), FakeMachine("bob", admitted))
    found, mallory = cast("Lab", FakeLab(TPM, victims)), cast("Machine", actor)
    never_admitted(found, mallory, {"alice": 0, "bob": 1})  # that was before
    with pytest.raises(CheckFailed, match="bob admitted actor-1"):
        never_admitted(found, mallory, {"alice": 0, "bob": 0})


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_all_scenes_play_unless_some_are_named() -> None:
    assert select(None) == Programme(SCENES, ())
    assert [scene.name for scene in select(("edited-entry", "stranger")).scenes] == ["edited-entry", "stranger"]


def test_scenes_about_logs_can_be_named_together() -> None:
    about_logs = ["edited-entry", "forked-log", "restored-folder", "cloned-folder"]
    assert [scene.name for scene in select(("audit", "forked-log")).scenes] == about_logs
    assert [scene.name for scene in select(("restored-folder",)).scenes] == ["restored-folder"]
    assert not {"restored-folder", "cloned-folder"} & {scene.name for scene in SCENES}


def test_an_act_brings_those_with_it_that_it_stands_on() -> None:
    assert select(("revoke", "stranger")).scenes == (stranger.SCENE, *ACTS[:4])
    assert [act.name for act in ACTS[:4]] == ["distribute", "signer-killed", "join-by-token", "revoke"]
    assert select(("authority",)) == Programme((), ACTS)


def test_acts_about_attestation_stand_by_themselves_and_are_not_mixed_with_those_about_the_authority() -> None:
    assert select(("attestation",)) == Programme((), ATTESTATION_ACTS)
    assert select(("policy-grace", "stranger")).scenes == (stranger.SCENE, ATTESTATION_ACTS[1])
    assert not select(("attestation",)).about_authority
    assert select(("distribute",)).about_authority
    with pytest.raises(UsageError, match="tpm-pulled and revoke are not played in one lab"):
        select(("tpm-pulled", "revoke"))


def test_an_act_that_needs_a_tpm_is_skipped_without_one_and_another_has_its_own_reason_there() -> None:
    pulled, grace = ATTESTATION_ACTS
    assert (pulled.unfinished(SOFTWARE).status, pulled.unfinished(TPM).status) == ("skipped", "failed")
    assert (grace.expects(TPM), grace.expects(SOFTWARE)) == ("PCR_MISMATCH", "SOFTWARE_MISMATCH")


def test_a_scene_that_is_not_there_is_usage_and_the_others_are_named() -> None:
    with pytest.raises(UsageError, match="'nonesuch'") as error:
        select(("stranger", "nonesuch"))
    assert "replayed-rekey" in error.value.hint


def test_names_of_scenes_are_unique_and_each_says_what_it_does() -> None:
    scenes = EVERYTHING.scenes
    assert len({scene.name for scene in scenes}) == len(scenes) == 12 + 3 + 7 + 2
    assert all(scene.about and len(scene.about) <= 50 for scene in scenes)
