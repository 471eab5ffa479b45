"""Joining a mesh by token, over loopback: who gets in, what it costs, and what every refusal says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from overlay.app.authority.joining import JoinOver
from overlay.core.authority.invites import InviteBook
from overlay.core.authority.order_bodies import Invite
from overlay.core.join_key import JoinKey
from overlay.core.join_result import JoinResult
from overlay.core.token import Token, parse_token
from overlay.core.trust_update import TrustUpdate
from overlay.errors import PeerUnreachable, Refused, UsageError
from overlay.events import CertificateSigned, LinkRefused
from overlay.net.system import wall_clock
from overlay.registry import Reason
from overlay.store.membership import load_mesh
from overlay.store.state import INVITES, StateFolder
from tests.shell.authority_kit import (
    DAY,
    HOUR,
    PATIENCE,
    Running,
    Visitor,
    admitted,
    files_of,
    founded,
    join,
    linked,
    met,
    opened,
    order_of,
    parted,
    set_calendar,
    signed_by,
    signed_list,
    token_of,
    until,
)
from tests.unit.core.authority_kit import seed


def is_member(path: Path) -> bool:
    with StateFolder.open(path, exclusive=False) as folder:
        return load_mesh(folder) is not None


async def test_a_machine_joins_by_token_under_the_name_of_the_invite(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice, name="bob", roles=["worker"])
        certificate = await join(tmp_path / "bobs", token, name="robert")
        assert (certificate.name, certificate.roles, certificate.level) == ("bob", ("worker",), 1)
        signed = await alice.heard(CertificateSigned)
        assert (signed.name, signed.node) == ("bob", str(certificate.node_id))
        async with opened(tmp_path / "bobs", alice) as bob:
            peer = await bob.node.wait_peer("alice")
            assert peer.roles == ("operator", "signer")


async def test_a_machine_joins_under_the_name_that_it_chooses(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        certificate = await join(tmp_path / "carol", await token_of(alice), name="carol")
        assert (certificate.name, certificate.roles) == ("carol", ())


async def test_a_machine_that_chooses_no_name_is_called_after_its_id(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        certificate = await join(tmp_path / "carol", await token_of(alice))
        assert certificate.name == f"node-{certificate.node_id.short}"


async def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice, uses=2)
        await join(tmp_path / "carol", token, name="carol")
        with pytest.raises(JoinOver) as refused:
            await join(tmp_path / "other", token, name="carol")
        assert refused.value.reason is Reason.NAME_TAKEN
        assert not is_member(tmp_path / "other")


async def test_what_is_no_name_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        with pytest.raises(UsageError, match="not a name"):
            await join(tmp_path / "carol", await token_of(alice), name="Carol!")
    assert "identity.key" not in files_of(tmp_path / "carol")


async def test_a_token_is_good_for_as_many_nodes_as_it_says(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice, uses=2)
        await join(tmp_path / "one", token, name="one")
        await join(tmp_path / "two", token, name="two")
        with pytest.raises(JoinOver) as refused:
            await join(tmp_path / "three", token, name="three")
        assert refused.value.reason is Reason.INVITE_SPENT
        assert refused.value.hint
        assert not is_member(tmp_path / "three")


async def test_a_retry_by_the_same_node_costs_no_use(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice, uses=1)
        first = await join(tmp_path / "bob", token, name="bob")
        for name in ("mesh.cbor", "certificate.cbor"):  # the disk failed just before it was written
            (tmp_path / "bob" / name).unlink()
        again = await join(tmp_path / "bob", token, name="bob")
        assert (again.node_id, again.name) == (first.node_id, "bob")


async def test_a_folder_of_a_member_joins_nothing(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice, uses=2)
        await join(tmp_path / "bob", token, name="bob")
        before = files_of(tmp_path / "bob")
        with pytest.raises(UsageError, match="belongs to a mesh already"):
            await join(tmp_path / "bob", token, name="bob")
        assert files_of(tmp_path / "bob") == before


def invite_of(host: Running, begin: timedelta, number: int = 1, life: timedelta = HOUR) -> Token:
    """A token of another time, as its operator signs it; nobody was told of it."""
    key = JoinKey.of(seed("token"), host.node.mesh_id)
    body = Invite(invite_id=key.invite_id, join_public=key.public)
    ledger, parts = host.node.seat.ledger, host.node.seat.parts
    return Token.of(
        signed_by(host.node, order_of(host.node, body, number=number, begin=begin, life=life)), mesh_id=host.node.mesh_id,
        root_hash=ledger.chain.newest_root.key_hash, gate=parts.gate(), seed=seed("token"),
        addresses=(("127.0.0.1", host.node.port),),
    )


# --- tokens that are no good --------------------------------------------------------------------------------------------


async def test_an_expired_token_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        with pytest.raises(Refused) as refused:
            await join(tmp_path / "bob", invite_of(alice, timedelta(hours=-2)), name="bob")
        assert refused.value.reason is Reason.BAD_TOKEN
        assert "expired" in str(refused.value) and refused.value.hint
        assert alice.node.engine.guests.refused == 0
        assert not is_member(tmp_path / "bob")


async def test_a_token_of_tomorrow_is_refused_with_a_word_about_clocks(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        with pytest.raises(Refused) as refused:
            await join(tmp_path / "bob", invite_of(alice, timedelta(days=1)), name="bob")
        assert refused.value.reason is Reason.CLOCK
        assert "clocks" in refused.value.hint


async def test_a_signer_refuses_an_expired_invite_whatever_the_joiners_clock_says(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        async with Visitor(invite_of(alice, timedelta(hours=-2))).at(alice) as visit:
            assert (await visit.asks()).reason is not None
        assert alice.node.seat.ledger.invites == InviteBook()


async def test_a_withdrawn_token_is_refused(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice)
        await alice.node.authority.withdraw(token.says.invite_id.hex())
        with pytest.raises(JoinOver) as refused:
            await join(tmp_path / "bob", token, name="bob")
        assert refused.value.reason is Reason.BAD_INVITE
        assert not is_member(tmp_path / "bob")


async def test_a_token_of_another_mesh_finds_nobody_who_speaks_to_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with opened(founded(tmp_path)) as alice, opened(founded(tmp_path / "other")) as other:
        token = replace(await token_of(other), addresses=(("127.0.0.1", alice.node.port),))
        with pytest.raises(PeerUnreachable) as nobody:
            await join(tmp_path / "bob", token, name="bob", patience=1.5)
        assert nobody.value.hint
        assert alice.all(CertificateSigned) == []
        assert not is_member(tmp_path / "bob")


async def test_a_token_for_another_mesh_with_the_gate_key_of_this_one_is_refused_by_the_joiner(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with opened(founded(tmp_path)) as alice, opened(founded(tmp_path / "other")) as other:
        ours, theirs = await token_of(alice), await token_of(other)
        mixed = replace(theirs, gate_key=ours.gate_key, addresses=ours.addresses)
        with pytest.raises(PeerUnreachable, match="bad handshake"):
            await join(tmp_path / "bob", mixed, name="bob", patience=1.5)
        assert not is_member(tmp_path / "bob")


async def test_a_token_that_pins_another_root_is_refused_by_the_joiner(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = replace(await token_of(alice), root_hash=seed("another root"))
        with pytest.raises(PeerUnreachable, match="root"):
            await join(tmp_path / "bob", token, name="bob", patience=1.5)
        assert not is_member(tmp_path / "bob")


async def test_a_token_that_is_cut_short_or_altered_is_no_token(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        text = (await token_of(alice)).to_text()
    for wrong in (text[:-1], text[:40], text[:-2] + ("ab" if text[-2:] != "ab" else "cd"), ""):
        with pytest.raises(Refused) as refused:
            parse_token(wrong)
        assert refused.value.reason is Reason.BAD_TOKEN and refused.value.hint


async def test_a_token_whose_seed_was_exchanged_does_not_hold_together(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice)
    with pytest.raises(ValueError, match="another seed"):
        replace(token, seed=seed("another"))


async def test_nobody_answers_and_the_joiner_says_what_to_do(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice)
    with pytest.raises(PeerUnreachable, match="nobody answers") as nobody:
        await join(tmp_path / "bob", token, name="bob", patience=1)
    assert "overlay invite --address" in nobody.value.hint
    assert not is_member(tmp_path / "bob")


# --- who answers --------------------------------------------------------------------------------------------------------


async def test_a_member_that_is_no_signer_sends_the_joiner_on_to_one(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        token = await token_of(alice, at=[bob])
        certificate = await join(tmp_path / "carol", token, name="carol")
        assert certificate.name == "carol"
        assert (await alice.heard(CertificateSigned)).name == "carol"


async def test_a_node_with_the_role_signer_that_is_not_in_the_authority_only_shows_the_way(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob", "signer")) as (alice, bob):
        await join(tmp_path / "carol", await token_of(alice, at=[bob]), name="carol")
        await alice.heard(CertificateSigned)
        assert bob.all(CertificateSigned) == []


# --- what a joiner should not say ---------------------------------------------------------------------------------------


async def test_an_approval_binds_name_and_use_on_the_disk_before_it_is_said(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        visitor = Visitor(await token_of(alice))
        async with visitor.at(alice) as visit:
            assert (await visit.asks()).approved
            with StateFolder.open(path, exclusive=False) as folder:
                book = InviteBook.unpack(folder.read(INVITES) or b"")
            assert book.names["bob"] == visitor.node_id
            assert book.used[visitor.key.invite_id].nodes == (visitor.node_id,)


async def test_a_proof_for_another_link_is_refused(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        visitor = Visitor(await token_of(alice))
        async with visitor.at(alice) as first:
            old = first.request()
        async with visitor.at(alice) as second:
            assert (await second.asks(proof=old.proof)).reason is Reason.BAD_PROOF
        assert alice.node.seat.ledger.invites == InviteBook()


async def test_a_proof_for_another_csr_is_refused(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        token = await token_of(alice)
        async with Visitor(token).at(alice) as visit:
            assert (await visit.asks(csr=Visitor(token, word="thief").csr)).reason is Reason.BAD_PROOF


async def test_an_invite_by_somebody_unknown_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with opened(founded(tmp_path)) as alice, opened(founded(tmp_path / "other")) as other:
        ours, theirs = Visitor(await token_of(alice)), await token_of(other)
        async with ours.at(alice) as visit:
            assert (await visit.asks(invite=theirs.invite)).reason is Reason.BAD_INVITE


# --- invites by operators who are away ----------------------------------------------------------------------------------


@asynccontextmanager
async def invited_in_private(tmp_path: Path, *, life: timedelta = HOUR) -> AsyncIterator[tuple[Running, Running, Token]]:
    """Alice, who signs; bob, an operator whom she has met, and who is away; and a token of his that nobody was told of."""
    path = founded(tmp_path)
    async with opened(path) as alice:
        async with opened(admitted(path, "bob", "operator"), alice) as bob:
            await met(alice, bob)
            kid = bob.node.engine.identity.kid
            await until(lambda: alice.node.seat.parts.credentials_of(kid) is not None)
            token = invite_of(bob, timedelta(), life=life)
        await parted(alice.node, "bob")
        yield alice, bob, token


async def test_a_signer_judges_an_invite_by_an_operator_who_is_away(tmp_path: Path) -> None:
    async with invited_in_private(tmp_path) as (alice, bob, token):
        async with Visitor(token, name="carol").at(alice) as visit:
            assert (await visit.asks()).approved
        [held] = alice.node.seat.ledger.orders.held.values()
        assert held.signers == (bob.node.node_id,)
        assert held.signed.signature.credentials.endorsement == bob.node.engine.identity.credentials.endorsement


async def test_after_a_restart_a_signer_still_judges_it(tmp_path: Path) -> None:
    async with invited_in_private(tmp_path) as (alice, _bob, token):
        folder = alice.node.folder
    async with opened(folder) as alice, Visitor(token, name="carol").at(alice) as visit:
        assert (await visit.asks()).approved


async def test_an_invite_in_the_name_of_an_operator_who_is_away_is_refused(tmp_path: Path) -> None:
    async with invited_in_private(tmp_path) as (alice, _bob, token):
        async with Visitor(token).at(alice) as visit:
            forged = token.invite[:-1] + bytes([token.invite[-1] ^ 1])
            assert (await visit.asks(invite=forged)).reason is Reason.BAD_SIGNATURE
        assert not alice.node.seat.ledger.orders.held


async def test_an_invite_by_an_operator_who_is_away_and_was_revoked_is_refused(tmp_path: Path) -> None:
    async with invited_in_private(tmp_path) as (alice, bob, token):
        alice.node.seat.keeper.take_update(TrustUpdate((signed_list(alice, bob.node.node_id, 1),)))
        async with Visitor(token).at(alice) as visit:
            assert (await visit.asks()).reason is Reason.REVOKED


async def test_an_invite_that_comes_when_the_keys_of_its_operator_have_ended_is_refused(tmp_path: Path) -> None:
    async with invited_in_private(tmp_path, life=5 * DAY) as (alice, _bob, token):
        folder = alice.node.folder
    set_calendar(folder, wall_clock() + 1.5 * DAY)
    async with opened(folder) as alice:
        hosting = alice.node.seat._hosting
        assert hosting is not None
        with pytest.raises(Refused) as refused:
            hosting._learn(token.invite)
        assert refused.value.reason is Reason.ENDORSEMENT_EXPIRED
        assert not alice.node.seat.ledger.orders.held


async def test_a_finish_before_any_approval_is_refused(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        async with Visitor(await token_of(alice)).at(alice) as visit:
            assert (await visit.finishes()).reason is Reason.UNEXPECTED_FRAME
        assert alice.all(CertificateSigned) == []


async def test_a_joiner_that_was_refused_is_let_go_at_once_and_its_host_says_so(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        async with Visitor(await token_of(alice)).at(alice) as visit:
            assert (await visit.finishes()).reason is Reason.UNEXPECTED_FRAME
            with trio.fail_after(PATIENCE), pytest.raises(Refused) as ended:
                await visit.link.receive()
            assert ended.value.reason is Reason.UNEXPECTED_FRAME
        said = await alice.heard(LinkRefused)
        assert said.reason is Reason.UNEXPECTED_FRAME and not said.by_peer


async def test_a_joiner_that_has_its_certificate_is_let_go_without_a_word_of_refusal(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        async with Visitor(await token_of(alice)).at(alice) as visit:
            assert (await visit.asks()).approved
            assert (await visit.finishes()).bundle is not None
            with trio.fail_after(PATIENCE), pytest.raises(PeerUnreachable):
                await visit.link.receive()
        assert alice.node.engine.guests.refused == 0


@pytest.mark.parametrize("asks", [False, True])
async def test_a_joiner_that_is_silent_is_let_go_in_time(tmp_path: Path, asks: bool) -> None:
    async with opened(founded(tmp_path)) as alice:
        be_impatient(alice)
        async with Visitor(await token_of(alice)).at(alice) as visit:
            if asks:
                assert (await visit.asks()).approved
            with trio.fail_after(PATIENCE):
                assert JoinResult.unpack((await visit.link.receive()).body).reason is Reason.TIMEOUT
        await alice.heard(LinkRefused, lambda event: event.reason is Reason.TIMEOUT)


async def test_a_joiner_that_stays_with_a_node_that_is_no_signer_is_let_go_in_time(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        be_impatient(bob)
        async with Visitor(await token_of(alice)).at(bob) as visit:
            with trio.fail_after(PATIENCE), pytest.raises(Refused) as ended:
                await visit.link.receive()
            assert ended.value.reason is Reason.NOT_A_SIGNER


def be_impatient(host: Running) -> None:
    """So that nobody waits for half a minute here."""
    hosting = host.node.seat._hosting
    assert hosting is not None
    hosting._ports = replace(hosting._ports, patience=0.2)


async def test_a_member_that_is_no_signer_answers_nothing_but_where_signers_are(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob), Visitor(await token_of(alice)).at(bob) as visit:
        [hint] = visit.greeting.signers
        assert hint.node_id == alice.node.node_id
        assert f"127.0.0.1 {alice.node.port}" in hint.addresses
        with pytest.raises(Refused) as refused:
            await visit.asks()
        assert refused.value.reason is Reason.NOT_A_SIGNER


async def test_what_was_approved_is_not_signed_once_the_invite_was_withdrawn(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        visitor = Visitor(await token_of(alice))
        async with visitor.at(alice) as visit:
            assert (await visit.asks()).approved
            await alice.node.authority.withdraw(visitor.key.invite_id.hex())
            result = await visit.finishes()
            assert result.bundle is None and result.reason is not None
        assert alice.all(CertificateSigned) == []
