"""What single members, signers and operators try against the distributed authority of real nodes, and what comes of it."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.authority.hosting import RENEWALS_PER_DAY
from overlay.app.authority.joining import JoinOver
from overlay.app.authority.resharing import session_for
from overlay.app.authority.succeeding import session_of
from overlay.core.authority.group_orders import Distribute, Refresh, Reshare
from overlay.core.authority.requests import pack_request
from overlay.core.authority.rollover import Proposal, Rollover
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.stored_rollover import pack_rollover
from overlay.core.authority.x509_requests import CrossCertificate
from overlay.core.certificate_profile import Issuer
from overlay.core.certificates import VerifiedCertificate
from overlay.core.enrolment_files import Bundle
from overlay.core.join_frames import Renewal
from overlay.core.join_result import JoinResult
from overlay.core.keys import Ed25519Signer
from overlay.core.wire import make_map, sha256
from overlay.errors import Refused
from overlay.events import AuthorityAlarm, AuthorityChanged
from overlay.net.system import wall_clock
from overlay.registry import FrameType, Reason, RoundKind
from tests.shell.authority_kit import (
    Running,
    admitted,
    founded,
    join,
    linked,
    opened,
    order_of,
    parted,
    set_calendar,
    signed_by,
    token_of,
    until,
)
from tests.shell.test_authority_ceremonies import distributed, proves, root_key, signers


def says(one: Running, victim: Running, session: bytes, kind: RoundKind, body: bytes, times: int = 1) -> None:
    """As a signer says it to another, whether it is one or not."""
    one.node.seat.keeper.carrier.send([Outgoing(victim.node.node_id, session, kind, body)] * times)


def stolen_key(proposal: Proposal) -> tuple[CrossCertificate, bytes]:
    """A record by which the new key is one that the thief alone holds, and what he wants signed by the old key."""
    thief = Ed25519Signer(sha256(b"thief"))
    found = proposal.next_root(thief.public_key)
    wanted = CrossCertificate(
        number=proposal.number, spki=found.spki, not_before=found.life.not_before, not_after=found.life.not_after
    )
    own = thief.sign(wanted.derive(Issuer(found.previous.mesh_id, found.previous.name, found.spki)))
    return wanted, pack_rollover(Rollover(proposal=proposal).with_key(thief.public_key, bytes(32)).with_root(own))


@pytest.mark.parametrize("who", ["mallory", "carol"])  # no part of it; one of the new members
async def test_the_old_key_signs_no_new_key_that_one_node_alone_has_named(tmp_path: Path, who: str) -> None:
    async with signers(tmp_path, "mallory") as nodes:
        alice, bob, carol, mallory = nodes
        members = tuple(sorted(one.node.node_id for one in (bob, carol)))
        order = order_of(alice.node, Distribute(members=members, threshold=2), number=900)
        keys = [one.node.engine.identity.verified.certificate.identity for one in (bob, carol)]
        proposal = Proposal.of(alice.node.seat.ledger.chain.newest.contents, keys, 2, order.not_before)
        wanted, record = stolen_key(proposal)
        says({"mallory": mallory, "carol": carol}[who], alice, session_of(proposal), RoundKind.ROLLOVER_RECORD, record)
        await trio.testing.wait_all_tasks_blocked(0.05)
        alice.node.seat.keeper.take_order(signed_by(alice.node, order))
        for one in (alice, bob, carol):
            await one.heard(AuthorityChanged)
            assert root_key(one) != wanted.spki[-32:]
        assert pack_request(wanted) not in alice.node.seat.keeper.approvals.agreed


def generation(one: Running) -> int:
    share = one.node.seat.ledger.share
    assert share is not None
    return share.generation


async def test_a_signer_that_asks_for_its_share_with_helpers_that_cannot_help_is_refused(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        alice, bob, carol = nodes
        helpers = sorted((alice.node.node_id, carol.node.node_id))
        for chosen in ([alice.node.node_id], sorted((alice.node.node_id, bob.node.node_id)), helpers, helpers):
            says(bob, alice, bytes(16), RoundKind.REPAIR_PLAN, make_map(generation(alice), [bytes(one) for one in chosen]), 2)
        await alice.heard(AuthorityAlarm, lambda event: event.node == str(bob.node.node_id), times=6)
        await proves(alice)


async def test_whoever_is_no_signer_is_not_even_answered_when_it_asks_for_a_share(tmp_path: Path) -> None:
    async with signers(tmp_path, "mallory") as nodes:
        await distributed(nodes)
        alice, _, _, mallory = nodes
        for number in range(20):
            says(mallory, alice, bytes([1, number] * 8), RoundKind.REPAIR_PLAN, b"")
        await mallory.node.engine.call(alice.node.node_id, "overlay.where", b"", 5)  # they have come before this
        await proves(alice)
        assert not alice.all(AuthorityAlarm, lambda event: event.node == str(mallory.node.node_id))


async def test_an_operator_that_names_too_few_dealers_changes_nothing(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        alice, bob, _ = nodes
        order = order_of(alice.node, Refresh(), number=900)
        session = session_for(order.session, b"handover")
        says(alice, bob, session, RoundKind.RESHARE_PLAN, make_map([bytes(bob.node.node_id)]))
        alice.node.engine.tell(bob.node.node_id, FrameType.ORDER, signed_by(alice.node, order).pack())
        await bob.heard(AuthorityAlarm, lambda event: "as many old members must deal" in event.detail)
        await proves(bob)


async def test_a_member_that_talks_into_a_resharing_without_end_stops_no_node(tmp_path: Path) -> None:
    async with signers(tmp_path, "mallory") as nodes:
        await distributed(nodes)
        alice, bob, carol, mallory = nodes
        ghost = type(bob.node.node_id)(bytes(32))
        members = tuple(sorted((bob.node.node_id, carol.node.node_id, ghost)))  # all wait for the ghost
        order = order_of(alice.node, Reshare(members=members, threshold=2), number=900)
        session = session_for(order.session, b"handover")
        alice.node.seat.keeper.take_order(signed_by(alice.node, order))
        await until(lambda: session in bob.node.seat.keeper.carrier._listeners)
        for _ in range(12):
            for who in (mallory, carol):
                says(who, bob, session, RoundKind.GROUP_KEY, b"x", 100)
            await mallory.node.engine.call(bob.node.node_id, "overlay.where", b"", 5)
            await carol.node.engine.call(bob.node.node_id, "overlay.where", b"", 5)
        await proves(bob)


async def test_a_leader_that_holds_the_object_back_does_not_stop_a_resharing(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        leader = min(nodes, key=lambda one: one.node.node_id)
        desk, honest = leader.node.seat.keeper.desk, leader.node.seat.keeper.desk.signature

        async def withheld(request: object) -> object:
            await honest(request)  # all the others are bound by now
            return await trio.sleep(math.inf)

        desk.signature = withheld
        before = nodes[0].node.seat.ledger.chain.newest.number
        with pytest.raises((Refused, trio.TooSlowError)) if nodes[0] is leader else nullcontext():
            with trio.fail_after(8):
                await nodes[0].node.authority.reshare(["alice", "bob", "carol"], 3)
        for one in nodes:
            await until(lambda one=one: one.node.seat.ledger.chain.newest.number == before + 1)
        desk.signature = honest
        for one in nodes:
            await until(lambda one=one: generation(one) == 1)
        await proves(nodes[1])


async def test_a_member_that_signs_something_else_binds_nobody_to_an_object_that_is_never_complete(tmp_path: Path) -> None:
    async with signers(tmp_path, "dave") as nodes:
        await distributed(nodes)
        carol = nodes[2]
        ceremonies = carol.node.seat.ceremonies
        ceremonies._ports = replace(ceremonies._ports, sign=lambda _data: bytes(64))
        with pytest.raises(Refused, match="not all members have signed"):
            await nodes[0].node.authority.reshare(["alice", "bob", "carol"], 3)
        await nodes[0].node.authority.reshare(["alice", "bob", "dave"], 2)
        await proves(nodes[3])


async def test_a_joiner_does_not_get_the_name_of_a_node_that_came_by_no_invite(tmp_path: Path) -> None:
    async with opened(founded(tmp_path)) as alice:
        with pytest.raises(JoinOver) as refused:
            await join(tmp_path / "mallory", await token_of(alice), name="alice")
        assert refused.value.reason is Reason.NAME_TAKEN


def renewal_of(one: Running) -> Renewal:
    own = one.node.engine.identity.verified.certificate
    begin = max(wall_clock(), own.not_before + timedelta(seconds=1)).replace(microsecond=0)
    return Renewal(csr=one.node.seat.parts.make_request(), serial=own.serial, not_before=begin)


@pytest.mark.parametrize(("ordered", "reason"), [("quarantine", Reason.QUARANTINED), ("revoke", Reason.REVOKED)])
async def test_a_yes_from_before_does_not_renew_a_node_that_is_out_now(tmp_path: Path, ordered: str, reason: Reason) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "dave")) as (alice, dave):
        certificate, renewal = dave.node.engine.identity.verified.certificate, renewal_of(dave)
        hosting, approvals = alice.node.seat._hosting, alice.node.seat.keeper.approvals
        assert hosting is not None and (await hosting.renew(renewal, certificate)).approved
        [held] = approvals.renewals.values()
        wanted = approvals.request_for_renewal(*held)
        approvals.approve(wanted, dave.node.node_id)
        await (alice.node.authority.quarantine("dave") if ordered == "quarantine" else alice.node.authority.revoke(["dave"]))
        await parted(alice.node, "dave")
        with pytest.raises(Refused) as refused:
            approvals.approve(wanted, dave.node.node_id)
        assert refused.value.reason is reason
        assert (await hosting.renew(renewal, certificate)).reason is reason  # over a link that was made before


async def test_an_order_that_is_long_over_takes_no_place_in_the_book(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with opened(path) as alice:
        await token_of(alice)
        assert len(alice.node.seat.ledger.orders.held) == 1
    set_calendar(path, wall_clock() + timedelta(days=3))
    async with opened(path) as alice:
        await until(lambda: not alice.node.seat.ledger.orders.held)
        assert not alice.node.seat.keeper.orders_that_count()


async def test_a_member_that_renews_without_end_is_stopped(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "dave")) as (alice, dave):
        hosting, renewal = alice.node.seat._hosting, renewal_of(dave)
        certificate = dave.node.engine.identity.verified.certificate
        assert hosting is not None
        for number in range(1, RENEWALS_PER_DAY + 1):
            begun = certificate.not_before - timedelta(seconds=RENEWALS_PER_DAY + 1 - number)
            old = replace(certificate, serial=number, not_before=begun)
            assert (await hosting.renew(replace(renewal, serial=number), old)).approved
        result = await hosting.renew(renewal, certificate)
        assert result.reason is Reason.TOO_MANY
        assert len(alice.node.seat.ledger.renewals.replaced) == 1
        assert (await hosting.renew(replace(renewal, serial=number), old)).approved  # a retry costs nothing


@pytest.mark.parametrize("lie", ["nothing", "old", "garbage"])
async def test_a_signer_that_says_yes_and_does_not_sign_stops_no_renewal(tmp_path: Path, lie: str) -> None:
    async with signers(tmp_path, "dave") as nodes:
        await distributed(nodes)
        dave = nodes[3]
        liar, before = min(nodes[:3], key=lambda one: one.node.node_id), dave.node.engine.identity.verified.certificate
        hosting = liar.node.seat._hosting
        assert hosting is not None
        leaf = before.der if lie == "old" else b"garbage"

        async def renew(renewal: Renewal, old: VerifiedCertificate) -> JoinResult:
            if renewal.finish is None:
                return JoinResult(approved=True)
            if lie == "nothing":
                return JoinResult(reason=Reason.INTERNAL)
            ledger = liar.node.seat.ledger
            return JoinResult(approved=True, bundle=Bundle(
                mesh_name=ledger.trust.root.name, root=ledger.trust.root.der, leaf=leaf,
                chain=tuple(one.root.der for one in ledger.trust.later), gate_number=1, gate_key=bytes(32),
                policy=ledger.trust.policy.raw, authority_object=ledger.chain.objects[0].raw,
            ))  # fmt: skip

        hosting.renew = renew
        found = await dave.node.seat.renewing.renew()
        assert found.not_before > before.not_before
        assert dave.node.engine.identity.verified.certificate.serial == found.serial


@dataclass
class Line:
    """A link of mode 3, as far as it can be refused."""

    reasons: list[Reason] = field(default_factory=list)

    async def refuse(self, error: Refused) -> None:
        self.reasons.append(error.reason)


async def test_a_restricted_link_ends_when_its_node_is_put_out(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "dave"), admitted(path, "erin")) as (alice, dave, erin):
        restricted, lines = alice.node.seat._restricted, (Line(), Line(), Line())
        assert restricted is not None
        for one, line in zip((dave, dave, erin), lines, strict=True):  # dave has two of them
            restricted._talking.append((line, alice.node.engine.verified_peer(one.node.node_id)))
        await alice.node.authority.quarantine("dave")
        await until(lambda: [line.reasons for line in lines[:2]] == [[Reason.QUARANTINED]] * 2)
        assert lines[2].reasons == []
        restricted._talking.clear()
