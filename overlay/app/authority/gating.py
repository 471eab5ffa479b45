"""The gate keys of a node that runs: in memory for whoever knocks, on the disk for the next start, and how another is made."""

from datetime import datetime

import trio

from overlay.core.chance import Chance
from overlay.core.gate_keys import KEY_SIZE, GateKeys, sign_gate_key
from overlay.core.identity import LocalIdentity
from overlay.core.keys import MeshId
from overlay.errors import Refused
from overlay.store.files import damaged
from overlay.store.membership import MeshRecord
from overlay.store.state import GATE_KEYS, StateFolder


class GateRing:
    """Of one node. `passing` is one list for ever, which the engine reads anew each time: the key in use stands first."""

    def __init__(self, folder: StateFolder, mesh: MeshRecord, at: datetime) -> None:
        """Blocks. Raises StateDamaged."""
        self._folder = folder
        kept = _load(folder)
        begin = GateKeys(()).adding(mesh.gate_number, mesh.gate_key, at)
        self.keys = begin if kept is None else kept.adding(mesh.gate_number, mesh.gate_key, at)
        self.passing = [one.key for one in self.keys.keys]
        self._writing = trio.Lock()

    @property
    def newest(self) -> tuple[int, bytes]:
        """Number and key of the one in use: for tokens and bundles."""
        return self.keys.newest.number, self.keys.newest.key

    def take(self, number: int, key: bytes, signed: bytes, at: datetime) -> bool:
        """One that has verified; whether it is new. It is not durable yet: `write`."""
        before, self.keys = self.keys, self.keys.adding(number, key, at, signed)
        self.passing[:] = [one.key for one in self.keys.keys]
        return self.keys != before

    def next_one(self, identity: LocalIdentity, mesh_id: MeshId, chance: Chance, at: datetime) -> bytes:
        """Another one by us, as it is carried."""
        return sign_gate_key(
            self.keys.newest.number + 1, chance.token(KEY_SIZE), signer=identity.message, credentials=identity.credentials,
            mesh_id=mesh_id, at=at,
        )  # fmt: skip

    async def write(self) -> None:
        """Durable on return."""
        async with self._writing:
            await trio.to_thread.run_sync(self._folder.write, GATE_KEYS, self.keys.pack())


def _load(folder: StateFolder) -> GateKeys | None:
    content = folder.read(GATE_KEYS)
    try:
        return None if content is None else GateKeys.unpack(content)
    except Refused as error:
        raise damaged(folder.file(GATE_KEYS), str(error)) from None
