"""`overlay doctor`: what of this host a node can use, and what to do about the rest."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from attest.manifest import installed_root, package_manifest
from discovery.interfaces import list_interfaces, usable
from overlay.app.cli.common import Invocation, setting_option, standard_options
from overlay.app.config import SETTING, Config
from overlay.app.output import say, say_json, say_table
from overlay.app.tpm import HINT, missing, open_tpm
from overlay.errors import CheckFailed, OverlayError
from overlay.net.system import wall_clock
from overlay.store.clock import load_floor
from overlay.store.state import StateFolder, holder

LOOPBACK_SIX = "::1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the table; `needed`: nothing works without."""

    check: str
    works: bool
    detail: str
    hint: str = ""
    needed: bool = False


@click.command()
@setting_option(SETTING["tcti"])
@standard_options
def doctor(invocation: Invocation, tcti: str | None) -> int:
    """Say what of this host a node can use. Exit code 1 if something is missing that every node needs."""
    config = invocation.config(tcti=tcti)
    found = list(_examine(invocation.folder, config))
    if invocation.json:
        say_json({"checks": [asdict(one) for one in found]})
    else:
        say_table(("CHECK", "", "FOUND"), [(one.check, "ok" if one.works else "no", one.detail) for one in found])
        for one in found:
            if one.hint and not one.works:
                say(f"{one.check}: {one.hint}")
    return CheckFailed.exit_code if any(one.needed and not one.works for one in found) else 0


def _examine(folder: Path, config: Config) -> Iterator[Finding]:
    checks: dict[str, Callable[[], str]] = {
        "state folder": lambda: _state(folder),
        "clock": lambda: _clock(folder),
        "package": lambda: f"manifest {package_manifest(installed_root()).hex()}",
        "TPM library": _tpm_library,
        "TPM": lambda: _tpm(config),
        "multicast DNS": lambda: _multicast(config),
        "IPv6": _ipv6,
    }
    needed = {"state folder", "clock", "package"}
    for name, check in checks.items():
        try:
            yield Finding(check=name, works=True, detail=check(), needed=name in needed)
        except OverlayError as error:
            yield Finding(check=name, works=False, detail=str(error), hint=error.hint, needed=name in needed)
        except OSError as error:
            yield Finding(check=name, works=False, detail=error.strerror or str(error), needed=name in needed)


def _state(folder: Path) -> str:
    StateFolder.open(folder, exclusive=False).close()
    pid = holder(folder)
    return f"{folder}, " + ("no node runs" if pid is None else f"in use by process {pid}")


def _clock(folder: Path) -> str:
    now = wall_clock()
    try:
        with StateFolder.open(folder, exclusive=False) as opened:
            floor = load_floor(opened)
    except OverlayError:
        floor = None
    if floor is not None and now < floor:
        hint = "set the clock of this machine"
        raise CheckFailed(f"{now:%Y-%m-%d %H:%M} UTC, earlier than what our certificate proves", hint=hint)
    return f"{now:%Y-%m-%d %H:%M:%S} UTC"


def _tpm_library() -> str:
    reason = missing()
    if reason is not None:
        raise CheckFailed(reason, hint=HINT)
    return "tpm2-pytss"


def _tpm(config: Config) -> str:
    tpm = open_tpm(config.tcti)
    try:
        facts = tpm.describe()
    finally:
        tpm.close()
    kind = ", emulated" if facts.emulated else ""
    return f"{facts.manufacturer} {facts.model} {facts.firmware}{kind} at {config.tcti}"


def _multicast(config: Config) -> str:
    found = usable(list_interfaces(), include_loopback=config.include_loopback, only=config.interfaces)
    if not found:
        raise CheckFailed("no interface to announce on", hint="name members with --seed, or an interface with --interface")
    return ", ".join(f"{one.name} ({one.addresses[0]})" for one in found)


def _ipv6() -> str:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK_SIX, 0))
    return "there"
