"""Remembered addresses: order, demotion, our own, bounds."""

from discovery.book import ADDRESSES_MAX, NODES_MAX, OWN_ADDRESSES_MAX, SELF_FOR, Book
from overlay.core.keys import NodeId

ALICE, BOB = NodeId(b"A" * 32), NodeId(b"B" * 32)
ONE, TWO, THREE = ("10.0.0.1", 1), ("10.0.0.2", 2), ("fe80::3%eth0", 3)


def heard(*addresses: tuple[str, int]) -> Book:
    book = Book()
    book.hear(ALICE, addresses, now=0.0)
    return book


def test_addresses_are_dialled_in_the_order_they_were_announced() -> None:
    assert heard(TWO, ONE, THREE).to_dial(ALICE, 1.0) == (TWO, ONE, THREE)


def test_an_unknown_node_has_no_addresses() -> None:
    assert heard(ONE).to_dial(BOB, 1.0) == ()


def test_a_failed_dial_demotes_an_address_and_does_not_forget_it() -> None:
    book = heard(ONE, TWO)
    book.fail(ALICE, ONE)
    assert book.to_dial(ALICE, 1.0) == (TWO, ONE)
    book.fail(ALICE, TWO)
    book.fail(ALICE, TWO)
    assert book.to_dial(ALICE, 1.0) == (ONE, TWO)


def test_a_new_announcement_makes_up_for_failures() -> None:
    book = heard(ONE, TWO)
    book.fail(ALICE, ONE)
    book.hear(ALICE, [ONE], now=5.0)
    assert book.to_dial(ALICE, 6.0) == (ONE, TWO)


def test_the_address_that_worked_last_comes_first() -> None:
    book = heard(ONE, TWO)
    book.fail(ALICE, TWO)
    book.reach(ALICE, TWO, now=3.0)
    assert book.to_dial(ALICE, 4.0) == (TWO, ONE)


def test_an_address_reached_by_a_peers_dial_is_remembered() -> None:
    book = Book()
    book.reach(ALICE, ONE, now=1.0)
    assert book.to_dial(ALICE, 2.0) == (ONE,)


def test_a_failure_of_an_unknown_address_is_not_remembered() -> None:
    book = Book()
    book.fail(ALICE, ONE)
    assert book.nodes == ()


def test_addresses_of_an_earlier_run_come_after_what_is_heard_now() -> None:
    book = heard(ONE)
    book.remember(ALICE, [TWO, ONE, THREE])
    assert book.to_dial(ALICE, 1.0) == (ONE, TWO, THREE)


def test_an_own_address_is_not_dialled_for_ten_minutes() -> None:
    book = heard(ONE, TWO)
    book.mark_own(ONE, now=10.0)
    assert book.to_dial(ALICE, 11.0) == (TWO,)
    assert book.to_dial(ALICE, 10.0 + SELF_FOR) == (ONE, TWO)
    assert book.addresses(ALICE) == (ONE, TWO)


def test_the_same_link_local_address_on_another_interface_is_not_our_own() -> None:
    book = Book()
    book.mark_own(("fe80::1%eth0", 1), now=0.0)
    assert book.is_own(("fe80::1%eth0", 1), 1.0)
    assert not book.is_own(("fe80::1%wlan0", 1), 1.0)


def test_the_number_of_addresses_of_a_node_is_bounded_and_the_worst_go() -> None:
    many = [("10.0.0.1", port) for port in range(1, ADDRESSES_MAX + 1)]
    book = heard(*many)
    book.fail(ALICE, many[0])
    book.hear(ALICE, [("10.0.0.9", 9)], now=1.0)
    assert len(book.to_dial(ALICE, 2.0)) == ADDRESSES_MAX
    assert many[0] not in book.to_dial(ALICE, 2.0)


def test_the_number_of_nodes_is_bounded_and_the_one_not_heard_for_longest_goes() -> None:
    book = heard(ONE)
    for number in range(NODES_MAX):
        book.hear(NodeId(number.to_bytes(32, "big")), [TWO], now=1.0)
    assert len(book.nodes) == NODES_MAX
    assert ALICE not in book.nodes


def test_the_number_of_own_addresses_is_bounded() -> None:
    book = Book()
    for port in range(1, OWN_ADDRESSES_MAX + 2):
        book.mark_own(("10.0.0.1", port), now=0.0)
    assert not book.is_own(("10.0.0.1", 1), 1.0)
    assert book.is_own(("10.0.0.1", OWN_ADDRESSES_MAX + 1), 1.0)
