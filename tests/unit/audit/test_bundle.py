"""A bundle verifies by the id of the mesh alone, whatever is changed in it is found, and openssl checks its certificates."""

import subprocess
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import audit
from audit.bundle import Wanted, write_bundle
from audit.bundle_check import BundleReport, is_bundle, verify_bundle
from audit.entry import parse_entry
from audit.kept_forks import KeptFork
from audit.raw_logs import RawLog, fill, split
from overlay.core.mesh.chains import item_hash
from overlay.errors import CheckFailed, Refused, StateDamaged, UsageError
from overlay.registry import Reason
from tests.unit.audit.fork_kit import Forker
from tests.unit.audit.proof_kit import Witnessed, witnessed_store
from tests.unit.core.authority_kit import make_mesh


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Witnessed:
    path = tmp_path_factory.mktemp("bundle") / "audit.sqlite3"
    return witnessed_store(path, checkpoints=((6, ("bob", "carol")), (9, ("bob",))))


@pytest.fixture(scope="module")
def bundle(world: Witnessed) -> Path:
    return written(world, world.path.with_name("bundle.zip"), Wanted(proofs=((world.alice.log_id, 3),)))


def written(world: Witnessed, path: Path, wanted: Wanted | None = None) -> Path:
    store = world.store()
    try:
        write_bundle(store, world.mesh.root, path, world.mesh.at + timedelta(hours=1), wanted=wanted)
    finally:
        store.close()
    return path


def verified(world: Witnessed, path: Path) -> BundleReport:
    return verify_bundle(path, world.mesh.mesh_id)


def changed(bundle: Path, path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy in which parts are changed; None leaves one out."""
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return path


def one(part: str, change: Callable[[bytes], bytes | None]) -> Callable[[str, bytes], bytes | None]:
    return lambda name, content: change(content) if part in name else content


def entries_of(world: Witnessed) -> str:
    return world.alice.log_id.hex() + "/entries"


def flip(content: bytes, at: int = -1) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + (content[at + 1 :] if at != -1 else b"")


# --- what holds -------------------------------------------------------------------------------------------------------


def test_a_bundle_holds_by_the_id_of_the_mesh_alone(world: Witnessed, bundle: Path) -> None:
    found = verified(world, bundle)
    assert found.holds
    assert [log.size for log in found.logs.logs] == [
        len(log.entries) for log in sorted(world.logs.values(), key=lambda log: log.member.node_id)
    ]
    assert [proof.entry for proof in found.proofs] == [world.alice.entries[3]]
    assert any("entry 3 of alice" in line for line in found.lines)
    found.demand()
    assert audit.verify(bundle, root=world.mesh.mesh_id) == found
    with pytest.raises(UsageError):
        audit.verify(world.path, root=world.mesh.mesh_id)
    assert is_bundle(bundle)
    assert not is_bundle(world.path)


def test_a_bundle_of_one_node_holds_the_logs_of_its_witnesses_too(world: Witnessed, tmp_path: Path) -> None:
    alice, bob = (world.logs[name].member.node_id for name in ("alice", "bob"))
    both = verified(world, written(world, tmp_path / "alice.zip", Wanted(nodes=frozenset({alice}))))
    assert len(both.logs.logs) == 3
    only = verified(world, written(world, tmp_path / "bob.zip", Wanted(nodes=frozenset({bob}))))
    assert [log.name for log in only.logs.logs] == ["bob"]
    assert only.holds


def test_the_entries_are_a_sequence_of_cose_messages(world: Witnessed, bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        content = archive.read(f"logs/{world.alice.log_id.hex()}/entries.cborseq")
    assert split(content) == tuple(world.alice.raws)
    assert b"".join(world.alice.raws) == content


def test_openssl_verifies_the_certificates(world: Witnessed, bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
        names = [name for name in archive.namelist() if name.startswith("certificates/")]
    assert len(names) == 3
    at = str(int(world.mesh.at.timestamp()))
    for name in names:
        command = ["openssl", "verify", "-attime", at, "-CAfile", "root.pem", "-untrusted", name, name]
        found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert found.stdout.strip() == f"{name}: OK", found.stderr


def test_it_says_how_others_check_it(world: Witnessed, bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        text = archive.read("README.txt").decode()
    assert f"--root {world.mesh.mesh_id}" in text
    assert text.count("/w+") == 2
    assert f"/{world.alice.log_id.hex()}+" in text


# --- what does not ----------------------------------------------------------------------------------------------------


def test_the_bundle_of_another_mesh_is_refused(bundle: Path) -> None:
    with pytest.raises(Refused) as caught:
        verify_bundle(bundle, make_mesh("other").mesh_id)
    assert caught.value.reason is Reason.OTHER_MESH


@pytest.mark.parametrize("seq", [0, 1, 5, 11])
def test_a_changed_entry_is_named(world: Witnessed, bundle: Path, tmp_path: Path, seq: int) -> None:
    raws = list(world.alice.raws)
    raws[seq] = flip(raws[seq])
    found = verified(world, changed(bundle, tmp_path / "other.zip", one(entries_of(world), lambda _: b"".join(raws))))
    assert not found.holds
    (bad,) = [log for log in found.logs.logs if not log.holds]
    assert bad.fault is not None
    assert bad.fault.seq == seq
    with pytest.raises(CheckFailed):
        found.demand()


def test_a_log_that_was_cut_off_is_found_by_its_checkpoints(world: Witnessed, bundle: Path, tmp_path: Path) -> None:
    short = b"".join(world.alice.raws[:7])
    found = verified(world, changed(bundle, tmp_path / "other.zip", one(entries_of(world), lambda _: short)))
    assert found.logs.holds
    assert "a checkpoint of 9 entries" in found.faults[0]
    with pytest.raises(CheckFailed, match="does not fit"):
        found.demand()


def test_a_log_whose_author_has_signed_another_root_is_found(world: Witnessed, bundle: Path, tmp_path: Path) -> None:
    other = world.cut(5)
    for _ in range(7):
        other.note("another story")
    lie = b"".join(other.raws)
    found = verified(world, changed(bundle, tmp_path / "other.zip", one(entries_of(world), lambda _: lie)))
    assert any("does not fit the entries" in line for line in found.faults)


def test_a_checkpoint_that_its_author_has_not_signed_is_found(world: Witnessed, bundle: Path, tmp_path: Path) -> None:
    def forge(content: bytes) -> bytes:
        lines = content.decode().split("\n")
        return "\n".join([*lines[:4], *lines[5:]]).encode()

    found = verified(world, changed(bundle, tmp_path / "other.zip", one("/6.checkpoint", forge)))
    assert any("is not its author's" in line for line in found.faults)


@pytest.mark.parametrize("part", ["/6.checkpoint", "proofs/"])
def test_a_part_that_is_nonsense_is_a_fault(world: Witnessed, bundle: Path, tmp_path: Path, part: str) -> None:
    found = verified(world, changed(bundle, tmp_path / "other.zip", one(part, lambda _: b"nonsense\n")))
    assert len(found.faults) == 1
    assert part.strip("/") in found.faults[0]


def test_a_proof_that_does_not_hold_is_a_fault(world: Witnessed, bundle: Path, tmp_path: Path) -> None:
    change = one("proofs/", lambda content: content.replace(b"index 3", b"index 2"))
    assert "proofs/" in verified(world, changed(bundle, tmp_path / "other.zip", change)).faults[0]


def test_a_fork_proof_that_does_not_hold_is_a_fault(world: Witnessed, bundle: Path, tmp_path: Path) -> None:
    path = changed(bundle, tmp_path / "other.zip", lambda _name, content: content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("forks/x.cbor", b"\xa3\x00\x01\x01\x00\x02\x41\x00")
    assert "forks/x.cbor" in verified(world, path).faults[0]


def test_a_fork_proof_that_holds_names_the_node(world: Witnessed, tmp_path: Path) -> None:
    eve = Forker.after(3, mesh=world.mesh)
    path = tmp_path / "audit.sqlite3"
    fill(path, [RawLog(log_id=eve.left.log_id, raws=tuple(eve.left.raws))], [
        KeptFork(node_id=eve.member.node_id, at=world.mesh.at, raw=eve.proof())
    ])  # fmt: skip
    found = verified(world, written(Witnessed(world.mesh, {"alice": eve.left}, path), tmp_path / "eve.zip"))
    assert found.holds
    assert [fork.name for fork in found.forks] == ["eve"]
    assert any("eve has told two stories" in line for line in found.lines)


@pytest.mark.parametrize("change", [
    one("root.pem", lambda _: None), one("root.pem", lambda _: b"nonsense"), one("entries", lambda _: b"nonsense"),
    one("entries", lambda content: content[:-1]),
])  # fmt: skip
def test_what_cannot_be_read_as_a_bundle_says_so(
    world: Witnessed, bundle: Path, tmp_path: Path, change: Callable[[str, bytes], bytes | None]
) -> None:
    with pytest.raises(StateDamaged):
        verified(world, changed(bundle, tmp_path / "other.zip", change))


def test_a_compressed_part_or_one_that_stands_twice_is_refused(world: Witnessed, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("root.pem", source.read("root.pem"))
    with pytest.raises(StateDamaged, match="compressed"):
        verified(world, path)
    with pytest.raises(StateDamaged, match="no bundle"):
        verified(world, world.path)


def test_objects_of_an_authority_that_do_not_hold_are_refused(world: Witnessed, bundle: Path, tmp_path: Path) -> None:
    path = changed(bundle, tmp_path / "other.zip", lambda _name, content: content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("authority.cbor", b"nonsense")
    with pytest.raises(Refused):
        verified(world, path)


@settings(max_examples=60)
@given(st.data())
def test_whatever_byte_is_changed_the_entries_are_the_same_or_it_is_found(
    world: Witnessed, bundle: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(bundle.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("any") / "other.zip"
    path.write_bytes(content)
    try:
        found = verified(world, path)
    except (Refused, StateDamaged):
        return
    if found.holds and len(found.logs.logs) == 3:
        right = {log.log_id: item_hash(log.raws[-1]) for log in world.logs.values()}
        assert {log.log_id for log in found.logs.logs} == set(right)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for raw in (data, b"\xd2\x84" + data):
        try:
            parts = split(raw)
        except Refused:
            continue
        assert b"".join(parts) == raw


def test_a_sequence_is_cut_where_messages_end(world: Witnessed) -> None:
    assert [parse_entry(raw).says.seq for raw in split(b"".join(world.alice.raws))] == list(range(12))
