"""Every label and every number of the protocol, in one place; `docs/protocol/registry.md` repeats them and a test compares.

A number is never reused. A label ends in a zero byte, so that no label is the beginning of another kind of string.
"""

from enum import IntEnum, IntFlag, unique
from typing import Final

VERSION: Final = 1
SUITE: Final = 1  # Noise_XX_25519_AESGCM_SHA256 with ML-KEM-768 in its payloads
SUITES: Final = ((VERSION, SUITE),)
SUITE_NAME: Final = "Noise_XX_25519_AESGCM_SHA256+ML-KEM-768"

COSE_SIGN1_TAG_BYTE: Final = 0xD2  # CBOR tag 18 (RFC 9052, section 2)
COSE_SIGN_TAG: Final = b"\xd8\x62"  # CBOR tag 98 (RFC 9052, section 2): several signatures over one payload
COSE_ES256: Final = -7
COSE_EDDSA: Final = -8  # and not RFC 9864's -19: independent tools know this one

CERTIFICATE_EXTENSION_OID: Final = "2.25.263518971016802564731184493360857194754"  # from a random UUID

GENESIS: Final = bytes(32)  # `prev` of the first entry of a chain


class Label:
    """First bytes of whatever we sign, MAC, hash or quote."""

    MESH: Final = b"overlay/1 mesh\0"
    GATE: Final = b"overlay/1 gate\0"
    GATE_KEY: Final = b"overlay/1 gate key\0"
    PROLOGUE: Final = b"overlay/1\0"
    H: Final = b"overlay/1 h\0"
    I2R: Final = b"overlay/1 i2r\0"
    R2I: Final = b"overlay/1 r2i\0"
    EXPORT: Final = b"overlay/1 export\0"
    REKEY: Final = b"overlay/1 rekey\0"
    REKEY_PSK: Final = b"overlay/1 rekey psk\0"
    PROOF: Final = b"overlay/1 proof\0"
    ENDORSE: Final = b"overlay/1 endorse\0"
    ENDORSE_POP: Final = b"overlay/1 endorse pop\0"
    WITNESS_POP: Final = b"overlay/1 witness pop\0"
    SERIAL: Final = b"overlay/1 serial\0"
    EK: Final = b"overlay/1 ek\0"
    ATTEST: Final = b"overlay/1 attest\0"
    ATTEST_LEAF: Final = b"overlay/1 attest leaf\0"
    ATTEST_ROOT: Final = b"overlay/1 attest root\0"
    ATTEST_ACTIVATE: Final = b"overlay/1 attest activate\0"
    ATTEST_ENROL: Final = b"overlay/1 attest enrol\0"
    ATTEST_CERTIFY: Final = b"overlay/1 attest certify\0"
    SOFTWARE_EVIDENCE: Final = b"overlay/1 software evidence\0"
    POLICY: Final = b"overlay/1 policy\0"
    AUTHORITY_OBJECT: Final = b"overlay/1 authority object\0"
    AUTHORITY_TEST: Final = b"overlay/1 authority test\0"
    AUTHORITY_ROUND: Final = b"overlay/1 authority round\0"
    KEY_GENERATION: Final = b"overlay/1 key generation\0"
    RESHARING: Final = b"overlay/1 resharing\0"
    SHARE_REPAIR: Final = b"overlay/1 share repair\0"
    SHARE: Final = b"overlay/1 share\0"
    SHARE_FILE: Final = b"overlay/1 share file\0"
    ORDER: Final = b"overlay/1 order\0"
    TOKEN: Final = b"overlay/1 token\0"
    ROSTER: Final = b"overlay/1 roster\0"
    JOIN: Final = b"overlay/1 join\0"
    REQUEST: Final = b"overlay/1 request\0"
    MDNS_MESH: Final = b"overlay/1 mdns mesh\0"
    MDNS_NODE: Final = b"overlay/1 mdns node\0"
    CALL: Final = b"overlay/1 call\0"
    REPLY: Final = b"overlay/1 reply\0"
    PUBLISH: Final = b"overlay/1 publish\0"
    SEGMENT: Final = b"overlay/1 segment\0"
    BATCH: Final = b"overlay/1 batch\0"
    AUDIT: Final = b"overlay/1 audit\0"
    LOG: Final = b"overlay/1 log\0"
    TOPIC: Final = b"overlay/1 topic\0"
    TRANSIENT: Final = b"overlay/1 transient\0"
    WITNESS: Final = b"overlay/1 witness\0"
    MANIFEST: Final = b"overlay/1 manifest\0"
    WORKLOAD: Final = b"overlay/1 workload\0"
    PLACEMENT: Final = b"overlay/1 placement\0"
    WORK_RESULT: Final = b"overlay/1 work result\0"
    TELEMETRY: Final = b"overlay/1 telemetry\0"

    @classmethod
    def all(cls) -> dict[str, bytes]:
        """Name to label, for the registry page and its test."""
        return {name: value for name, value in vars(cls).items() if isinstance(value, bytes)}


@unique
class Mode(IntEnum):
    """Third byte of a connection."""

    MEMBER = 1
    JOIN = 2
    RENEW = 3


@unique
class Role(IntEnum):
    """Side of a link, for its whole life: who opened the TCP connection."""

    OPENER = 1
    OTHER = 2

    @property
    def peer(self) -> "Role":
        """The role of the other end."""
        return Role.OTHER if self is Role.OPENER else Role.OPENER


@unique
class FrameType(IntEnum):
    """First byte of a frame. 0x80 to 0xFF are skipped when unknown, all others close the link."""

    __hash__ = int.__hash__  # Enum's own is Python code, and each frame is looked up in tables

    CHALLENGE = 0x01
    PROOF = 0x02
    VERDICT = 0x03
    EVIDENCE_PART = 0x04
    TRUST_UPDATE = 0x05
    GOODBYE = 0x06
    OFFER = 0x07
    INIT = 0x08
    RESP = 0x09
    DONE = 0x0A
    CONFIRM = 0x0B
    ATTEST_OPEN = 0x0C
    ROUND_NONCE = 0x0D
    EVIDENCE = 0x0E
    CREDENTIALS = 0x0F
    PING = 0x10
    PONG = 0x11
    JOIN = 0x12
    JOIN_CHALLENGE = 0x13
    JOIN_ANSWER = 0x14
    JOIN_RESULT = 0x15
    RENEWAL = 0x16
    AUTHORITY_OBJECT = 0x17
    AUTHORITY_ROUND = 0x18
    ORDER = 0x19
    UNSUPPORTED = 0x1F
    CALL = 0x20
    REPLY = 0x21
    CANCEL = 0x22
    REPLY_CREDIT = 0x23
    STREAM_OPEN = 0x28
    STREAM_DATA = 0x29
    STREAM_CREDIT = 0x2A
    STREAM_SEGMENT = 0x2B
    STREAM_END = 0x2C
    STREAM_RESET = 0x2D
    PUBLISH = 0x30  # reserved: publications travel as ITEMS of their chain
    TRANSIENT = 0x31  # reserved: they travel in batches
    TRANSIENT_BATCH = 0x32
    HEADS = 0x40
    WANT = 0x41
    ITEMS = 0x42
    CHECKPOINT = 0x43
    COSIGNATURE = 0x44
    FORK_PROOF = 0x45


RESERVED_FRAMES: Final = frozenset(
    {
        FrameType.PUBLISH,
        FrameType.TRANSIENT,
    }
)


class FrameFlag(IntFlag):
    """Second byte of a frame. An unknown bit closes the link."""

    NONE = 0
    MORE = 1  # more parts of this message follow


@unique
class EvidenceKind(IntEnum):
    """What a node shows to prove the software that runs."""

    SOFTWARE = 1
    TPM = 2


@unique
class EvidenceLog(IntEnum):
    """Field 1 of EVIDENCE_PART: a log that explains what a TPM has quoted."""

    BOOT = 1  # the boot event log of the firmware
    FILES = 2  # the measurement list of Linux (IMA)


@unique
class ReplyStatus(IntEnum):
    """Field 6 of a reply."""

    OK = 0
    FAILED = 1  # the handler raised; the body is its message
    NO_SUCH_METHOD = 2
    NOT_ALLOWED = 3
    BUSY = 4
    EXPIRED = 5
    REPEATED = 6
    CANCELLED = 7  # who asked wants it no more, or the handler was cancelled


@unique
class OrderKind(IntEnum):
    """Field 2 of an order."""

    INVITE = 1
    REVOKE = 2
    QUARANTINE = 3
    REPLACE = 4
    ROLES = 5
    POLICY = 6
    DISTRIBUTE = 7
    REFRESH = 8
    RESHARE = 9
    RECOVER = 10
    WITHDRAW = 11  # an invite that nobody shall use any more


@unique
class RoundKind(IntEnum):
    """Field 4 of a message between signers."""

    SIGN_REQUEST = 1
    COMMITMENT = 2
    PACKAGE = 3
    SIGNATURE_SHARE = 4
    DECLINED = 5
    KEY_ROUND_1 = 16
    KEY_ROUND_2 = 17
    KEY_ECHO = 18
    KEY_CERTIFICATE = 19
    KEY_FAILED = 20
    ROLLOVER_RECORD = 24
    RESHARE_BEGIN = 32
    RESHARE_DEAL = 33
    RESHARE_ECHO = 34
    RESHARE_CERTIFICATE = 35
    RESHARE_FAILED = 36
    RESHARE_PLAN = 37
    GROUP_KEY = 38
    OBJECT_PAYLOAD = 39
    MEMBER_SIGNATURE = 40
    REFRESH_WANTED = 41
    REFRESH_ANSWER = 42
    REPAIR_REQUEST = 48
    REPAIR_DELTA = 49
    REPAIR_SUM = 50
    REPAIR_FAILED = 51
    REPAIR_PLAN = 52


@unique
class EntryType(IntEnum):
    """Field 6 of an audit entry."""

    LOG_OPEN = 1
    ENDORSEMENT = 2
    WITNESSES = 3
    FORK = 4
    LIFECYCLE = 5
    ADMISSION = 6
    REFUSAL = 7
    DRIFT = 8
    ENROLMENT = 9
    ISSUANCE = 10
    ORDER = 11
    REVOCATION = 12
    POLICY = 13
    AUTHORITY = 14
    WORK = 15
    TELEMETRY = 16
    APPLICATION = 17


@unique
class ChainKind(IntEnum):
    """What a replicated chain carries."""

    AUDIT = 1
    TOPIC = 2


@unique
class ForkKind(IntEnum):
    """Field 1 of a fork proof: what contradicts what."""

    ENTRIES = 1
    OPENINGS = 2
    HEADS = 3
    LEAVES = 4
    ENTRY_AND_LEAF = 5
    TRUNCATION = 6  # reserved


@unique
class ArtifactType(IntEnum):
    """Third part of field 6 of a workload: what its artifact is, and so how a worker runs it."""

    PROGRAM = 1  # the kernel runs it: an ELF file, or a script that begins with #!
    PYTHON = 2  # a script for the worker's Python
    TASK = 3  # bytes that a library on the worker unpacks once all is checked, such as a pickled function


@unique
class WorkState(IntEnum):
    """Field 5 of a result: how a run ended."""

    EXITED = 1  # by itself; field 6 is its exit code
    SIGNALLED = 2  # by a signal that the worker did not send; field 6 is its number
    TIMED_OUT = 3
    OUT_OF_MEMORY = 4
    OUTPUT_TOO_LARGE = 5
    STOPPED = 6  # by the worker; field 7 is the reason
    NOT_STARTED = 7  # accepted, and then its artifact or an input was wrong; field 7 is the reason
    LOST = 8  # the worker went down while it ran


@unique
class WorkEvent(IntEnum):
    """Field 1 of an audit entry about work."""

    START = 1
    END = 2
    STOP = 3  # one of its signers does not count any more
    REFUSED = 4
    PLACED_TWICE = 5  # two workers have started one run


@unique
class Reason(IntEnum):
    """Why something was refused or a link ended: closed, in the logs of both sides, never text to search in."""

    SHUTDOWN = 1
    DUPLICATE = 2
    SELF_DIAL = 3
    SUPERSEDED = 4
    CLONED_IDENTITY = 5
    TIMEOUT = 6
    DEAD = 7
    BUSY = 8
    LOST = 9  # the connection ended without GOODBYE
    INTERNAL = 10
    BAD_GATE = 16
    REPLAYED_HELLO = 17
    UNSUPPORTED = 18
    DOWNGRADE = 19
    BAD_HANDSHAKE = 20
    MALFORMED = 21
    TOO_LARGE = 22
    BAD_RECORD = 23
    UNEXPECTED_FRAME = 24
    OTHER_MESH = 32
    BAD_CERTIFICATE = 33
    CERTIFICATE_EXPIRED = 34
    CERTIFICATE_NOT_YET_VALID = 35
    BAD_ENDORSEMENT = 36
    ENDORSEMENT_EXPIRED = 37
    STATIC_MISMATCH = 38
    BAD_PROOF = 39
    REVOKED = 40
    BAD_POLICY = 41
    QUARANTINED = 42
    BAD_REVOCATION_LIST = 43
    BAD_AUTHORITY_OBJECT = 44
    AUTHORITY_FROZEN = 45  # two successors of one authority object
    WRONG_GENERATION = 46  # of the authority, or of a share
    RECOVERY = 47  # an alarm: recovery keys have named another authority
    BAD_EVIDENCE = 48
    EVIDENCE_NOT_ACCEPTED = 49
    ATTESTATION_KEY_MISMATCH = 50
    EVIDENCE_SIGNATURE = 51
    EVIDENCE_NOT_BOUND = 52
    EVIDENCE_STALE = 53
    PCR_SELECTION = 54
    PCR_MISMATCH = 55
    TPM_CLOCK = 56
    SOFTWARE_MISMATCH = 57
    LEVEL_TOO_LOW = 58
    LEASE_EXPIRED = 59
    EVIDENCE_UNAVAILABLE = 60
    FIRMWARE = 61
    LOG_MISSING = 62
    REKEY_FAILED = 64
    STALE_EPOCH = 65
    REKEY_OVERDUE = 66
    REKEY_TOO_SOON = 67
    BAD_SIGNATURE = 80
    WRONG_AUTHOR = 81
    WRONG_RECIPIENT = 82
    REPEATED_CALL = 83
    WRONG_LINK = 84
    SLOW_CONSUMER = 85
    FLOW_CONTROL = 86  # more than the credit that was given, or a stream used against its rules
    UNSIGNED = 87  # bytes of a signed stream that no segment covered in time
    CHAIN_BROKEN = 96
    CLOCK = 97
    NOT_IN_FORCE = 98  # an entry outside the life of its endorsement
    QUOTA = 99
    FORKED = 100
    BAD_FORK_PROOF = 101
    BAD_ORDER = 112
    NOT_ALLOWED = 113  # whoever asked may not
    BAD_TOKEN = 114
    BAD_INVITE = 115
    INVITE_SPENT = 116
    NAME_TAKEN = 117
    NOT_A_SIGNER = 118
    NOT_ENOUGH_SIGNERS = 119
    BOUND_OTHERWISE = 120  # this name, use, number or serial was given to something else
    BAD_SHARE = 121
    EQUIVOCATION = 122  # two different messages where there may be one
    KEY_GENERATION_FAILED = 123
    TOO_MANY = 124  # more than the rate that is allowed
    NO_GRACE = 125  # expired for too long to be renewed
    UNLOGGED_CERTIFICATE = 126
    SCHEDULER_SIGNATURE = 128  # of a placement
    SCHEDULER_ROLE = 129
    SCHEDULER_REVOKED = 130  # or in quarantine; before a run, or while it runs
    WORKLOAD_MISMATCH = 131  # the placement is about another workload
    ORIGINATOR_SIGNATURE = 132  # of a workload, by one of those who sign it
    ORIGINATOR_ROLE = 133
    ORIGINATOR_REVOKED = 134  # or in quarantine; before a run, or while it runs
    DUAL_CONTROL = 135  # not signed by two nodes of two persons
    SCHEDULER_NOT_ALLOWED = 136  # by who signed the workload
    WRONG_WORKER = 137
    WORK_TIME = 138  # before or after the time of the placement or the workload
    WORK_REPLAYED = 139  # this placement, or this run, was here before
    RUN_COUNT = 140
    SCHEDULER_LEVEL = 141
    ARTIFACT_MISMATCH = 142  # other bytes than the workload names, or more of them
    PLACED_TWICE = 143  # two workers have started one run: an alarm
    TELEMETRY_REPEATED = 144  # a batch that was here before
    TELEMETRY_GAP = 145  # batches that never came, though they were asked for
    TELEMETRY_FORKED = 146  # two different batches, or a batch and an anchor, about one place of a stream: an alarm
    TELEMETRY_ROOT = 147  # not the records that were signed, or another number of them
    TELEMETRY_WITHHELD = 148  # the audit log of an author says that it has sent more
