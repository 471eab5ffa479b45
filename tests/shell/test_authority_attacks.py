"""What single members, signers and operators try against the distributed authority of real nodes, and what comes of it."""

from pathlib import Path

import pytest
import trio
import trio.testing

from overlay.app.authority.succeeding import session_of
from overlay.core.authority.group_orders import Distribute
from overlay.core.authority.requests import pack_request
from overlay.core.authority.rollover import Proposal, Rollover
from overlay.core.authority.round_messages import Outgoing
from overlay.core.authority.stored_rollover import pack_rollover
from overlay.core.authority.x509_requests import CrossCertificate
from overlay.core.certificate_profile import Issuer
from overlay.core.keys import Ed25519Signer
from overlay.core.wire import sha256
from overlay.events import AuthorityChanged
from overlay.registry import RoundKind
from tests.shell.authority_kit import Running, order_of, signed_by
from tests.shell.test_authority_ceremonies import root_key, signers


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
