"""Targets: what is shown as evidence, and the structures of a TPM in it."""

from contextlib import suppress
from dataclasses import replace
from typing import Final

from attest.areas import parse_area
from attest.credential import make_credential, parse_endorsement_key
from attest.enrol import TpmRequest, check_request
from attest.event_log import parse_boot_log
from attest.evidence import parse_claims
from attest.ima import PCR, Position, follow, read_all
from attest.inquiry import LogInquiry, Subject
from attest.key_blob import KeyBlob
from attest.log_book import LogBook
from attest.quote import Enrolled, check_quote, parse_certification, parse_quote
from attest.replay import meet, replay
from attest.rules import Logs
from attest.software import check_software
from attest.structures import EcdsaSignature
from overlay.core import rounds
from overlay.core.certificate_profile import LeafFacts
from overlay.core.evidence import Appraisal, Evidence
from overlay.core.limits import LOG_PART, PROOF_MAX
from overlay.core.log_parts import LogPart, unpack
from overlay.core.policy_parts import DigestRule
from overlay.core.wire import sha256
from overlay.errors import Refused, StateDamaged
from overlay.registry import EvidenceKind, EvidenceLog
from tests.fuzz.kit import cut
from tests.unit.attest.event_log_kit import head
from tests.unit.attest.software_tpm import AK, AK_QUALIFIED, a_binding, a_peer
from tests.unit.core.session_kit import ALICE

QUOTED: Final = Evidence(count=1, index=0, path=(), claims=b"", ak_public=AK.area.raw, quote=b"", signature=b"")
ENROLLED: Final = Enrolled(ak_name=AK.area.name, ak_qualified_name=AK_QUALIFIED)


def evidence(data: bytes) -> None:
    """The envelopes of evidence, and a software signature over whatever it says."""
    first, rest = cut(data)
    with suppress(Refused):
        rounds.unpack_evidence(rest)
    with suppress(Refused):
        parse_claims(rest)
    with suppress(Refused):
        found = Evidence.unpack(rest, b"claims", limit=PROOF_MAX)
        check_quote(found, a_binding(), ENROLLED, pcr_bitmap=first << 8, previous=(1, 1, 1))
    with suppress(Refused):
        found = Evidence.unpack(rest, b"claims", limit=PROOF_MAX)
        check_software(found, a_binding(), a_peer(LeafFacts()))
    with suppress(Refused):
        rounds.unpack_nonce(rest)
    with suppress(Refused):
        rounds.unpack_round(rest)


def tpm(data: bytes) -> None:
    """Structures of a TPM: quote, certification, public area, signature, key blob; a quote that the key has signed."""
    first, rest = cut(data)
    for parse in (parse_quote, parse_certification, parse_area, EcdsaSignature.parse):
        with suppress(Refused):
            parse(rest)
    with suppress(Refused):
        make_credential(parse_endorsement_key(rest), AK.area.name, bytes(32))
    with suppress(StateDamaged):
        KeyBlob.unpack(rest)
    with suppress(Refused):
        said = replace(QUOTED, quote=rest, signature=AK.sign(rest))
        check_quote(said, a_binding(), ENROLLED, pcr_bitmap=first << 8, previous=None)
    with suppress(Refused):
        shown = TpmRequest(
            ek_public=rest, ak_public=AK.area.raw, identity_public=rest, parent_name=rest[:34], attested=rest,
            signature=rest[:72],
        )
        check_request(shown, b"csr", ALICE.peer.certificate.identity)


def boot_log(data: bytes) -> None:
    """A boot event log as it stands, and events below a good head; replayed to a quote that it does not lead to."""
    first, rest = cut(data)
    with suppress(Refused):
        log = parse_boot_log(head() + rest if first & 1 else rest)
        replay(log)
        meet(log, 0xFF, bytes(32))


def measurements(data: bytes) -> None:
    """A list of the kernel's, whole and followed."""
    _, rest = cut(data)
    with suppress(Refused):
        read_all(rest)
    with suppress(Refused):
        follow(rest, Position(), lambda value: value[0] == 0 and value != bytes(32))


def log_parts(data: bytes) -> None:
    """What is said of logs on a link; and a log that comes in parts, until it leads to a quote that it does not lead to."""
    first, rest = cut(data)
    with suppress(Refused):
        unpack(rest)
    boot, files = (rest, b"") if first & 1 else (b"", rest)
    subject = Subject(
        node=ALICE.peer.node_id, ak_name=AK.area.name, resets=1, bitmap=1 << 7 | 1 << PCR, pcr_digest=bytes(32),
        boot_hash=sha256(boot), rules=(DigestRule(PCR, forbidden=(bytes(32),)),),
    )
    found = LogInquiry(subject, LogBook(), _nothing_known).begin()
    with suppress(Refused):
        while not isinstance(found, Appraisal):
            log, offset = (boot if found.wanted.log is EvidenceLog.BOOT else files), found.wanted.offset
            found = found.take(LogPart(found.wanted.log, offset, len(log), log[offset : offset + LOG_PART]))


def _nothing_known(logs: Logs | Refused) -> Appraisal:
    assert isinstance(logs, Refused)
    return Appraisal(level=0, kind=EvidenceKind.TPM, software_version="")
