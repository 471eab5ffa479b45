"""What is in a backup file: a manifest, then the content of each file of the state folder that is in it, one after the other.

Small files are kept without their digests: the whole backup is authenticated, and restoring writes new ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Self

from overlay.core.certificate_profile import ROLE_SIZE_MAX, ROLES_MAX, is_name
from overlay.core.endorsement import TIME_MAX
from overlay.core.keys import NodeId
from overlay.core.wire import Array, Bytes, Flag, Text, Tuple, UInt, make_map, malformed, open_map, u32
from overlay.errors import CheckFailed, Refused, UsageError
from overlay.store.files import FILE_MAX
from overlay.store.sealed_file import SealedReader, SealedWriter
from overlay.store.state import (
    AK_TPM,
    AUDIT_STORE,
    AUTHORITY,
    BINDINGS,
    CERTIFICATE,
    CLOCK_FLOOR,
    CONTROL_SOCKET,
    FORMAT,
    FORMAT_FILE,
    FOUNDING_KEY,
    GATE_KEYS,
    IDENTITY_SEED,
    IDENTITY_TPM,
    INVITES,
    LOCK_FILE,
    MEMBERS,
    MESH,
    ORDERS,
    PEERS,
    RECOVERY,
    RENEWAL_ATTEMPT,
    RENEWALS,
    RESTORED,
    ROLLOVER,
    SESSION_KEYS,
    SETTINGS,
    SHARE,
    SHARE_NEXT,
    TOPIC_STORE,
    TRUST,
    UPKEEP,
    WORK_STORE,
)

IDENTITY: Final = (IDENTITY_SEED, IDENTITY_TPM, AK_TPM)
CHECKED: Final = (*IDENTITY, MESH, CERTIFICATE, CLOCK_FLOOR, AUTHORITY, TRUST, ORDERS, MEMBERS)  # with a digest in front
TEXTS: Final = (PEERS, SETTINGS)
KEPT: Final = (*CHECKED, *TEXTS, AUDIT_STORE)
LEFT_OUT: Final = (  # shares and what signers promised: an old copy would sign or promise something twice
    FORMAT_FILE, LOCK_FILE, CONTROL_SOCKET, RESTORED, SESSION_KEYS, FOUNDING_KEY, SHARE, SHARE_NEXT, BINDINGS, INVITES,
    RECOVERY, RENEWALS, ROLLOVER, RENEWAL_ATTEMPT, TOPIC_STORE, WORK_STORE, UPKEEP, GATE_KEYS,
)
MANIFEST_MAX: Final = 16 * 1024  # our guess: 14 names and a few facts
PIECE: Final = 256 * 1024
_SECONDS: Final = UInt(TIME_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Whose backup it is, of when, and what follows."""

    made_at: datetime
    release: str
    node_id: NodeId
    name: str
    mesh_id: bytes  # 32
    mesh_name: str
    roles: tuple[str, ...]
    certificate_ends: datetime
    is_signer: bool  # it has a share of the mesh key, which is not in the backup
    is_founder: bool  # it holds the founding key, which is not in the backup
    counted: int  # the highest number of a log or an order of this node
    sizes: Mapping[str, int]  # by name, in the order in which they follow
    state_format: int = FORMAT

    @property
    def is_tpm(self) -> bool:
        """Whether the identity key is in a TPM, and so not here."""
        return IDENTITY_TPM in self.sizes

    def pack(self) -> bytes:
        """{0:1, 1:state format, 2:release, 3:made_at, 4:node_id, 5:name, 6:mesh_id, 7:mesh name, 8:end of the
        certificate, 9:signer, 10:founder, 11:counted, 12:[[name, size]], 13:roles}."""
        return make_map(
            self.state_format, self.release, int(self.made_at.timestamp()), self.node_id, self.name, self.mesh_id,
            self.mesh_name, int(self.certificate_ends.timestamp()), self.is_signer, self.is_founder, self.counted,
            [[name, size] for name, size in self.sizes.items()], list(self.roles),
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED; UsageError for a folder of another format."""
        state_format, *found = open_map(
            data, UInt(), Text(64), _SECONDS, Bytes(32), Text(63), Bytes(32), Text(63), _SECONDS, Flag(), Flag(), UInt(),
            Array(Tuple((Text(64), UInt())), len(KEPT)), Array(Text(ROLE_SIZE_MAX), ROLES_MAX), limit=MANIFEST_MAX,
        )
        release, made_at, node_id, name, mesh_id, mesh_name, ends, signer, founder, counted, files, roles = found
        if state_format != FORMAT:
            raise UsageError(
                f"the backup is of a state folder of format {state_format}, and this release knows format {FORMAT}",
                hint=f"use release {release}",
            )
        if not is_name(name) or not is_name(mesh_name):
            malformed("what is no name")
        return cls(
            state_format=state_format, release=release, made_at=datetime.fromtimestamp(made_at, UTC), node_id=NodeId(node_id),
            name=name, mesh_id=mesh_id, mesh_name=mesh_name, certificate_ends=datetime.fromtimestamp(ends, UTC),
            is_signer=signer, is_founder=founder, counted=counted, sizes=_checked_sizes(files), roles=tuple(roles),
        )


def _checked_sizes(files: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Known names, none twice, small ones small; raises Refused(MALFORMED)."""
    sizes = {name: size for name, size in files}
    if len(sizes) != len(files) or not set(sizes) <= set(KEPT):
        malformed("a file that is unknown or twice there")
    if any(size > FILE_MAX for name, size in sizes.items() if name != AUDIT_STORE):
        malformed("a file that is too long")
    if len(sizes.keys() & {IDENTITY_SEED, IDENTITY_TPM}) != 1 or not {MESH, CERTIFICATE} <= set(sizes):
        malformed("no node has a folder like that")
    return sizes


def write_backup(writer: SealedWriter, manifest: Manifest, contents: Mapping[str, bytes], audit: Path | None) -> None:
    """All of it; `audit`: a copy of the audit store that nobody writes to."""
    packed = manifest.pack()
    writer.write(u32(len(packed)) + packed)
    for name in manifest.sizes:
        if name in contents:
            writer.write(contents[name])
    if audit is not None:
        with audit.open("rb") as file:
            while piece := file.read(PIECE):
                writer.write(piece)
    writer.finish()


class BackupReader:
    """An opened backup; its manifest has been read."""

    def __init__(self, file: BinaryIO, passphrase: bytes) -> None:
        """Raises as `SealedReader`, and UsageError for a backup of another format."""
        self._sealed = SealedReader(file, passphrase)
        self.manifest = self._read_manifest()

    def _read_manifest(self) -> Manifest:
        size = int.from_bytes(self._sealed.read_exactly(4), "big")
        if size > MANIFEST_MAX:
            raise CheckFailed("the backup has no manifest that could be read", hint="take another one")
        try:
            return Manifest.unpack(self._sealed.read_exactly(size))
        except Refused as error:
            raise CheckFailed(f"the backup cannot be read: {error}", hint="another release may have made it") from None

    def check(self) -> None:
        """Read all of it once and begin anew: nothing is used of a file that is not whole. Raises CheckFailed."""
        for _, pieces in self.files():
            for _ in pieces:
                pass
        if self._sealed.read(1):
            raise CheckFailed("the backup holds more than it says", hint="take another copy of the file")
        self._sealed.rewind()
        if self._read_manifest() != self.manifest:
            raise CheckFailed("the backup changed while it was read", hint="try again")

    def files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Each file and its content in pieces, which have to be taken before the next file."""
        for name, size in self.manifest.sizes.items():
            yield name, self._pieces(size)

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._sealed.read_exactly(min(size, PIECE))
            size -= len(piece)
            yield piece
