"""Founding, asking, admitting, installing: what is checked before anything is written. With TPMs: tests/cli/test_tpm.py."""

from dataclasses import replace
from pathlib import Path

import pytest

from overlay.app.enrol import admit, admit_request, found_mesh, install, make_request
from overlay.core.certificates import verify_leaf
from overlay.core.enrolment_files import Bundle, EnrolmentRequest
from overlay.core.policy import Attestation, Policy
from overlay.errors import Refused, StateInUse, UsageError
from overlay.net.system import wall_clock
from overlay.registry import Reason
from overlay.store.clock import load_floor
from overlay.store.identity import load_founding_key
from overlay.store.membership import load_certificate, load_mesh
from overlay.store.state import FORMAT_FILE, LOCK_FILE, StateFolder

DEFAULT = Policy.default()


def found(path: Path, policy: Policy = DEFAULT) -> Path:
    with StateFolder.create(path) as folder:
        found_mesh(folder, "alice", "test", policy, None)
    return path


def ask(path: Path) -> str:
    with StateFolder.create(path) as folder:
        return make_request(folder, None)


def files(path: Path) -> set[str]:
    return {one.name for one in path.iterdir()} - {FORMAT_FILE, LOCK_FILE}


def test_the_founder_is_operator_and_signer(tmp_path: Path) -> None:
    with StateFolder.open(found(tmp_path / "a"), exclusive=False) as folder:
        mesh, certificate = load_mesh(folder), load_certificate(folder)
        assert mesh is not None
        assert certificate is not None
        leaf = verify_leaf(certificate.leaf, certificate.chain, mesh.root, wall_clock())
        assert (leaf.name, leaf.roles, leaf.level) == ("alice", ("operator", "signer"), 1)
        assert load_floor(folder) == leaf.not_before


def test_a_node_that_was_admitted_is_a_member_with_its_roles(tmp_path: Path) -> None:
    founder, request = found(tmp_path / "a"), ask(tmp_path / "b")
    admitted = admit_request(founder, request, "bob", ["worker", "door", "worker"])
    assert (admitted.facts.roles, admitted.facts.level, admitted.sealed) == (("door", "worker"), 1, False)
    with StateFolder.open(tmp_path / "b", exclusive=True) as folder:
        assert install(folder, admitted.bundle, None) == admitted.node_id
        assert load_founding_key(folder) is None
        assert load_floor(folder) is not None


def test_asking_again_changes_nothing(tmp_path: Path) -> None:
    request = ask(tmp_path / "b")
    with StateFolder.open(tmp_path / "b", exclusive=False) as folder:
        assert make_request(folder, None) == request


def test_admitting_does_not_need_the_lock(tmp_path: Path) -> None:
    founder, request = found(tmp_path / "a"), ask(tmp_path / "b")
    with StateFolder.open(founder, exclusive=True):
        assert "BUNDLE" in admit(founder, request, "bob", ())


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (replace(DEFAULT, attestation=Attestation.REQUIRE), Reason.EVIDENCE_NOT_ACCEPTED),
        (replace(DEFAULT, minimum_level=2), Reason.LEVEL_TOO_LOW),
    ],
)
def test_a_founder_whom_the_policy_would_not_let_in_is_refused_and_nothing_is_kept(
    tmp_path: Path, policy: Policy, reason: Reason
) -> None:
    with pytest.raises(Refused) as refused:
        found(tmp_path / "a", policy)
    assert refused.value.reason is reason
    assert files(tmp_path / "a") == set()


def test_a_folder_with_an_identity_founds_no_mesh(tmp_path: Path) -> None:
    ask(tmp_path / "b")
    before = files(tmp_path / "b")
    with StateFolder.open(tmp_path / "b", exclusive=True) as folder, pytest.raises(UsageError, match="identity"):
        found_mesh(folder, "bob", "test", DEFAULT, None)
    assert files(tmp_path / "b") == before


@pytest.mark.parametrize(
    ("name", "roles"), [("Bob", ()), ("", ()), ("bob", ("Ä",)), ("bob", ("",)), ("bob", tuple("abcdefghijklmnopq"))]
)
def test_what_is_no_name_or_role_is_not_issued(tmp_path: Path, name: str, roles: tuple[str, ...]) -> None:
    founder, request = found(tmp_path / "a"), ask(tmp_path / "b")
    with pytest.raises(UsageError):
        admit(founder, request, name, roles)


def test_only_the_founder_admits(tmp_path: Path) -> None:
    request = ask(tmp_path / "b")
    with pytest.raises(UsageError, match="does not hold the key of a mesh"):
        admit(tmp_path / "b", request, "bob", ())


def test_a_request_with_another_signature_is_refused(tmp_path: Path) -> None:
    founder, request = found(tmp_path / "a"), ask(tmp_path / "b")
    csr = EnrolmentRequest.from_text(request).csr
    with pytest.raises(Refused) as refused:
        admit(founder, EnrolmentRequest(csr[:-1] + bytes([csr[-1] ^ 1])).to_text(), "bob", ())
    assert refused.value.reason is Reason.BAD_CERTIFICATE


def test_a_bundle_for_another_node_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    bundle = admit(found(tmp_path / "a"), ask(tmp_path / "b"), "bob", ())
    ask(tmp_path / "c")
    before = files(tmp_path / "c")
    with StateFolder.open(tmp_path / "c", exclusive=True) as folder, pytest.raises(Refused):
        install(folder, bundle, None)
    assert files(tmp_path / "c") == before


def test_a_bundle_whose_root_was_exchanged_is_refused(tmp_path: Path) -> None:
    request = ask(tmp_path / "b")
    good = Bundle.from_text(admit(found(tmp_path / "a"), request, "bob", ()))
    other = Bundle.from_text(admit(found(tmp_path / "x"), request, "bob", ()))
    with StateFolder.open(tmp_path / "b", exclusive=True) as folder, pytest.raises(Refused):
        install(folder, replace(good, root=other.root).to_text(), None)


def test_a_folder_in_use_takes_no_bundle(tmp_path: Path) -> None:
    ask(tmp_path / "b")
    with StateFolder.open(tmp_path / "b", exclusive=True), pytest.raises(StateInUse):
        StateFolder.open(tmp_path / "b", exclusive=True)
