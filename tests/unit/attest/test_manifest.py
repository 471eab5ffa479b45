"""The package manifest: what changes it, and what does not."""

from pathlib import Path

import pytest

from attest.manifest import PACKAGES, installed_root, package_manifest
from overlay.core.wire import sha256
from overlay.errors import HostLacks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for package in PACKAGES:
        (tmp_path / package / "core").mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / "core" / "code.py").write_text(f"name = {package!r}\n")
    return tmp_path


def test_the_manifest_is_a_hash_over_sorted_paths_and_hashes(root: Path) -> None:
    rows = b""
    for package in ("attest", "audit", "discovery", "overlay"):
        for name, text in (("__init__.py", ""), ("core/code.py", f"name = {package!r}\n")):
            path = f"{package}/{name}".encode()
            rows += len(path).to_bytes(2, "big") + path + sha256(text.encode())
    assert package_manifest(root) == sha256(b"overlay/1 manifest\0", rows)


def test_one_byte_changes_it(root: Path) -> None:
    before = package_manifest(root)
    (root / "audit" / "core" / "code.py").write_text("name = 'Audit'\n")
    assert package_manifest(root) != before


def test_a_file_more_changes_it(root: Path) -> None:
    before = package_manifest(root)
    (root / "overlay" / "extra.py").write_text("")
    assert package_manifest(root) != before


def test_a_file_under_another_name_changes_it(root: Path) -> None:
    before = package_manifest(root)
    (root / "overlay" / "core" / "code.py").rename(root / "overlay" / "core" / "kode.py")
    assert package_manifest(root) != before


def test_what_is_not_program_text_does_not_change_it(root: Path) -> None:
    before = package_manifest(root)
    (root / "overlay" / "core" / "__pycache__").mkdir()
    (root / "overlay" / "core" / "__pycache__" / "code.cpython-311.pyc").write_bytes(b"cache")
    (root / "README.md").write_text("hello")
    assert package_manifest(root) == before


def test_a_missing_package_is_an_error(root: Path) -> None:
    (root / "audit").rename(root / "elsewhere")
    with pytest.raises(HostLacks):
        package_manifest(root)


def test_a_file_that_cannot_be_read_is_an_error(root: Path) -> None:
    (root / "audit" / "gone.py").symlink_to(root / "nowhere")
    with pytest.raises(HostLacks):
        package_manifest(root)


def test_the_installed_packages_have_a_manifest() -> None:
    assert len(package_manifest(installed_root())) == 32
