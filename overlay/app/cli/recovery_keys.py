"""`overlay init --recovery-out DIR`: recovery keys as files, one for each place where they will be kept."""

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from overlay.app.output import note, plain, say
from overlay.core.authority.recovery_keys import RecoveryKeys
from overlay.core.keys import Ed25519Signer, MeshId
from overlay.core.recovery_files import RecoveryKey
from overlay.errors import UsageError
from overlay.store.exchange import write_text
from overlay.store.files import FOLDER_MODE

USUAL: Final = "2of3"  # protocol: what a mesh has unless told
SEED_SIZE: Final = 32
_FORM: Final = re.compile(r"([0-9]{1,2})of([0-9]{1,2})")

recovery_keys_option = click.option(
    "--recovery-keys", metavar="MofN", help="How many recovery keys there are, and how many of them it takes."
)
recovery_out_option = click.option(
    "--recovery-out", metavar="DIR", type=Path, help="Make recovery keys, 2of3 unless told, and write each to a file in DIR."
)


@dataclass(slots=True)
class KeyMaker:
    """Makes as many keys as are wanted, which may be none."""

    mesh_name: str
    folder: Path | None
    count: int = 0
    threshold: int = 0
    files: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, wanted: str | None, folder: Path | None, mesh_name: str) -> "KeyMaker":
        """What the options say. Raises UsageError."""
        if folder is None:
            if wanted is not None:
                raise UsageError("nobody would get the recovery keys", hint="name a folder for them: --recovery-out DIR")
            return cls(mesh_name, None)
        found = _FORM.fullmatch(wanted or USUAL)
        if found is None:
            raise UsageError(f"{wanted!r} is no number of recovery keys", hint="for example 2of3: two of three keys sign")
        threshold, count = int(found[1]), int(found[2])
        try:
            examples = (Ed25519Signer(bytes([place]) * SEED_SIZE).public_key for place in range(count))
            RecoveryKeys.of(*examples, threshold=threshold)
        except ValueError as error:
            raise UsageError(f"{wanted}: {error}", hint="for example 2of3: two of three keys sign") from None
        if not count:
            raise UsageError("no recovery keys, and a folder for them", hint="leave out both options")
        return cls(mesh_name, folder, count, threshold)

    def make(self, mesh_id: MeshId) -> RecoveryKeys:
        """The public keys; the secret ones are in their files when this returns. Raises UsageError."""
        if self.folder is None:
            return RecoveryKeys()
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        keys = [RecoveryKey(secrets.token_bytes(SEED_SIZE), mesh_id, place) for place in range(self.count)]
        for key in keys:
            file = self.folder / f"{self.mesh_name}-recovery-{key.place + 1}-of-{self.count}.key"
            write_text(file, key.to_text(self.mesh_name, self.count, self.threshold), private=True)
            self.files.append(file)
        return RecoveryKeys.of(*(key.signer.public_key for key in keys), threshold=self.threshold)

    def tell(self) -> None:
        """What to do with them."""
        for file in self.files:
            say(f"key   {plain(str(file))}")
        if not self.files:
            note("there are no recovery keys: if too many signers are lost, so is the mesh (--recovery-out makes keys)")
            return
        note(
            f"any {self.threshold} of these {self.count} files name a new authority: bring each to another place, offline, "
            "and delete it here"
        )
