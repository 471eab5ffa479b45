"""Properties of orders, books and tokens: they come back as they were, and what was changed anywhere is refused."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from overlay.core.authority.group_orders import Refresh
from overlay.core.authority.invites import InviteBook
from overlay.core.authority.order_bodies import Body, GrantRoles, Invite, WithdrawInvite, open_body
from overlay.core.authority.order_book import OrderBook
from overlay.core.authority.order_payload import Order
from overlay.core.authority.orders import SignedOrder, VerifiedOrder, parse_order
from overlay.core.token import Token, parse_token
from overlay.core.wire import sha256
from overlay.errors import Refused
from tests.unit.core.authority.order_kit import (
    ALICE,
    BOB,
    DAVE,
    JOIN_KEY,
    MESH,
    SEED,
    agree,
    make_order,
    operator,
    quarantine,
    sign,
    verified,
)
from tests.unit.core.authority_kit import NOW, seed

some = settings(deadline=None, max_examples=60)
few = settings(deadline=None, max_examples=25)

roles = st.lists(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True), max_size=16, unique=True).map(
    lambda found: tuple(sorted(found))
)
names = st.none() | st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@st.composite
def invites(draw: st.DrawFn) -> Invite:
    name = draw(names)
    return Invite(
        invite_id=JOIN_KEY.invite_id, join_public=JOIN_KEY.public, roles=draw(roles), name=name,
        uses=1 if name else draw(st.integers(1, 1024)),
    )  # fmt: skip


hosts = st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9]{0,10}\.example", fullmatch=True))
addresses = st.lists(st.tuples(hosts, st.integers(1, 65_535)), max_size=8).map(tuple)

# Few numbers, two operators and two bodies of a kind: so there are replays, late ones, countersigned ones and forks.
BODIES: list[Body] = [quarantine("x"), quarantine("y"), Refresh(), GrantRoles(node=DAVE, roles=()), WithdrawInvite(bytes(16))]
ORDERS = [
    verified(body, *others, by=by, number=number)
    for body in BODIES
    for by, others in ((ALICE, ()), (ALICE, (BOB,)), (operator("alice", start=2), ()), (BOB, ()), (BOB, (ALICE,)))
    for number in (1, 2, 3)
]
histories = st.lists(st.sampled_from(ORDERS), max_size=10)


def told(history: list[VerifiedOrder]) -> tuple[OrderBook, list[VerifiedOrder]]:
    """A book, and what was not refused; what is refused leaves the book as it was."""
    book, taken = OrderBook(), []
    for one in history:
        try:
            book, _ = book.add(one, NOW)
            taken.append(one)
        except Refused:
            continue
    return book, taken


def book_of(history: list[VerifiedOrder]) -> OrderBook:
    return told(history)[0]


@some
@given(invites(), st.integers(1, 2**63 - 1), addresses)
def test_a_token_comes_back_as_it_was(invite: Invite, number: int, places: tuple[tuple[str, int], ...]) -> None:
    token = Token.of(
        sign(make_order(invite, number=number)), mesh_id=MESH.mesh_id, root_hash=sha256(MESH.root.spki),
        gate=(7, seed("gate")), seed=SEED, addresses=places,
    )  # fmt: skip
    found = parse_token(token.to_text())
    assert found == token
    assert parse_order(found.invite).with_credentials(ALICE.credentials).verify(MESH.trust).order.body == invite


TOKEN = Token.of(
    sign(make_order(Invite(invite_id=JOIN_KEY.invite_id, join_public=JOIN_KEY.public))), mesh_id=MESH.mesh_id,
    root_hash=sha256(MESH.root.spki), gate=(1, seed("gate")), seed=SEED,
)  # fmt: skip
TEXT = TOKEN.to_text()


@some
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 40), st.text("abcdefghijklmnopqrstuvwxyz234567", max_size=40))
def test_a_token_in_which_a_stretch_was_changed_is_refused(start: int, length: int, instead: str) -> None:
    spoilt = TEXT[:start] + instead + TEXT[start + length :]
    assume(spoilt != TEXT)
    with pytest.raises(Refused):
        parse_token(spoilt)


@some
@given(st.text(max_size=300))
def test_any_text_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(Refused):
        parse_token(text)


CARRIED = agree(sign(make_order(quarantine()))).pack()


@some
@given(st.data())
def test_an_order_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    damaged = bytearray(CARRIED)
    damaged[data.draw(st.integers(0, len(CARRIED) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Refused):
        SignedOrder.unpack(bytes(damaged)).verify(MESH.trust)


@some
@given(st.integers(0, 255), st.binary(max_size=200))
def test_any_bytes_are_refused_or_an_order_and_nothing_else(kind: int, data: bytes) -> None:
    for read in (SignedOrder.unpack, parse_order, Order.unpack, OrderBook.unpack, InviteBook.unpack):
        with pytest.raises(Refused):
            read(data)
    try:
        body = open_body(kind, data)
    except Refused:
        return
    assert body.pack() == data


@few
@given(histories, histories, histories)
def test_books_merge_to_the_same_one_in_any_order(
    one: list[VerifiedOrder], two: list[VerifiedOrder], three: list[VerifiedOrder]
) -> None:
    a, b, c = book_of(one), book_of(two), book_of(three)
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c)) == c.merge(b).merge(a)
    assert a.merge(a) == a
    assert OrderBook.unpack(a.merge(b).merge(c).pack()) == a.merge(b).merge(c)


@few
@given(histories)
def test_what_was_taken_once_changes_nothing_when_it_comes_again(history: list[VerifiedOrder]) -> None:
    book, taken = told(history)
    for one in taken:
        assert book.add(one, NOW)[0] == book
    assert all(held.signed.verify(MESH.trust).signers == held.signers for held in book.held.values())
