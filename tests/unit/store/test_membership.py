"""Installing a bundle: all of it verifies, or nothing is kept; and nothing goes back."""

import os
from dataclasses import replace

import pytest

from overlay.core.authority.objects import verify_object_zero
from overlay.core.enrolment_files import Bundle
from overlay.core.policy import Policy
from overlay.core.wire import make_map
from overlay.errors import Refused, StateDamaged, UsageError
from overlay.registry import Reason
from overlay.store.membership import (
    MeshRecord,
    StoredCertificate,
    install,
    load_certificate,
    load_mesh,
    save_certificate,
    save_mesh,
)
from overlay.store.state import CERTIFICATE, MESH, StateFolder
from tests.unit.core.authority_kit import DAY, NOW, Member, Mesh, P256Signer, make_member, make_mesh, seed

MESH_KIT = make_mesh()
OTHER = make_mesh("other")
ALICE = make_member(MESH_KIT, "alice")
FOUNDER = P256Signer(seed("founder"))


def bundle(mesh: Mesh = MESH_KIT, member: Member = ALICE, *, policy: Policy | None = None, gate: int = 1) -> Bundle:
    return Bundle(
        mesh_name=mesh.root.name,
        root=mesh.root.der,
        leaf=member.credentials.leaf,
        gate_number=gate,
        gate_key=bytes([gate]) * 32,
        policy=mesh.authority.sign_policy(policy or Policy.default()),
        authority_object=mesh.authority.object_zero(FOUNDER),
    )


def nothing_kept(folder: StateFolder) -> bool:
    return load_mesh(folder) is None and load_certificate(folder) is None


def test_a_good_bundle_is_kept(folder: StateFolder) -> None:
    certificate = install(folder, bundle(), ALICE.node_id, NOW)
    assert certificate == ALICE.peer.certificate
    mesh = load_mesh(folder)
    assert mesh is not None
    assert mesh.root == MESH_KIT.root
    assert (mesh.gate_number, mesh.gate_key) == (1, bytes([1]) * 32)
    assert mesh.trust.policy.policy == Policy.default()
    assert verify_object_zero(mesh.authority_object, mesh.root).number == 0
    assert load_certificate(folder) == StoredCertificate(ALICE.credentials.leaf)


def test_before_enrolment_there_is_neither_mesh_nor_certificate(folder: StateFolder) -> None:
    assert nothing_kept(folder)


def test_a_bundle_for_another_node_is_refused(folder: StateFolder) -> None:
    bob = make_member(MESH_KIT, "bob")
    with pytest.raises(Refused, match=f"the bundle is for {ALICE.node_id.short}") as caught:
        install(folder, bundle(), bob.node_id, NOW)
    assert "request" in caught.value.hint
    assert nothing_kept(folder)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"root": b"x"}, Reason.BAD_CERTIFICATE),
        ({"root": OTHER.root.der, "mesh_name": "other"}, Reason.OTHER_MESH),
        ({"mesh_name": "other"}, Reason.OTHER_MESH),
        ({"leaf": make_member(OTHER, "alice").credentials.leaf}, Reason.OTHER_MESH),
        ({"policy": OTHER.authority.sign_policy(Policy.default())}, Reason.BAD_POLICY),
        ({"authority_object": OTHER.authority.object_zero(FOUNDER)}, Reason.OTHER_MESH),
        ({"chain": (MESH_KIT.root.der,)}, Reason.BAD_CERTIFICATE),
    ],
)
def test_a_bundle_with_one_bad_part_is_refused_as_a_whole(
    folder: StateFolder, part: dict[str, object], reason: Reason
) -> None:
    with pytest.raises(Refused) as caught:
        install(folder, replace(bundle(), **part), ALICE.node_id, NOW)  # type: ignore[arg-type]
    assert caught.value.reason is reason
    assert nothing_kept(folder)


def test_a_bundle_that_came_too_late_is_refused(folder: StateFolder) -> None:
    with pytest.raises(Refused) as caught:
        install(folder, bundle(), ALICE.node_id, NOW + 2 * DAY)
    assert caught.value.reason is Reason.CERTIFICATE_EXPIRED
    assert nothing_kept(folder)


def test_a_folder_never_changes_its_mesh(folder: StateFolder) -> None:
    install(folder, bundle(), ALICE.node_id, NOW)
    there = make_member(OTHER, "alice")
    with pytest.raises(UsageError, match="belongs to the mesh lab"):
        install(folder, bundle(OTHER, there), there.node_id, NOW)
    mesh = load_mesh(folder)
    assert mesh is not None
    assert mesh.root == MESH_KIT.root
    assert load_certificate(folder) == StoredCertificate(ALICE.credentials.leaf)


def test_a_renewed_certificate_replaces_the_old_one(folder: StateFolder) -> None:
    install(folder, bundle(), ALICE.node_id, NOW)
    renewed = make_member(MESH_KIT, "alice", not_before=NOW)
    install(folder, bundle(member=renewed), ALICE.node_id, NOW)
    assert load_certificate(folder) == StoredCertificate(renewed.credentials.leaf)


def test_an_older_bundle_takes_neither_policy_nor_gate_key_back(folder: StateFolder) -> None:
    install(folder, bundle(policy=Policy(version=3), gate=2), ALICE.node_id, NOW)
    install(folder, bundle(policy=Policy(version=2), gate=1), ALICE.node_id, NOW)
    mesh = load_mesh(folder)
    assert mesh is not None
    assert mesh.trust.policy.policy.version == 3
    assert (mesh.gate_number, mesh.gate_key) == (2, bytes([2]) * 32)
    install(folder, bundle(policy=Policy(version=4), gate=3), ALICE.node_id, NOW)
    mesh = load_mesh(folder)
    assert mesh is not None
    assert (mesh.trust.policy.policy.version, mesh.gate_number) == (4, 3)


def record(mesh: Mesh = MESH_KIT) -> MeshRecord:
    given = bundle(mesh)
    return MeshRecord(
        root=mesh.root, gate_number=1, gate_key=bytes(32), authority_object=given.authority_object, policy=given.policy
    )


def test_a_mesh_record_is_kept(folder: StateFolder) -> None:
    save_mesh(folder, record())
    assert load_mesh(folder) == record()
    with pytest.raises(UsageError):
        save_mesh(folder, record(OTHER))


@pytest.mark.parametrize("name", [MESH, CERTIFICATE])
@pytest.mark.parametrize("content", [b"", b"\xff", make_map(b"x")])
def test_a_file_of_another_form_is_named_and_left_as_it_is(folder: StateFolder, name: str, content: bytes) -> None:
    folder.write(name, content)
    before = folder.file(name).read_bytes()
    with pytest.raises(StateDamaged, match=name):
        (load_mesh if name == MESH else load_certificate)(folder)
    assert folder.file(name).read_bytes() == before


def test_a_bundle_is_not_installed_over_a_damaged_record(folder: StateFolder) -> None:
    folder.write(MESH, b"\xff")
    with pytest.raises(StateDamaged, match=MESH):
        install(folder, bundle(), ALICE.node_id, NOW)
    assert folder.read(MESH) == b"\xff"
    assert load_certificate(folder) is None


def test_a_record_whose_signatures_do_not_verify_is_damaged(folder: StateFolder) -> None:
    mesh = record()
    forged = make_map(
        "lab", mesh.root.der, 1, bytes(32), mesh.authority_object, OTHER.authority.sign_policy(Policy.default())
    )
    folder.write(MESH, forged)
    with pytest.raises(StateDamaged, match="not signed by the mesh key"):
        load_mesh(folder)


def test_a_certificate_is_kept_with_its_chain(folder: StateFolder) -> None:
    save_certificate(folder, StoredCertificate(b"leaf", (b"upper", b"top")))
    assert load_certificate(folder) == StoredCertificate(b"leaf", (b"upper", b"top"))
    assert CERTIFICATE in os.listdir(folder.path)
