"""The numbers of the protocol, where one follows from others, and the times of a lab that is in a hurry."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core import limits
from overlay.core.limits import AttestTimes, RekeyTimes

FIXED: dict[str, Any] = {
    "RECORD_MAX": 65_535, "FRAME_BODY_MAX": 65_511, "HANDSHAKE_MESSAGE_MAX": 16_384, "CHAIN_DEPTH_MAX": 12,
    "CHAIN_BYTES_MAX": 8_192, "CHALLENGE_MAX": 1_024, "PROOF_MAX": 16_384, "VERDICT_MAX": 256, "GOODBYE_MAX": 256,
    "HANDSHAKE_TIMEOUT": 5.0, "ADMISSION_TIMEOUT": 30.0, "SEEN_HELLOS": 65_536, "KEM_KEY_SIZE": 1_184,
    "KEM_CIPHERTEXT_SIZE": 1_088, "BODY_MAX": 1_048_576, "SEND_QUEUE_MAX": 10_485_760, "CALL_TIMEOUT": 30.0,
    "PING_AFTER": 15.0, "PINGS_MISSED": 3, "CLOCK_TOLERANCE": 300.0, "ENDORSEMENT_LIFE": 86_400.0, "NONCE_SIZE": 32,
    "NONCE_LIFE": 10.0, "ROUND_LEAVES_MAX": 65_536, "ROUND_WINDOW": 2.0, "JOIN_WINDOW": 0.2, "UNASKED_NONCE_EVERY": 10.0,
    "HALF_OPEN_PER_ADDRESS": 8, "HALF_OPEN_MAX": 64, "BACKOFF_MIN": 0.25, "BACKOFF_MAX": 60.0,
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_the_numbers_of_the_protocol(name: str) -> None:
    assert getattr(limits, name) == FIXED[name]


def test_the_times_of_rekey_and_attestation() -> None:
    assert RekeyTimes() == RekeyTimes(
        after=60.0, jitter=5.0, backstop=75.0, close=90.0, silence=5.0, give_up=30.0, pause=10.0, records=2**24, volume=2**36
    )
    assert AttestTimes() == AttestTimes(every=60.0, jitter=5.0, lease=150.0, overdue=75.0, window=2.0)


def test_the_period_of_a_minute_gives_the_defaults() -> None:
    assert RekeyTimes.every(60.0) == RekeyTimes()
    assert AttestTimes.period(60.0) == AttestTimes()


@given(st.floats(1.0, 600.0))
def test_at_any_period_each_time_leaves_room_for_the_one_before(seconds: float) -> None:
    rekey, attest = RekeyTimes.every(seconds), AttestTimes.period(seconds)
    assert rekey.pause < rekey.after - rekey.jitter < rekey.after < rekey.backstop < rekey.close
    assert rekey.close - rekey.backstop > rekey.silence - 0.001
    assert attest.window <= attest.every / 4
    assert attest.every < attest.overdue < attest.lease
    assert attest.lease - attest.overdue > limits.NONCE_LIFE - 0.001


@pytest.mark.parametrize(("period", "pause"), [(60.0, 10.0), (600.0, 10.0), (12.0, 2.0), (6.0, 1.0), (5.0, 0.0), (1.0, 0.0)])
def test_a_node_that_was_busy_for_five_seconds_finds_no_offer_too_soon(period: float, pause: float) -> None:
    assert RekeyTimes.every(period).pause == pytest.approx(pause)
