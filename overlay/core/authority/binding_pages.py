"""Bindings of one signer, told to another one page by page: however many there are, no message is too large.

    asked = {0:1, 1:kind, 2:key}                                    the last row that is known; kind 0 and no key: none
    page  = {0:1, 1:[[kind, key, value32, until], ...], 2:more}     the rows after it, rising; 4,096 where there are more

Nothing is kept between two pages. What is bound meanwhile may come or not, as if it had been bound a little earlier or later.
"""

from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Final

from overlay.core.authority.bindings import BINDINGS_MAX, KEY_MAX, ROW, Binding, Bindings, read_row
from overlay.core.wire import Array, Bytes, Flag, UInt, make_map, malformed, open_map
from overlay.errors import Refused
from overlay.registry import Reason

PAGE_ROWS: Final = 4096  # our guess: at most 740 KiB, where a message has 1 MiB; half of that as a rule
PAGE_MAX: Final = 800 * 1024  # bytes, with those
ROWS_MAX: Final = BINDINGS_MAX // 80  # of one signer: our guess, as many as it can store, most have a hundred bytes


def page_after(bindings: Bindings, asked: bytes) -> bytes:
    """The page that is asked for. Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    kind, key = open_map(asked, UInt(255), Bytes(0, KEY_MAX), limit=4 * KEY_MAX)
    rows = list(islice(bindings.after(kind, key), PAGE_ROWS + 1))
    return make_map([row.fields for row in rows[:PAGE_ROWS]], len(rows) > PAGE_ROWS)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one signer has told so far. A value."""

    rows: tuple[Binding, ...] = field(default=(), repr=False)
    is_complete: bool = False

    @property
    def asks(self) -> bytes:
        """For the next page."""
        last = self.rows[-1] if self.rows else None
        return make_map(0, b"") if last is None else make_map(int(last.kind), last.key)

    @property
    def bindings(self) -> Bindings:
        """All that was told."""
        return Bindings().adding(self.rows)

    def with_page(self, data: bytes) -> "Reading":
        """The next page.

        Raises:
            Refused: MALFORMED for rows that do not rise, or a page that is not full and says that there are more; TOO_LARGE for
                more rows than a signer may have; UNSUPPORTED.
        """
        found, more = open_map(data, Array(ROW, PAGE_ROWS), Flag(), limit=PAGE_MAX)
        rows = tuple(read_row(row) for row in found)
        places = [(row.kind, row.key) for row in (*self.rows[-1:], *rows)]
        if any(one >= other for one, other in pairwise(places)):
            malformed("bindings are rising, and none is there twice")
        if more and len(rows) != PAGE_ROWS:
            malformed("a page is full where there are more")
        if len(self.rows) + len(rows) > ROWS_MAX:
            raise Refused(Reason.TOO_LARGE, f"more than {ROWS_MAX} bindings")
        return replace(self, rows=self.rows + rows, is_complete=not more)

