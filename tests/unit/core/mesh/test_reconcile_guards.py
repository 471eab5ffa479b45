"""Gaps: only topics may lose their start, and only an answer may say so."""

from overlay.core.mesh.reconcile import ItemsVerified
from overlay.registry import ChainKind
from tests.unit.core.mesh.mesh_kit import Ours, item, node

ALICE = node("alice")


def test_an_answer_with_a_gap_is_taken_of_a_topic_and_never_of_an_audit_log() -> None:
    for kind, taken in ((ChainKind.TOPIC, True), (ChainKind.AUDIT, False)):
        ours = Ours(kind)
        ours.open(ALICE)
        ours.heads(ALICE, 9, ALICE)
        events = ours.items(ALICE, 7, item(7), item(8), wanted=0)
        assert [type(event) for event in events] == ([ItemsVerified] if taken else [])
        assert ours.chains.checks == int(taken)


def test_what_is_pushed_while_an_answer_is_awaited_makes_no_gap() -> None:
    ours = Ours(ChainKind.TOPIC)
    ours.open(ALICE)
    ours.heads(ALICE, 9, ALICE)
    assert ours.items(ALICE, 7, item(7), item(8)) == []
    assert ours.chains.checks == 0
