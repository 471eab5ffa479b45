"""Secrets that we know are looked for in everything that a mesh says while it is founded, joined, used and damaged."""

import base64
import json
import re
from pathlib import Path

import trio

from overlay.app.authority.ledger import Ledger
from overlay.app.enrol import found_mesh
from overlay.core.authority.sharing import Share
from overlay.core.policy import Policy
from overlay.core.token import parse_token
from overlay.store.identity import load_founding_key, load_session_keys
from overlay.store.membership import load_mesh
from overlay.store.state import StateFolder
from tests.cli.node_kit import PATIENCE, SOFTWARE, Machine
from tests.cli.script_kit import OVERLAY

LOUD = {"OVERLAY_MDNS": "false", "OVERLAY_LISTEN": "127.0.0.1:0", "OVERLAY_LOG_LEVEL": "debug"}
COMMANDS = (
    ("status",), ("ca", "status"), ("renew",), ("audit", "tail"), ("doctor",), ("config",), ("revoke", "nobody"),
    ("call", "bob", "nothing", "x"), ("ca", "refresh", "--dry-run"), ("quarantine", "bob", "--dry-run"),
)


def secrets_of(path: Path) -> dict[str, bytes]:
    """What lies in a state folder and must not be said; the names are for the failure's message."""
    found: dict[str, bytes] = {}
    with StateFolder.open(path, exclusive=False) as folder:
        mesh, keys, founding = load_mesh(folder), load_session_keys(folder), load_founding_key(folder)
        assert mesh is not None
        found["gate key"] = mesh.gate_key
        seed = folder.read("identity.key")
        assert seed is not None
        found["identity seed"] = seed[-36:-4] if len(seed) > 32 else seed
        if keys is not None:
            found |= {"noise key": keys.noise_private, "message seed": keys.message_seed}
        share = Ledger(folder, mesh).share
        if share is not None:
            found["share"] = share.secret.encode()
        if founding is not None:
            found["founding key"] = founding
    return found


def forms(secret: bytes) -> list[str]:
    """How it could stand in a text, lower case."""
    plain = [secret.hex(), base64.b64encode(secret).decode(), base64.urlsafe_b64encode(secret).decode().rstrip("=")]
    plain += [base64.b32encode(secret).decode().rstrip("="), repr(secret)[2:-1], str(list(secret))]
    numbers = [str(int.from_bytes(secret, "little")), str(int.from_bytes(secret, "big"))]
    return [one.lower() for one in (*plain, *numbers)]


def spoken(secrets: dict[str, bytes], said: str) -> list[str]:
    """Names of the secrets in a text; a part of one is enough."""
    text = re.sub(r"\s+", " ", said).lower()  # as one line
    return [name for name, secret in secrets.items() for form in forms(secret) if form[:24] in text]


async def run_once(machine: Machine, said: list[str], *words: str) -> None:
    """A command, whatever its exit code."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [*OVERLAY, *words], env=machine.environment, cwd=machine.state.parent, capture_stdout=True, capture_stderr=True,
            check=False,
        )  # fmt: skip
    said += [done.stdout.decode(), done.stderr.decode()]
    assert "Traceback" not in said[-1]


def test_the_search_finds_what_is_there() -> None:
    secret = bytes(range(50, 82))
    for form in forms(secret):
        assert "planted" in spoken({"planted": secret}, f"some words {form} and more")
    assert spoken({"planted": secret}, "some words") == []


async def test_no_secret_is_in_what_commands_nodes_and_logs_say(tmp_path: Path) -> None:
    alice, bob = Machine(tmp_path / "alice", LOUD), Machine(tmp_path / "bob", LOUD)
    said: list[str] = []

    await run_once(alice, said, "init", "alice", "--mesh", "test", *SOFTWARE)
    async with alice.running() as first:
        made = (await alice.overlay("invite", "--json", "--address", f"127.0.0.1:{first.port}")).json
        token = made.pop("token")
        said.append(json.dumps(made))
        parsed = parse_token(token)
        said.append(repr(parsed) + str(parsed))
        await run_once(bob, said, "join", token, "--name", "bob", *SOFTWARE)
        await run_once(bob, said, "join", token[:-3] + "aaa", "--name", "bob", *SOFTWARE)
        async with bob.running("--seed", f"127.0.0.1:{first.port}") as second:
            await first.wait(lambda event: event["event"] == "peer-up")
            for words in COMMANDS:
                await run_once(alice, said, *words)
                await run_once(bob, said, *words, "--json")
            await run_once(alice, said, "revoke", "bob")
            secrets = {f"{name} of alice": value for name, value in secrets_of(alice.state).items()}
            secrets |= {f"{name} of bob": value for name, value in secrets_of(bob.state).items()}
            said += first.lines + second.lines
    secrets["seed of the token"] = parsed.seed
    said += [machine.state.with_suffix(".err").read_text() for machine in (alice, bob)]
    assert len(secrets) >= 10
    assert spoken(secrets, "\n".join(said)) == []
    assert token not in "\n".join(said)


def test_what_holds_a_secret_hides_it(tmp_path: Path) -> None:
    with StateFolder.create(tmp_path / "alice") as folder:
        found_mesh(folder, "alice", "home", Policy.default(), None)
        mesh = load_mesh(folder)
        assert mesh is not None
        ledger = Ledger(folder, mesh)
        share = ledger.share
        assert isinstance(share, Share)
        texts = [repr(one) for one in (share, share.secret, share.group, mesh, ledger, folder, load_session_keys(folder))]
    assert spoken(secrets_of(tmp_path / "alice"), "\n".join(texts)) == []
