"""The commands of the authority, on real processes: what they print, what a dry run leaves alone, exit codes and hints."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.cli.node_kit import SOFTWARE, Machine, Process

QUIET = {"OVERLAY_MDNS": "false", "OVERLAY_LISTEN": "127.0.0.1:0"}


@asynccontextmanager
async def founder(folder: Path) -> AsyncIterator[tuple[Machine, Process]]:
    """alice, who runs."""
    alice = Machine(folder / "alice", QUIET)
    await alice.overlay("init", "alice", "--mesh", "test", *SOFTWARE)
    async with alice.running() as process:
        yield alice, process


async def token_of(alice: Machine, process: Process, *words: str) -> str:
    made = await alice.overlay("invite", "--json", "--address", f"127.0.0.1:{process.port}", *words)
    return str(made.json["token"])


async def test_a_machine_is_invited_joins_runs_and_is_revoked_by_commands(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, process):
        made = await alice.overlay("invite", "--role", "worker", "--address", f"127.0.0.1:{process.port}")
        [token] = made.output.split()
        bob = Machine(tmp_path / "bob", QUIET)
        joined = (await bob.overlay("join", "-", "--name", "bob", "--json", *SOFTWARE, input=token.encode())).json
        assert (joined["name"], joined["roles"], joined["level"]) == ("bob", ["worker"], 1)
        assert token not in str(joined)
        async with bob.running("--seed", f"127.0.0.1:{process.port}"):
            await process.wait(lambda event: event["event"] == "peer-up" and event["name"] == "bob")
            status = (await alice.overlay("ca", "status", "--json")).json
            assert (status["threshold"], status["founding"], status["answering"]) == (1, True, 1)
            assert "founding key: one machine holds the mesh" in (await bob.overlay("ca", "status")).output

            renewed = (await bob.overlay("renew", "--json")).json
            assert renewed["name"] == "bob"

            revoked = (await alice.overlay("revoke", "bob", "--reason", "key-compromise", "--json")).json
            assert revoked["kind"] == "revoke" and revoked["counts"]
            await process.wait(lambda event: event["event"] == "peer-down" and event["name"] == "bob")
        status = (await alice.overlay("ca", "status", "--json")).json
        assert status["revocation_list"] == 1 and status["revoked"] == [joined["node"]]
        again = await bob.overlay("join", token, *SOFTWARE, code=2)
        assert "belongs to a mesh already" in again.errors and "overlay: hint:" in again.errors


async def test_a_token_that_went_astray_is_taken_back(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, process):
        assert "no invite is open" in (await alice.overlay("withdraw")).output
        first, second = [await token_of(alice, process, "--name", name) for name in ("bob", "carol")]
        open_ones = (await alice.overlay("withdraw", "--json")).json["invites"]
        assert [(one["name"], one["used"], one["uses"]) for one in open_ones] == [("bob", 0, 1), ("carol", 0, 1)]
        assert first not in str(open_ones)
        dry = (await alice.overlay("withdraw", first, "--dry-run", "--json")).json
        assert dry["dry_run"] and not dry["counts"]

        assert (await alice.overlay("withdraw", "-", "--json", input=first.encode())).json["counts"]
        carol_invite = next(one["invite"] for one in open_ones if one["name"] == "carol")
        assert carol_invite in (await alice.overlay("withdraw")).output
        assert "nobody joins" in (await alice.overlay("withdraw", carol_invite)).output
        assert "withdrawn before" in (await alice.overlay("withdraw", second, code=2)).errors
        assert "does not name an invite" in (await alice.overlay("withdraw", "0" * 31 + "x", code=2)).errors
        for token in (first, second):
            refused = await Machine(tmp_path / "thief", QUIET).overlay("join", token, *SOFTWARE, code=4)
            assert "bad_invite" in refused.errors  # why is for operators, in the log of a signer
        assert (await alice.overlay("withdraw", "--json")).json["invites"] == []


async def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, _process):
        before = (await alice.overlay("ca", "status", "--json")).json
        for words in (
            ("invite",), ("quarantine", "alice"), ("revoke", "alice"), ("leave",), ("ca", "refresh"),
            ("ca", "distribute", "-t", "1", "alice"), ("ca", "reshare", "-t", "1", "alice"),
        ):
            done = await alice.overlay(*words, "--dry-run", "--json")
            assert "token" not in done.json, words
        assert (await alice.overlay("ca", "status", "--json")).json == before
        first = (await alice.overlay("invite", "--json")).json
        assert first["counts"]


async def test_a_dry_run_of_an_invite_says_what_it_would_do(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, _process):
        assert "would make a token" in (await alice.overlay("invite", "--dry-run")).output


async def test_what_makes_no_sense_ends_with_code_2_and_a_hint(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, _process):
        for words, said in (
            (("revoke", "nobody"), "no node 'nobody'"),
            (("invite", "--ttl", "soon"), "'soon' is no time"),
            (("invite", "--ttl", "0h"), "'0h' is no time"),
            (("invite", "--address", "nowhere"), "'nowhere' is no address"),
            (("ca", "countersign", "00"), "does not name an order"),
        ):
            result = await alice.overlay(*words, code=2)
            assert f"overlay: error: {said}" in result.errors.replace('"', "'") or said in result.errors, result
            assert result.output == ""
        assert "overlay: hint:" in (await alice.overlay("revoke", "nobody", code=2)).errors


async def test_a_node_that_is_no_operator_may_not_order_and_ends_with_code_4(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, process):
        token = await token_of(alice, process, "--name", "bob")
        bob = Machine(tmp_path / "bob", QUIET)
        await bob.overlay("join", token, *SOFTWARE)
        async with bob.running("--seed", f"127.0.0.1:{process.port}"):
            for words in (("invite",), ("quarantine", "bob"), ("ca", "refresh")):
                result = await bob.overlay(*words, code=4)
                assert "overlay: error:" in result.errors and "overlay: hint:" in result.errors, result


async def test_without_a_node_that_runs_an_order_cannot_be_given(tmp_path: Path) -> None:
    alice = Machine(tmp_path / "alice", QUIET)
    await alice.overlay("init", "alice", "--mesh", "test", *SOFTWARE)
    result = await alice.overlay("invite", code=3)
    assert "overlay: hint:" in result.errors


async def test_a_token_that_is_none_is_refused_with_a_hint_and_nothing_is_made(tmp_path: Path) -> None:
    bob = Machine(tmp_path / "bob", QUIET)
    for text, code in (("aaaa", 4), ("not a token!", 4), ("  ", 2), ("@" + str(tmp_path / "nothing"), 2)):
        result = await bob.overlay("join", text, *SOFTWARE, code=code)
        assert "overlay: error:" in result.errors, result
        assert not (tmp_path / "bob").exists()
    assert "overlay: hint:" in (await bob.overlay("join", "aaaa", *SOFTWARE, code=4)).errors


async def test_a_token_in_a_file_works_and_a_second_machine_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, process):
        (tmp_path / "token").write_text(await token_of(alice, process) + "\n")
        bob, carol = Machine(tmp_path / "bob", QUIET), Machine(tmp_path / "carol", QUIET)
        said = (await bob.overlay("join", "@" + str(tmp_path / "token"), "--name", "bob", *SOFTWARE)).output
        assert "this machine is bob, level 1; start it with: overlay run" in said
        refused = await carol.overlay("join", "@" + str(tmp_path / "token"), "--name", "carol", *SOFTWARE, code=4)
        assert "invite_spent" in refused.errors and "overlay: hint:" in refused.errors


async def test_nobody_answers_a_joiner_and_it_says_how_to_go_on(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, process):
        token = await token_of(alice, process)
    result = await Machine(tmp_path / "bob", QUIET).overlay("join", token, "--wait", "1", *SOFTWARE, code=1)
    assert "nobody answers at 127.0.0.1" in result.errors and "overlay invite --address" in result.errors


async def test_a_node_in_quarantine_starts_again_says_so_and_stays_out(tmp_path: Path) -> None:
    async with founder(tmp_path) as (alice, process):
        bob = Machine(tmp_path / "bob", QUIET)
        await bob.overlay("join", await token_of(alice, process), "--name", "bob", *SOFTWARE)
        seed = "--seed", f"127.0.0.1:{process.port}"
        async with bob.running(*seed) as running:
            await process.wait(lambda event: event["event"] == "peer-up" and event["name"] == "bob")
            await alice.overlay("quarantine", "bob")
            began = await running.wait(lambda event: event["event"] == "quarantine-began")
            await bob.overlay("stop")
        at_rest = await bob.overlay("status", code=3)
        assert "quarantine   until" in at_rest.output and "stays out until then" in at_rest.output
        async with bob.running(*seed) as running:
            again = await running.wait(lambda event: event["event"] == "quarantine-began")
            assert again["until"] == began["until"]
            status = (await bob.overlay("status", "--json")).json
            assert status["links"] == [] and any("in quarantine until" in one for one in status["warnings"])
