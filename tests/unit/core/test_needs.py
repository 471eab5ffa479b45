"""Who may use what, by what the policy says it needs."""

import pytest

from overlay.core.needs import check_need
from overlay.core.policy_parts import Need, Needs
from overlay.errors import Refused
from overlay.registry import Reason

RUN = Need("run", 3, ("operator", "worker"))
NEEDS = Needs(services=(RUN,), roles=(Need("worker", 4),))


def refusal(need: Need | None, level: int, *roles: str) -> Reason | None:
    try:
        check_need(NEEDS, need, level, roles)
    except Refused as error:
        return error.reason
    return None


def test_what_is_not_named_needs_nothing() -> None:
    assert refusal(None, 0) is None


def test_a_level_below_what_is_needed_is_refused_whatever_the_roles() -> None:
    assert refusal(RUN, 2, "operator") is Reason.LEVEL_TOO_LOW
    assert refusal(RUN, 3, "operator") is None


@pytest.mark.parametrize("roles", [(), ("visitor",)])
def test_without_one_of_the_roles_nobody_is_let_in(roles: tuple[str, ...]) -> None:
    assert refusal(RUN, 5, *roles) is Reason.NOT_ALLOWED


def test_where_no_role_is_named_anyone_of_the_level_may() -> None:
    assert refusal(Need("news", 2), 2) is None


def test_a_role_counts_from_the_level_that_it_needs_itself() -> None:
    assert refusal(RUN, 3, "worker") is Reason.NOT_ALLOWED
    assert refusal(RUN, 4, "worker") is None
