"""What is in a backup file, and which ones are not believed."""

import ast
import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from overlay.core.keys import NodeId
from overlay.core.wire import u32
from overlay.errors import CheckFailed, OverlayError, UsageError
from overlay.store import state
from overlay.store.backup import KEPT, LEFT_OUT, MANIFEST_MAX, BackupReader, Manifest, write_backup
from overlay.store.files import FILE_MAX
from overlay.store.restored import COUNT_MAX, load_count, save_count
from overlay.store.sealed_file import SealedWriter
from overlay.store.state import (
    AUDIT_STORE,
    BINDINGS,
    CERTIFICATE,
    FOUNDING_KEY,
    IDENTITY_SEED,
    IDENTITY_TPM,
    INVITES,
    MESH,
    PEERS,
    RESTORED,
    SHARE,
    SHARE_NEXT,
    StateFolder,
)

PASSPHRASE = b"correct horse battery staple"
CONTENTS = {IDENTITY_SEED: b"seed", MESH: b"mesh" * 1000, CERTIFICATE: b"", PEERS: b"{}"}
LOGS = bytes(range(256)) * 3000


def manifest(**changes: object) -> Manifest:
    sizes = {name: len(data) for name, data in CONTENTS.items()} | {AUDIT_STORE: len(LOGS)}
    honest = Manifest(
        made_at=datetime(2026, 11, 23, tzinfo=UTC), release="0.1.0", node_id=NodeId(bytes(32)), name="bob",
        mesh_id=bytes(32), mesh_name="home", roles=("worker",), certificate_ends=datetime(2026, 11, 24, tzinfo=UTC),
        is_signer=True, is_founder=False, counted=7, sizes=sizes,
    )  # fmt: skip
    return replace(honest, **changes)  # type: ignore[arg-type]


def written(tmp_path: Path, says: Manifest) -> io.BytesIO:
    file = io.BytesIO()
    (tmp_path / "logs").write_bytes(LOGS)
    write_backup(SealedWriter(file, PASSPHRASE, cost=14), says, CONTENTS, tmp_path / "logs")
    file.seek(0)
    return file


def test_a_backup_comes_back_as_it_was(tmp_path: Path) -> None:
    reader = BackupReader(written(tmp_path, manifest()), PASSPHRASE)
    reader.check()
    assert reader.manifest == manifest()
    assert {name: b"".join(pieces) for name, pieces in reader.files()} == CONTENTS | {AUDIT_STORE: LOGS}


def test_every_file_of_a_state_folder_is_either_in_a_backup_or_left_out() -> None:
    source = ast.parse(Path(state.__file__).read_text())
    names = {
        node.value.value for node in ast.walk(source)
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }  # fmt: skip
    assert {*KEPT, *LEFT_OUT} == names
    assert not set(KEPT) & set(LEFT_OUT)


@pytest.mark.parametrize("name", [SHARE, SHARE_NEXT, FOUNDING_KEY, BINDINGS, INVITES, RESTORED])
def test_shares_and_promises_are_in_no_backup_and_come_out_of_none(tmp_path: Path, name: str) -> None:
    assert name not in KEPT
    with pytest.raises(CheckFailed, match="unknown or twice"):
        BackupReader(written(tmp_path, manifest(sizes=manifest().sizes | {name: 1})), PASSPHRASE)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "", "identity.key.new"])
def test_a_backup_names_no_file_outside_the_state_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckFailed, match="unknown or twice"):
        BackupReader(written(tmp_path, manifest(sizes=manifest().sizes | {name: 1})), PASSPHRASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Bob\n"}, {"mesh_name": ""}, {"sizes": {}}, {"sizes": {MESH: 1, CERTIFICATE: 1}},
        {"sizes": {IDENTITY_SEED: 1, IDENTITY_TPM: 1, MESH: 1, CERTIFICATE: 1}},
        {"sizes": {IDENTITY_SEED: FILE_MAX + 1, MESH: 1, CERTIFICATE: 1}}, {"roles": ("x",) * 17},
    ],
    ids=["name", "mesh", "nothing", "no identity", "two identities", "long", "roles"],
)  # fmt: skip
def test_a_manifest_that_no_node_has_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(CheckFailed, match="cannot be read"):
        BackupReader(written(tmp_path, manifest(**changes)), PASSPHRASE)


def test_a_folder_of_another_format_is_refused_with_the_release_that_made_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format 2") as caught:
        BackupReader(written(tmp_path, manifest(state_format=2, release="9.0")), PASSPHRASE)
    assert caught.value.hint == "use release 9.0"


@pytest.mark.parametrize("more", [-1, 1])
def test_a_backup_that_holds_more_or_less_than_it_says_is_refused(tmp_path: Path, more: int) -> None:
    sizes = manifest().sizes | {AUDIT_STORE: len(LOGS) + more}
    reader = BackupReader(written(tmp_path, manifest(sizes=sizes)), PASSPHRASE)
    with pytest.raises(CheckFailed):
        reader.check()


def test_no_manifest_is_read_that_is_too_long(tmp_path: Path) -> None:
    file = io.BytesIO()
    writer = SealedWriter(file, PASSPHRASE, cost=14)
    writer.write(u32(MANIFEST_MAX + 1) + bytes(MANIFEST_MAX + 1))
    writer.finish()
    file.seek(0)
    with pytest.raises(CheckFailed, match="no manifest"):
        BackupReader(file, PASSPHRASE)


def test_a_file_that_is_exchanged_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    first = written(tmp_path, manifest())
    reader = BackupReader(first, PASSPHRASE)
    for _, pieces in reader.files():
        list(pieces)
    first.seek(0)
    first.write(written(tmp_path, manifest(name="eve")).getvalue())
    with pytest.raises(CheckFailed):
        reader.check()


def test_the_count_of_a_restored_node_is_kept(folder: StateFolder) -> None:
    assert load_count(folder) == 0
    save_count(folder, 1_800_000_000)
    assert load_count(folder) == 1_800_000_000
    save_count(folder, 2**40)
    assert load_count(folder) == COUNT_MAX


def test_a_damaged_count_is_reported_and_not_taken_for_none(folder: StateFolder) -> None:
    for content in (b"", b"\xa1\x00\x01", b"\xa2\x00\x01\x01\x61x"):
        folder.write(RESTORED, content)
        with pytest.raises(OverlayError, match="is damaged"):
            load_count(folder)
