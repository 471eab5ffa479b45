"""How commands name, choose and print entries of the audit log."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import update_wrapper
from typing import Any, Final

import click
from rich.console import Console
from rich.text import Text

from audit.bodies import describe
from audit.entry import Entry
from audit.store import AuditStore
from audit.witnessed import Judge
from overlay.app import wire_json as wire
from overlay.app.api import EntryFilter, EntryView
from overlay.app.cli.common import Invocation
from overlay.app.json_text import compact
from overlay.app.output import plain, say, say_json
from overlay.core.certificates import Root
from overlay.core.keys import NodeId
from overlay.errors import UsageError
from overlay.net.system import wall_clock
from overlay.registry import EntryType

LONG_HEX: Final = re.compile("[0-9a-f]{64,}")  # a hash, or more
HASH_DIGITS: Final = 64
SHOWN_DIGITS: Final = 16
PREFIX_DIGITS: Final = 8  # of a hash: as many as people type
APPLICATION: Final = EntryType.APPLICATION.name.lower()  # what users wrote is shown as they wrote it
_TIMES: Final = "2026-03-01T12:00, or 90m, 24h, 7d ago"
_AGO: Final = re.compile(r"(\d{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COLOURS: Final = {APPLICATION: "green", "refusal": "red", "drift": "red", "fork": "bold red", "revocation": "yellow"}


# --- which ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which entries are meant."""

    node: str | None  # name or id
    only: EntryFilter


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--node`, `--type`, `--since`, `--until` and `--text`; it gets a Chosen. Above standard_options."""

    def wrapper(
        *positional: Any, node: str | None, types: tuple[str, ...], since: datetime | None, until: datetime | None,
        text: str, **arguments: Any,
    ) -> Any:
        only = EntryFilter(types=types, since=since, until=until, text=text)
        return function(*positional, chosen=Chosen(node, only), **arguments)

    update_wrapper(wrapper, function)
    wrapper.__dict__["__click_params__"] = list(getattr(function, "__click_params__", ()))
    for option in _FILTERS:
        option(wrapper)
    return wrapper


def read_time(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """A time of day, in this machine's zone unless it says another, or how long ago."""
    if value is None:
        return None
    if ago := _AGO.fullmatch(value):
        return wall_clock() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "write 2026-03-01, 2026-03-01T12:00, or 90m, 24h, 7d for so long ago"
        raise UsageError(f"{value!r} is no time", hint=hint) from None


_FILTERS: Final = (
    click.option("--text", metavar="TEXT", default="", help="Only entries with this somewhere in their body."),
    click.option("--until", metavar="TIME", callback=read_time, help="Only entries before this time."),
    click.option("--since", metavar="TIME", callback=read_time, help=f"Only entries from then on: {_TIMES}."),
    click.option("--type", "types", metavar="TYPE", multiple=True, help="Only entries of this type; may be repeated."),
    click.option("--node", metavar="NAME", help="Only entries of this node: name or id."),
)  # the last first, as decorators are applied


@dataclass(frozen=True, slots=True)
class Book:
    """A store as people name things in it."""

    store: AuditStore
    root: Root
    names: Mapping[NodeId, str]

    @classmethod
    def of(cls, store: AuditStore, root: Root) -> "Book":
        """With the names that its logs show."""
        states, _ = store.load(root)
        return cls(store, root, {state.node_id: state.key.peer.name for state in states.values() if state.key is not None})

    def node_id(self, name: str | None) -> NodeId | None:
        """A node by name or id. Raises UsageError if there is no log of it."""
        if name is None:
            return None
        for node_id, known in self.names.items():
            if name in (known, str(node_id)):
                return node_id
        raise UsageError(f"there is no log of {name}", hint=f"there are logs of {', '.join(sorted(self.names.values()))}")

    def find(self, text: str) -> Entry:
        """An entry by NAME/NUMBER, LOG/NUMBER, or the beginning of its hash. Raises UsageError."""
        where, slash, number = text.rpartition("/")
        if slash and number.isdigit():
            found = self.store.entry_at(self._logs(where), int(number))
        elif len(text) >= PREFIX_DIGITS and re.fullmatch("[0-9a-f]{1,64}", text):
            found = self.store.entry_with(text)
        else:
            raise UsageError(f"{text!r} names no entry", hint="write alice/17, a log and a number, or eight digits of its hash")
        if found is None:
            raise UsageError(f"there is no entry {text}", hint='see "overlay audit log"')
        return found

    def _logs(self, text: str) -> list[bytes]:
        """The logs that are meant, the newest first."""
        rows = [row for row in reversed(self.store.logs()) if isinstance(row.log_id, bytes)]
        if re.fullmatch("[0-9a-f]{8,32}", text):
            return [row.log_id for row in rows if row.log_id.hex().startswith(text)]
        node_id = self.node_id(text)
        return [row.log_id for row in rows if row.node_id == node_id]

    def views(self, entries: Iterable[Entry]) -> list[EntryView]:
        """As people read them."""
        entries = list(entries)
        unproven = Judge(self.store, self.root).unproven(entries, wall_clock())
        return [self._view(entry, unproven=entry.hash in unproven) for entry in entries]

    def _view(self, entry: Entry, *, unproven: bool) -> EntryView:
        return EntryView(
            node_id=entry.node_id, node_name=self.names.get(entry.node_id, entry.node_id.short), log_id=entry.log_id,
            seq=entry.seq, hash=entry.hash, at=entry.at, type=entry.type_name, body=describe(entry.type, entry.body),
            unproven=unproven,
        )


# --- as people read them ----------------------------------------------------------------------------------------------


def show_entries(invocation: Invocation, entries: Iterable[EntryView]) -> None:
    """A line for each; aligned and coloured at a terminal."""
    entries = list(entries)
    if invocation.json:
        for entry in entries:
            say_json(wire.entry_fields(entry))
        return
    names = max((len(entry.node_name) for entry in entries), default=0)
    types = max((len(_kind(entry)) for entry in entries), default=0)
    console = Console(highlight=False, soft_wrap=True) if sys.stdout.isatty() else None
    for entry in entries:
        body = plain(compact(entry.body if entry.type == APPLICATION else _shortened(entry.body)))
        if console is None:
            say(f"{entry.at:%Y-%m-%d %H:%M:%S} {plain(entry.node_name)} {entry.seq} {_kind(entry)} {body}")
        else:
            line = Text(f"{entry.at:%Y-%m-%d %H:%M:%S} ", style="dim")
            line.append(f"{plain(entry.node_name):{names}} ", style="cyan").append(f"{entry.seq:>6} ")
            line.append(f"{_kind(entry):{types}} ", style=_COLOURS.get(entry.type, "blue")).append(body)
            console.print(line)


def _kind(entry: EntryView) -> str:
    return entry.type + (" (unproven)" if entry.unproven else "")


def _shortened(value: Any) -> Any:
    """Hashes and certificates by their beginnings, longer ones with their length: nobody reads them, and --json has all."""
    if isinstance(value, dict):
        return {key: _shortened(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_shortened(part) for part in value]
    if not isinstance(value, str) or not LONG_HEX.fullmatch(value):
        return value
    size = "" if len(value) == HASH_DIGITS else f" ({len(value) // 2} bytes)"
    return f"{value[:SHOWN_DIGITS]}…{size}"
