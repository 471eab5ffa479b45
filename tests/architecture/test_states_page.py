"""docs/protocol/states.md shows the tables that the machines obey."""

from tests.architecture.states_page import PAGE, page


def test_the_page_is_drawn_from_the_tables() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.architecture.states_page`"
