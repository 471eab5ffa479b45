"""Every size limit and timer of the protocol, each with its source. Sizes in bytes, times in seconds."""

from dataclasses import dataclass
from typing import Final

# Records and frames: docs/protocol/records.md
RECORD_MAX: Final = 65_535  # Noise, section 3: a message is at most 65,535 bytes
TAG_SIZE: Final = 16  # AES-GCM
FRAME_HEADER: Final = 8
FRAME_BODY_MAX: Final = RECORD_MAX - TAG_SIZE - FRAME_HEADER  # 65,511
NOISE_PLAINTEXT_MAX: Final = RECORD_MAX - TAG_SIZE  # 65,519

# Before OPEN
HELLO_SIZE: Final = 3 + 16
HANDSHAKE_MESSAGE_MAX: Final = 16 * 1024
CHAIN_DEPTH_MAX: Final = 12  # roots that have followed the founding one; a chain of them all fits CHAIN_BYTES_MAX
CHAIN_BYTES_MAX: Final = 8 * 1024
CHALLENGE_MAX: Final = 1024
PROOF_MAX: Final = 16 * 1024
VERDICT_MAX: Final = 256
GOODBYE_MAX: Final = 256
ENDORSEMENT_MAX: Final = 1024  # twice what all fields need
HANDSHAKE_TIMEOUT: Final = 5.0
ADMISSION_TIMEOUT: Final = 30.0
SEEN_HELLOS: Final = 65_536
GUEST_BYTES_MAX: Final = 256 * 1024  # all frames of a joiner, or of who renews
GUEST_ANSWER_MAX: Final = 512 * 1024  # all frames of who answers: a policy of full size and the chain of the authority
TRUST_UPDATE_MAX: Final = 1024 * 1024
JOIN_LOGS_MAX: Final = 18 * 1024 * 1024  # the logs of a joiner, in parts: a boot log of 1 MiB, a list of 16 MiB, what is around
GUEST_LIFE: Final = 60.0
JOIN_CHAIN_DEPTH_MAX: Final = 20  # roots that a joiner is shown: what fits into a handshake message
GUESTS_MAX: Final = 32  # at once: our guess, half of the half-open places
GUEST_ROOM: Final = 64 * 1024  # read at once from one of them

# Load before OPEN. How many a second may come stands beside its kinds, in mesh/load.py
HALF_OPEN_PER_ADDRESS: Final = 8
HALF_OPEN_MAX: Final = 64
CROWDED: Final = HALF_OPEN_MAX // 2  # silent ones, then they have less time: our guess
CROWDED_PATIENCE: Final = 1.0  # our guess, some round trips; the first bytes follow the connection at once
LOAD_ADDRESSES_MAX: Final = 4096  # remembered of each kind: our guess, some 400 KiB
MEMBER_KNOWN_FOR: Final = 600.0  # that an address counts as a member's: as long as one counts as our own

# ML-KEM-768 (FIPS 203, table 3)
KEM_KEY_SIZE: Final = 1184
KEM_CIPHERTEXT_SIZE: Final = 1088

# Open links
CONTROL_MAX: Final = 32 * 1024  # CREDENTIALS, EVIDENCE: our guess, twice what they need
MESSAGE_MAX: Final = 1024 * 1024 + 4096  # a call's body of 1 MiB and its envelope
BODY_MAX: Final = 1024 * 1024
PARTIAL_MESSAGES_MAX: Final = 64  # messages in parts under way at once on a link: our guess
SEND_QUEUE_MAX: Final = 10 * 1024 * 1024  # then SLOW_CONSUMER
SEAL_AT_ONCE: Final = 512 * 1024  # bytes that become records for one write: eight full ones, measured best
TELEMETRY_QUEUE_MAX: Final = 1024 * 1024  # then the oldest is dropped: our guess
SLOW_CONSUMER_AFTER: Final = 10.0
PING_AFTER: Final = 15.0
PINGS_MISSED: Final = 3
DRAIN_TIMEOUT: Final = 2.0
PROBE_WITHIN: Final = 2.0

# Calls, see docs/protocol/messages.md
METHOD_MAX: Final = 128  # bytes of UTF-8; a stream's name, too
CALL_TIMEOUT: Final = 30.0
CALLS_UNDER_WAY: Final = 256
CALLS_REMEMBERED: Final = 65_536
CALL_CONTROL_MAX: Final = 64  # CANCEL has 37 bytes, REPLY_CREDIT at most 47
REPLY_WINDOW: Final = 256 * 1024  # credit of one answer: yamux's window, as for streams
PART_COST: Final = 256  # what a part costs beside its body, so that small ones are bounded too: our guess, its envelope
FAILURE_KIND_MAX: Final = 128  # our guess: a class name
FAILURE_TEXT_MAX: Final = 4096  # our guess
FAILURE_MAX: Final = FAILURE_KIND_MAX + FAILURE_TEXT_MAX + 16  # both and their envelope

# Streams; what all streams of a link may take is in StreamLimits
WINDOW_FIRST: Final = 256 * 1024  # yamux
WINDOW_LEAST: Final = 8 * 1024  # our guess: 2,048 streams in 16 MiB, each with room for a request
WINDOW_MAX: Final = 4 * 1024 * 1024  # protocol
WINDOW_GROWS_WITHIN: Final = 0.25  # for a whole window: our guess
STREAM_CREDIT_AFTER: Final = 64 * 1024  # bytes that were read: a quarter of the first window
WRITE_MAX: Final = 8 * FRAME_BODY_MAX + 512  # measured: eight full records; a MiB is two writes, of 17 records
SEGMENT_BYTES: Final = 1024 * 1024  # protocol: one per MiB; more than that unsigned is refused
SEGMENT_AFTER: Final = 1.0  # protocol: one per second while bytes are unsigned
UNSIGNED_AFTER: Final = 30.0  # our guess: ten seconds of a slow link are no fault, and it is far above one
SEGMENT_MAX: Final = 512  # our guess: a segment has about 330 bytes
STREAM_HANDLER_WINDOWS: Final = 16 * 1024 * 1024  # first windows of one peer's handlers: as many as one link has streams
OPENING_MAX: Final = 60 * 1024  # bytes that open a stream: our guess; the call fits into one frame
RESET_TEXT_MAX: Final = 256  # our guess; a sentence
RESET_MAX: Final = 300  # the text and its envelope

# Batches
BATCH_MAX: Final = FRAME_BODY_MAX  # one frame, so one record, and little that a kept message keeps in memory
BATCH_COUNT_MAX: Final = 1024  # messages under one signature: our guess; from 256 on hashing costs more than the signature
BATCH_HEAD_MAX: Final = 512  # our guess, twice what it needs
BATCH_KIND_MAX: Final = 64  # of a label: our guess
BATCH_MESSAGES_MAX: Final = BATCH_MAX - BATCH_HEAD_MAX  # what `size_of` gives for all messages of a batch together

# Replication, see docs/protocol/replication.md
ENTRY_MAX: Final = 60 * 1024
PUBLICATION_MAX: Final = ENTRY_MAX - 1024  # what one item of a topic may hold beside its envelope
TOPIC_MAX: Final = 128  # bytes of a topic's name: our guess
ITEMS_MAX: Final = 1024 * 1024
REPLICATION_MESSAGE_MAX: Final = ITEMS_MAX + ENTRY_MAX
RANGE_BYTES: Final = 512 * 1024  # of items in one message that we send
HEADS_MAX: Final = 4096  # heads in one message: our guess
HEADS_EVERY: Final = 10.0  # heads that a peer has not told itself are told again so often, in case something was lost
LOGS_MAX: Final = 16_384  # logs that we hold: our guess
LOGS_PER_PEER: Final = LOGS_MAX  # heads that we remember of one peer: no honest one tells more than it may hold
LOGS_PER_AUTHOR: Final = 1024  # that we hold of one author, so that none uses up what is for all: our guess
ROOTS_MAX: Final = 4096  # heads of ours that we remember, the latest of all logs: our guess
WANT_ITEMS: Final = 256
WANTS_PER_PEER: Final = 4  # ranges that one peer owes us
WANTS_AT_ONCE: Final = 64  # in all; those that came wait for storage, 512 KiB each from an honest peer
REPLICATION_ANSWER_WITHIN: Final = 5.0
REPLICATION_HELD_FIRST: Final = 0.25  # good items that have to wait are asked for again after this, then twice that, ...
REPLICATION_PAUSE_MAX: Final = 60.0

# Clocks
CLOCK_TOLERANCE: Final = 300.0
SKEW_MAX: Final = 100 * 365 * 86_400.0  # whoever says more says nothing
SKEW_SAMPLES: Final = 8  # of each peer, the newest; the shortest round trip counts: NTP's clock filter, RFC 5905, section 10
SKEW_PEERS_MAX: Final = 1024  # our guess: more links than a node has
ENDORSEMENT_LIFE: Final = 24 * 3600.0
ENDORSEMENT_RENEW: Final = 12 * 3600.0
LINKS_PER_PEER: Final = 4  # open at once, while one of them gives way: our guess
ADDRESSES_PER_TARGET: Final = 16  # of one node that we dial: our guess
STATIC_RENEW_WITHIN: Final = 12 * 3600.0  # protocol: links under an older static key are replaced, spread at random
CERTIFICATE_LIFE_MAX: Final = 7 * 86_400.0
RECOVERY_SECONDS: Final = 24 * 3600.0  # protocol: until a recovered authority takes effect
CONFIRM_WITHIN: Final = 10.0  # design: until a log goes on whose witnesses cannot be asked

# Evidence
NONCE_SIZE: Final = 32
NONCE_LIFE: Final = 10.0
ROUND_LEAVES_MAX: Final = 65_536
ROUND_WINDOW: Final = 2.0
JOIN_WINDOW: Final = 0.2
JOIN_SOON: Final = 2.0  # after a proof for those who join, the next ones are waited for twice as long: our guess
UNASKED_NONCE_EVERY: Final = 10.0
LOG_PART: Final = 60 * 1024  # bytes of a log at a time: one frame, a few milliseconds of work for who replays it
LOG_LENGTH_MAX: Final = 2**32 - 1  # that can be said; what is taken stands in attest/
ROUNDS_OPEN: Final = 16  # of one attester on a link: a nonce lives ten seconds, and rounds may be as little as one apart

# Dialling, see docs/protocol/discovery.md
ATTEMPT_DELAY: Final = 0.25  # RFC 8305, section 8, "Connection Attempt Delay"
CONNECT_WITHIN: Final = 3.0  # for one address: our guess, a LAN answers in milliseconds
BACKOFF_MIN: Final = 0.25
BACKOFF_MAX: Final = 60.0
LINK_LIVED: Final = 10.0  # our guess: a link that ends sooner was no success, and who dialled it waits longer
OWN_ADDRESS_FOR: Final = 600.0
STRANGER_TRIES: Final = 20  # an announcement that nobody answers is dropped after so many dials
DIAL_TARGETS_MAX: Final = 1024
STARTS_REMEMBERED: Final = 16  # changes of starts, and pairs of starts that were told, of one peer: our guess

# The shell
BULK_FROM: Final = 64 * 1024  # bytes of one receive: a record's worth
BULK_WANTED: Final = 256 * 1024  # that wake us then: measured, half as many receives and a third more throughput
BULK_PATIENCE: Final = 0.001  # seconds: our guess, so that what comes behind bulk data is not late
RECEIVE_SIZE: Final = 8 * (2 + RECORD_MAX) + 1024  # what comes of one write of a stream; more falls out of the cache: measured
MEMORY_KEPT: Final = 4 * 1024 * 1024  # that the C library keeps, twice: the largest window of a stream; a quarter did not do
CONNECTION_TURNS: Final = 16  # receives in a row without a turn of the event loop: our guess
STREAM_TURNS: Final = 16  # sends or receives in a row without a turn of the event loop: our guess
ACCEPT_AT_ONCE: Final = 16  # connections in one turn of the event loop, about a millisecond: measured
ACCEPT_LET_IN: Final = 8  # as many of them as one that begins a handshake costs in that turn: measured
ACCEPT_BREATH: Final = 0.001  # between turns while more wait: links had three times the delay without it, measured
ACCEPT_FULL_PAUSE: Final = 0.1  # as trio's serve_listeners
LINK_LAST_WORDS: Final = 1.0  # for what is queued when the session ends, GOODBYE the last of it
LINK_HANG_UP: Final = 0.5  # for the peer to close its side: what it still sends would reset the connection
LINK_LATE: Final = 0.25  # our guess


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What the streams of one link may take at this end."""

    opens: int = 256  # yamux: not yet acknowledged, each way
    windows: int = 16 * 1024 * 1024  # protocol: the sum of all receiving windows
    grown: int = 12 * 1024 * 1024  # our guess: no growth above it, so that 16 more streams find room


STALL: Final = 5.0  # seconds in which a node may be too busy to read: our guess


@dataclass(frozen=True, slots=True)
class RekeyTimes:
    """When fresh keys are agreed. All in seconds; `after` is the driver's time, less a jitter of up to `jitter`."""

    after: float = 60.0  # ours; WireGuard uses 120
    jitter: float = 5.0
    backstop: float = 75.0
    close: float = 90.0
    silence: float = 5.0
    give_up: float = 30.0
    pause: float = 10.0  # an offer this soon after the last confirmed epoch closes
    records: int = 2**24
    volume: int = 64 * 2**30

    @classmethod
    def every(cls, seconds: float) -> "RekeyTimes":
        """The defaults, scaled to another period.

        An answerer that was busy hears two offers at once that were a period apart. Where that takes less than five seconds,
        in labs and tests, no pause is asked for.
        """
        scale = seconds / 60.0
        pause = min(10.0, 10.0 * scale)
        return cls(
            after=seconds, jitter=5.0 * scale, backstop=75.0 * scale, close=max(90.0 * scale, 75.0 * scale + 5.0),
            pause=pause if seconds - pause >= STALL else 0.0,
        )


@dataclass(frozen=True, slots=True)
class AttestTimes:
    """When software is proven again. All in seconds; `lease` is how long one acceptance lasts."""

    every: float = 60.0
    jitter: float = 5.0
    lease: float = 150.0
    overdue: float = 75.0
    window: float = ROUND_WINDOW

    @classmethod
    def period(cls, seconds: float) -> "AttestTimes":
        """The defaults, scaled to another period."""
        scale = seconds / 60.0
        return cls(
            every=seconds, jitter=5.0 * scale, lease=max(150.0 * scale, 75.0 * scale + 10.0), overdue=75.0 * scale,
            window=min(ROUND_WINDOW, seconds / 4),
        )
