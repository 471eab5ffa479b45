"""Logs over a link: asked for part by part, bounded on both sides, and never in the way of anything else."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.evidence import Appraisal, Binding, Evidence
from overlay.core.frames import Frame
from overlay.core.limits import LOG_PART
from overlay.core.log_parts import LinkLogs, LogPart, LogWanted, NoLogs, pack_part, pack_wanted, unpack
from overlay.core.session import SessionConfig
from overlay.core.session_events import Failed, LeaseRenewed, Opened
from overlay.core.session_states import State
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import EvidenceKind, EvidenceLog, FrameType, Reason
from tests.unit.core.session_kit import Pair, evidence_for, refusal

BOOT, FILES = EvidenceLog.BOOT, EvidenceLog.FILES
PART = FrameType.EVIDENCE_PART


# --- forms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [
    LogWanted(BOOT, 0), LogWanted(FILES, 10_000_000), LogPart(BOOT, 0, 3, b"log"), LogPart(FILES, 5, 5, b""),
    LogPart(FILES, LOG_PART, 3 * LOG_PART, bytes(LOG_PART)), LogPart(BOOT, 0, 0, b""), LogPart(FILES, 9, 2, b""),
])  # fmt: skip
def test_what_is_said_of_logs_is_read_as_it_was_written(said: LogWanted | LogPart) -> None:
    assert unpack(pack_wanted(said) if isinstance(said, LogWanted) else pack_part(said)) == said


@pytest.mark.parametrize(("fields", "reason"), [
    ((1, 0, 5, b"four"), Reason.MALFORMED),  # less than there is
    ((1, 0, 3, b"four"), Reason.MALFORMED),  # more than it says
    ((1, 2, 5, b"four"), Reason.MALFORMED),
    ((2, 0, LOG_PART + 1, bytes(LOG_PART + 1)), Reason.MALFORMED),
    ((2, 0, 10_000_000, b"a few bytes"), Reason.MALFORMED),
    ((1, 0, 5, None), Reason.MALFORMED),
    ((1, 0, None, b"four"), Reason.MALFORMED),
    ((0, 0), Reason.MALFORMED),
    ((3, 0), Reason.MALFORMED),
    ((1, 2**40), Reason.MALFORMED),
    ((1, 0, 2**40, b""), Reason.MALFORMED),
    ((1, 0, 100 * 2**20, bytes(LOG_PART + 65)), Reason.TOO_LARGE),
])  # fmt: skip
def test_a_part_of_another_form_is_refused(fields: tuple[Any, ...], reason: Reason) -> None:
    with pytest.raises(Refused) as error:
        unpack(make_map(*fields))
    assert error.value.reason is reason


@given(st.binary(max_size=100))
def test_any_bytes_are_a_part_or_refused(data: bytes) -> None:
    try:
        unpack(data)
    except Refused as error:
        assert error.reason in {Reason.MALFORMED, Reason.TOO_LARGE, Reason.UNSUPPORTED}


# --- one link -------------------------------------------------------------------------------------------------------------


@dataclass
class Logs:
    """A machine's logs."""

    boot: bytes = b""
    files: bytes = b""

    def read(self, log: EvidenceLog, offset: int, size: int) -> tuple[int, bytes]:
        data = self.boot if log is BOOT else self.files
        return len(data), data[offset : offset + size]


def test_before_evidence_was_shown_there_are_no_logs_to_ask_for() -> None:
    with pytest.raises(Refused) as error:
        LinkLogs(Logs(b"boot")).answer(LogWanted(BOOT, 0))
    assert error.value.reason is Reason.UNEXPECTED_FRAME


def test_for_one_piece_of_evidence_nobody_gets_our_logs_again_and_again() -> None:
    logs = LinkLogs(Logs(b"boot", bytes(1_000_000)))
    logs.shown()
    sent = 0
    with pytest.raises(Refused) as error:
        for _ in range(1000):
            sent += len(logs.answer(LogWanted(FILES, 0)))
    assert error.value.reason is Reason.UNEXPECTED_FRAME
    assert 1_000_000 < sent < 3_000_000
    logs.shown()
    assert logs.answer(LogWanted(BOOT, 0))


def test_asking_for_what_is_not_there_is_bounded_too() -> None:
    logs = LinkLogs(NoLogs())
    logs.shown()
    with pytest.raises(Refused):
        for _ in range(100):
            logs.answer(LogWanted(FILES, 7))


@pytest.mark.parametrize("part", [LogPart(FILES, 0, 3, b"log"), LogPart(BOOT, 3, 6, b"log")])
def test_a_part_that_nobody_asked_for_is_refused(part: LogPart) -> None:
    logs = LinkLogs(NoLogs())
    for _ in range(2):
        with pytest.raises(Refused) as error:
            logs.take(part)
        assert error.value.reason is Reason.UNEXPECTED_FRAME
        logs.ask(LogWanted(BOOT, 0), "asker")
    assert logs.take(LogPart(BOOT, 0, 3, b"log")) == "asker"


# --- in a session ---------------------------------------------------------------------------------------------------------


@dataclass
class Asking:
    """An inquiry into the whole of a log: good if that is `good`."""

    log: EvidenceLog
    good: bytes
    fault: Exception | None = None
    got: bytearray = field(default_factory=bytearray)

    @property
    def wanted(self) -> LogWanted:
        return LogWanted(self.log, len(self.got))

    def take(self, part: LogPart) -> "Appraisal | Asking":
        if self.fault is not None:
            raise self.fault
        self.got += part.data
        if not part.is_last:
            return self
        if self.got != self.good:
            raise Refused(Reason.PCR_MISMATCH, "another log")
        return Appraisal(level=5, kind=EvidenceKind.TPM, software_version="logs")


@dataclass
class LogAppraiser:
    """Wants the whole of a log with each evidence."""

    log: EvidenceLog
    good: bytes
    fault: Exception | None = None
    asked: list[Asking] = field(default_factory=list)
    accepted: tuple[EvidenceKind, ...] = (EvidenceKind.SOFTWARE,)

    def appraise(self, evidence: Evidence, binding: Binding, peer: VerifiedPeer, previous: Appraisal | None) -> Asking:
        del peer, previous
        assert evidence == evidence_for(binding)
        self.asked.append(Asking(self.log, self.good, self.fault))
        return self.asked[-1]


LONG = bytes(range(256)) * 1000  # five parts


def judged_by(appraiser: LogAppraiser) -> Callable[[SessionConfig], SessionConfig]:
    return lambda config: replace(config, appraiser=appraiser)


def with_logs(logs: Logs) -> Callable[[SessionConfig], SessionConfig]:
    return lambda config: replace(config, logs=logs)


def pair(appraiser: LogAppraiser, logs: Logs, **options: Any) -> Pair:
    """Bob judges Alice's logs."""
    return Pair(alice_config=with_logs(logs), bob_config=judged_by(appraiser), **options)


@pytest.mark.parametrize("log", EvidenceLog)
def test_a_link_opens_when_all_parts_of_the_log_have_come(log: EvidenceLog) -> None:
    found = pair(LogAppraiser(log, LONG), Logs(LONG, LONG))
    found.exchange()
    assert found.states == (State.OPEN, State.OPEN)
    (opened,) = [event for event in found.bob.events if isinstance(event, Opened)]
    assert (opened.appraisal.level, opened.appraisal.software_version) == (5, "logs")


def test_a_link_whose_log_is_bad_does_not_open() -> None:
    found = pair(LogAppraiser(BOOT, LONG), Logs(LONG[:-1] + b"x"))
    found.exchange()
    assert refusal(found.bob.events) is Reason.PCR_MISMATCH
    assert isinstance(found.alice.events[-1], Failed)


def test_an_inquiry_that_raises_refuses() -> None:
    found = pair(LogAppraiser(BOOT, LONG, fault=RuntimeError("a bug")), Logs(LONG))
    found.exchange()
    assert refusal(found.bob.events) is Reason.INTERNAL
    assert found.bob.session.lease is None


def test_a_second_proof_while_a_log_is_under_way_is_refused() -> None:
    found = pair(LogAppraiser(BOOT, LONG), Logs(LONG))
    for _ in range(3):
        found.move(found.alice)
        found.move(found.bob)
    proof = Frame(FrameType.PROOF, body=b"")
    assert refusal(found.forge(found.alice, proof)) is Reason.UNEXPECTED_FRAME


def opened(appraiser: LogAppraiser, logs: Logs) -> Pair:
    found = pair(appraiser, logs)
    found.exchange()
    assert found.states == (State.OPEN, State.OPEN)
    return found


def round_of_alice(found: Pair, number: int) -> None:
    found.alice.session.open_round(number)
    found.move(found.alice)
    found.move(found.bob)
    found.move(found.alice)


def test_a_lease_is_renewed_when_the_log_has_come_and_counts_from_when_the_evidence_did() -> None:
    found = opened(LogAppraiser(FILES, LONG), Logs(LONG, LONG))
    found.now += 30
    round_of_alice(found, 1)
    before = found.bob.session.lease
    assert before is not None
    assert not any(isinstance(event, LeaseRenewed) for event in found.bob.events)
    came, found.now = found.now, found.now + 5
    found.exchange()
    assert any(isinstance(event, LeaseRenewed) for event in found.bob.events)
    after = found.bob.session.lease
    assert after is not None
    assert (before.since, after.since) == (1000.0, came)


def test_an_inquiry_that_raises_on_an_open_link_drops_the_lease_at_once() -> None:
    appraiser = LogAppraiser(FILES, LONG)
    found = opened(appraiser, Logs(LONG, LONG))
    appraiser.fault = RuntimeError("a bug")
    round_of_alice(found, 1)
    found.exchange()
    assert isinstance(found.bob.events[-1], Failed)
    assert found.bob.events[-1].reason is Reason.INTERNAL
    assert found.bob.session.lease is None
    assert not found.bob.session.leased(found.now)


def test_who_shows_evidence_and_keeps_its_log_back_loses_its_lease() -> None:
    found = opened(LogAppraiser(FILES, LONG), Logs(LONG, LONG))
    found.alice.session._on_log = lambda body, now: None  # type: ignore[method-assign]
    found.sleep(149)
    assert found.bob.session.state is State.OPEN
    found.sleep(2)
    assert isinstance(found.bob.events[-1], Failed)
    assert found.bob.events[-1].reason is Reason.LEASE_EXPIRED


def test_newer_evidence_takes_the_place_of_what_waits_for_a_log() -> None:
    appraiser = LogAppraiser(FILES, LONG)
    found = opened(appraiser, Logs(LONG, LONG))
    round_of_alice(found, 1)
    found.now += 12
    round_of_alice(found, 2)
    found.exchange()
    renewed = [event.round for event in found.bob.events if isinstance(event, LeaseRenewed)]
    assert renewed == [2]
    assert [len(one.got) for one in appraiser.asked] == [len(LONG), 0, len(LONG)]


def test_a_part_that_nobody_asked_for_ends_the_link() -> None:
    found = Pair.established()
    part = Frame(PART, body=pack_part(LogPart(BOOT, 0, 3, b"log")))
    assert refusal(found.forge(found.alice, part)) is Reason.UNEXPECTED_FRAME


def test_more_than_the_log_is_said_to_have_ends_the_link() -> None:
    found = pair(LogAppraiser(BOOT, LONG), Logs(LONG))
    for _ in range(3):
        found.move(found.alice)
        found.move(found.bob)
    found.alice.swallow()
    part = Frame(PART, body=make_map(1, 0, 3, b"four"))
    assert refusal(found.forge(found.alice, part)) is Reason.MALFORMED


def test_while_a_log_of_ten_megabytes_is_under_way_calls_pass_it() -> None:
    """Bob's answers to Alice's calls do not wait for the log, and hers do not either: one part is on its way at a time."""
    data = bytes(10_000_000)
    found = opened(appraiser := LogAppraiser(FILES, b""), Logs(b"", b""))
    appraiser.good, found.alice.session._config.logs.files = data, data  # type: ignore[attr-defined]
    round_of_alice(found, 1)
    said = 0
    while not any(isinstance(event, LeaseRenewed) for event in found.bob.events):
        found.alice.session.send(FrameType.CALL, found.alice.session.next_stream(), b"x", found.now)
        assert found.alice.session.queued < 2 * LOG_PART
        found.move(found.alice)
        said += 1
        assert len(found.bob.heard) == said
        found.move(found.bob)
    assert 160 < said < 180


def test_a_node_without_logs_says_so() -> None:
    found = pair(LogAppraiser(FILES, b""), Logs())
    found.exchange()
    assert found.states == (State.OPEN, State.OPEN)


