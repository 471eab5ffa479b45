"""Guards of overlay/core/session.py that the tests of its parts do not show."""

from dataclasses import replace

from overlay.core.session_events import LeaseRenewed
from overlay.registry import Reason
from tests.unit.core.session_kit import Pair, evidence_for, refusal


def asked_after_a_rekey() -> Pair:
    """An open link in epoch 2, whose bob has just asked alice for evidence."""
    pair = Pair.established()
    pair.sleep(61.0)
    assert pair.alice.session.epoch == 2
    pair.answer_evidence = False
    pair.alice.session.open_round(100)
    pair.exchange()
    return pair


def test_evidence_is_bound_to_the_keys_of_its_epoch_and_not_to_the_first_ones() -> None:
    pair = asked_after_a_rekey()
    wanted = pair.alice.wanted
    assert (wanted.epoch, wanted.h) == (2, pair.alice.keys.h)
    assert wanted.h != pair.alice.session.first_h
    pair.alice.session.send_evidence(100, evidence_for(wanted))
    [event] = pair.move(pair.alice)
    assert isinstance(event, LeaseRenewed)


def test_evidence_bound_to_the_first_keys_of_the_link_is_refused_later() -> None:
    pair = asked_after_a_rekey()
    wanted = replace(pair.alice.wanted, h=pair.alice.session.first_h)
    pair.alice.session.send_evidence(100, evidence_for(wanted))
    assert refusal(pair.move(pair.alice)) is Reason.EVIDENCE_NOT_BOUND
