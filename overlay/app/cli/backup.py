"""`overlay backup` and `overlay restore`: a node in one encrypted file, and back; both say what is not in it."""

import os
import stat
import sys
import unicodedata
from pathlib import Path
from typing import Any, Final

import click

from overlay.app.backup import check_target, make_backup
from overlay.app.cli.common import Invocation, standard_options
from overlay.app.output import note, plain, say, say_json
from overlay.app.restore import restore_backup
from overlay.core.keys import base32
from overlay.errors import UsageError
from overlay.net.system import wall_clock
from overlay.store.backup import IDENTITY, Manifest
from overlay.store.files import FILE_MODE, check_private
from overlay.store.state import AUDIT_STORE, PEERS, SETTINGS, check_free

STREAM: Final = "-"
SHORTEST: Final = 8  # letters; NIST SP 800-63B, section 5.1.1.1
LONGEST: Final = 1024  # bytes: our guess

passphrase_option = click.option(
    "--passphrase-file", metavar="FILE", help="Its first line is the passphrase; - for the input. Else it is asked for."
)


@click.command()
@click.argument("file", type=Path)
@passphrase_option
@click.option("--force", is_flag=True, help="Replace a FILE that is there.")
@standard_options
def backup(invocation: Invocation, file: Path, passphrase_file: str | None, *, force: bool) -> None:
    """Write identity, membership, trust and logs of this node to FILE, encrypted. The node may be running."""
    check_target(file, overwrite=force)
    passphrase = _passphrase(passphrase_file, again=True)
    if len(passphrase) < SHORTEST:
        raise UsageError(f"the passphrase has less than {SHORTEST} letters", hint="take several words")
    made = make_backup(invocation.folder, file, passphrase.encode(), wall_clock(), overwrite=force)
    absent = _absent(made)
    if invocation.json:
        say_json({"file": str(file), "bytes": file.stat().st_size, **_fields(made), "absent": absent})
        return
    say(f"{made.name} of the mesh {made.mesh_name} is in {plain(str(file))}, {_size(file.stat().st_size)}, encrypted")
    _say_list("in it", _present(made))
    _say_list("not in it", [f"{what}: {why}" for what, why in absent.items()])
    say("Keep the passphrase elsewhere: without it nobody opens the file")


@click.command()
@click.argument("file", type=Path)
@passphrase_option
@click.option("--dry-run", is_flag=True, help="Check the file and the folder, and change nothing.")
@standard_options
def restore(invocation: Invocation, file: Path, passphrase_file: str | None, *, dry_run: bool) -> None:
    """Make the state folder of a node anew from a backup FILE. The node must run nowhere else."""
    state = invocation.folder
    check_free(state)
    has_settings = (state / SETTINGS).exists()
    try:
        source = file.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    with source:
        passphrase = _passphrase(passphrase_file, again=False)
        found = restore_backup(source, state, passphrase.encode(), wall_clock(), dry_run=dry_run)
    absent, steps = _absent(found), _steps(found)
    if invocation.json:
        say_json({"restored": not dry_run, "state": str(state), **_fields(found), "absent": absent, "next": steps})
        return
    done = "would be restored to" if dry_run else "is restored in"
    when = f"{found.made_at:%Y-%m-%d %H:%M:%S} UTC"
    say(f"{found.name} of the mesh {found.mesh_name}, as it was on {when}, {done} {plain(str(state))}")
    _say_list("in it", _present(found))
    _say_list("not in it", [f"{what}: {why}" for what, why in absent.items()])
    _say_list("next", steps)
    if has_settings and SETTINGS in found.sizes:
        note(f"{state / SETTINGS} is left as it is")


# --- what is said -----------------------------------------------------------------------------------------------------


def _present(made: Manifest) -> list[str]:
    """What a user knows of."""
    found = ["membership, trust, orders"]
    if not made.is_tpm:
        found.insert(0, "the identity key")
    if AUDIT_STORE in made.sizes:
        found.append("the audit logs, ours and the copies of the others'")
    if PEERS in made.sizes:
        found.append("the peer book")
    if SETTINGS in made.sizes:
        found.append("the settings")
    return found


def _absent(made: Manifest) -> dict[str, str]:
    """What somebody could look for in vain, and what to do about it."""
    found = {}
    if made.is_tpm:
        found["the identity key"] = (
            "it stays in its TPM; elsewhere join as a new node, then an operator: `overlay replace OLD NEW`"
        )
    if made.is_founder:
        found["the founding key"] = "it is never copied, and without it the mesh ends: run `overlay ca distribute`"
    if made.is_signer:
        found["the share of the mesh key"] = "the others repair it: after a restore run `overlay ca repair`"
    found["publications on topics"] = "the others keep them for a day and send them again"
    return found


def _steps(made: Manifest) -> list[str]:
    """What is left to do after a restore."""
    found = ["see to it that this node runs nowhere else, now and later: two of them are a clone (CLONED_IDENTITY)"]
    if made.is_tpm:
        found.append("it starts on the machine with its TPM only")
    found.append("overlay run; it begins a new audit log, which names the end of the old one")
    ends = f"{made.certificate_ends:%Y-%m-%d %H:%M} UTC"
    found.append(f"its certificate is good until {ends}; once it has ended, or if it was renewed after the backup,")
    roles = "".join(f" --role {role}" for role in made.roles)
    found.append(f"stop this node; an operator: overlay invite --name {made.name}{roles}; here: overlay join TOKEN")
    if made.is_signer:
        found.append("overlay ca repair, when it is linked to the other signers")
    return found


def _fields(made: Manifest) -> dict[str, Any]:
    return {
        "name": made.name, "node": str(made.node_id), "mesh_name": made.mesh_name, "mesh": base32(made.mesh_id),
        "made_at": made.made_at.isoformat(), "release": made.release, "identity": "tpm" if made.is_tpm else "file",
        "signer": made.is_signer, "founding_key": made.is_founder, "certificate_ends": made.certificate_ends.isoformat(),
        "files": {name: size for name, size in made.sizes.items() if name not in IDENTITY},
    }


def _say_list(title: str, lines: list[str]) -> None:
    for number, line in enumerate(lines):
        say(f"{title if number == 0 else '':10} {plain(line)}")


def _size(count: int) -> str:
    return f"{count / 1024:.0f} KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.1f} MiB"


# --- the passphrase ---------------------------------------------------------------------------------------------------


def _passphrase(named: str | None, *, again: bool) -> str:
    """From a file, the input or the terminal; never from the command line, which others on this machine can see."""
    if named is not None:
        return _normal(_first_line(named))
    if not sys.stdin.isatty():
        hint = "name a file that holds it with --passphrase-file, or - for the input"
        raise UsageError("there is no terminal to ask for the passphrase", hint=hint)
    found = click.prompt("Passphrase", hide_input=True, confirmation_prompt="Again" if again else False, err=True)
    return _normal(str(found))


def _first_line(named: str) -> bytes:
    """Raises UsageError; StateDamaged if others may read the file."""
    if named == STREAM:
        return sys.stdin.buffer.readline(LONGEST + 1)
    try:
        with open(named, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                check_private(Path(named), status, FILE_MODE)
            return file.readline(LONGEST + 1)
    except OSError as error:
        raise UsageError(f"cannot read {named}: {error.strerror}") from None


def _normal(line: bytes | str) -> str:
    """One form for letters that can be written in two ways; raises UsageError."""
    try:
        text = line.decode() if isinstance(line, bytes) else line
    except UnicodeDecodeError:
        raise UsageError("the passphrase is not UTF-8") from None
    text = unicodedata.normalize("NFC", text.rstrip("\r\n"))
    if not text or len(text.encode()) > LONGEST:
        raise UsageError(f"a passphrase has 1 to {LONGEST} bytes")
    return text
