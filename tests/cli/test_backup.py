"""`overlay backup` and `overlay restore` as a user meets them: on processes, at a terminal, and when something is wrong."""

import os
import pty
import select
import sys
from pathlib import Path

import pytest

from overlay.store.identity import load_identity
from overlay.store.state import StateFolder
from tests.cli.node_kit import Machine, make_pair
from tests.cli.script_kit import OVERLAY
from tests.cli.test_tpm import machine_with_tpm

PASSPHRASE = "correct horse battery staple"


def passphrase_file(folder: Path, text: str = PASSPHRASE, mode: int = 0o600) -> str:
    path = folder / "passphrase"
    path.write_text(text + "\nanother line\n")
    path.chmod(mode)
    return str(path)


def new_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_a_node_is_backed_up_while_it_runs_and_comes_back_elsewhere(tmp_path: Path) -> None:
    alice, bob = await make_pair(tmp_path)
    secret = ("--passphrase-file", passphrase_file(tmp_path))
    async with alice.running() as first:
        async with bob.running("--seed", f"127.0.0.1:{first.port}") as second:
            await second.wait(lambda event: event["event"] == "peer-up")
            made = (await bob.overlay("backup", "bob.backup", *secret, "--json")).json
            assert (made["name"], made["mesh_name"], made["identity"], made["signer"]) == ("bob", "test", "file", False)
            assert "identity.key" not in str(made["files"])
            await bob.overlay("audit", "append", "count", "2", "--wait")
            await bob.overlay("stop")
        again = Machine(tmp_path / "again", bob.settings)
        would = (await again.overlay("restore", "bob.backup", *secret, "--dry-run", "--json")).json
        assert not would["restored"] and not again.state.exists()
        done = await again.overlay("restore", "bob.backup", *secret)
        assert "is restored in" in done.output and "CLONED_IDENTITY" in done.output
        assert "overlay invite --name bob --role worker" in done.output
        async with again.running("--seed", f"127.0.0.1:{first.port}") as third:
            await third.wait(lambda event: event["event"] == "peer-up")
            await again.overlay("audit", "append", "count", "3", "--wait")
            assert (await again.overlay("status", "--json")).json["node"] == made["node"]
        assert not [line for line in first.lines if "FORKED" in line or "chain-rejected" in line]
    for machine in (alice, again):
        assert (await machine.overlay("audit", "verify", "--json")).json["holds"]
    with StateFolder.open(bob.state, exclusive=False) as folder:
        seed = load_identity(folder)
    assert isinstance(seed, bytes) and seed not in (tmp_path / "bob.backup").read_bytes()


async def test_what_is_not_in_a_backup_is_said_with_what_to_do(tmp_path: Path) -> None:
    alice, _ = await make_pair(tmp_path)
    secret = ("--passphrase-file", "-")
    words = (PASSPHRASE + "\n").encode()
    made = await alice.overlay("backup", "a.backup", *secret, input=words)
    assert "the founding key: it is never copied" in made.output and "overlay ca distribute" in made.output
    done = (await Machine(tmp_path / "again").overlay("restore", "a.backup", *secret, "--json", input=words)).json
    assert done["founding_key"] and "the founding key" in done["absent"]
    assert not (tmp_path / "again" / "founding.key").exists()


async def test_what_cannot_be_done_ends_with_a_code_and_a_hint_and_changes_nothing(tmp_path: Path) -> None:
    alice, _ = await make_pair(tmp_path)
    secret = ("--passphrase-file", passphrase_file(tmp_path))
    await alice.overlay("backup", "a.backup", *secret)
    data = (tmp_path / "a.backup").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-1])
    (tmp_path / "other").write_bytes(b"hello")
    short, wrong, public = (("--passphrase-file", passphrase_file(new_folder(tmp_path / name), *how)) for name, how in (
        ("short", ("short",)), ("wrong", ("some other words",)), ("public", (PASSPHRASE, 0o644))
    ))  # fmt: skip
    new = Machine(tmp_path / "new")
    for machine, words, code, said in (
        (alice, ("backup", "a.backup", *secret), 2, "a.backup is there already"),
        (alice, ("backup", "b.backup"), 2, "there is no terminal to ask for the passphrase"),
        (alice, ("backup", "b.backup", *short), 2, "less than 8 letters"),
        (alice, ("backup", "b.backup", "--passphrase-file", "nothing"), 2, "cannot read nothing"),
        (alice, ("backup", "nowhere/b.backup", *secret), 2, "there is no folder nowhere"),
        (alice, ("restore", "a.backup", *secret), 2, "is not empty"),
        (new, ("backup", "b.backup", *secret), 2, "there is no node in"),
        (new, ("restore", "nothing", *secret), 2, "cannot read nothing"),
        (new, ("restore", "other", *secret), 2, "is no backup of a node"),
        (new, ("restore", "cut", *secret), 1, "the backup was cut short or changed"),
        (new, ("restore", "a.backup", *wrong), 1, "passphrase is wrong"),
    ):
        result = await machine.overlay(*words, code=code)
        assert said in result.errors, result
        assert not result.output
    for words in (("backup", "b.backup"), ("restore", "a.backup")):
        machine = alice if words[0] == "backup" else new
        errors = (await machine.overlay(*words, *public, code=5)).errors
        assert "is open to other users" in errors
    assert not new.state.exists()
    assert not (tmp_path / "b.backup").exists()
    assert (tmp_path / "a.backup").read_bytes() == data
    await alice.overlay("backup", "a.backup", *secret, "--force")
    assert (tmp_path / "a.backup").read_bytes() != data


def at_terminal(machine: Machine, words: tuple[str, ...], typed: list[str]) -> tuple[int, str]:
    """A command at a terminal; what is typed goes in when it asks. Its exit code and all that stood on the screen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(machine.state.parent)
        os.execve(sys.executable, [*OVERLAY, *words], machine.environment)
    screen = ""
    try:
        while True:
            assert select.select([terminal], [], [], 30)[0], screen
            part = os.read(terminal, 4096).decode()
            screen += part
            if part.endswith(": ") and typed:
                os.write(terminal, typed.pop(0).encode() + b"\n")
            if not part:
                break
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen


async def test_a_terminal_is_asked_twice_and_shows_nothing_of_the_passphrase(tmp_path: Path) -> None:
    alice, _ = await make_pair(tmp_path)
    code, screen = at_terminal(alice, ("backup", "a.backup"), [PASSPHRASE, PASSPHRASE])
    assert code == 0 and "alice of the mesh test is in a.backup" in screen
    assert PASSPHRASE not in screen and screen.count("Passphrase: ") == 1 and screen.count("Again: ") == 1
    again = Machine(tmp_path / "again")
    code, screen = at_terminal(again, ("restore", "a.backup"), [PASSPHRASE])
    assert code == 0 and "is restored in" in screen and PASSPHRASE not in screen
    code, screen = at_terminal(Machine(tmp_path / "third"), ("restore", "a.backup"), ["something else"])
    assert code == 1 and "the passphrase is wrong" in screen


@pytest.mark.tpm
async def test_an_identity_in_a_tpm_stays_there_and_comes_back_with_that_tpm_only(tmp_path: Path) -> None:
    secret = ("--passphrase-file", passphrase_file(tmp_path))
    async with machine_with_tpm(tmp_path, "alice") as alice, machine_with_tpm(tmp_path, "bob") as bob:
        await alice.overlay("init", "alice", "--mesh", "test")
        made = await alice.overlay("backup", "a.backup", *secret)
        assert "it stays in its TPM" in made.output and "overlay replace OLD NEW" in made.output
        again = Machine(tmp_path / "again", alice.settings)
        done = (await again.overlay("restore", "a.backup", *secret, "--json")).json
        assert done["identity"] == "tpm" and "the identity key" in done["absent"]
        async with again.running():
            assert (await again.overlay("status", "--json")).json["level"] == 2
        elsewhere = Machine(tmp_path / "elsewhere", bob.settings)
        await elsewhere.overlay("restore", "a.backup", *secret)
        errors = (await elsewhere.overlay("run", code=1)).errors
        assert "overlay: error: the TPM refused" in errors
