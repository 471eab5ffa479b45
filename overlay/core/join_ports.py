"""What passes between a signer's end of a joining link and whoever judges invites and TPMs: values and two ports."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from overlay.core.certificate_profile import Issuer, LeafFacts, Life, leaf_to_be_signed
from overlay.core.certificate_request import Request
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import Join, JoinTpm, TpmAnswer
from overlay.core.keys import MeshId, NodeId
from overlay.core.log_parts import LogPart, LogWanted

LEAF_LIFE: Final = timedelta(hours=24)  # of what is issued: trust.md, the usual day


@dataclass(frozen=True, slots=True)
class JoinLink:
    """Which conversation this is."""

    mesh_id: MeshId
    h: bytes  # 32: h(1)
    signer: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedInvite:
    """An invite that has verified and that this joiner may use."""

    invite_id: bytes
    hash: bytes  # SHA-256 of the whole order
    roles: tuple[str, ...]  # sorted
    name: str | None = None  # None: the joiner may choose


@dataclass(frozen=True, slots=True)
class WrappedSecret:
    """A secret that only the TPM with the shown EK, holding the shown attestation key, can open."""

    blob: bytes = field(repr=False)
    encrypted_seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinFinding:
    """What a joiner has shown of its machine."""

    level: int  # 1 to 4
    policy_version: int
    ak_name: bytes | None = None
    ak_qualified_name: bytes | None = None
    ek_tag: bytes | None = None  # 32
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What one signer has checked by itself and would sign: the certificate follows from it, byte by byte."""

    request: Request
    name: str
    facts: LeafFacts
    not_before: datetime
    invite_id: bytes
    invite_hash: bytes

    @property
    def node_id(self) -> NodeId:
        """Who joins."""
        return self.request.node_id

    @property
    def csr(self) -> bytes:
        """PKCS#10 DER."""
        return self.request.der

    @property
    def roles(self) -> tuple[str, ...]:
        """What it may be."""
        return self.facts.roles

    def to_be_signed(self, issuer: Issuer, life: timedelta = LEAF_LIFE) -> bytes:
        """TBSCertificate; every signer with the same approval comes to the same bytes."""
        lives = Life.between(self.not_before, self.not_before + life)
        return leaf_to_be_signed(issuer, self.request.identity.spki, self.name, self.facts, lives)


class InviteChecker(Protocol):
    """Judges an invite and the proof that the joiner holds its token. Fast: called from the core."""

    def check_invite(self, join: Join, link: JoinLink, request: Request, at: datetime) -> GrantedInvite:
        """Raises Refused with the reason; any other exception refuses too."""
        ...


class JoinInquiry(Protocol):
    """A joiner whose TPM is genuine and that is not judged yet: parts of its logs are lacking, asked for one by one."""

    @property
    def wanted(self) -> LogWanted:
        """The part that is lacking now."""
        ...

    def take(self, part: LogPart) -> "JoinFinding | JoinInquiry":
        """The part that was wanted: some milliseconds of work. Raises as `JoinAppraiser.appraise` does."""
        ...


class JoinAppraiser(Protocol):
    """Judges what a joiner shows of its TPM. Fast: called from the core; needs no TPM."""

    @property
    def pcr_bitmap(self) -> int:
        """The PCRs that a quote must cover."""
        ...

    def wrap(self, shown: JoinTpm, request: Request, secret: bytes) -> WrappedSecret:
        """Check the kinds of all keys, then MakeCredential for them; raises Refused."""
        ...

    def appraise(
        self, shown: JoinTpm, answer: TpmAnswer, binding: JoinBinding, secret: bytes, request: Request, *,
        pcr_bitmap: int, at: datetime,
    ) -> JoinFinding | JoinInquiry:
        """Check everything at once, from the bytes, then the logs if the policy wants them; raises Refused."""
        ...

    def appraise_file_key(self, request: Request) -> JoinFinding:
        """What a joiner without a TPM is worth; raises Refused where the policy wants one."""
        ...
