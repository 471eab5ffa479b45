"""What commands have in common: the options that each of them takes, signals, and the TPM that was asked for."""

import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
import trio

from overlay.app.config import Config, Setting, load_settings
from overlay.app.output import note
from overlay.app.tpm import missing, open_tpm
from overlay.errors import HostLacks
from overlay.net.background import background
from overlay.store.state import default_location

if TYPE_CHECKING:
    from attest.tpm import Tpm

T = TypeVar("T")

INTERRUPTED: Final = 130
PATIENCE: Final = 1.8  # seconds from Ctrl-C to the end of the process, whatever a thread is busy with
DEVICE: Final = "device:"


@dataclass(frozen=True, slots=True)
class Invocation:
    """What every command is told."""

    state: str | None
    json: bool

    @property
    def folder(self) -> Path:
        """The state folder that is meant."""
        return default_location(self.state)

    def config(self, **options: object) -> Config:
        """The configuration, with these options."""
        return load_settings(self.folder, options=options).config


def standard_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--state` and `--json`; it gets an Invocation first."""

    @click.option("--state", metavar="DIR", help="State folder of the node.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_context
    def wrapper(context: click.Context, /, state: str | None, as_json: bool, **arguments: Any) -> Any:  # noqa: FBT001
        invocation = Invocation(state or context.find_root().params.get("state"), as_json)
        return context.invoke(function, invocation, **arguments)

    return update_wrapper(wrapper, function)


def setting_option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option that stands for a setting; what was not given stays None or empty."""
    text = setting.help[0].upper() + setting.help[1:] + "."
    if setting.is_switch:
        return click.option(f"{setting.option}/{setting.negation}", setting.key, default=None, help=text)

    def read(context: click.Context, parameter: click.Parameter, value: Any) -> object:
        if setting.many:
            return [part for one in value for part in cast("list[str]", setting.from_text(one))] or None
        return None if value is None else setting.from_text(value)

    return click.option(
        setting.option, setting.key, multiple=setting.many, metavar=setting.metavar, callback=read, help=text
    )


# --- the TPM --------------------------------------------------------------------------------------------------------


@contextmanager
def chosen_tpm(config: Config) -> Iterator["Tpm | None"]:
    """The TPM to make keys in; None for software, or for `auto` where there is none, which is said.

    Raises:
        HostLacks: `tpm` was asked for and none answers.
    """
    tpm = None if config.evidence == "software" else _open(config)
    try:
        yield tpm
    finally:
        if tpm is not None:
            tpm.close()


def _open(config: Config) -> "Tpm | None":
    if config.evidence == "tpm":
        return open_tpm(config.tcti)
    reason = missing()
    if reason is None and config.tcti.startswith(DEVICE) and not os.path.exists(config.tcti.removeprefix(DEVICE)):
        reason = f"there is no {config.tcti.removeprefix(DEVICE)}"
    try:
        if reason is None:
            return open_tpm(config.tcti)
    except HostLacks as error:
        reason = str(error)
    note(f"no TPM, so the keys are in files: {reason}")
    return None


# --- signals --------------------------------------------------------------------------------------------------------


class Signals:
    """SIGINT and SIGTERM: they cancel the scope, or only set `told` once somebody waits for that. Ctrl-C has a limit."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.number: int | None = None
        self.told = trio.Event()
        self.gently = False
        self._scope = scope

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; also where a shell had SIGINT ignored, as it does for background jobs."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self.number = self.number or number
                if number == signal.SIGINT:
                    give_up_later()
                if not self.gently or self.told.is_set():
                    self._scope.cancel()
                self.told.set()


def give_up_later() -> None:
    """A thread may be busy with a slow device; nobody waits for it longer than promised."""
    timer = threading.Timer(PATIENCE, os._exit, (INTERRUPTED,))
    timer.daemon = True
    timer.start()


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run async work until it returns. Raises KeyboardInterrupt if a signal came first."""
    return trio.run(_run, work)


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    async with background() as tasks:
        with trio.CancelScope() as scope:
            await tasks.start(Signals(scope).watch)
            return await work()
    raise KeyboardInterrupt
