"""How a signer judges an invite, with its own books."""

from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core.authority.invites import InviteBook
from overlay.core.authority.order_bodies import Invite
from overlay.core.authority.order_book import OrderBook
from overlay.core.authority.order_rules import Standing
from overlay.core.authority.orders import VerifiedOrder
from overlay.core.certificate_request import build_request, verify_request
from overlay.core.invite_checker import Ledger, LedgerChecker
from overlay.core.join_frames import Join
from overlay.core.join_ports import GrantedInvite, JoinLink
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.order_kit import (
    ALICE,
    BOB,
    DAVE,
    JOIN_KEY,
    MESH,
    make_invite,
    make_order,
    quarantine,
    sign,
    standing,
    verified,
)
from tests.unit.core.authority_kit import HOUR, NOW, seed

LINK = JoinLink(MESH.mesh_id, seed("h"), NodeId(seed("signer")))
NEWCOMER = Ed25519Signer(seed("newcomer"))
REQUEST = verify_request(build_request(NEWCOMER, "newcomer"))
INVITE = verified(make_invite())


def book_of(*orders: VerifiedOrder) -> OrderBook:
    book = OrderBook()
    for one in orders:
        book, _ = book.add(one, NOW)
    return book


LEDGER = Ledger(book_of(INVITE), InviteBook(), standing(ALICE, BOB))


def join_with(invite: VerifiedOrder = INVITE, *, link: JoinLink = LINK, name: str | None = None) -> Join:
    proof = JOIN_KEY.prove(mesh_id=link.mesh_id, h=link.h, signer=link.signer, csr=REQUEST.der)
    return Join(invite=invite.signed.cose, csr=REQUEST.der, proof=proof, not_before=NOW, name=name)


def check(ledger: Ledger = LEDGER, join: Join | None = None, at: timedelta = timedelta()) -> GrantedInvite:
    return LedgerChecker(lambda: ledger).check_invite(join or join_with(), LINK, REQUEST, NOW + at)


def refusal(ledger: Ledger = LEDGER, join: Join | None = None, at: timedelta = timedelta()) -> Reason:
    with pytest.raises(Refused) as caught:
        check(ledger, join, at)
    return caught.value.reason


def test_an_invite_that_is_held_here_is_granted() -> None:
    granted = GrantedInvite(invite_id=JOIN_KEY.invite_id, hash=INVITE.hash, roles=("worker",), name=None)
    assert check() == granted
    assert check(join=join_with(name="dave")) == granted


def test_an_invite_that_nobody_has_handed_over_is_refused() -> None:
    assert refusal(replace(LEDGER, orders=OrderBook())) is Reason.BAD_INVITE
    forged = sign(make_order(make_invite(roles=("signer",))), BOB)
    assert refusal(join=replace(join_with(), invite=forged.cose)) is Reason.BAD_INVITE


def test_another_order_that_is_held_here_is_no_invite() -> None:
    other = verified(quarantine(), number=2)
    assert refusal(replace(LEDGER, orders=book_of(INVITE, other)), join_with(other)) is Reason.BAD_INVITE


def test_an_invite_by_who_said_two_things_is_refused() -> None:
    book = book_of(INVITE, verified(quarantine("x"), number=2), verified(quarantine("y"), number=2))
    assert refusal(replace(LEDGER, orders=book)) is Reason.BAD_INVITE


def test_an_invite_by_who_is_no_operator_any_more_is_refused() -> None:
    known: Standing = standing(BOB)
    assert refusal(replace(LEDGER, standing=known)) is Reason.NOT_ALLOWED


def test_a_proof_for_another_link_or_signer_is_refused() -> None:
    for link in (replace(LINK, h=seed("x")), replace(LINK, signer=DAVE)):
        assert refusal(join=join_with(link=link)) is Reason.BAD_PROOF


def test_whoever_saw_the_invite_and_not_the_token_cannot_join() -> None:
    with_own_key = Ed25519Signer(seed("thief")).sign(b"anything")
    assert refusal(join=replace(join_with(), proof=with_own_key)) is Reason.BAD_PROOF


def test_what_the_book_of_invites_refuses_is_refused() -> None:
    spent = InviteBook().use(INVITE.order, DAVE, "dave", NOW)
    assert refusal(replace(LEDGER, invites=spent)) is Reason.INVITE_SPENT
    taken = InviteBook().with_name("newcomer", DAVE)
    assert refusal(replace(LEDGER, invites=taken)) is Reason.NAME_TAKEN
    assert check(replace(LEDGER, invites=taken), join_with(name="other")).name is None
    assert refusal(at=2 * HOUR) is Reason.BAD_INVITE


def test_an_invite_that_gives_a_name_gives_it() -> None:
    named = verified(make_invite(name="worker-7"))
    assert isinstance(named.order.body, Invite)
    taken = InviteBook().with_name("newcomer", DAVE)
    assert check(Ledger(book_of(named), taken, standing(ALICE)), join_with(named)).name == "worker-7"
