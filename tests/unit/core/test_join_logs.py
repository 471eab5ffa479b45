"""Logs at a join: a signer asks for them part by part before it says yes, and a joiner gives no more than that."""

from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest

from overlay.core.certificate_request import Request
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import JoinTpm, TpmAnswer
from overlay.core.join_ports import JoinFinding
from overlay.core.join_signer import STEP_TIMEOUT, JoinRefused, SignerSide
from overlay.core.join_signer_states import State
from overlay.core.joiner_states import State as JoinerState
from overlay.core.joining import STEP_TIMEOUT as JOINER_TIMEOUT
from overlay.core.limits import LOG_PART
from overlay.core.log_parts import LogPart, LogWanted, pack_part, pack_wanted, unpack
from overlay.errors import Refused
from overlay.registry import EvidenceLog, FrameType, Reason
from tests.unit.core.join_kit import SIGNERS, TPM_SHOWN, Talk, Tpms, make_plan

PART = FrameType.EVIDENCE_PART
FILES = bytes(range(256)) * (3 * LOG_PART // 256) + b"the end"
BOOT = b"log"


class Kept:
    """The logs of a machine."""

    def read(self, log: EvidenceLog, offset: int, size: int) -> tuple[int, bytes]:
        data = BOOT if log is EvidenceLog.BOOT else FILES
        return len(data), data[offset : offset + size]


@dataclass
class Reading:
    """A JoinInquiry: both logs, from their beginning to their end; then the finding, or a refusal."""

    finding: JoinFinding
    refusal: Refused | None = None
    wanted: LogWanted = field(default_factory=lambda: LogWanted(EvidenceLog.BOOT, 0))
    read: bytearray = field(default_factory=bytearray)

    def take(self, part: LogPart) -> "JoinFinding | Reading":
        assert (part.log, part.offset) == (self.wanted.log, self.wanted.offset)
        self.read += part.data
        if not part.is_last:
            self.wanted = LogWanted(part.log, part.offset + len(part.data))
        elif part.log is EvidenceLog.BOOT:
            self.wanted = LogWanted(EvidenceLog.FILES, 0)
        elif self.refusal is not None:
            raise self.refusal
        else:
            return self.finding
        return self


class Curious(Tpms):
    """Wants logs of who is genuine."""

    def __init__(self, refusal: Refused | None = None, broken: bool = False) -> None:
        self.refusal, self.broken = refusal, broken
        self.readings: list[Reading] = []

    def appraise(  # type: ignore[override]
        self, shown: JoinTpm, answer: TpmAnswer, binding: JoinBinding, secret: bytes, request: Request, *,
        pcr_bitmap: int, at: datetime,
    ) -> Reading:
        finding = super().appraise(shown, answer, binding, secret, request, pcr_bitmap=pcr_bitmap, at=at)
        self.readings.append(Reading(finding, self.refusal))
        if self.broken:
            self.readings[-1].take = _throw  # type: ignore[method-assign]
        return self.readings[-1]


def _throw(part: LogPart) -> JoinFinding:
    raise ZeroDivisionError(part.offset)


def talk(tpms: Curious, threshold: int = 1) -> Talk:
    return Talk(replace(make_plan(tpm=TPM_SHOWN, threshold=threshold), logs=Kept()), tpms=tpms)


def test_a_joiner_is_approved_when_its_logs_have_been_read_to_the_end_by_each_signer() -> None:
    joining = talk(Curious(), threshold=2)
    joining.meet(SIGNERS[0])
    joining.meet(SIGNERS[1])
    assert joining.bundle is not None
    tpms = joining.tpms
    assert isinstance(tpms, Curious)
    assert [bytes(one.read) for one in tpms.readings] == [BOOT + FILES] * 2
    sizes = [len(body) for kind, body in joining.sent if kind is PART]
    assert len(sizes) == 2 * 5
    assert max(sizes) <= LOG_PART + 64


def test_nobody_is_approved_whose_logs_break_a_rule_and_the_joiner_hears_the_reason_of_links() -> None:
    joining = talk(Curious(Refused(Reason.PCR_MISMATCH, "an evil loader")))
    joining.meet(SIGNERS[0])
    assert (joining.approvals, joining.bundle) == ([], None)
    assert joining.links_done == [Reason.PCR_MISMATCH]
    assert [one.detail for one in joining.refused] == ["an evil loader"]


def test_an_appraiser_that_throws_over_a_log_refuses() -> None:
    joining = talk(Curious(broken=True))
    joining.meet(SIGNERS[0])
    assert (joining.approvals, joining.bundle) == ([], None)
    assert joining.links_done == [Reason.INTERNAL]


def test_a_joiner_that_stops_sending_is_waited_for_once_and_refused() -> None:
    joining = talk(Curious())
    silent = _until_reading(joining)
    assert silent.tick(joining.now + STEP_TIMEOUT - 1) == []
    [event] = silent.tick(joining.now + STEP_TIMEOUT)
    assert isinstance(event, JoinRefused)
    assert (event.reason, silent.state) == (Reason.TIMEOUT, State.ENDED)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (PART, pack_part(LogPart(EvidenceLog.FILES, 0, 3, b"log"))),  # another log than the one that was asked for
        (PART, pack_part(LogPart(EvidenceLog.BOOT, 1, 3, b"og"))),  # another place
        (PART, pack_wanted(LogWanted(EvidenceLog.BOOT, 0))),  # the signer's own logs
        (FrameType.JOIN_ANSWER, b""), (FrameType.JOIN, b""),
    ],
)  # fmt: skip
def test_a_signer_that_reads_logs_takes_nothing_but_the_part_that_it_asked_for(kind: FrameType, body: bytes) -> None:
    joining = talk(Curious())
    side = _until_reading(joining)
    [event] = side.receive(kind, body, joining.now, joining.at)
    assert isinstance(event, JoinRefused)
    assert (event.reason, side.state) == (Reason.UNEXPECTED_FRAME, State.ENDED)


def test_a_part_before_the_tpm_has_answered_is_refused() -> None:
    joining = talk(Curious())
    side = joining.side(SIGNERS[0], bytes(32))
    [event] = side.receive(PART, pack_part(LogPart(EvidenceLog.BOOT, 0, 3, b"log")), joining.now, joining.at)
    assert isinstance(event, JoinRefused)
    assert event.reason is Reason.UNEXPECTED_FRAME


def test_a_joiner_shows_no_log_before_its_tpm_has_answered() -> None:
    joining = talk(Curious())
    side = joining.side(SIGNERS[0], bytes(32))
    joining.joiner.begin(SIGNERS[0].peer.certificate, bytes(32), joining.now)
    for kind, body in side.messages_to_send():
        joining.joiner.receive(kind, body, joining.now, joining.at)
    joining.joiner.messages_to_send()
    joining.take(joining.joiner.receive(PART, pack_wanted(LogWanted(EvidenceLog.BOOT, 0)), joining.now, joining.at))
    assert joining.links_done == [Reason.UNEXPECTED_FRAME]


def test_a_joiner_shows_no_log_when_it_was_approved() -> None:
    joining = talk(Curious())
    joining.finish_with = lambda _side, _event: []  # the certificate is still to come
    joining.meet(SIGNERS[0])
    assert joining.joiner.state is JoinerState.FINISHING
    joining.take(joining.joiner.receive(PART, pack_wanted(LogWanted(EvidenceLog.BOOT, 0)), joining.now, joining.at))
    assert joining.links_done == [Reason.UNEXPECTED_FRAME]


def test_a_joiner_gives_a_signer_no_more_than_its_logs_twice() -> None:
    joining = talk(Curious())
    _until_reading(joining)
    ask = pack_wanted(LogWanted(EvidenceLog.FILES, 0))
    for _ in range(64):
        joining.take(joining.joiner.receive(PART, ask, joining.now, joining.at))
    given = [unpack(body) for kind, body in joining.joiner.messages_to_send() if kind is PART]
    assert joining.links_done == [Reason.UNEXPECTED_FRAME]
    assert sum(len(part.data) for part in given if isinstance(part, LogPart)) <= 2 * len(FILES + BOOT) + 4 * LOG_PART


def test_a_part_is_no_part_for_a_joiner_that_has_asked_for_nothing() -> None:
    joining = talk(Curious())
    _until_reading(joining)
    part = pack_part(LogPart(EvidenceLog.BOOT, 0, 3, b"log"))
    joining.take(joining.joiner.receive(PART, part, joining.now, joining.at))
    assert joining.links_done == [Reason.UNEXPECTED_FRAME]


def test_each_part_gives_a_signer_time_for_the_next() -> None:
    joining = talk(Curious())
    _until_reading(joining)
    joining.now += JOINER_TIMEOUT - 1
    joining.joiner.receive(PART, pack_wanted(LogWanted(EvidenceLog.BOOT, 0)), joining.now, joining.at)
    assert joining.joiner.deadline == joining.now + JOINER_TIMEOUT


def _until_reading(joining: Talk) -> SignerSide:
    """The signer's side, which has asked for the first part; the joiner has not heard it."""
    joining.links += 1
    side = joining.side(SIGNERS[0], bytes(32))
    joining.joiner.begin(SIGNERS[0].peer.certificate, bytes(32), joining.now)
    while side.state is not State.READING:
        for kind, body in side.messages_to_send():
            joining.take(joining.joiner.receive(kind, body, joining.now, joining.at))
        for kind, body in joining.joiner.messages_to_send():
            joining.serve(side, side.receive(kind, body, joining.now, joining.at))
    [(kind, body)] = side.messages_to_send()
    assert (kind, unpack(body)) == (PART, LogWanted(EvidenceLog.BOOT, 0))
    return side
