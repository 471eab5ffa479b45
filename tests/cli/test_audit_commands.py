"""The commands of the audit log between two real nodes: found, shown, proven, exported, and checked where no mesh is."""

import json
import sqlite3
from pathlib import Path

import trio

from tests.cli.node_kit import Machine, make_pair


async def worked(folder: Path) -> tuple[Machine, Machine, str]:
    """Two nodes that have written and witnessed each other's logs, and have ended; the id of their mesh."""
    alice, bob = await make_pair(folder)
    async with alice.running() as first, bob.running("--seed", f"127.0.0.1:{first.port}") as second:
        for process in (first, second):
            await process.wait(lambda event: event["event"] == "peer-up")
        for door in ("7b", "8c"):
            await alice.overlay("audit", "append", "door.opened", json.dumps({"door": door}), "--wait")
        with trio.fail_after(20):
            await alice.overlay("audit", "append", "door.closed", "null", "--witnessed")
        mesh = (await alice.overlay("status", "--json")).json["mesh"]
        doctor = (await alice.overlay("audit", "doctor", "--json")).json
        assert all(one["good"] for one in doctor)
        assert {"check": "node", "good": True, "found": "runs"} in doctor
    return alice, bob, mesh


async def test_entries_are_found_shown_proven_and_exported(tmp_path: Path) -> None:
    _alice, bob, mesh = await worked(tmp_path)
    stranger = Machine(tmp_path / "stranger")

    found = (await bob.overlay("audit", "log", "--node", "alice", "--type", "door.opened", "--text", "8C", "--json")).json
    assert found["body"]["value"] == {"door": "8c"}
    assert (await bob.overlay("audit", "log", "--until", "1d")).output == ""
    assert len((await bob.overlay("audit", "log", "-n", "2", "--since", "1h")).output.splitlines()) == 2
    name = f"alice/{found['seq']}"
    for words in (name, f"{found['log'][:8]}/{found['seq']}", found["hash"][:12]):
        assert (await bob.overlay("audit", "show", words, "--json")).json["hash"] == found["hash"]
    assert '"door": "8c"' in (await bob.overlay("audit", "show", name)).output

    await bob.overlay("audit", "prove", name, "--out", "door.tlog-proof")
    checked = (await stranger.overlay("audit", "check-proof", "door.tlog-proof", "--root", mesh, "--timely", "--json")).json
    assert (checked["hash"], checked["cosigned"], checked["witnesses"]) == (found["hash"], 1, 1)
    assert "1 of 1" in (await stranger.overlay("audit", "check-proof", "door.tlog-proof", "--root", mesh)).output

    await bob.overlay("audit", "export", "logs.zip", "--entry", name)
    verified = await stranger.overlay("audit", "verify", "logs.zip", "--root", mesh)
    assert "all holds: 2 logs" in verified.output
    assert (await stranger.overlay("audit", "verify", "logs.zip", "--root", mesh, "--json")).json["proofs"][0]["timely"]
    wrong = await stranger.overlay("audit", "verify", "logs.zip", "--root", mesh[1:] + mesh[0], code=2)
    assert "neither the id of a mesh" in wrong.errors or "is of the mesh" in wrong.errors


async def test_what_was_changed_is_named_by_every_command_that_checks(tmp_path: Path) -> None:
    alice, bob, mesh = await worked(tmp_path)
    stranger = Machine(tmp_path / "stranger")
    await bob.overlay("audit", "prove", "alice/2", "--out", "door.tlog-proof")
    await bob.overlay("audit", "export", "logs.zip")

    path = tmp_path / "door.tlog-proof"
    path.write_bytes(path.read_bytes().replace(b"index 2", b"index 3"))
    assert "proves nothing" in (await stranger.overlay("audit", "check-proof", path.name, "--root", mesh, code=1)).errors

    bundle = tmp_path / "logs.zip"
    bundle.write_bytes(bundle.read_bytes().replace(b'{"door":"8c"}', b'{"door":"9c"}'))
    await stranger.overlay("audit", "verify", "logs.zip", "--root", mesh, code=5)  # its check sums show it first

    store = sqlite3.connect(bob.state / "audit.sqlite3")
    store.execute("UPDATE entries SET raw = replace(raw, '8c', '9c') WHERE typeof(raw) = 'blob' AND instr(raw, '8c')")
    store.execute("UPDATE entries SET raw = CAST(raw AS BLOB)")
    store.commit()
    store.close()
    verified = await bob.overlay("audit", "verify", code=1)
    assert "bad signature" in verified.errors
    assert "later entries prove nothing" in verified.errors
    (await alice.overlay("audit", "verify")).output.index("all holds")


async def test_old_entries_are_pruned_and_the_node_goes_on(tmp_path: Path) -> None:
    alice, bob, mesh = await worked(tmp_path)
    assert "say which entries" in (await bob.overlay("audit", "prune", code=2)).errors
    done = (await bob.overlay("audit", "prune", "--below", "4", "--node", "alice", "--json")).json
    assert [(one["name"], one["below"]) for one in done] == [("alice", 4)]
    verified = await bob.overlay("audit", "verify")
    assert "contents below 4 were pruned" in verified.output
    assert "were pruned here" in (await bob.overlay("audit", "export", "logs.zip", code=2)).errors
    assert "nothing was erased" in (await bob.overlay("audit", "prune", "--before", "1d")).errors
    await bob.overlay("audit", "prove", "alice/4", "--out", "door.tlog-proof")
    await Machine(tmp_path / "stranger").overlay("audit", "check-proof", "door.tlog-proof", "--root", mesh, "--timely")
    async with bob.running():
        await bob.overlay("audit", "append", "after", "1")
    await bob.overlay("audit", "verify")
    await alice.overlay("audit", "verify")


async def test_a_receipt_is_for_the_author_only(tmp_path: Path) -> None:
    alice, bob, _ = await worked(tmp_path)
    assert "a receipt is signed by the author" in (await bob.overlay("audit", "prove", "alice/2", "--receipt", code=2)).errors
    await alice.overlay("audit", "prove", "alice/2", "--receipt", "--out", "door.cose")
    assert (tmp_path / "door.cose").read_bytes()[:2] == b"\xd2\x84"


async def test_names_that_lead_nowhere_say_so(tmp_path: Path) -> None:
    alice, _, mesh = await worked(tmp_path)
    for words, message in (
        (("show", "alice/99"), "there is no entry"), (("show", "nobody/1"), "there is no log of nobody"),
        (("show", "xyz"), "names no entry"), (("show", "00000000"), "there is no entry"),
        (("log", "--since", "soon"), "is no time"), (("prove", "alice/99"), "there is no entry"),
        (("export", "no/folder/x.zip"), "cannot write"), (("check-proof", "none"), "cannot read"),
        (("verify", "--root", "x"), "neither the id of a mesh"), (("verify", "--root", mesh), "by the root itself"),
    ):  # fmt: skip
        code = 3 if words[0] == "export" else 2
        assert message in (await alice.overlay("audit", *words, code=code)).errors
