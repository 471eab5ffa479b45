"""A whole join with a real TPM 2.0 (swtpm), and what becomes of it when one thing is not as it should be."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attest.areas import parse_area
from attest.endorsement_chain import EndorsementTrust
from attest.join import TpmJoinAppraiser
from attest.join_tpm import answer_join, show_join
from attest.key_blob import KeyBlob
from attest.tpm import Tpm
from attest.tpm_keys import TpmIdentitySigner
from overlay.core.certificate_profile import ek_tag
from overlay.core.certificate_request import build_request
from overlay.core.join_binding import JoinBinding
from overlay.core.join_frames import JoinTpm, TpmAnswer
from overlay.core.join_plan import JoinPlan, check_bundle
from overlay.core.joining import AnswerWanted
from overlay.core.keys import NodeId
from overlay.core.policy import Mode, Policy
from overlay.core.wire import sha256
from overlay.errors import OverlayError
from overlay.registry import Reason
from tests.tpm.conftest import Swtpm
from tests.unit.core.authority_kit import seed
from tests.unit.core.join_kit import MESH, SIGNERS, Talk, h_of, make_plan

if TYPE_CHECKING:
    from overlay.core.join_signer import SignerSide

pytestmark = pytest.mark.tpm

A, B, *_ = SIGNERS
PCR_14 = 1 << 14
LOG = b"a boot log"
Answers = Callable[[AnswerWanted], TpmAnswer]


@dataclass(frozen=True, slots=True)
class Machine:
    """A TPM with the keys of one node."""

    tpm: Tpm
    ak: KeyBlob
    identity: KeyBlob
    csr: bytes = field(repr=False)

    @classmethod
    def make(cls, tpm: Tpm) -> "Machine":
        identity = tpm.create_identity_key()
        csr = build_request(TpmIdentitySigner(tpm, identity), "newcomer")
        return cls(tpm, tpm.create_attestation_key(), identity, csr)

    @property
    def ek(self) -> bytes:
        """Its name."""
        return parse_area(self.tpm.endorsement_public()).name

    def shown(self, chain: tuple[bytes, ...] = ()) -> JoinTpm:
        return show_join(self.tpm, ak=self.ak, identity=self.identity, ek_chain=chain, boot_log_hash=sha256(LOG))

    def plan(self, shown: JoinTpm | None = None, *, threshold: int = 1) -> JoinPlan:
        signer = TpmIdentitySigner(self.tpm, self.identity)
        return make_plan(signer, shown or self.shown(), threshold, at=MESH.at, csr=self.csr)

    def answer(self, wanted: AnswerWanted) -> TpmAnswer:
        return answer_join(
            self.tpm, ak=self.ak, identity=self.identity, shown=self.shown(), challenge=wanted.challenge,
            binding=wanted.binding,
        )


@pytest.fixture
def machine(tpm: Tpm) -> Machine:
    tpm.extend_pcr(14, sha256(b"package"))
    return Machine.make(tpm)


@pytest.fixture
def other(tmp_path: Path, tpm_module: ModuleType) -> Iterator[Machine]:
    """A second TPM."""
    folder = tmp_path / "other"
    folder.mkdir()
    emulator = Swtpm(folder)
    with tpm_module.Tpm.open(emulator.tcti, timeout=20) as opened:
        yield Machine.make(opened)
    emulator.stop()


def policy(**changed: object) -> Policy:
    good = (sha256(sha256(bytes(32), sha256(b"package"))),)
    return replace(Policy(version=3, mode=Mode.ENFORCE, pcr_bitmap=PCR_14, pcr_digests=good), **changed)  # type: ignore[arg-type]


def talk(
    machine: Machine, *, plan: JoinPlan | None = None, answers: Answers | None = None, trust: EndorsementTrust | None = None,
    rules: Policy | None = None,
) -> Talk:
    asked = rules or policy()
    if trust is not None:
        asked = replace(asked, ek_roots=trust.roots, ek_tags=tuple(trust.listed))
    appraiser = TpmJoinAppraiser(lambda: asked)
    return Talk(plan or machine.plan(), answers=answers or machine.answer, tpms=appraiser)


def refusal(talk: Talk) -> Reason | None:
    """Why the first signer says no."""
    talk.meet(A)
    assert talk.bundle is None
    assert talk.approvals == []
    return talk.links_done[0]


def test_a_machine_joins_through_two_signers_and_gets_one_certificate(machine: Machine) -> None:
    joining = talk(machine, plan=machine.plan(threshold=2))
    joining.meet(A)
    joining.meet(B)
    assert joining.bundle is not None
    certificate = check_bundle(joining.bundle, joining.plan, joining.at)
    assert (certificate.name, certificate.roles, certificate.level) == ("newcomer", ("worker",), 2)
    assert certificate.ak_name == machine.ak.area.name
    assert certificate.facts.ek_tag == ek_tag(MESH.mesh_id, machine.ek)
    first, second = joining.approvals
    assert first == second


def test_a_retry_costs_nothing(machine: Machine) -> None:
    joining = talk(machine)
    joining.meet(A)
    again = talk(machine, plan=joining.plan)
    again.meet(A)
    assert again.bundle is not None
    assert joining.bundle is not None
    assert again.bundle.leaf == joining.bundle.leaf


def test_a_listed_ek_gives_level_3(machine: Machine) -> None:
    listed = EndorsementTrust(listed=frozenset({ek_tag(MESH.mesh_id, machine.ek)}))
    joining = talk(machine, trust=listed, rules=policy(minimum_level=3))
    joining.meet(A)
    assert joining.approvals[0].facts.level == 3


def test_an_unlisted_ek_is_too_little_where_level_3_is_wanted(machine: Machine) -> None:
    assert refusal(talk(machine, rules=policy(minimum_level=3))) is Reason.LEVEL_TOO_LOW


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_an_unrestricted_key_is_no_attestation_key(machine: Machine) -> None:
    posing = replace(machine, ak=machine.identity)
    assert refusal(talk(posing, plan=machine.plan(posing.shown()))) is Reason.BAD_EVIDENCE


def test_the_attestation_key_of_another_tpm_opens_nothing(machine: Machine, other: Machine) -> None:
    """The credential is for our EK and the other's AK: neither TPM holds both."""
    mixed = replace(machine.shown(), ak_public=other.ak.public)
    for tpm, ak in ((machine.tpm, machine.ak), (machine.tpm, other.ak), (other.tpm, other.ak)):
        with pytest.raises(OverlayError):
            talk(replace(machine, tpm=tpm, ak=ak), plan=machine.plan(mixed)).meet(A)


def test_the_attestation_key_of_another_tpm_that_guesses_the_secret_is_refused(machine: Machine, other: Machine) -> None:
    """Even where the secret has leaked, the quote says under which EK its key lives."""
    mixed = replace(machine.shown(), ak_public=other.ak.public)
    joining = talk(machine, plan=machine.plan(mixed))

    def answer(wanted: AnswerWanted) -> TpmAnswer:
        side = joining_side[0]
        assert side._challenged is not None
        bound = wanted.binding.pack(ak_name=other.ak.area.name, ek_name=machine.ek)
        quote, quote_signature = other.tpm.quote(other.ak, bound.quoted, PCR_14)
        attested, signature = other.tpm.certify(other.ak, other.identity, bound.certified)
        return TpmAnswer(
            activation=bound.activation(side._challenged.secret), quote=quote, quote_signature=quote_signature,
            certify_attest=attested, certify_signature=signature,
        )

    joining_side: list[SignerSide] = []
    made = joining.side

    def side(*arguments: object) -> "SignerSide":
        joining_side.append(made(*arguments))  # type: ignore[arg-type]
        return joining_side[-1]

    joining.side, joining.answers = side, answer  # type: ignore[method-assign,assignment]
    assert refusal(joining) is Reason.ATTESTATION_KEY_MISMATCH


def test_an_ek_that_is_swapped_between_the_steps_is_refused(machine: Machine, other: Machine) -> None:
    """Challenged as one machine, answered as another whose EK is better."""

    def answer(wanted: AnswerWanted) -> TpmAnswer:
        secret_holder = machine.answer(wanted)
        bound = wanted.binding.pack(ak_name=machine.ak.area.name, ek_name=other.ek)
        quote, signature = machine.tpm.quote(machine.ak, bound.quoted, PCR_14)
        return replace(secret_holder, quote=quote, quote_signature=signature)

    assert refusal(talk(machine, answers=answer)) is Reason.EVIDENCE_NOT_BOUND


def test_the_request_of_another_key_is_refused(machine: Machine) -> None:
    another = Machine.make(machine.tpm)
    assert refusal(talk(machine, plan=another.plan(machine.shown()))) is Reason.ATTESTATION_KEY_MISMATCH


def recorded(machine: Machine) -> list[TpmAnswer]:
    """What a good machine answered to signer A on link 1."""
    answers: list[TpmAnswer] = []

    def keep(wanted: AnswerWanted) -> TpmAnswer:
        answers.append(machine.answer(wanted))
        return answers[-1]

    joining = talk(machine, answers=keep)
    joining.meet(A)
    assert joining.bundle is not None
    return answers


def test_an_answer_that_was_recorded_on_another_link_is_refused(machine: Machine) -> None:
    [old] = recorded(machine)
    fresh = talk(machine, answers=lambda _wanted: old)
    fresh.links = 5
    assert refusal(fresh) is Reason.EVIDENCE_NOT_BOUND


def test_an_answer_that_was_recorded_with_another_signer_is_refused(machine: Machine) -> None:
    [old] = recorded(machine)
    joining = talk(machine, answers=lambda _wanted: old)
    joining.meet(B)  # its link, nonce and secret are those of the recording: only the signer differs
    assert joining.links_done[0] is Reason.EVIDENCE_NOT_BOUND


def changed(**parts: object) -> Callable[[JoinBinding], JoinBinding]:
    return lambda binding: replace(binding, **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        changed(h=h_of(99)),
        changed(signer=B.node_id),
        changed(nonce=seed("another nonce")),
        changed(csr_hash=seed("another request")),
        changed(invite_id=b"another invite"),
        changed(boot_log_hash=b""),
        changed(mesh_id=NodeId(seed("another mesh"))),
    ],
)
def test_an_answer_for_another_conversation_is_refused(
    machine: Machine, change: Callable[[JoinBinding], JoinBinding]
) -> None:
    moved = talk(machine, answers=lambda wanted: machine.answer(replace(wanted, binding=change(wanted.binding))))
    assert refusal(moved) is Reason.EVIDENCE_NOT_BOUND


def altered(machine: Machine, change: Callable[[TpmAnswer, AnswerWanted], TpmAnswer]) -> Talk:
    return talk(machine, answers=lambda wanted: change(machine.answer(wanted), wanted))


def test_a_wrong_hmac_is_refused(machine: Machine) -> None:
    joining = altered(machine, lambda answer, _wanted: replace(answer, activation=bytes(32)))
    assert refusal(joining) is Reason.EVIDENCE_NOT_BOUND


def test_a_quote_over_another_x_is_refused(machine: Machine) -> None:
    def requoted(answer: TpmAnswer, _wanted: AnswerWanted) -> TpmAnswer:
        quote, signature = machine.tpm.quote(machine.ak, seed("x"), PCR_14)
        return replace(answer, quote=quote, quote_signature=signature)

    assert refusal(altered(machine, requoted)) is Reason.EVIDENCE_NOT_BOUND


def test_a_certification_of_another_key_is_refused(machine: Machine) -> None:
    def certified(answer: TpmAnswer, wanted: AnswerWanted) -> TpmAnswer:
        bound = wanted.binding.pack(ak_name=machine.ak.area.name, ek_name=machine.ek)
        attest, signature = machine.tpm.certify(machine.ak, machine.tpm.create_identity_key(), bound.certified)
        return replace(answer, certify_attest=attest, certify_signature=signature)

    assert refusal(altered(machine, certified)) is Reason.ATTESTATION_KEY_MISMATCH


def test_a_quote_over_other_pcrs_is_refused(machine: Machine) -> None:
    def narrow(answer: TpmAnswer, wanted: AnswerWanted) -> TpmAnswer:
        bound = wanted.binding.pack(ak_name=machine.ak.area.name, ek_name=machine.ek)
        quote, signature = machine.tpm.quote(machine.ak, bound.quoted, 1)
        return replace(answer, quote=quote, quote_signature=signature)

    assert refusal(altered(machine, narrow)) is Reason.PCR_SELECTION


def test_a_machine_that_booted_something_else_is_refused(machine: Machine) -> None:
    machine.tpm.extend_pcr(14, sha256(b"something else"))
    assert refusal(talk(machine)) is Reason.PCR_MISMATCH


# --- certificates of the EK -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalAuthority:
    """swtpm's own authority in a folder: emulated, like its TPMs, and recognisable."""

    folder: Path

    def certify(self, ek_public: bytes) -> bytes:
        area = parse_area(ek_public)
        config, options = self.folder / "localca.conf", self.folder / "localca.options"
        config.write_text(
            f"statedir = {self.folder}\nsigningkey = {self.folder}/key.pem\n"
            f"issuercert = {self.folder}/issuer.pem\ncertserial = {self.folder}/serial\n"
        )
        options.write_text("--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n")
        subprocess.run(
            [
                "swtpm_localca", "--type", "ek", "--ek", f"x={area.x.hex()},y={area.y.hex()},id=secp256r1", "--dir",
                self.folder, "--vmid", "test", "--tpm2", "--configfile", config, "--optsfile", options, "--tpm-spec-family",
                "2.0", "--tpm-spec-level", "0", "--tpm-spec-revision", "164", "--tpm-manufacturer", "id:00001014",
                "--tpm-model", "swtpm", "--tpm-version", "id:20191023",
            ],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        return (self.folder / "ek.cert").read_bytes()

    def der(self, name: str) -> bytes:
        return x509.load_pem_x509_certificate((self.folder / name).read_bytes()).public_bytes(Encoding.DER)

    @property
    def issuer(self) -> bytes:
        return self.der("issuer.pem")

    @property
    def root(self) -> bytes:
        return self.der("swtpm-localca-rootca-cert.pem")


@pytest.fixture
def local_authority(tmp_path: Path) -> LocalAuthority:
    if shutil.which("swtpm_localca") is None:
        pytest.skip("this host lacks swtpm_localca (swtpm-tools)")
    folder = tmp_path / "authority"
    folder.mkdir()
    return LocalAuthority(folder)


def level_with(machine: Machine, chain: tuple[bytes, ...], trust: EndorsementTrust) -> int:
    """The certificates of swtpm begin now, so now is when we look at them."""
    begin = x509.load_der_x509_certificate(chain[0]).not_valid_before_utc
    plan = replace(machine.plan(machine.shown(chain)), not_before=begin)
    joining = talk(machine, plan=plan, trust=trust)
    joining.at = begin + timedelta(minutes=1)
    joining.meet(A)
    return joining.approvals[0].facts.level


def test_an_emulators_ek_certificate_gives_level_2_unless_the_operators_name_its_root(
    machine: Machine, local_authority: LocalAuthority
) -> None:
    own = local_authority.certify(machine.tpm.endorsement_public())
    chain = (own, local_authority.issuer)
    assert level_with(machine, chain, EndorsementTrust()) == 2
    assert level_with(machine, chain, EndorsementTrust(roots=(local_authority.root,))) == 4
    assert level_with(machine, chain[:1], EndorsementTrust(roots=(local_authority.root,))) == 2


def test_the_ek_certificate_of_another_tpm_is_refused(
    machine: Machine, other: Machine, local_authority: LocalAuthority
) -> None:
    stolen = (local_authority.certify(other.tpm.endorsement_public()), local_authority.issuer)
    assert refusal(talk(machine, plan=machine.plan(machine.shown(stolen)))) is Reason.BAD_EVIDENCE
