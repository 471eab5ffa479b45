"""Joining for tests: a mesh with signers, an invite that is one key, and a wire on which frames can be changed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from overlay.core.certificate_profile import LeafFacts
from overlay.core.certificate_request import Request, build_request
from overlay.core.enrolment_files import Bundle
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import Join, JoinTpm, TpmAnswer
from overlay.core.join_plan import JoinPlan, Quorum
from overlay.core.join_ports import LEAF_LIFE, Approval, GrantedInvite, JoinFinding, JoinLink, WrappedSecret
from overlay.core.join_result import SignerHint
from overlay.core.join_signer import ApprovalWanted, FinishWanted, JoinRefused, SignerEvent, SignerSide, welcome
from overlay.core.joining import (
    AnswerWanted,
    Joined,
    Joiner,
    JoinerEvent,
    JoinFailed,
    LinkDone,
)
from overlay.core.keys import Ed25519Signer, NodeId, Signer, verify_ed25519
from overlay.core.policy import Policy
from overlay.core.wire import lv, sha256
from overlay.errors import Refused
from overlay.registry import FrameType, Label, Reason
from tests.unit.core.authority_kit import Member, make_member, make_mesh, seed
from tests.unit.core.session_kit import SeededChance

MESH = make_mesh("join")
JOIN_KEY = Ed25519Signer(seed("join key"))
INVITE = b"an invite that the operator has signed"
INVITE_ID = seed("invite")[:16]
NEWCOMER = Ed25519Signer(seed("newcomer"))
SIGNERS = tuple(make_member(MESH, f"signer-{number}", facts=LeafFacts(roles=("signer",))) for number in range(5))
MEMBER = make_member(MESH, "member")
AUTHORITY = (b"the authority object",)

Change = Callable[[FrameType, bytes], bytes]


def proof_string(h: bytes, signer: bytes, csr: bytes) -> bytes:
    return Label.JOIN + lv(MESH.mesh_id, h, signer, INVITE_ID, sha256(csr))


class Invites:
    """Knows one invite and its join key."""

    def __init__(self, name: str | None = "newcomer") -> None:
        self.name = name
        self.broken = False

    def check_invite(self, join: Join, link: JoinLink, request: Request, at: datetime) -> GrantedInvite:
        del request, at
        if self.broken:
            raise RuntimeError("the book of orders is gone")
        if join.invite != INVITE:
            raise Refused(Reason.BAD_INVITE, "not signed by an operator")
        verify_ed25519(JOIN_KEY.public_key, join.proof, proof_string(link.h, link.signer, join.csr))
        return GrantedInvite(invite_id=INVITE_ID, hash=sha256(INVITE), roles=("worker",), name=self.name)


TPM_SHOWN = JoinTpm(
    ek_public=b"ek", ek_chain=(b"chain",), ak_public=b"ak", identity_public=b"id", parent_name=bytes(34),
    boot_log_hash=sha256(b"log"),
)


class Tpms:
    """A TPM that is all words: its secret lies open, and its answer is X."""

    pcr_bitmap = 1 << 14

    def wrap(self, shown: JoinTpm, request: Request, secret: bytes) -> WrappedSecret:
        del request
        if shown.ek_public != b"ek":
            raise Refused(Reason.BAD_EVIDENCE, "not an EK")
        return WrappedSecret(blob=secret, encrypted_seed=b"seed")

    def appraise(
        self, shown: JoinTpm, answer: TpmAnswer, binding: JoinBinding, secret: bytes, request: Request, *,
        pcr_bitmap: int, at: datetime,
    ) -> JoinFinding:
        del request, at
        if answer != answer_of(binding, shown, secret, pcr_bitmap):
            raise Refused(Reason.EVIDENCE_NOT_BOUND, "for something else")
        return JoinFinding(level=2, policy_version=1, ak_name=bytes(34), ak_qualified_name=bytes(34), ek_tag=bytes(32))

    def appraise_file_key(self, request: Request) -> JoinFinding:
        del request
        return JoinFinding(level=1, policy_version=1)


def answer_of(binding: JoinBinding, shown: JoinTpm, secret: bytes, pcr_bitmap: int) -> TpmAnswer:
    bound = binding.pack(ak_name=shown.ak_public, ek_name=shown.ek_public)
    return TpmAnswer(
        activation=bound.activation(secret), quote=bytes([pcr_bitmap.bit_length()]) + bound.quoted,
        quote_signature=b"s", certify_attest=bound.certified, certify_signature=b"s",
    )


def answer(wanted: AnswerWanted) -> TpmAnswer:
    """What the TPM of words makes of a challenge."""
    return answer_of(wanted.binding, TPM_SHOWN, wanted.challenge.blob, wanted.challenge.pcr_bitmap)


def h_of(number: int) -> bytes:
    return seed("link", str(number))


def make_plan(
    signer: Signer = NEWCOMER, tpm: JoinTpm | None = None, threshold: int = 2, members: tuple[Member, ...] = SIGNERS[:3],
    at: datetime = MESH.at, csr: bytes = b"", name: str | None = None,
) -> JoinPlan:
    request = csr or build_request(signer, "newcomer")
    return JoinPlan(
        mesh_id=MESH.mesh_id, node_id=NodeId.of_key(signer.spki), csr=request, invite=INVITE, invite_id=INVITE_ID,
        not_before=at, prove=lambda h, node: JOIN_KEY.sign(proof_string(h, node, request)), tpm=tpm, name=name,
        read_authority=lambda _objects: Quorum(threshold, frozenset(one.node_id for one in members)),
    )


def bundle_for(approval: Approval, name: str | None = None) -> Bundle:
    authority = MESH.authority
    return Bundle(
        mesh_name="join", root=MESH.root.der, gate_number=1, gate_key=bytes(32),
        policy=authority.sign_policy(Policy.default()), authority_object=b"object",
        leaf=authority.issue(
            approval.request, name=name or approval.name, facts=approval.facts, not_before=approval.not_before,
            not_after=approval.not_before + LEAF_LIFE,
        ),
    )


def hints(members: tuple[Member, ...] = SIGNERS[:3]) -> tuple[SignerHint, ...]:
    return tuple(SignerHint(one.node_id, (f"[2001:db8::{number}]:4000",)) for number, one in enumerate(members))


@dataclass
class Talk:
    """A joiner, and one signer after the other; `change` may alter a body on its way, in either direction."""

    plan: JoinPlan
    answers: Callable[[AnswerWanted], TpmAnswer] = answer
    tpms: object = field(default_factory=Tpms)
    invites: Invites = field(default_factory=Invites)
    change: Change = lambda _kind, body: body
    at: datetime = MESH.at + timedelta(seconds=3)
    now: float = 100.0
    links: int = 0
    refused: list[JoinRefused] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    finished: list[FinishWanted] = field(default_factory=list)
    heard: list[JoinerEvent] = field(default_factory=list)
    sent: list[tuple[FrameType, bytes]] = field(default_factory=list)
    finish_with: Callable[[SignerSide, FinishWanted], list[SignerEvent]] | None = None

    def __post_init__(self) -> None:
        self.joiner = Joiner(self.plan)

    def side(self, member: Member, h: bytes) -> SignerSide:
        link = JoinLink(MESH.mesh_id, h, member.node_id)
        chance = SeededChance(self.links)
        return SignerSide(link, self.invites, self.tpms, chance, welcome(hints(), AUTHORITY), self.now)  # type: ignore[arg-type]

    def meet(self, member: Member) -> SignerSide:
        """One link, until nobody has anything to say."""
        self.links += 1
        h = h_of(self.links)
        side = self.side(member, h)
        self.joiner.begin(member.peer.certificate, h, self.now)
        self.exchange(side)
        return side

    def exchange(self, side: SignerSide) -> None:
        while True:
            to_joiner, to_signer = side.messages_to_send(), self.joiner.messages_to_send()
            if not to_joiner and not to_signer:
                return
            for kind, body in to_joiner:
                self.take(self.joiner.receive(kind, self.change(kind, body), self.now, self.at))
            for kind, body in to_signer:
                self.sent.append((kind, self.change(kind, body)))
                self.serve(side, side.receive(*self.sent[-1], self.now, self.at))

    def take(self, events: list[JoinerEvent]) -> None:
        self.heard += events
        for event in events:
            if isinstance(event, AnswerWanted):
                self.joiner.supply_answer(self.answers(event), self.now)

    def serve(self, side: SignerSide, events: list[SignerEvent]) -> None:
        for event in events:
            if isinstance(event, ApprovalWanted):
                self.approvals.append(event.approval)
                side.approve(self.now)
            elif isinstance(event, FinishWanted):
                self.finished.append(event)
                if self.finish_with is not None:
                    self.serve(side, self.finish_with(side, event))
                else:
                    side.issue(bundle_for(event.approval))
            else:
                self.refused.append(event)

    @property
    def bundle(self) -> Bundle | None:
        return next((event.bundle for event in self.heard if isinstance(event, Joined)), None)

    @property
    def failure(self) -> Reason | None:
        return next((event.reason for event in self.heard if isinstance(event, JoinFailed)), None)

    @property
    def links_done(self) -> list[Reason | None]:
        return [event.refused for event in self.heard if isinstance(event, LinkDone)]
