"""Attacks with quotes of a real TPM 2.0 (swtpm): each shows genuine evidence of something else, and is refused for that."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import TPML_PCR_SELECTION

from attest.account import account
from attest.areas import AK_TEMPLATE, EK_TEMPLATE, SRK_TEMPLATE, Attributes, parse_area
from attest.binding import NODE, Tree, bind, leaf_hash, qualifying_data
from attest.enrol import attestation_qualified_name
from attest.event_log import EV_NO_ACTION, parse_boot_log
from attest.key_blob import KeyBlob
from attest.quote import Enrolled, Quote, check_quote, parse_quote
from attest.rules import broken_by_events
from attest.structures import EcdsaSignature, sized
from attest.tpm import Tpm
from attest.tpm_handles import endorsement_policy, flushed, load, primary
from overlay.core.evidence import Binding, Evidence
from overlay.core.keys import P256_ORDER
from overlay.core.policy_parts import DigestRule
from overlay.core.wire import sha256
from overlay.errors import Refused
from overlay.registry import Reason, Role
from tests.tpm.conftest import Swtpm
from tests.unit.attest.event_log_kit import BOOT, Made, log
from tests.unit.attest.software_tpm import PCR_14, a_binding, tpm_claims

pytestmark = pytest.mark.tpm

CLAIMS = tpm_claims().pack()
HERE = a_binding(1)
OTHERS = tuple(a_binding(number) for number in range(2, 7))


@dataclass
class Prover:
    """An enrolled machine, and quotes of its TPM over whatever it is told."""

    tpm: Tpm
    ak: KeyBlob
    enrolled: Enrolled
    bitmap: int = PCR_14

    @classmethod
    def of(cls, tpm: Tpm) -> "Prover":
        ak = tpm.create_attestation_key()
        qualified = attestation_qualified_name(parse_area(tpm.endorsement_public()), ak.area)
        return cls(tpm, ak, Enrolled(ak_name=ak.area.name, ak_qualified_name=qualified))

    def over(self, data: bytes, *, tree: Tree | None = None, index: int = 0) -> Evidence:
        """A genuine quote over this qualifying data; by itself a tree of one leaf."""
        quote, signature = self.tpm.quote(self.ak, data, self.bitmap)
        return Evidence(
            count=tree.count if tree else 1, index=index, path=tree.path(index) if tree else (), claims=CLAIMS,
            ak_public=self.ak.public, quote=quote, signature=signature,
        )  # fmt: skip

    def for_all(self, *bindings: Binding) -> Evidence:
        """As an honest machine makes it: for the first of these."""
        leaves = [leaf_hash(bind(binding, CLAIMS)) for binding in bindings]
        tree = Tree.of(set(leaves))
        return self.over(qualifying_data(tree.count, tree.root), tree=tree, index=tree.index(leaves[0]))

    def check(self, evidence: Evidence, binding: Binding = HERE, previous: tuple[int, int, int] | None = None) -> Quote:
        return check_quote(evidence, binding, self.enrolled, pcr_bitmap=self.bitmap, previous=previous)

    def refuses(self, evidence: Evidence, binding: Binding = HERE) -> Reason:
        with pytest.raises(Refused) as error:
            self.check(evidence, binding)
        return error.value.reason


@pytest.fixture
def prover(tpm: Tpm) -> Prover:
    found = Prover.of(tpm)
    found.check(found.for_all(HERE, *OTHERS))
    return found


# --- genuine, and for something else ------------------------------------------------------------------------------------

MIRRORED = replace(HERE, role=Role.OTHER, attester_leaf=HERE.verifier_leaf, verifier_leaf=HERE.attester_leaf)


@pytest.mark.parametrize("made_for", [
    pytest.param(replace(HERE, h=sha256(b"another link")), id="relayed from another link"),
    pytest.param(MIRRORED, id="reflected"),
    pytest.param(replace(HERE, role=Role.OTHER), id="of the other direction"),
    pytest.param(replace(HERE, verifier_leaf=sha256(b"another verifier")), id="diverted to another verifier"),
    pytest.param(replace(HERE, attester_leaf=sha256(b"another certificate")), id="under another certificate"),
    pytest.param(replace(HERE, nonce=sha256(b"an earlier nonce")), id="replayed in the session"),
    pytest.param(replace(HERE, epoch=2), id="of another epoch by its number"),
    pytest.param(replace(HERE, epoch=0, h=sha256(b"h of an older epoch")), id="of an older epoch, bound to its h"),
    pytest.param(replace(HERE, mesh_id=sha256(b"another mesh")), id="of another mesh"),
])  # fmt: skip
def test_a_genuine_quote_that_was_made_for_something_else_is_refused(prover: Prover, made_for: Binding) -> None:
    for evidence in (prover.for_all(made_for), prover.for_all(made_for, *OTHERS)):
        prover.check(evidence, made_for)
        assert prover.refuses(evidence) is Reason.EVIDENCE_NOT_BOUND


def test_a_genuine_quote_of_another_machine_is_refused(prover: Prover, tmp_path: Path, tpm_module: ModuleType) -> None:
    """Diversion: the other machine is enrolled, too, and has made its quote for this very link."""
    (tmp_path / "other").mkdir()
    emulator = Swtpm(tmp_path / "other")
    try:
        with tpm_module.Tpm.open(emulator.tcti, timeout=20) as other:
            stranger = Prover.of(other)
            evidence = stranger.for_all(HERE)
            stranger.check(evidence)
            assert prover.refuses(evidence) is Reason.ATTESTATION_KEY_MISMATCH
            assert prover.refuses(replace(evidence, ak_public=prover.ak.public)) is Reason.EVIDENCE_SIGNATURE
    finally:
        emulator.stop()


ROOT = qualifying_data(1, leaf_hash(bind(HERE, CLAIMS)))


@pytest.mark.parametrize("data", [b"", ROOT[:31], ROOT[:-1] + b"x", ROOT + b"\0", bytes(32), ROOT * 2], ids=len)
def test_qualifying_data_is_exactly_what_it_has_to_be(
    prover: Prover, tpm_module: ModuleType, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(tpm_module, "QUALIFYING_MAX", 64)  # a TPM takes up to a SHA-512
    evidence = prover.over(data)
    assert parse_quote(evidence.quote).header.extra_data == data
    assert prover.refuses(evidence) is Reason.EVIDENCE_NOT_BOUND


# --- the tree -----------------------------------------------------------------------------------------------------------


def in_tree(prover: Prover, change: Callable[[Evidence, Tree], Evidence]) -> Reason:
    """Honest evidence for six links, of which one thing is changed."""
    evidence = prover.for_all(HERE, *OTHERS)
    tree = Tree.of({leaf_hash(bind(binding, CLAIMS)) for binding in (HERE, *OTHERS)})
    return prover.refuses(change(evidence, tree))


@pytest.mark.parametrize("change", [
    pytest.param(lambda one, _: replace(one, path=one.path[:-1]), id="path too short"),
    pytest.param(lambda one, _: replace(one, path=(*one.path, bytes(32))), id="path too long"),
    pytest.param(lambda one, _: replace(one, path=()), id="no path"),
    pytest.param(lambda one, _: replace(one, index=one.count), id="index n"),
    pytest.param(lambda one, _: replace(one, index=(one.index + 1) % one.count), id="another index"),
    pytest.param(lambda one, _: replace(one, count=one.count - 1), id="another n"),
    pytest.param(lambda one, _: replace(one, count=1, index=0, path=()), id="the leaf as the root"),
    pytest.param(lambda one, _: replace(one, path=one.path[::-1]), id="path upside down"),
])  # fmt: skip
def test_another_place_in_the_tree_is_refused(prover: Prover, change: Callable[[Evidence, Tree], Evidence]) -> None:
    assert in_tree(prover, change) is Reason.EVIDENCE_NOT_BOUND


def test_an_inner_node_is_not_taken_for_a_leaf(prover: Prover) -> None:
    """A tree of two in which our leaf stands beside what is an inner node of another tree, with the path of that tree."""
    leaf = leaf_hash(bind(HERE, CLAIMS))
    first, second = sorted([leaf, leaf_hash(bind(OTHERS[0], CLAIMS))])
    inner = sha256(NODE, first, second)
    evidence = prover.over(qualifying_data(1, inner))
    path = (second if first == leaf else first,)
    for count, index, shown in ((1, 0, ()), (1, 0, path), (2, int(first != leaf), path)):
        assert prover.refuses(replace(evidence, count=count, index=index, path=shown)) is Reason.EVIDENCE_NOT_BOUND
    prover.check(replace(prover.over(qualifying_data(2, inner)), count=2, index=int(first != leaf), path=path))


@pytest.mark.parametrize("index", [0, 1])
def test_a_tree_with_two_equal_leaves_is_refused(prover: Prover, index: int) -> None:
    leaf = leaf_hash(bind(HERE, CLAIMS))
    quoted = prover.over(qualifying_data(2, sha256(NODE, leaf, leaf)))
    assert prover.refuses(replace(quoted, count=2, index=index, path=(leaf,))) is Reason.EVIDENCE_NOT_BOUND


# --- PCRs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selection", ["sha1:14", "sha1:14+sha256:14", "sha256:14+sha1:14", "sha256:13", "sha256:14,15", "sha384:14"]
)
def test_other_banks_and_other_pcrs_are_refused(
    prover: Prover, tpm_module: ModuleType, monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    monkeypatch.setattr(tpm_module, "_selection", lambda _bitmap: TPML_PCR_SELECTION.parse(selection))
    assert prover.refuses(prover.for_all(HERE)) is Reason.PCR_SELECTION


# --- keys ---------------------------------------------------------------------------------------------------------------


def with_attributes(attributes: int) -> bytes:
    return AK_TEMPLATE[:4] + attributes.to_bytes(4, "big") + AK_TEMPLATE[8:]


GOOD = parse_area(AK_TEMPLATE + bytes(0)).attributes


@dataclass
class ForeignKey:
    """A real key of this TPM that is no attestation key, and quotes by it."""

    esapi: ESAPI
    prover: Prover
    hierarchy: ESYS_TR = ESYS_TR.ENDORSEMENT
    template: bytes = AK_TEMPLATE
    evidence: Evidence | None = None
    enrolled: Enrolled | None = field(default=None)

    def quote(self, tpm_module: ModuleType) -> None:
        """Made, loaded, used and flushed."""
        parent = EK_TEMPLATE if self.hierarchy == ESYS_TR.ENDORSEMENT else SRK_TEMPLATE
        esapi = self.esapi
        with ExitStack() as loaded:
            storage, area = loaded.enter_context(primary(esapi, self.hierarchy, parent))
            blob = tpm_module._create(esapi, storage, self.template, self._use(loaded))
            key = loaded.enter_context(flushed(esapi, load(esapi, storage, blob, self._use(loaded))))
            attested, signature = esapi.quote(key, tpm_module._selection(PCR_14), ROOT, tpm_module._scheme_of_key())
        quote = bytes(attested)
        self.enrolled = Enrolled(ak_name=blob.area.name, ak_qualified_name=parse_quote(quote).header.qualified_signer)
        self.evidence = Evidence(
            count=1, index=0, path=(), claims=CLAIMS, ak_public=blob.public, quote=quote,
            signature=tpm_module._lowered(signature).pack(),
        )
        assert area

    def _use(self, loaded: ExitStack) -> ESYS_TR:
        own = self.hierarchy == ESYS_TR.OWNER
        return ESYS_TR.PASSWORD if own else loaded.enter_context(endorsement_policy(self.esapi))


def foreign(prover: Prover, tpm_module: ModuleType, **how: object) -> tuple[Evidence, Enrolled]:
    def make(esapi: ESAPI) -> tuple[Evidence, Enrolled]:
        key = ForeignKey(esapi, prover, **how)  # type: ignore[arg-type]
        key.quote(tpm_module)
        assert key.evidence is not None
        assert key.enrolled is not None
        return key.evidence, key.enrolled

    return prover.tpm._run(make)


def test_an_attestation_key_of_the_owner_hierarchy_is_refused(prover: Prover, tpm_module: ModuleType) -> None:
    """It is restricted and of the right template. Its counters are obfuscated, and nobody has tied it to the EK."""
    evidence, own = foreign(prover, tpm_module, hierarchy=ESYS_TR.OWNER)
    check_quote(evidence, HERE, own, pcr_bitmap=PCR_14, previous=None)
    as_enrolled = replace(own, ak_qualified_name=attestation_qualified_name(
        parse_area(prover.tpm.endorsement_public()), parse_area(evidence.ak_public)
    ))  # fmt: skip
    with pytest.raises(Refused) as error:
        check_quote(evidence, HERE, as_enrolled, pcr_bitmap=PCR_14, previous=None)
    assert error.value.reason is Reason.ATTESTATION_KEY_MISMATCH


@pytest.mark.parametrize("without", [Attributes.RESTRICTED, Attributes.FIXED_TPM | Attributes.FIXED_PARENT])
def test_a_key_that_is_not_restricted_or_may_leave_its_tpm_is_refused(
    prover: Prover, tpm_module: ModuleType, without: Attributes
) -> None:
    """Even if a signer had let it into a certificate."""
    evidence, own = foreign(prover, tpm_module, template=with_attributes(GOOD & ~without))
    with pytest.raises(Refused) as error:
        check_quote(evidence, HERE, own, pcr_bitmap=PCR_14, previous=None)
    assert error.value.reason is Reason.BAD_EVIDENCE


def test_a_certification_is_no_quote(prover: Prover) -> None:
    attested, signature = prover.tpm.certify(prover.ak, prover.tpm.create_identity_key(), ROOT)
    evidence = replace(prover.for_all(HERE), quote=attested, signature=signature)
    assert prover.refuses(evidence) is Reason.BAD_EVIDENCE


def test_a_quote_by_another_enrolled_key_of_the_same_tpm_is_refused(prover: Prover) -> None:
    other = Prover.of(prover.tpm)
    evidence = other.for_all(HERE)
    other.check(evidence)
    assert prover.refuses(evidence) is Reason.ATTESTATION_KEY_MISMATCH
    assert prover.refuses(replace(evidence, ak_public=prover.ak.public)) is Reason.EVIDENCE_SIGNATURE


# --- bytes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    pytest.param(lambda r, s: (r, P256_ORDER - s), id="high s"),
    pytest.param(lambda r, s: (0, s), id="r is 0"),
    pytest.param(lambda r, s: (r, 0), id="s is 0"),
    pytest.param(lambda r, s: (P256_ORDER, s), id="r is n"),
    pytest.param(lambda r, s: (2**256 - 1, s), id="r is above n"),
    pytest.param(lambda r, s: (s, r), id="changed places"),
])  # fmt: skip
def test_r_and_s_out_of_range_and_a_high_s_are_refused(prover: Prover, change: Callable[[int, int], tuple[int, int]]) -> None:
    evidence = prover.for_all(HERE)
    raw = EcdsaSignature.parse(evidence.signature).raw
    r, s = change(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    signature = evidence.signature[:4] + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
    assert prover.refuses(replace(evidence, signature=signature)) is Reason.EVIDENCE_SIGNATURE


@pytest.mark.parametrize("part", ["quote", "signature", "ak_public"])
@pytest.mark.parametrize("tail", [b"\0", b"\0" * 16])
def test_bytes_behind_the_end_of_a_part_are_refused(prover: Prover, part: str, tail: bytes) -> None:
    evidence = prover.for_all(HERE)
    longer = replace(evidence, **{part: getattr(evidence, part) + tail})
    assert prover.refuses(longer) in {Reason.BAD_EVIDENCE, Reason.EVIDENCE_SIGNATURE, Reason.ATTESTATION_KEY_MISMATCH}


# --- time ---------------------------------------------------------------------------------------------------------------


def test_a_tpm_that_was_set_back_to_an_older_state_is_noticed(prover: Prover, swtpm: Swtpm, tmp_path: Path) -> None:
    """The state of the emulator is copied, it is started twice, and then the copy is put back."""
    swtpm.stop()
    shutil.copytree(tmp_path / "swtpm", tmp_path / "copy", ignore=shutil.ignore_patterns("ready"))
    for _ in range(2):
        swtpm.start()
        newest = prover.check(prover.for_all(HERE)).header.clock
        swtpm.stop()
    for file in (tmp_path / "copy").iterdir():
        shutil.copy(file, tmp_path / "swtpm" / file.name)
    swtpm.start()
    evidence = prover.for_all(HERE)
    assert prover.check(evidence).header.clock[0] == newest[0] - 1
    with pytest.raises(Refused) as error:
        prover.check(evidence, previous=newest)
    assert error.value.reason is Reason.TPM_CLOCK


# --- logs ---------------------------------------------------------------------------------------------------------------

BOOTED = 0x40FF  # PCRs 0 to 7 and 14


def others_than(boot: tuple[Made, ...]) -> dict[str, list[Made]]:
    grub = next(number for number, event in enumerate(boot) if event.data == b"grub")
    before, after = [*boot[:grub]], [*boot[grub + 1 :]]
    return {
        "an event is missing": before + after,
        "two events changed places": [*before[:-1], boot[grub], before[-1], *after],
        "an event was put in": [*before, Made(4, b"injected"), boot[grub], *after],
        "an event is hidden by its type": [*before, replace(boot[grub], type=EV_NO_ACTION), *after],
        "an event is in another PCR": [*before, replace(boot[grub], pcr=5), *after],
        "an event has another digest": [*before, replace(boot[grub], digest=sha256(b"bootkit")), *after],
    }


@pytest.mark.parametrize("name", others_than(BOOT))
def test_a_log_of_something_else_than_what_was_quoted_is_noticed(prover: Prover, name: str) -> None:
    for event in BOOT:
        prover.tpm.extend_pcr(event.pcr, event.sha256)
    prover.bitmap = BOOTED
    quoted = prover.check(prover.for_all(HERE)).pcr_digest
    assert account(BOOTED, quoted, parse_boot_log(log(*BOOT))).surplus == 0
    with pytest.raises(Refused) as error:
        account(BOOTED, quoted, parse_boot_log(log(*others_than(BOOT)[name])))
    assert error.value.reason is Reason.PCR_MISMATCH


def test_a_spoofed_type_changes_no_judgement(prover: Prover) -> None:
    """Types and texts are nobody's word: with others the log still leads to the quote, by its digests alone."""
    for event in BOOT:
        prover.tpm.extend_pcr(event.pcr, event.sha256)
    prover.bitmap = BOOTED
    quoted = prover.check(prover.for_all(HERE)).pcr_digest
    spoofed = [replace(event, type=0x80000001, data=b"SecureBoot on", digest=event.sha256) for event in BOOT]
    honest, dressed = (account(BOOTED, quoted, parse_boot_log(log(*events))) for events in (BOOT, spoofed))
    rule = DigestRule(4, allowed=(sha256(b"shim"), sha256(b"grub"), sha256(bytes(4))))
    assert broken_by_events(rule, honest.events) == broken_by_events(rule, dressed.events) == ""
    assert [event.digest for event in honest.events] == [event.digest for event in dressed.events]
