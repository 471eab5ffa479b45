"""Where logs end, as an authority object says it, against what a node holds."""

from dataclasses import replace

from overlay.core.authority.closing import Copy, judge_closing
from overlay.core.authority.contents import ClosingCheckpoint
from overlay.core.keys import NodeId
from tests.unit.core.authority_kit import seed

ROOT = seed("root")
CLOSING = ClosingCheckpoint(NodeId(seed("dave")), bytes(16), 10, ROOT)
COPY = Copy(root=ROOT, settled=10)


def is_right(checkpoint: ClosingCheckpoint, copy: Copy, *, leaves: bool = False) -> bool:
    return not judge_closing(checkpoint, copy, leaves=leaves)


def test_a_log_that_is_closed_where_it_ends_here_is_right() -> None:
    assert is_right(CLOSING, COPY)
    assert is_right(CLOSING, replace(COPY, settled=3))  # what was written lately may have come to us first


def test_entries_that_nobody_has_shown_are_not_let_in() -> None:
    assert not is_right(CLOSING, replace(COPY, root=None, settled=0))
    assert not is_right(CLOSING, replace(COPY, root=None, settled=0), leaves=True)


def test_another_history_is_not_let_in() -> None:
    assert not is_right(CLOSING, replace(COPY, root=seed("fork")))
    assert not is_right(CLOSING, replace(COPY, root=seed("fork")), leaves=True)


def test_entries_from_before_the_ceremony_are_not_taken_away() -> None:
    assert not is_right(CLOSING, replace(COPY, settled=11))
    assert not is_right(CLOSING, replace(COPY, settled=0, superseded=True))


def test_who_is_removed_does_not_stop_that_by_showing_more_to_some() -> None:
    assert is_right(CLOSING, replace(COPY, settled=11), leaves=True)
    assert is_right(CLOSING, replace(COPY, superseded=True), leaves=True)


def test_of_an_author_without_any_log_here_nothing_is_known() -> None:
    assert is_right(CLOSING, Copy(knows_author=False))
