"""The book of orders: replays, numbers, forks, forgetting, merging."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from overlay.core.authority import order_book
from overlay.core.authority.group_orders import Refresh
from overlay.core.authority.order_bodies import Body, GrantRoles, WithdrawInvite
from overlay.core.authority.order_book import OrderBook
from overlay.core.authority.order_payload import Order
from overlay.core.authority.order_records import Countersigned, Fork, Forked, Known, Recorded
from overlay.core.authority.orders import VerifiedOrder
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import OrderKind, Reason
from tests.unit.core.authority.order_kit import ALICE, BOB, DAVE, MESH, make_invite, operator, quarantine, verified
from tests.unit.core.authority_kit import DAY, HOUR, NOW, Member


def roles(*words: str) -> GrantRoles:
    return GrantRoles(node=DAVE, roles=words)


def book_of(*orders: VerifiedOrder) -> OrderBook:
    book = OrderBook()
    for one in orders:
        book, _ = book.add(one, NOW)
    return book


def refusal(book: OrderBook, order: VerifiedOrder, at: timedelta = timedelta()) -> Reason:
    with pytest.raises(Refused) as caught:
        book.add(order, NOW + at)
    return caught.value.reason


def orders_of(book: OrderBook) -> list[Order]:
    return sorted((held.order for held in book.held.values()), key=lambda one: (one.operator, one.number))


def numbered(bodies: Sequence[Body], by: Member = ALICE) -> list[VerifiedOrder]:
    return [verified(body, by=by, number=number) for number, body in enumerate(bodies, 1)]


def test_a_new_order_is_recorded_and_the_same_one_again_changes_nothing() -> None:
    order = verified(quarantine())
    book, outcome = OrderBook().add(order, NOW)
    assert outcome == Recorded(order.order)
    assert book.add(order, NOW) == (book, Known(order.order))
    assert book.next_number(ALICE.node_id) == 2
    assert book.next_number(BOB.node_id) == 1
    assert OrderBook().held == {}
    assert book.forks == ()


def test_another_signature_under_an_order_that_is_known_is_kept() -> None:
    one, both = verified(roles("worker")), verified(roles("worker"), BOB)
    book, outcome = book_of(one).add(both, NOW)
    assert outcome == Countersigned(one.order)
    assert book.held[one.hash].signers == (ALICE.node_id, BOB.node_id)
    assert book.add(one, NOW) == (book, Known(one.order))
    third = verified(roles("worker"), operator("x"))
    book, outcome = book.add(third, NOW)
    assert outcome == Countersigned(one.order)
    held = book.held[one.hash]
    assert len(held.signers) == 3
    assert held.signed.verify(MESH.trust).signers == held.signers


def test_the_same_order_signed_anew_is_no_other_order() -> None:
    again = operator("alice", start=2)
    first, second = verified(roles("worker")), verified(roles("worker"), by=again)
    assert first.hash == second.hash
    one, outcome = book_of(first).add(second, NOW)
    assert outcome == Known(first.order)
    assert one == book_of(second, first)


def test_a_lower_number_of_an_order_that_replaces_something_is_a_replay() -> None:
    early, late = numbered([roles("signer"), roles("worker")])
    assert refusal(book_of(late), early) is Reason.BAD_ORDER
    assert orders_of(book_of(early, late)) == [early.order, late.order]


def test_an_order_that_only_adds_something_may_come_late() -> None:
    early, late = numbered([make_invite(), roles("worker")])
    assert orders_of(book_of(late, early)) == [early.order, late.order]


def test_two_operators_count_their_orders_apart() -> None:
    book = book_of(verified(roles("worker"), number=9), verified(roles("signer"), by=BOB))
    assert (book.next_number(ALICE.node_id), book.next_number(BOB.node_id)) == (10, 2)


def test_an_order_that_has_ended_or_not_begun_is_not_recorded() -> None:
    assert refusal(OrderBook(), verified(quarantine()), 2 * HOUR) is Reason.BAD_ORDER
    assert refusal(OrderBook(), verified(quarantine()), -HOUR) is Reason.CLOCK


# --- two orders under one number ------------------------------------------------------------------------------------


def forked() -> tuple[OrderBook, Forked]:
    book, outcome = book_of(verified(quarantine("x"))).add(verified(quarantine("y")), NOW)
    assert isinstance(outcome, Forked)
    return book, outcome


def test_two_orders_under_one_number_are_kept_as_proof() -> None:
    book, outcome = forked()
    assert outcome.operator == ALICE.node_id
    assert book.forks == (outcome.fork,)
    assert Fork.unpack(outcome.fork.pack()) == outcome.fork
    assert outcome.fork.verify(MESH.trust) == ALICE.node_id
    assert book.in_force(NOW) == ()


def test_an_operator_who_said_two_things_orders_nothing_more() -> None:
    book, _ = forked()
    assert refusal(book, verified(quarantine(), number=2)) is Reason.EQUIVOCATION
    book, outcome = book.add(verified(quarantine(), by=BOB), NOW)
    assert isinstance(outcome, Recorded)
    assert book.in_force(NOW) == (outcome.order,)


def test_of_three_orders_under_one_number_the_same_two_are_kept_however_they_come() -> None:
    one, two, three = (verified(quarantine(word)) for word in "xyz")
    books = [book_of(one, two, three), book_of(three, two, one), book_of(two, three, one)]
    assert books[0] == books[1] == books[2]
    assert len(books[0].held) == 2


def test_a_pair_that_is_no_fork_proves_nothing() -> None:
    one, other_number = numbered([quarantine("x"), quarantine("y")])
    other_operator = verified(quarantine("y"), by=BOB)
    for second in (other_number, other_operator, one):
        with pytest.raises(Refused) as caught:
            Fork(one.signed, second.signed).verify(MESH.trust)
        assert caught.value.reason is Reason.BAD_ORDER


# --- forgetting -----------------------------------------------------------------------------------------------------


def test_what_has_ended_is_forgotten_and_does_not_come_back_when_the_clock_is_set_back() -> None:
    short, long = verified(quarantine()), verified(make_invite(), number=2, life=20 * DAY)
    book = book_of(short, long)
    assert book.forget(NOW + HOUR).held.keys() == book.held.keys()
    later = book.forget(NOW + 2 * DAY)
    assert orders_of(later) == [long.order]
    assert later.forget(NOW) == later
    assert later.next_number(ALICE.node_id) == 3
    assert refusal(later, short) is Reason.BAD_ORDER


def test_the_proof_of_a_fork_is_not_forgotten() -> None:
    book, outcome = forked()
    assert book.forget(NOW + 300 * DAY).forks == (outcome.fork,)


def test_a_number_of_an_order_that_replaced_something_is_remembered_when_that_is_forgotten() -> None:
    early, late = verified(roles("signer"), life=7 * DAY), verified(roles("worker"), number=2)
    assert refusal(book_of(late).forget(NOW + 2 * DAY), early) is Reason.BAD_ORDER


# --- merging and storing --------------------------------------------------------------------------------------------


def test_two_books_merge_to_the_same_one_either_way() -> None:
    first, second, third = numbered([make_invite(), roles("signer"), roles("worker")])
    one = book_of(first, third, verified(Refresh(), by=BOB))
    two = book_of(first, second, verified(roles("worker"), BOB, number=3))
    assert one.merge(two) == two.merge(one)
    assert one.merge(two).merge(one) == one.merge(two) == one.merge(one.merge(two))
    assert orders_of(one.merge(two)) == orders_of(book_of(first, second, third, verified(Refresh(), by=BOB)))


def test_a_fork_shows_when_books_merge() -> None:
    one, two = book_of(verified(quarantine("x"))), book_of(verified(quarantine("y")))
    assert one.merge(two) == two.merge(one) == forked()[0]


def test_what_one_book_has_forgotten_the_other_does_not_bring_back() -> None:
    book = book_of(verified(quarantine()))
    assert book.forget(NOW + 3 * DAY).merge(book).held == {}
    assert book.merge(book.forget(NOW + 3 * DAY)).held == {}


def test_a_book_comes_back_from_storage_as_it_was() -> None:
    book = book_of(verified(roles("worker"), BOB), verified(quarantine(), by=BOB), verified(make_invite(), number=2))
    book = book.forget(NOW + HOUR)
    assert OrderBook.unpack(book.pack()) == book
    assert OrderBook.unpack(forked()[0].pack()) == forked()[0]
    assert OrderBook.unpack(OrderBook().pack()) == OrderBook()


def test_a_stored_book_in_another_form_is_refused() -> None:
    one, two = verified(quarantine()), verified(quarantine(), by=BOB)
    rows = [[order.signed.pack(), list(order.signers)] for order in sorted((one, two), key=lambda order: order.hash)]
    heights = [[node, 1, 0] for node in sorted([ALICE.node_id, BOB.node_id])]
    assert OrderBook.unpack(make_map(rows, heights, 0)) == book_of(one, two)
    for wrong in (
        make_map(rows[::-1], heights, 0),
        make_map([rows[0], *rows], heights, 0),
        make_map(rows, heights[::-1], 0),
        make_map([[rows[0][0], []], rows[1]], heights, 0),
        make_map([[rows[0][0], [bytes(32), bytes(32)]], rows[1]], heights, 0),
    ):
        with pytest.raises(Refused):
            OrderBook.unpack(wrong)


def test_orders_in_force_are_told_by_kind_and_time() -> None:
    short, long = verified(quarantine(), life=HOUR), verified(make_invite(), number=2, life=2 * DAY)
    book = book_of(short, long)
    assert book.in_force(NOW) == (short.order, long.order)
    assert book.in_force(NOW, OrderKind.INVITE) == (long.order,)
    assert book.in_force(NOW + 2 * HOUR) == (long.order,)


def test_one_operator_does_not_fill_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_book, "ORDERS_PER_OPERATOR", 2)
    book = book_of(*numbered([quarantine(), quarantine()]))
    assert refusal(book, verified(WithdrawInvite(bytes(16)), number=3)) is Reason.TOO_MANY
    assert len(book.add(verified(quarantine(), by=BOB), NOW)[0].held) == 3


@pytest.mark.parametrize("limit", ["ORDERS_MAX", "OPERATORS_MAX"])
def test_a_book_has_an_end(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_book, limit, 1)
    book = book_of(verified(quarantine()))
    assert refusal(book, verified(quarantine(), by=BOB)) is Reason.TOO_MANY
    with pytest.raises(Refused):
        book.merge(book_of(verified(quarantine(), by=BOB)))
