"""Revocation and quarantine between real nodes: who loses a link, who hears of it later, and what a restart keeps."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from overlay.app.authority.joining import JoinOver
from overlay.app.compose import Assembly
from overlay.core.authority.order_bodies import Quarantine, Revoke
from overlay.core.certificate_profile import ED25519_OID, seal
from overlay.core.keys import NodeId
from overlay.core.mesh.found import Candidate
from overlay.core.revocation_profile import ListFacts, RevocationReason, Revocations, revocation_list_to_be_signed
from overlay.core.trust_update import TrustUpdate
from overlay.errors import NotAllowed, PeerUnreachable, Refused, UsageError
from overlay.events import (
    AuthorityAlarm,
    LinkRefused,
    OrderTaken,
    PeerDown,
    PeerUp,
    QuarantineBegan,
    QuarantineEnded,
    RevocationsChanged,
    TrustLost,
)
from overlay.net.system import wall_clock
from overlay.registry import FrameType, Reason
from overlay.store.state import TRUST
from tests.shell.authority_kit import (
    DAY,
    HOUR,
    Running,
    Visitor,
    admitted,
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


def revokes(*nodes: Running) -> Callable[[RevocationsChanged], bool]:
    wanted = tuple(sorted(str(one.node.node_id) for one in nodes))
    return lambda event: event.nodes == wanted


def lost(name: str) -> Callable[[PeerDown], bool]:
    return lambda event: event.name == name


OUT = {Reason.REVOKED, Reason.QUARANTINED}


async def kept_out(path: Path, host: Running) -> Reason:
    """Why that node does not come in: the host says so, or the node itself if it has heard of it."""
    try:
        async with opened(path, host):
            found = await host.heard(LinkRefused, lambda event: not event.by_peer and event.reason in OUT)
            return found.reason
    except Refused as error:
        return error.reason


async def test_every_node_cuts_its_link_to_a_revoked_node(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob"), admitted(path, "carol")) as (alice, bob, carol):
        report = await alice.node.authority.revoke(["carol"], reason="key-compromise")
        assert report.fields["counts"] and "carol revoked: key compromise" in report.said[0].replace("-", " ")
        for one in (alice, bob):
            await one.heard(RevocationsChanged, revokes(carol))
            await one.heard(PeerDown, lost("carol"))
            found = await one.heard(TrustLost)
            assert (found.name, found.reason) == ("carol", Reason.REVOKED)
            assert "carol" not in [peer.name for peer in one.node.peers]
        await bob.heard(OrderTaken, lambda event: event.kind == "revoke")
        assert [peer.name for peer in bob.node.peers] == ["alice"]


async def test_a_revoked_node_does_not_come_back(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with opened(path) as alice:
        async with opened(bobs, alice) as bob:
            await met(alice, bob)
            await alice.node.authority.revoke(["bob"])
            await parted(alice.node, "bob")
        assert await kept_out(bobs, alice) is Reason.REVOKED


async def test_a_revoked_node_does_not_come_back_with_a_new_certificate(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        await join(tmp_path / "bob", await token_of(alice), name="bob")
        async with opened(tmp_path / "bob", alice) as bob:
            await met(alice, bob)
            await alice.node.authority.revoke(["bob"])
            await parted(alice.node, "bob")
        for name in ("mesh.cbor", "certificate.cbor"):
            (tmp_path / "bob" / name).unlink()
        with pytest.raises(JoinOver) as refused:
            await join(tmp_path / "bob", await token_of(alice), name="bob")
        assert refused.value.reason is Reason.REVOKED


async def test_a_node_that_was_away_learns_the_list_when_it_comes_back(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob"), admitted(path, "carol")
    async with linked(path, bobs, carols):
        pass
    async with opened(path) as alice:
        await alice.node.authority.revoke(["carol"])
        async with opened(bobs, alice) as bob:
            found = await bob.heard(RevocationsChanged)
            assert len(found.nodes) == 1
            assert await kept_out(carols, bob) is Reason.REVOKED


async def test_a_node_learns_of_a_revocation_from_somebody_who_is_no_signer(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols, daves = (admitted(path, name) for name in ("bob", "carol", "dave"))
    async with opened(bobs) as bob:
        async with opened(path, bob) as alice, opened(daves, bob) as dave:
            await met(alice, bob)
            await met(bob, dave)
            await parted(dave.node, "carol")
            async with opened(carols, alice) as carol:
                await met(alice, carol)
                await alice.node.authority.revoke(["carol"])
            await bob.heard(RevocationsChanged)
        async with opened(daves, bob) as dave:
            found = await dave.heard(PeerUp)
            assert found.name == "bob"
            assert dave.node.seat.ledger.trust.number == 1 or await dave.heard(RevocationsChanged)


async def test_a_restart_keeps_what_is_revoked(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with linked(path, bobs) as (alice, bob):
        await alice.node.authority.revoke(["bob"])
        await parted(alice.node, "bob")
    async with opened(path) as alice:
        assert await kept_out(bobs, alice) is Reason.REVOKED
        status = (await alice.node.authority.status()).fields
        assert status["revocation_list"] == 1 and status["revoked"] == [str(bob.node.node_id)]


async def test_two_lists_with_one_number_are_merged_and_raise_an_alarm(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob"), admitted(path, "carol")) as (alice, bob, carol):
        one, two = signed_list(alice, bob.node.node_id, 1), signed_list(alice, carol.node.node_id, 1)
        alice.node.seat.keeper.take_update(TrustUpdate((one,)))
        alice.node.seat.keeper.take_update(TrustUpdate((two,)))
        alarm = await alice.heard(AuthorityAlarm, lambda event: event.reason is Reason.BAD_REVOCATION_LIST)
        assert "number 1" in alarm.detail
        assert set(alice.node.seat.ledger.trust.revocations.nodes) == {bob.node.node_id, carol.node.node_id}
        await parted(alice.node, "bob")
        await parted(alice.node, "carol")


async def test_an_older_list_brings_nobody_back(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        keeper = alice.node.seat.keeper
        keeper.take_update(TrustUpdate((signed_list(alice, bob.node.node_id, 5),)))
        nobody = NodeId(bytes(31) + b"\1")
        keeper.take_update(TrustUpdate((signed_list(alice, nobody, 4),)))
        assert {bob.node.node_id, nobody} == set(keeper.ledger.trust.revocations.nodes)
        assert keeper.ledger.trust.number == 5


async def test_a_list_that_the_mesh_key_has_not_signed_ends_the_link_of_whoever_sent_it(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        good = signed_list(alice, alice.node.node_id, 1)
        forged = TrustUpdate((good[:-1] + bytes([good[-1] ^ 1]),)).pack()
        bob.node.engine.tell(alice.node.node_id, FrameType.TRUST_UPDATE, forged)
        for one, by_peer in ((alice, False), (bob, True)):
            gone = await one.heard(PeerDown)
            assert (gone.reason, gone.by_peer) == (Reason.BAD_REVOCATION_LIST, by_peer)
        assert alice.node.seat.ledger.trust.number == 0


async def test_a_list_by_a_root_that_a_node_does_not_know_yet_costs_no_link(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        issuer = replace(alice.node.seat.ledger.chain.newest.root.issuer, spki=bob.node.engine.identity.static.public)
        begin = wall_clock().replace(microsecond=0)
        facts = ListFacts(number=1, this_update=begin, next_update=begin + DAY, revocations=Revocations())
        content = revocation_list_to_be_signed(issuer, facts)
        unknown = TrustUpdate((seal(content, ED25519_OID, bytes(64)),)).pack()
        bob.node.engine.tell(alice.node.node_id, FrameType.TRUST_UPDATE, unknown)
        order = order_of(bob.node, Quarantine(alice.node.node_id), number=1)  # bob is no operator: it is passed over, too
        bob.node.engine.tell(alice.node.node_id, FrameType.ORDER, signed_by(bob.node, order).pack())
        good = TrustUpdate((signed_list(alice, NodeId(bytes(32)), 1),)).pack()
        bob.node.engine.tell(alice.node.node_id, FrameType.TRUST_UPDATE, good)
        assert (await alice.heard(RevocationsChanged)).number == 1
        assert alice.all(PeerDown) == []


async def test_a_dry_run_of_a_revocation_changes_nothing(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, _bob):
        report = await alice.node.authority.revoke(["bob"], dry_run=True)
        assert report.said[0].startswith("dry run") and not report.fields["counts"]
        quarantined = await alice.node.authority.quarantine("bob", dry_run=True)
        assert quarantined.fields["dry_run"]
        ledger = alice.node.seat.ledger
        assert not ledger.orders.held and not ledger.trust.lists and not ledger.trust.quarantines


async def test_a_node_that_leaves_is_revoked_by_its_own_order(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob", "operator")) as (alice, bob):
        alone = bob.node.authority
        report = await alone.leave(dry_run=True)
        assert "leaves the mesh" in report.said[0]
        assert not alice.node.seat.ledger.orders.held


# --- quarantine ---------------------------------------------------------------------------------------------------------


async def test_a_node_in_quarantine_is_kept_out_everywhere_and_comes_back_when_it_ends(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob"), admitted(path, "carol")
    async with linked(path, bobs, carols) as (alice, bob, carol):
        await alice.node.authority.quarantine("carol")
        for one in (alice, bob):
            await parted(one.node, "carol")
            assert (await one.heard(TrustLost)).reason is Reason.QUARANTINED
    async with opened(path) as alice:  # it survives a restart
        assert (await alice.node.authority.status()).fields["quarantined"] == [str(carol.node.node_id)]
        (carols / TRUST).unlink()  # a thief's node would not stay out by itself
        assert await kept_out(carols, alice) is Reason.QUARANTINED
    for folder in (path, carols):
        set_calendar(folder, wall_clock() + DAY + HOUR)
    async with linked(path, carols) as (alice, _):
        assert (await alice.node.authority.status()).fields["quarantined"] == []


async def quarantined(alice: Running, bob: Running, life: timedelta = DAY) -> str:
    """Alice keeps bob out for that long; bob hears of it."""
    number = alice.node.seat.ledger.orders.next_number(alice.node.node_id)
    order = order_of(alice.node, Quarantine(bob.node.node_id), number=number, life=life)
    assert alice.node.seat.keeper.take_order(signed_by(alice.node, order)).counts
    return order.not_after.isoformat()


async def test_a_node_that_knows_of_its_quarantine_starts_says_so_and_stays_out(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with linked(path, bobs) as (alice, bob):
        until_when = await quarantined(alice, bob)
        assert (await bob.heard(QuarantineBegan)).until == until_when
        await parted(bob.node, "alice")
    async with opened(path) as alice, opened(bobs, alice) as bob, opened(admitted(path, "carol"), bob) as carol:
        assert (await bob.heard(QuarantineBegan)).until == until_when
        [warning] = [one for one in bob.node.statistics().warnings if "quarantine" in one]
        assert "stays out of everything" in warning
        alice.node.engine.pool.found(Candidate(
            addresses=(("127.0.0.1", bob.node.port),), node_id=bob.node.node_id, ours=True, source="static"
        ))
        with trio.move_on_after(1):
            await bob.heard(PeerUp)
        assert bob.node.peers == () and bob.all(LinkRefused) == [] and carol.node.peers == ()
        assert not alice.all(LinkRefused, lambda event: event.name == "bob"), "it dialled"


async def test_a_node_in_quarantine_takes_in_no_guests(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob", "operator")) as (alice, bob):
        token = await token_of(alice)
        await quarantined(bob, alice)
        await alice.heard(QuarantineBegan)
        with pytest.raises(PeerUnreachable):
            async with Visitor(token).at(alice):
                pass


async def test_a_node_whose_quarantine_ends_while_it_runs_is_back_by_itself(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with linked(path, bobs) as (alice, bob):
        await quarantined(alice, bob, timedelta(seconds=3))
        await bob.heard(QuarantineBegan)
        await parted(bob.node, "alice")
        await bob.heard(QuarantineEnded)
        await met(alice, bob)
        assert not [one for one in bob.node.statistics().warnings if "quarantine" in one]


async def test_a_node_in_quarantine_starts_again_as_if_nothing_had_been_when_it_is_over(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with linked(path, bobs) as (alice, bob):
        await quarantined(alice, bob)
        await bob.heard(QuarantineBegan)
    for folder in (path, bobs):
        set_calendar(folder, wall_clock() + DAY + HOUR)
    async with linked(path, bobs) as (_alice, bob):
        assert bob.all(QuarantineBegan) == []


# --- orders -------------------------------------------------------------------------------------------------------------


async def test_an_order_by_somebody_who_is_no_operator_does_not_count(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (alice, bob):
        with pytest.raises(NotAllowed):
            await bob.node.authority.quarantine("alice")
        order = order_of(bob.node, Quarantine(alice.node.node_id), number=1)
        with pytest.raises(Refused) as refused:
            alice.node.seat.keeper.take_order(signed_by(bob.node, order))
        assert refused.value.reason is Reason.NOT_ALLOWED
        assert not alice.node.seat.ledger.trust.quarantines


async def test_an_order_by_an_operator_that_was_revoked_does_not_count(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob", "operator"), admitted(path, "carol")) as (alice, bob, carol):
        late = signed_by(bob.node, order_of(bob.node, Quarantine(carol.node.node_id), number=1))
        alice.node.seat.keeper.take_update(TrustUpdate((signed_list(alice, bob.node.node_id, 1),)))
        with pytest.raises(Refused) as refused:
            alice.node.seat.keeper.take_order(late)
        assert refused.value.reason is Reason.REVOKED
        assert not alice.node.seat.ledger.trust.quarantines


async def test_an_expired_order_is_refused(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob")
    async with linked(path, bobs) as (alice, bob):
        order = order_of(alice.node, Quarantine(bob.node.node_id), number=1, life=timedelta(minutes=1))
        signed = signed_by(alice.node, order)
    set_calendar(path, wall_clock() + HOUR)
    async with opened(path) as alice:
        with pytest.raises(Refused) as refused:
            alice.node.seat.keeper.take_order(signed)
        assert refused.value.reason is Reason.BAD_ORDER
        assert not alice.node.seat.ledger.trust.quarantines


async def test_an_order_that_comes_again_is_acted_on_once_and_passed_on_no_more(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob"), admitted(path, "carol")) as (alice, bob, carol):
        signed = signed_by(alice.node, order_of(alice.node, Quarantine(carol.node.node_id), number=1))
        keeper = alice.node.seat.keeper
        assert keeper.take_order(signed).counts and keeper.take_order(signed).counts
        await bob.heard(OrderTaken)
        bob.node.seat.keeper.take_order(signed)
        assert len(alice.all(OrderTaken)) == len(bob.all(OrderTaken)) == 1


async def test_two_different_orders_with_one_number_raise_an_alarm_and_end_an_operators_say(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob", "operator"), admitted(path, "carol")
    async with linked(path, bobs, carols) as (alice, bob, carol):
        keeper = alice.node.seat.keeper
        first = order_of(bob.node, Quarantine(carol.node.node_id), number=1)
        second = replace(first, body=Quarantine(alice.node.node_id))
        assert keeper.take_order(signed_by(bob.node, first)).counts
        assert not keeper.take_order(signed_by(bob.node, second)).counts
        alarm = await alice.heard(AuthorityAlarm)
        assert (alarm.reason, alarm.node) == (Reason.EQUIVOCATION, str(bob.node.node_id))
        with pytest.raises(Refused) as refused:
            keeper.take_order(signed_by(bob.node, order_of(bob.node, Quarantine(carol.node.node_id), number=2)))
        assert refused.value.reason is Reason.EQUIVOCATION


async def test_revoking_an_operator_takes_two_and_counts_once_another_one_has_countersigned(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob", "operator"), admitted(path, "carol", "operator")
    async with linked(path, bobs, carols) as (alice, bob, carol):
        report = await alice.node.authority.revoke(["carol"])
        assert not report.fields["counts"] and "overlay ca countersign" in report.said[0]
        order = report.fields["order"]
        await until(lambda: bool(bob.node.seat.keeper.waiting_orders()))
        assert (await bob.node.authority.status()).fields["waiting"][0]["order"] == order
        assert not alice.node.seat.ledger.trust.lists
        with pytest.raises(Refused, match="signed twice by one operator"):
            await alice.node.authority.countersign(order)
        assert (await bob.node.authority.countersign(order)).fields["counts"]
        for one in (alice, bob):
            await one.heard(RevocationsChanged, revokes(carol))
            await parted(one.node, "carol")


async def test_an_order_that_waits_is_kept_over_a_restart(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs = admitted(path, "bob", "operator")
    async with linked(path, bobs) as (alice, bob):
        report = await alice.node.authority.revoke(["bob"])
        assert not report.fields["counts"]
    async with opened(path) as alice:
        assert [one["order"] for one in (await alice.node.authority.status()).fields["waiting"]] == [report.fields["order"]]
        assert alice.node.seat.keeper.orders_that_count() == ()
        assert bob.node.name == "bob"


async def test_what_makes_no_sense_is_said_so(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        ask = alice.node.authority
        for question in (
            ask.revoke(["nobody"]), ask.quarantine("nobody"), ask.replace("nobody", "alice"), ask.withdraw("zz"),
            ask.countersign("00"), ask.countersign("00" * 32), ask.invite(ttl=timedelta(days=400)),
            ask.invite(addresses=["nowhere"]), ask.ask("dance", {}),
        ):
            with pytest.raises(UsageError):
                await question
        assert not alice.node.seat.ledger.orders.held


def silent(assembly: Assembly) -> Assembly:
    """A node that keeps no trust."""
    return replace(assembly, parts=replace(assembly.parts, trust_keeper=None))


async def test_a_node_that_keeps_no_trust_takes_no_guests(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        token = await token_of(alice)
    async with opened(path, alter=silent) as alice:
        moved = replace(token, addresses=(("127.0.0.1", alice.node.port),))
        with pytest.raises(PeerUnreachable):
            await join(tmp_path / "bob", moved, name="bob", patience=1)


async def test_a_revocation_by_an_operator_whose_clock_is_ahead_is_signed_at_once(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob", "operator"), admitted(path, "carol")
    set_calendar(bobs, wall_clock() + timedelta(minutes=3))
    async with linked(path, bobs, carols) as (alice, bob, carol):
        await bob.node.authority.revoke(["carol"])
        for one in (alice, bob):
            await one.heard(RevocationsChanged, revokes(carol))


async def test_a_list_that_was_due_when_the_signer_was_ended_is_signed_after_its_start(tmp_path: Path) -> None:
    path = founded(tmp_path)
    bobs, carols = admitted(path, "bob", "operator"), admitted(path, "carol")
    async with linked(path, bobs, carols) as (alice, bob, carol):
        body = Revoke(
            nodes=(carol.node.node_id,), reason=RevocationReason.KEY_COMPROMISE, since=wall_clock().replace(microsecond=0)
        )
        order = signed_by(bob.node, order_of(bob.node, body, number=1))
        ledger, at = alice.node.seat.ledger, wall_clock()
        ledger.orders, _ = ledger.orders.add(order.verify_now(ledger.trust, at), at)  # kept, and ended before it was acted on
        ledger.saw(bob.node.engine.identity.verified.certificate)
        await ledger.flush()
    async with opened(path) as alice:
        await alice.heard(RevocationsChanged)
