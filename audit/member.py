"""The logs of a node that does not run: its state folder says who it is, under which keys, and in which mesh."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from audit.author import LogSigner
from audit.bundle_check import BundleReport, is_bundle, verify_bundle
from audit.verifier import Report, verify_store
from audit.writer import LogWriter, wall_clock
from overlay.core.certificates import Root
from overlay.core.keys import MeshId
from overlay.core.trust import Credentials
from overlay.errors import UsageError
from overlay.store.identity import load_session_keys
from overlay.store.membership import load_certificate, load_mesh
from overlay.store.state import AUDIT_STORE, StateFolder

_START_ONCE: Final = 'start the node once, with "overlay run": it makes the keys of a day'


def open_log(
    path: str | Path, *, root: Root | None = None, signer: LogSigner | None = None,
    clock: Callable[[], datetime] = wall_clock,
) -> LogWriter:
    """Open a log to write, with no node: of a member's state folder, or a file of one's own. A context manager.

    Args:
        path: a state folder, which is locked; or, with `root` and `signer`, a file, made if it is not there.
        root: the mesh's founding root.
        signer: the message key and what speaks for it.
        clock: the time of day, aware.

    Raises:
        UsageError: the folder belongs to no mesh, or its node never ran.
        StateInUse: its node runs: `overlay.connect_local` reaches it.
        StateDamaged, HostLacks, Refused: see `LogWriter.open`; the keys of the last start last a day.
    """
    path = Path(path)
    if root is not None and signer is not None:
        return LogWriter.open(path, root=root, signer=signer, at=clock)
    if root is not None or signer is not None or not path.is_dir():
        raise UsageError("a log in a file of its own needs a root and a signer", hint="or name the state folder of a member")
    folder = StateFolder.open(path, exclusive=True)
    try:
        return LogWriter.open(
            folder.file(AUDIT_STORE), root=root_of(folder), signer=_signer_of(folder), at=clock, release=folder.close
        )
    except BaseException:
        folder.close()
        raise


def verify(path: str | Path, *, root: Root | MeshId | None = None) -> Report | BundleReport:
    """Check every entry of every log in a state folder, store or bundle, from the mesh's root up; nothing recorded is believed.

    Args:
        path: a state folder, a file with logs, whose node may run, or a bundle.
        root: the mesh's founding root, for a bundle its id is enough; None for the one that the folder was enrolled under.

    Raises:
        UsageError: there is no root to go by.
        StateDamaged: the file cannot be read at all.
        Refused: the bundle is of another mesh.
    """
    path = Path(path)
    if not path.is_dir() and root is not None and is_bundle(path):
        return verify_bundle(path, root)
    if isinstance(root, MeshId) or (root is None and not path.is_dir()):
        hint = "or name the state folder of a member"
        raise UsageError("who verifies a file has to name the root of the mesh", hint=hint)
    if not path.is_dir():
        assert root is not None
        return verify_store(path, root)
    with StateFolder.open(path, exclusive=False) as folder:
        return verify_store(folder.file(AUDIT_STORE), root or root_of(folder))


def root_of(folder: StateFolder) -> Root:
    """The founding root. Raises UsageError for a folder that belongs to no mesh, StateDamaged."""
    mesh = load_mesh(folder)
    if mesh is None:
        raise UsageError("this node belongs to no mesh, so there is nothing to verify by")
    return mesh.root


def signer_in(folder: StateFolder) -> LogSigner | None:
    """The message key of the last start, and the credentials that speak for it; None before the first. Raises StateDamaged."""
    keys, certificate = load_session_keys(folder), load_certificate(folder)
    if keys is None or certificate is None:
        return None
    return LogSigner(keys.message, Credentials(keys.endorsement, certificate.leaf, certificate.chain))


def _signer_of(folder: StateFolder) -> LogSigner:
    found = signer_in(folder)
    if found is None:
        raise UsageError(f"the node in {folder.path} has never run, so it has no keys to sign with", hint=_START_ONCE)
    return found
