"""Quotes and the logs that lead to them, as a verifier gets them over links."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from attest import inquiry, log_book
from attest.appraiser import PolicyAppraiser
from attest.event_log import EV_NO_ACTION, parse_boot_log
from attest.log_book import LogBook
from attest.replay import digest_of, replay
from attest.structures import pack_selection
from overlay.core.certificate_profile import LeafFacts
from overlay.core.evidence import Appraisal
from overlay.core.limits import LOG_PART
from overlay.core.log_parts import LogPart, LogWanted
from overlay.core.policy import Policy
from overlay.core.policy_parts import DigestRule, Earlier, MissingLog, Mode, Need, Needs
from overlay.core.trust import VerifiedPeer
from overlay.core.wire import sha256
from overlay.errors import InternalError, Refused
from overlay.registry import EvidenceLog, Reason
from tests.unit.attest.event_log_kit import BOOT, EV_EFI_ACTION, Made, Measured, log, pcr_after, u32
from tests.unit.attest.software_tpm import AK, AK_QUALIFIED, NOW, Machine, a_binding, a_peer, tpm_claims

BITMAP = 0x40FF  # PCRs 0 to 7 and 14
FILES = BITMAP | 1 << 10
LOG = log(*BOOT)
ENTRIES = (Measured("boot_aggregate"), *(Measured("/usr/bin/program-").at(number) for number in range(30)))
SHIM, GRUB = sha256(b"shim"), sha256(b"grub")
SEPARATOR = sha256(bytes(4))
VENDOR = a_peer(LeafFacts(level=4, ak_name=AK.area.name, ak_qualified_name=AK_QUALIFIED))
LISTED = a_peer(LeafFacts(level=3, ak_name=AK.area.name, ak_qualified_name=AK_QUALIFIED))
EVENT_12 = "event 12 of the boot log (EV_EFI_ACTION, PCR 4)"
LOADERS = DigestRule(4, allowed=(SHIM, GRUB), required=(SEPARATOR,))
RULES = Policy(version=2, mode=Mode.ENFORCE, pcr_bitmap=BITMAP, digest_rules=(LOADERS,))


def digest(entry: Measured) -> bytes:
    return sha256(entry.content)


PROGRAMS = DigestRule(10, allowed=tuple(digest(entry) for entry in ENTRIES))
FILE_RULES = replace(RULES, pcr_bitmap=FILES, file_rule=PROGRAMS)


@dataclass
class Host:
    """A machine with a TPM and logs; what it quotes may be something else than what its logs say."""

    boot: bytes = LOG
    files: bytes = b""
    quoted_boot: Sequence[Made] = BOOT
    quoted_files: Sequence[Measured] = ()
    bitmap: int = BITMAP
    clock: tuple[int, int, int] = (3, 1, 5_000)
    claimed: bytes | None = b"its own"  # else the hash that stands in the claims
    sent: list[LogWanted] = field(default_factory=list)

    def digest(self) -> bytes:
        values = {**replay(parse_boot_log(log(*self.quoted_boot)))}
        if self.bitmap >> 10 & 1:
            values[10] = pcr_after(self.quoted_files)
        return digest_of(values, self.bitmap)

    def answer(self, wanted: LogWanted) -> LogPart:
        data = self.boot if wanted.log is EvidenceLog.BOOT else self.files
        self.sent.append(wanted)
        return LogPart(wanted.log, wanted.offset, len(data), data[wanted.offset : wanted.offset + LOG_PART])

    def judged(self, policy: Policy, book: LogBook | None = None, peer: VerifiedPeer = VENDOR) -> Appraisal:
        """Evidence of now, and all parts that are asked for."""
        appraiser = PolicyAppraiser(lambda: policy, lambda: NOW, book or LogBook())
        machine = Machine(selection=pack_selection(self.bitmap), pcr_digest=self.digest(), clock=self.clock)
        boot_hash = sha256(self.boot) if self.claimed == b"its own" else self.claimed
        claims = replace(tpm_claims(self.bitmap), boot_log_hash=boot_hash).pack()
        found = appraiser.appraise(machine.evidence(a_binding(), claims=claims), a_binding(), peer, None)
        while not isinstance(found, Appraisal):
            found = found.take(self.answer(found.wanted))
        return found


def refused(host: Host, policy: Policy = RULES, book: LogBook | None = None) -> Refused:
    with pytest.raises(Refused) as error:
        host.judged(policy, book)
    return error.value


def packed(entries: Sequence[Measured] = ENTRIES) -> bytes:
    return b"".join(entry.pack() for entry in entries)


# --- the boot log -------------------------------------------------------------------------------------------------------


def test_a_machine_whose_boot_log_meets_the_rules_has_level_5() -> None:
    found = Host().judged(RULES)
    assert (found.level, found.warnings) == (5, ())


def test_level_5_takes_a_tpm_that_its_maker_has_certified() -> None:
    assert Host().judged(RULES, peer=LISTED).level == 3


@pytest.mark.parametrize("policy", [
    replace(RULES, digest_rules=()), replace(RULES, digest_rules=(), pcr_digests=(Host().digest(),)),
])  # fmt: skip
def test_without_rules_nobody_has_level_5_and_no_log_is_asked_for(policy: Policy) -> None:
    host = Host()
    assert host.judged(replace(policy, mode=Mode.WARN)).level == 4
    assert host.sent == []


@pytest.mark.parametrize("mode", [Mode.LEARN, Mode.WARN])
def test_where_nothing_is_enforced_level_5_still_needs_the_rules_to_be_met(mode: Mode) -> None:
    other = replace(RULES, mode=mode, digest_rules=(DigestRule(4, forbidden=(SHIM,)),))
    assert Host().judged(other).level == 4
    assert Host().judged(replace(RULES, mode=mode)).level == 5


@pytest.mark.parametrize(("rule", "detail"), [
    (DigestRule(4, allowed=(SHIM, SEPARATOR)), f"{EVENT_12} is not among the allowed ones: {GRUB.hex()}"),
    (DigestRule(4, forbidden=(GRUB,)), f"{EVENT_12} is forbidden: {GRUB.hex()}"),
    (DigestRule(4, required=(sha256(b"x"),)), f"what has to be in PCR 4 is not there: {sha256(b'x').hex()}"),
    (DigestRule(14, required=(GRUB,)), f"what has to be in PCR 14 is not there: {GRUB.hex()}"),
])  # fmt: skip
def test_a_machine_that_does_not_meet_a_rule_is_told_which_event_of_which_pcr(rule: DigestRule, detail: str) -> None:
    error = refused(Host(), replace(RULES, digest_rules=(rule,)))
    assert (error.reason, error.detail) == (Reason.PCR_MISMATCH, detail)


def test_a_rule_about_a_pcr_into_which_nothing_was_measured_is_not_met() -> None:
    quiet = [event for event in BOOT if event.pcr != 14]
    host = Host(boot=log(*quiet), quoted_boot=quiet)
    assert refused(host, replace(RULES, digest_rules=(DigestRule(14, forbidden=(GRUB,)),))).reason is Reason.PCR_MISMATCH


def test_a_rule_about_a_pcr_that_was_not_quoted_is_not_met_by_what_the_log_says() -> None:
    policy = replace(RULES, digest_rules=(DigestRule(8, required=(sha256(b"a command line"),)),))
    assert refused(Host(), policy).reason is Reason.PCR_SELECTION


def test_a_rule_is_not_met_by_events_after_the_quote() -> None:
    late = Made(4, b"what the rule asks for")
    policy = replace(RULES, digest_rules=(DigestRule(4, required=(late.sha256,)),))
    assert refused(Host(boot=log(*BOOT, late)), policy).reason is Reason.PCR_MISMATCH
    assert Host(boot=log(*BOOT, late)).judged(RULES).level == 5


@pytest.mark.parametrize("other", [
    [event for event in BOOT if event.data != b"grub"],
    [*BOOT[:10], BOOT[11], BOOT[10], *BOOT[12:]],
    [*BOOT[:11], Made(4, b"injected"), *BOOT[11:]],
    [event if event.data != b"grub" else Made(4, b"grub", EV_NO_ACTION) for event in BOOT],
], ids=["missing", "reordered", "injected", "hidden by its type"])  # fmt: skip
def test_a_log_of_something_else_than_what_booted_is_no_log(other: Sequence[Made]) -> None:
    assert refused(Host(boot=log(*other))).reason is Reason.PCR_MISMATCH
    assert Host(boot=log(*other)).judged(replace(RULES, missing_log=MissingLog.ALLOW)).level == 4


def test_a_spoofed_type_and_a_spoofed_text_decide_nothing() -> None:
    spoofed = [replace(event, type=0x80000001, data=b"SecureBoot on", digest=event.sha256) for event in BOOT]
    assert Host(boot=log(*spoofed)).judged(RULES).level == 5
    bad = [*BOOT[:11], Made(4, b"a bootkit"), *BOOT[12:]]
    dressed = [*BOOT[:11], Made(4, b"grub", EV_EFI_ACTION, sha256(b"a bootkit")), *BOOT[12:]]
    assert "not among the allowed ones" in refused(Host(boot=log(*dressed), quoted_boot=bad)).detail


def test_another_log_than_the_claimed_one_is_refused_whatever_the_policy_says_of_logs_that_are_missing() -> None:
    policy = replace(RULES, missing_log=MissingLog.ALLOW, mode=Mode.LEARN)
    assert refused(Host(claimed=sha256(b"another")), policy).reason is Reason.BAD_EVIDENCE


# --- logs that are missing ----------------------------------------------------------------------------------------------

NONE = [Host(claimed=None), Host(boot=b"no log at all"), Host(boot=LOG[:-3]), Host(boot=bytes(inquiry.BOOT_MAX + 1))]


@pytest.mark.parametrize("host", NONE, ids=["none", "none of its kind", "cut short", "too long"])
def test_what_a_log_means_that_cannot_be_used_is_for_the_policy_to_say(host: Host) -> None:
    assert refused(host).reason in {Reason.LOG_MISSING, Reason.BAD_EVIDENCE}
    assert refused(host, replace(RULES, missing_log=MissingLog.REFUSE)).reason in {Reason.LOG_MISSING, Reason.BAD_EVIDENCE}
    warned = host.judged(replace(RULES, missing_log=MissingLog.WARN))
    assert (warned.level, len(warned.warnings)) == (4, 1)
    allowed = host.judged(replace(RULES, missing_log=MissingLog.ALLOW))
    assert (allowed.level, allowed.warnings) == (4, ())
    told = host.judged(replace(RULES, mode=Mode.WARN))
    assert (told.level, len(told.warnings)) == (4, 1)
    assert host.judged(replace(RULES, mode=Mode.LEARN)).warnings == ()


def test_a_policy_may_want_logs_without_rules_about_them() -> None:
    policy = replace(RULES, digest_rules=(), pcr_digests=(Host().digest(),), missing_log=MissingLog.REFUSE)
    assert Host().judged(policy).level == 4
    assert refused(Host(claimed=None), policy).reason is Reason.LOG_MISSING


def test_a_log_of_a_hundred_megabytes_is_not_asked_for_after_its_first_part() -> None:
    host = Host(boot=bytes(100 * 1024 * 1024))
    assert refused(host).reason is Reason.LOG_MISSING
    assert host.sent == [LogWanted(EvidenceLog.BOOT, 0)]


def test_a_log_that_claims_ten_million_entries_costs_no_more_than_its_bytes() -> None:
    banks = LOG[:56] + u32(10_000_000) + LOG[60:]
    events = LOG[:-80] + u32(10_000_000) + LOG[-76:]
    for data in (banks, events):
        assert refused(Host(boot=data)).reason is Reason.BAD_EVIDENCE


# --- what is kept -------------------------------------------------------------------------------------------------------


def test_a_boot_log_comes_over_once_and_when_it_has_changed() -> None:
    book, host = LogBook(), Host()
    for _ in range(3):
        assert host.judged(RULES, book).level == 5
    assert host.sent == [LogWanted(EvidenceLog.BOOT, 0)]
    longer = [*BOOT, Made(4, b"grub")]
    host.boot, host.quoted_boot = log(*longer), longer
    assert host.judged(RULES, book).level == 5
    assert len(host.sent) == 2


def test_a_log_that_cannot_be_read_comes_over_once_too() -> None:
    book, host = LogBook(), Host(boot=b"no log at all")
    for _ in range(3):
        refused(host, RULES, book)
    assert len(host.sent) == 1


def test_a_known_log_does_not_stand_in_for_what_booted_since() -> None:
    book = LogBook()
    Host().judged(RULES, book)
    assert refused(Host(quoted_boot=[*BOOT, Made(4, b"a bootkit")]), RULES, book).reason is Reason.PCR_MISMATCH


def test_a_log_of_another_node_is_not_taken_for_ours() -> None:
    book, host = LogBook(), Host()
    host.judged(RULES, book)
    other = replace(VENDOR, certificate=replace(VENDOR.certificate, node_id=type(VENDOR.node_id)(sha256(b"other"))))
    host.judged(RULES, book, other)
    assert len(host.sent) == 2


def test_it_is_said_what_has_changed_since_the_evidence_was_good() -> None:
    book, policy = LogBook(), replace(RULES, digest_rules=(), pcr_digests=(Host().digest(),), missing_log=MissingLog.WARN)
    Host().judged(policy, book)
    update = [event if event.data != b"shim" else Made(4, b"shim 2") for event in BOOT]
    error = refused(Host(boot=log(*update), quoted_boot=update), policy, book)
    assert error.reason is Reason.PCR_MISMATCH
    changed = f"event 11 of the boot log (EV_EFI_ACTION, PCR 4) has become {sha256(b'shim 2').hex()}"
    assert error.detail.endswith(f"; since it was good last, {changed}")


def test_what_is_kept_of_all_peers_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_book, "EVENTS_MAX", 60)
    book, hosts = LogBook(), [Host() for _ in range(10)]
    for number, host in enumerate(hosts):
        node = type(VENDOR.node_id)(sha256(bytes([number])))
        host.judged(RULES, book, replace(VENDOR, certificate=replace(VENDOR.certificate, node_id=node)))
    assert book._events <= 60
    assert 0 < len(book._known) < 10


# --- the list of files --------------------------------------------------------------------------------------------------


def on_files(entries: Sequence[Measured] = ENTRIES, *, more: Sequence[Measured] = (), **changes: Any) -> Host:
    """It has quoted these entries; its list has some more already."""
    return Host(files=packed([*entries, *more]), quoted_files=entries, bitmap=FILES, **changes)


def test_a_machine_whose_files_meet_the_rules_passes() -> None:
    assert on_files().judged(FILE_RULES).level == 5


def test_entries_after_the_quote_do_not_count() -> None:
    assert on_files(more=[Measured("/tmp/evil", b"evil")]).judged(FILE_RULES).level == 5


def test_a_file_that_is_not_allowed_is_named() -> None:
    evil = Measured("/tmp/evil", b"evil")
    error = refused(on_files((*ENTRIES, evil)), FILE_RULES)
    assert (error.reason, error.detail) == (
        Reason.PCR_MISMATCH, f"file 31 ('/tmp/evil') is not among the allowed ones: {digest(evil).hex()}"
    )  # fmt: skip


def test_the_first_entry_is_no_file() -> None:
    rule = DigestRule(10, allowed=tuple(digest(entry) for entry in ENTRIES[1:]))
    assert on_files().judged(replace(FILE_RULES, file_rule=rule)).level == 5
    moved = (ENTRIES[1], Measured("boot_aggregate", b"evil"), *ENTRIES[2:])
    assert refused(on_files(moved), FILE_RULES).reason is Reason.PCR_MISMATCH


@pytest.mark.parametrize("files", [
    packed(ENTRIES[:-1]), packed([*ENTRIES[:3], *ENTRIES[4:]]), packed([*ENTRIES[:3], ENTRIES[4], ENTRIES[3], *ENTRIES[5:]]),
    packed([*ENTRIES[:5], Measured("/tmp/evil"), *ENTRIES[5:]]), packed()[:-5], b"no list",
])  # fmt: skip
def test_a_list_that_does_not_lead_to_the_quote_is_no_list(files: bytes) -> None:
    assert refused(replace(on_files(), files=files), FILE_RULES).reason is Reason.PCR_MISMATCH


def test_a_machine_without_a_list_has_none() -> None:
    host = Host(bitmap=FILES)
    assert refused(host, FILE_RULES).reason is Reason.LOG_MISSING
    assert host.judged(replace(FILE_RULES, missing_log=MissingLog.ALLOW)).level == 4
    assert host.judged(replace(FILE_RULES, file_rule=None)).level == 5


LONG = tuple(Measured("/usr/lib/a/rather/long/path/to/a/program-").at(number) for number in range(2000))


def test_a_list_of_many_parts_is_read_part_by_part() -> None:
    rule = replace(FILE_RULES, file_rule=DigestRule(10, forbidden=(sha256(b"evil"),)))
    host = on_files(LONG)
    assert host.judged(rule).level == 5
    parts = [wanted for wanted in host.sent if wanted.log is EvidenceLog.FILES]
    assert [wanted.offset for wanted in parts] == list(range(0, len(host.files), LOG_PART))
    assert len(parts) == 5


def test_only_what_is_new_comes_over_at_the_next_quote() -> None:
    book = LogBook()
    host = on_files(LONG[:1900])
    rule = replace(FILE_RULES, file_rule=DigestRule(10, forbidden=(sha256(b"evil"),)))
    assert host.judged(rule, book).level == 5
    host.sent.clear()
    end = len(host.files)
    assert host.judged(rule, book).level == 5
    assert host.sent == []
    host.files, host.quoted_files = packed(LONG), LONG
    assert host.judged(rule, book).level == 5
    assert host.sent == [LogWanted(EvidenceLog.FILES, end)]
    evil = (*LONG, Measured("/tmp/evil", b"evil"))
    host.files, host.quoted_files = packed(evil), evil
    assert refused(host, rule, book).reason is Reason.PCR_MISMATCH
    assert refused(host, rule, book).reason is Reason.PCR_MISMATCH  # and it is not forgotten


def test_for_other_rules_the_whole_list_is_looked_at_again() -> None:
    book, host = LogBook(), on_files((*ENTRIES, Measured("/tmp/evil", b"evil")))
    assert host.judged(replace(FILE_RULES, file_rule=DigestRule(10, forbidden=(sha256(b"x"),))), book).level == 5
    other = replace(FILE_RULES, file_rule=DigestRule(10, forbidden=(sha256(b"evil"),)))
    assert refused(host, other, book).reason is Reason.PCR_MISMATCH


@pytest.mark.parametrize("clock", [(4, 0, 0), (3, 1, 6_000)])
def test_a_list_that_has_begun_anew_is_read_from_its_beginning(clock: tuple[int, int, int]) -> None:
    book, host = LogBook(), on_files(LONG[:100])
    rule = replace(FILE_RULES, file_rule=DigestRule(10, forbidden=(sha256(b"evil"),)))
    host.judged(rule, book)
    host.files, host.quoted_files, host.clock = packed(LONG[50:200]), LONG[50:200], clock
    assert host.judged(rule, book).level == 5


def test_a_list_that_does_not_lead_there_is_read_twice_at_most() -> None:
    book, host = LogBook(), on_files(LONG)
    rule = replace(FILE_RULES, file_rule=DigestRule(10, forbidden=(sha256(b"evil"),)))
    host.judged(rule, book)
    host.quoted_files = (*LONG, Measured("/tmp/evil", b"evil"))
    host.sent.clear()
    assert refused(host, rule, book).reason is Reason.PCR_MISMATCH
    assert len(host.sent) == 6


def test_what_was_read_of_a_list_that_leads_nowhere_is_forgotten() -> None:
    book, evil = LogBook(), Measured("/tmp/evil", b"evil")
    rule = replace(FILE_RULES, file_rule=DigestRule(10, forbidden=(digest(evil),)))
    host = on_files(LONG[:10])
    host.judged(rule, book)
    host.files = packed([*LONG[:10], evil])
    host.quoted_files = LONG[:11]
    refused(host, rule, book)
    host.files = packed(LONG[:11])
    assert host.judged(rule, book).level == 5


def test_a_list_above_the_limit_is_no_list() -> None:
    host = on_files()
    appraiser = PolicyAppraiser(lambda: FILE_RULES, lambda: NOW)
    machine = Machine(selection=pack_selection(FILES), pcr_digest=host.digest())
    claims = replace(tpm_claims(FILES), boot_log_hash=sha256(LOG)).pack()
    asking = appraiser.appraise(machine.evidence(a_binding(), claims=claims), a_binding(), VENDOR, None)
    assert not isinstance(asking, Appraisal)
    asking = asking.take(host.answer(asking.wanted))
    assert not isinstance(asking, Appraisal)
    with pytest.raises(Refused) as error:
        asking.take(LogPart(EvidenceLog.FILES, 0, 100 * 1024 * 1024, bytes(LOG_PART)))
    assert error.value.reason is Reason.LOG_MISSING


def test_files_before_the_boot_log_are_refused() -> None:
    asking = PolicyAppraiser(lambda: FILE_RULES, lambda: NOW).appraise(
        Machine(selection=pack_selection(FILES), pcr_digest=on_files().digest()).evidence(
            a_binding(), claims=replace(tpm_claims(FILES), boot_log_hash=sha256(LOG)).pack()
        ), a_binding(), VENDOR, None,
    )  # fmt: skip
    assert not isinstance(asking, Appraisal)
    with pytest.raises(Refused):
        asking.take(LogPart(EvidenceLog.FILES, 0, 3, b"abc"))


def test_an_inquiry_that_lacks_nothing_wants_nothing() -> None:
    with pytest.raises(InternalError):
        _ = inquiry.LogInquiry(None, LogBook(), lambda _: None).wanted  # type: ignore[arg-type,return-value]


def test_a_tpm_that_was_set_back_is_noticed_on_another_link_too() -> None:
    """The reset count of a key is remembered beyond a link; evidence on two links may overtake each other by less than that."""
    book = LogBook()
    Host(clock=(7, 1, 5_000)).judged(RULES, book)
    Host(clock=(7, 0, 4_000)).judged(RULES, book)
    assert refused(Host(clock=(6, 9, 9_000)), RULES, book).reason is Reason.TPM_CLOCK
    other = a_peer(replace(VENDOR.certificate.facts, level=2))
    with pytest.raises(Refused):
        Host(clock=(6, 9, 9_000)).judged(RULES, book, other)
    assert Host(clock=(8, 0, 0)).judged(RULES, book).level == 5


# --- grace --------------------------------------------------------------------------------------------------------------


def test_rules_of_before_pass_while_their_grace_lasts_and_keep_level_5() -> None:
    newer = replace(RULES, digest_rules=(DigestRule(4, allowed=(sha256(b"shim 2"), SEPARATOR)),))
    assert refused(Host(), newer).reason is Reason.PCR_MISMATCH
    until = int(NOW.timestamp()) + 60
    grace = replace(newer, earlier=(Earlier(until, Mode.ENFORCE, RULES.references),))
    found = Host().judged(grace)
    assert (found.level, len(found.warnings)) == (5, 1)
    over = replace(newer, earlier=(Earlier(until - 120, Mode.ENFORCE, RULES.references),))
    assert refused(Host(), over).reason is Reason.PCR_MISMATCH


def test_a_role_may_need_level_5() -> None:
    peer = a_peer(replace(VENDOR.certificate.facts, roles=("signer",)))
    policy = replace(RULES, needs=Needs(roles=(Need("signer", 5),)))
    assert Host().judged(policy, peer=peer).level == 5
    with pytest.raises(Refused) as error:
        Host(claimed=None).judged(replace(policy, missing_log=MissingLog.ALLOW), peer=peer)
    assert error.value.reason is Reason.LEVEL_TOO_LOW
