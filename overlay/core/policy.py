"""The policy of a mesh: what evidence it asks for and which measurements are good. Signed by the mesh key.

    policy = {0:1, 1:version, 2:attestation, 3:mode?, 4:lowest level, 5:PCR bitmap, 6:[PCR digests], 7:[manifests],
              8:[roots of EKs]?, 9:[EK tags]?, 10:[firmware floors]?, 11:[rules about the boot log]?, 12:[rule about files]?,
              13:missing log?, 14:[earlier reference values]?, 15:needs?}

What a policy does not use is left out, so its bytes do not change when the format grows.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, unique
from typing import Final

from overlay.core.certificates import Root
from overlay.core.policy_parts import (
    DIGEST,
    DIGESTS,
    DIGESTS_MAX,
    EARLIER,
    FILE_RULE,
    FLOORS,
    LEVEL_MAX,
    NEEDS,
    NOTHING,
    PCRS,
    RULES,
    DigestRule,
    Earlier,
    FirmwareFloor,
    MissingLog,
    Mode,
    Needs,
    References,
    earlier_in,
    earlier_out,
    file_rule_in,
    file_rules,
    floors_in,
    floors_out,
    needs_in,
    needs_out,
    rules_in,
    rules_out,
)
from overlay.core.wire import Array, Bytes, Maybe, UInt, make_map, open_map, parse_sign1, sha256
from overlay.errors import Refused
from overlay.registry import COSE_EDDSA, Label, Reason

__all__ = ["DIGESTS_MAX", "LEVEL_MAX", "PCRS", "POLICY_MAX", "Attestation", "Mode", "Policy", "VerifiedPolicy", "verify_policy"]

POLICY_MAX: Final = 256 * 1024  # our guess: all lists of two sets of reference values and 32 roots, or 4,096 files and the rest
ENVELOPE_MAX: Final = 256  # of the signature around the policy
EK_ROOTS_MAX: Final = 32  # our guess: some ten makers of TPMs with one to three roots
EK_ROOT_MAX: Final = 4096  # our guess: they have 1 to 2 KiB
EK_TAGS_MAX: Final = 1024  # our guess


@unique
class Attestation(IntEnum):
    """Whether a node must show what it runs."""

    OFF = 0
    PREFER = 1
    REQUIRE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the mesh asks of its nodes. Two policies with the same fields have the same bytes."""

    version: int  # from 1; only a higher one replaces another
    attestation: Attestation = Attestation.PREFER
    mode: Mode = Mode.ENFORCE
    minimum_level: int = 0
    pcr_bitmap: int = 0  # bit i: PCR i of the SHA-256 bank is quoted
    pcr_digests: tuple[bytes, ...] = ()  # allowed: SHA-256 over the values of those PCRs, 32 bytes each
    manifests: tuple[bytes, ...] = ()  # allowed package manifests, 32 bytes each
    ek_roots: tuple[bytes, ...] = field(default=(), repr=False)  # DER, of makers of TPMs; whoever reads them skips others
    ek_tags: tuple[bytes, ...] = field(default=(), repr=False)  # of single machines that are known good, 32 bytes each
    firmware_floors: tuple[FirmwareFloor, ...] = ()
    digest_rules: tuple[DigestRule, ...] = ()  # about the boot log, PCRs rising
    file_rule: DigestRule | None = None  # about files that Linux has measured
    missing_log: MissingLog | None = None  # None: see `without_log`
    earlier: tuple[Earlier, ...] = ()  # grace: reference values of policies before, each with its end
    needs: Needs = NOTHING

    @classmethod
    def default(cls) -> "Policy":
        """What `overlay init` signs, so that first nodes can join: prefer, learn, no reference values."""
        return cls(version=1, mode=Mode.LEARN)

    @property
    def references(self) -> References:
        """Which measurements are good."""
        return References(
            pcr_bitmap=self.pcr_bitmap, pcr_digests=self.pcr_digests, manifests=self.manifests,
            firmware_floors=self.firmware_floors, digest_rules=self.digest_rules, file_rule=self.file_rule,
        )

    @property
    def has_tpm_references(self) -> bool:
        """Whether there is anything to compare a quote with; `enforce` without refuses TPM evidence."""
        return self.references.has_tpm_references

    @property
    def pcrs(self) -> tuple[int, ...]:
        """The PCRs that a quote covers, rising."""
        return tuple(index for index in range(PCRS) if self.pcr_bitmap >> index & 1)

    @property
    def without_log(self) -> MissingLog:
        """What a missing log means: a policy that has rules about logs and does not say refuses."""
        if self.missing_log is not None:
            return self.missing_log
        return MissingLog.REFUSE if self.references.has_rules else MissingLog.ALLOW

    @property
    def strictness(self) -> Mode:
        """The mode; `learn` where attestation is off, since nothing is compared then."""
        return Mode.LEARN if self.attestation is Attestation.OFF else self.mode

    def in_grace(self, at: datetime) -> tuple[Earlier, ...]:
        """The earlier reference values that still pass."""
        now = at.timestamp()
        return tuple(one for one in self.earlier if now < one.until)

    def pack(self) -> bytes:
        """The payload that the mesh key signs."""
        return make_map(
            self.version, int(self.attestation), int(self.mode), self.minimum_level, self.pcr_bitmap,
            list(self.pcr_digests), list(self.manifests), list(self.ek_roots) or None, list(self.ek_tags) or None,
            floors_out(self.firmware_floors) or None, rules_out(self.digest_rules) or None,
            rules_out(file_rules(self.file_rule)) or None,
            None if self.missing_log is None else int(self.missing_log), earlier_out(self.earlier) or None,
            needs_out(self.needs),
        )

    @classmethod
    def unpack(cls, payload: bytes) -> "Policy":
        """A policy that names no mode means enforce. Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
        (
            version, attestation, mode, minimum_level, bitmap, digests, manifests, ek_roots, ek_tags, floors, rules, file_rule,
            missing, earlier, needs,
        ) = open_map(payload, *_KINDS, limit=POLICY_MAX)  # fmt: skip
        return cls(
            version=version, attestation=Attestation(attestation), mode=Mode.ENFORCE if mode is None else Mode(mode),
            minimum_level=minimum_level, pcr_bitmap=bitmap, pcr_digests=tuple(digests), manifests=tuple(manifests),
            ek_roots=tuple(ek_roots or ()), ek_tags=tuple(ek_tags or ()), firmware_floors=floors_in(floors or ()),
            digest_rules=rules_in(rules or ()), file_rule=file_rule_in(file_rule or ()),
            missing_log=None if missing is None else MissingLog(missing), earlier=earlier_in(earlier or ()),
            needs=needs_in(needs),
        )


_KINDS: Final = (
    UInt(), UInt(max(Attestation)), Maybe(UInt(max(Mode))), UInt(LEVEL_MAX), UInt(2**PCRS - 1), DIGESTS, DIGESTS,
    Maybe(Array(Bytes(1, EK_ROOT_MAX), EK_ROOTS_MAX)), Maybe(Array(DIGEST, EK_TAGS_MAX)), Maybe(FLOORS), Maybe(RULES),
    Maybe(FILE_RULE), Maybe(UInt(max(MissingLog))), Maybe(EARLIER), Maybe(NEEDS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class VerifiedPolicy:
    """A policy that the mesh key has signed, with its signed bytes."""

    policy: Policy
    raw: bytes = field(repr=False)

    @property
    def hash(self) -> bytes:
        """SHA-256 of the signed bytes."""
        return sha256(self.raw)


def verify_policy(raw: bytes, root: Root) -> VerifiedPolicy:
    """Check the mesh key's signature.

    Raises:
        Refused: BAD_POLICY for the signature, MALFORMED, TOO_LARGE or UNSUPPORTED for the form.
    """
    signed = parse_sign1(raw, limit=POLICY_MAX, with_kid=False)
    if signed.algorithm != COSE_EDDSA:
        raise Refused(Reason.BAD_POLICY, "not signed by an Ed25519 key")
    try:
        payload = signed.verify(root.public_key, aad=Label.POLICY + root.mesh_id)
    except Refused:
        raise Refused(Reason.BAD_POLICY, "not signed by the mesh key") from None
    return VerifiedPolicy(Policy.unpack(payload), raw)
