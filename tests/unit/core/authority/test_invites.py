"""Who has used which invite, and whose each name is."""

from datetime import timedelta

import pytest

from overlay.core.authority import invites
from overlay.core.authority.invites import InviteBook
from overlay.core.authority.order_bodies import Invite
from overlay.core.authority.order_payload import Order
from overlay.core.keys import NodeId
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.order_kit import BOB, DAVE, ERIN, JOIN_KEY, make_invite, make_order, quarantine
from tests.unit.core.authority_kit import DAY, HOUR, NOW, seed

FRED = NodeId(seed("fred"))
MINUTE = timedelta(minutes=1)
EMPTY = InviteBook()
ONE = make_order(make_invite())
TWO = make_order(make_invite(uses=2))


def refusal(
    book: InviteBook, order: Order = ONE, node_id: NodeId = DAVE, name: str = "dave", at: timedelta = timedelta()
) -> Reason:
    with pytest.raises(Refused) as caught:
        book.use(order, node_id, name, NOW + at)
    return caught.value.reason


def other_invite(*, uses: int = 1) -> Order:
    return make_order(
        Invite(invite_id=bytes(16), join_public=JOIN_KEY.public, roles=(), name=None, uses=uses), number=2
    )


def test_a_use_is_a_node_and_a_retry_costs_nothing() -> None:
    book = EMPTY.use(ONE, DAVE, "dave", NOW)
    assert book.use(ONE, DAVE, "dave", NOW + MINUTE) is book
    assert book.names == {"dave": DAVE}
    assert book.used[JOIN_KEY.invite_id].nodes == (DAVE,)
    assert InviteBook() == EMPTY


def test_one_node_more_than_the_invite_has_uses_is_refused() -> None:
    assert refusal(EMPTY.use(ONE, DAVE, "dave", NOW), ONE, ERIN, "erin") is Reason.INVITE_SPENT
    book = EMPTY.use(TWO, DAVE, "dave", NOW).use(TWO, ERIN, "erin", NOW)
    assert refusal(book, TWO, FRED, "fred") is Reason.INVITE_SPENT
    assert book.use(TWO, DAVE, "dave", NOW) is book


def test_a_name_that_is_somebody_elses_is_refused() -> None:
    book = EMPTY.use(TWO, DAVE, "dave", NOW)
    assert refusal(book, TWO, ERIN, "dave") is Reason.NAME_TAKEN
    assert refusal(EMPTY.with_name("dave", FRED), ONE) is Reason.NAME_TAKEN
    assert len(book.used[JOIN_KEY.invite_id].nodes) == 1


def test_a_node_with_one_name_does_not_get_another() -> None:
    book = EMPTY.use(TWO, DAVE, "dave", NOW)
    assert refusal(book, TWO, DAVE, "david") is Reason.BOUND_OTHERWISE
    assert refusal(book, other_invite(), DAVE, "david") is Reason.BOUND_OTHERWISE


def test_an_invite_for_a_name_gives_that_name_only() -> None:
    order = make_order(make_invite(name="dave"))
    assert refusal(EMPTY, order, DAVE, "erin") is Reason.BAD_INVITE
    assert EMPTY.use(order, DAVE, "dave", NOW).name_of(DAVE) == "dave"


@pytest.mark.parametrize("name", ["", "Dave", "-dave", "d" * 64, "da ve"])
def test_what_is_no_name_is_refused(name: str) -> None:
    assert refusal(EMPTY, name=name) is Reason.BAD_INVITE


def test_an_invite_is_judged_by_its_times_give_or_take_five_minutes() -> None:
    for at in (-5 * MINUTE, HOUR + 5 * MINUTE):
        EMPTY.use(ONE, DAVE, "dave", NOW + at)
    assert refusal(EMPTY, at=HOUR + 6 * MINUTE) is Reason.BAD_INVITE
    assert refusal(EMPTY, at=-6 * MINUTE) is Reason.CLOCK


def test_an_invite_that_has_ended_is_refused_to_who_has_used_it() -> None:
    assert refusal(EMPTY.use(ONE, DAVE, "dave", NOW), at=2 * HOUR) is Reason.BAD_INVITE


def test_an_invite_that_was_withdrawn_is_refused_also_to_who_has_used_it() -> None:
    book = EMPTY.use(TWO, DAVE, "dave", NOW).withdraw(JOIN_KEY.invite_id, NOW)
    assert refusal(book, TWO, ERIN, "erin") is Reason.BAD_INVITE
    assert refusal(book, TWO) is Reason.BAD_INVITE
    assert book.withdraw(JOIN_KEY.invite_id, NOW + HOUR) is book


def test_an_invite_that_was_withdrawn_before_anyone_saw_it_is_refused() -> None:
    assert refusal(EMPTY.withdraw(JOIN_KEY.invite_id, NOW)) is Reason.BAD_INVITE


def test_two_invites_with_one_id_are_refused() -> None:
    assert refusal(EMPTY.use(TWO, DAVE, "dave", NOW), ONE, ERIN, "erin") is Reason.BOUND_OTHERWISE
    again = make_order(make_invite(), by=BOB)
    assert refusal(EMPTY.use(ONE, DAVE, "dave", NOW), again) is Reason.BOUND_OTHERWISE


def test_another_kind_of_order_is_no_invite() -> None:
    assert refusal(EMPTY, make_order(quarantine())) is Reason.BAD_INVITE


def test_a_replaced_node_gives_its_name_away() -> None:
    book = EMPTY.use(ONE, DAVE, "dave", NOW).moved(DAVE, ERIN)
    assert book.names == {"dave": ERIN}
    assert book.moved(DAVE, ERIN) is book
    assert EMPTY.moved(DAVE, ERIN) is EMPTY
    with pytest.raises(Refused) as caught:
        EMPTY.with_name("dave", DAVE).with_name("erin", ERIN).moved(DAVE, ERIN)
    assert caught.value.reason is Reason.BOUND_OTHERWISE


def test_uses_are_forgotten_a_day_after_the_invite_ended_and_names_never() -> None:
    book = EMPTY.use(ONE, DAVE, "dave", NOW).withdraw(bytes(16), NOW)
    assert book.forget(NOW + DAY) is book
    later = book.forget(NOW + 2 * DAY)
    assert (later.used, later.names) == ({}, {"dave": DAVE})
    assert later.withdrawn == book.withdrawn
    assert later.forget(NOW + 30 * DAY).withdrawn == book.withdrawn  # an invite made that day could still be in force
    assert later.forget(NOW + 32 * DAY).withdrawn == {}


def test_a_book_comes_back_from_storage_as_it_was() -> None:
    book = EMPTY.use(TWO, ERIN, "erin", NOW).use(TWO, DAVE, "dave", NOW).withdraw(bytes(16), NOW).with_name("f", FRED)
    assert InviteBook.unpack(book.pack()) == book
    assert InviteBook.unpack(EMPTY.pack()) == EMPTY
    assert book.used[JOIN_KEY.invite_id].nodes == (ERIN, DAVE)


def test_a_stored_book_in_another_form_is_refused() -> None:
    names = [["a", DAVE], ["b", ERIN]]
    assert InviteBook.unpack(make_map(names, [], [])).names == {"a": DAVE, "b": ERIN}
    for wrong in (names[::-1], [names[0], *names]):
        with pytest.raises(Refused):
            InviteBook.unpack(make_map(wrong, [], []))


@pytest.mark.parametrize("limit", ["NAMES_MAX", "INVITES_MAX", "USED_MAX"])
def test_a_book_has_an_end(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invites, limit, 1)
    book = EMPTY.use(ONE, DAVE, "dave", NOW)
    assert refusal(book, other_invite(), ERIN, "erin") is Reason.TOO_MANY
    assert book.use(ONE, DAVE, "dave", NOW) is book


def test_withdrawals_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invites, "INVITES_MAX", 1)
    with pytest.raises(Refused) as caught:
        EMPTY.withdraw(bytes(16), NOW).withdraw(JOIN_KEY.invite_id, NOW)
    assert caught.value.reason is Reason.TOO_MANY
