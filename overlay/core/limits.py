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
CHAIN_DEPTH_MAX: Final = 3
CHAIN_BYTES_MAX: Final = 8 * 1024
CHALLENGE_MAX: Final = 1024
PROOF_MAX: Final = 16 * 1024
VERDICT_MAX: Final = 256
GOODBYE_MAX: Final = 256
HANDSHAKE_TIMEOUT: Final = 5.0
ADMISSION_TIMEOUT: Final = 30.0
SEEN_HELLOS: Final = 65_536

# ML-KEM-768 (FIPS 203, table 3)
KEM_KEY_SIZE: Final = 1184
KEM_CIPHERTEXT_SIZE: Final = 1088

# Open links
CONTROL_MAX: Final = 32 * 1024  # CREDENTIALS, EVIDENCE: our guess, twice what they need
MESSAGE_MAX: Final = 1024 * 1024 + 4096  # a call's body of 1 MiB and its envelope
BODY_MAX: Final = 1024 * 1024
ENTRY_MAX: Final = 60 * 1024
ITEMS_MAX: Final = 1024 * 1024
WANT_ITEMS: Final = 256
PARTIAL_MESSAGES_MAX: Final = 64  # messages in parts under way at once on a link: our guess
SEND_QUEUE_MAX: Final = 10 * 1024 * 1024  # then SLOW_CONSUMER
SEAL_AT_ONCE: Final = 512 * 1024  # bytes that become records for one write: eight full ones, measured best
TELEMETRY_QUEUE_MAX: Final = 1024 * 1024  # then the oldest is dropped: our guess
SLOW_CONSUMER_AFTER: Final = 10.0
CALL_TIMEOUT: Final = 30.0
CALLS_UNDER_WAY: Final = 256
CALLS_REMEMBERED: Final = 65_536

PING_AFTER: Final = 15.0
PINGS_MISSED: Final = 3
DRAIN_TIMEOUT: Final = 2.0
PROBE_WITHIN: Final = 2.0

# Clocks
CLOCK_TOLERANCE: Final = 300.0
ENDORSEMENT_LIFE: Final = 24 * 3600.0
ENDORSEMENT_RENEW: Final = 12 * 3600.0
STATIC_RENEW_WITHIN: Final = 12 * 3600.0  # protocol: links under an older static key are replaced, spread at random
CERTIFICATE_LIFE_MAX: Final = 7 * 86_400.0

# Evidence
NONCE_SIZE: Final = 32
NONCE_LIFE: Final = 10.0
ROUND_LEAVES_MAX: Final = 65_536
ROUND_WINDOW: Final = 2.0
JOIN_WINDOW: Final = 0.2
UNASKED_NONCE_EVERY: Final = 10.0
ROUNDS_OPEN: Final = 8  # of one attester on a link: our guess; they are a minute apart and a nonce lives ten seconds

# Handshake load
HALF_OPEN_PER_ADDRESS: Final = 8
HALF_OPEN_MAX: Final = 64

# Reconnecting
BACKOFF_MIN: Final = 0.25
BACKOFF_MAX: Final = 60.0


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
        """The defaults, scaled to another period."""
        scale = seconds / 60.0
        return cls(
            after=seconds, jitter=5.0 * scale, backstop=75.0 * scale, close=max(90.0 * scale, 75.0 * scale + 5.0),
            pause=min(10.0, 10.0 * scale),
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
