"""The settings of a node: option beats environment (OVERLAY_<KEY>) beats `overlay.toml` in its folder beats default."""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, cast

from discovery.static import parse_seed
from overlay.app.telemetry.names import EVERY, NO_PAGE, parse_endpoint
from overlay.app.tpm import DEFAULT_TCTI
from overlay.core.forwarding import parse_exposed, parse_forwarded, parse_rule
from overlay.core.forwarding import parse_listen as parse_service_listen
from overlay.core.limits import CONFIRM_WITHIN, RECOVERY_SECONDS, AttestTimes, RekeyTimes
from overlay.errors import UsageError
from overlay.store.state import SETTINGS

EvidenceSetting = Literal["auto", "tpm", "software"]
LogLevel = Literal["debug", "info", "warning", "error"]

PREFIX: Final = "OVERLAY_"
STATE_VARIABLE: Final = "OVERLAY_STATE"  # says which folder, so it cannot be in the folder's file
FILE_MAX: Final = 64 * 1024  # our guess
LIST_MAX: Final = 256  # our guess: seeds, interfaces
PERIOD: Final = (1.0, 3600.0)  # seconds: shorter is load, longer is keys and evidence that grow stale
WAIT: Final = (1.0, 7 * 24 * 3600.0)  # seconds: up to a week, the usual time between two refreshes
PORT_MAX: Final = 65_535

_ADDRESS: Final = re.compile(
    r"(?:(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]+)):)?(?P<port>[0-9]{1,5})", re.ASCII
)
_ADDRESS_FORMS: Final = "host:port, [ipv6]:port or a port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What can be set. Times in seconds."""

    listen: tuple[str, int] = ("::", 0)  # port 0: any free one; "::" takes IPv4 too
    seeds: tuple[str, ...] = ()  # host:port or [ipv6]:port, dialled besides what is found
    mdns: bool = True
    include_loopback: bool = False
    interfaces: tuple[str, ...] = ()  # none: all that lead somewhere
    evidence: EvidenceSetting = "auto"
    tcti: str = DEFAULT_TCTI
    boot_log: str = ""  # a file; else the machine's own, if the TPM is its own
    ima: str = ""
    rekey_after: float = RekeyTimes().after
    attest_every: float = AttestTimes().every
    witness_wait: float = CONFIRM_WITHIN
    audit_max_bytes: int = 8 * 2**30  # our guess; nothing is deleted there, a status warns at 80 %
    refresh_wait: float = 24 * 3600.0
    recovery_wait: float = RECOVERY_SECONDS
    refresh_every: float = 7 * 24 * 3600.0
    expose: tuple[str, ...] = ()  # NAME=ADDRESS RULE ..., what members may use of this host
    forward: tuple[str, ...] = ()  # NAME[@PEER]=ADDRESS, local addresses that lead to members' services
    telemetry_send: tuple[str, ...] = ()  # rules: members that get this machine's metrics
    telemetry_every: float = EVERY
    telemetry_collect: str = ""  # address of /metrics; "-" to collect without that page
    telemetry_otlp: str = ""  # URL to export to
    work: bool = False  # whether this node is a worker
    work_dual_control: bool = False  # whether it takes only what two persons have signed
    log_level: LogLevel = "warning"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: how its value is read, from TOML and from the text of a variable."""

    key: str
    help: str
    read: Callable[[str, object], object]  # the key and a TOML value
    from_text: Callable[[str], object] = field(default=str)
    many: bool = False  # a list: the option may be given again and again
    metavar: str = "TEXT"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.key.upper()

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return self.from_text is _bool_of

    @property
    def option(self) -> str:
        """The option on the command line."""
        return "--" + self.key.removesuffix("s" if self.many else "").replace("_", "-")

    @property
    def negation(self) -> str:
        """The option that turns a switch off."""
        return "--no-" + self.option.removeprefix("--")


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration, and for each key where its value came from."""

    config: Config
    origins: Mapping[str, str]

    def shown(self) -> list[tuple[str, object, str]]:
        """Key, value as it would be written, origin."""
        return [(key, _written(getattr(self.config, key)), origin) for key, origin in self.origins.items()]


def load_config(folder: Path, words: Sequence[str] = ()) -> Config:
    """What holds for the node in that folder; `words` are options as `overlay run` takes them. Raises UsageError."""
    return load_settings(folder, options=read_words(words)).config


def load_settings(
    folder: Path, *, options: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """The settings of the node in that folder; options that are None or empty were not given.

    Raises:
        UsageError: naming the key that is unknown or wrong, and where it stands.
    """
    found: dict[str, tuple[object, str]] = {}
    found |= {key: (value, SETTINGS) for key, value in _from_file(folder / SETTINGS).items()}
    found |= _from_environment(os.environ if environment is None else environment)
    found |= {key: (value, "option") for key, value in (options or {}).items() if value not in (None, ())}
    values = {key: _read(key, value, origin) for key, (value, origin) in found.items()}
    origins = {setting.key: found.get(setting.key, (None, "default"))[1] for setting in TABLE}
    return Settings(Config(**cast("Any", values)), origins)


def read_words(words: Sequence[str]) -> dict[str, object]:
    """Options and their values from a command line: `--key value`, `--switch` and `--no-switch`. Raises UsageError."""
    by_option = {setting.option: setting for setting in TABLE}
    off = {setting.negation: setting for setting in TABLE if setting.is_switch}
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        setting = by_option.get(word) or off.get(word)
        if setting is None:
            raise UsageError(f"unknown option {word}", hint=_did_you_mean(word, [*by_option, *off]))
        value = word in by_option if setting.is_switch else setting.from_text(_next(rest, word))
        found[setting.key] = [*found.get(setting.key, ()), *cast("Any", value)] if setting.many else value
    return found


def _next(rest: Iterator[str], option: str) -> str:
    try:
        return next(rest)
    except StopIteration:
        raise UsageError(f"{option} needs a value") from None


def _from_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > FILE_MAX:
        raise UsageError(f"{path} is longer than {FILE_MAX} bytes")
    try:
        table = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    for key in table:
        if key not in SETTING:
            raise UsageError(f"unknown setting {key!r} in {path}", hint=_did_you_mean(key, list(SETTING)))
    return table


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    by_variable = {setting.variable: setting for setting in TABLE}
    found: dict[str, tuple[object, str]] = {}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable == STATE_VARIABLE:
            continue
        if variable not in by_variable:
            hint = _did_you_mean(variable, [STATE_VARIABLE, *by_variable])
            raise UsageError(f"unknown variable {variable} in the environment", hint=hint)
        setting = by_variable[variable]
        found[setting.key] = (setting.from_text(environment[variable]), f"environment {variable}")
    return found


def _did_you_mean(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _read(key: str, value: object, origin: str) -> object:
    try:
        return SETTING[key].read(key, value)
    except UsageError as error:
        raise UsageError(f"{error} ({origin})", hint=error.hint) from None


def _wrong(key: str, wanted: str) -> NoReturn:
    raise UsageError(f"{key} is not of the right form", hint=f"write {wanted}")


# --- values ---------------------------------------------------------------------------------------------------------


def parse_listen(text: str) -> tuple[str, int]:
    """`host:port`, `[ipv6]:port` or a port; port 0 stands for any free one. Raises UsageError."""
    match = _ADDRESS.fullmatch(text.strip())
    port = int(match["port"]) if match else PORT_MAX + 1
    if match is None or port > PORT_MAX:
        raise UsageError(f"{text!r} is not an address to listen on", hint=f"write {_ADDRESS_FORMS}")
    return match["six"] or match["host"] or "::", port


def _listen(key: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        _wrong(key, _ADDRESS_FORMS)
    return parse_listen(str(value))


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > LIST_MAX or not all(isinstance(one, str) for one in value):
        _wrong(key, f"a list of at most {LIST_MAX} texts")
    return tuple(value)


def _seeds(key: str, value: object) -> object:
    seeds = _texts(key, value)
    for seed in seeds:
        parse_seed(seed)
    return seeds


def _exposed(key: str, value: object) -> object:
    services = _texts(key, value)
    for service in services:
        parse_exposed(service)
    return services


def _forwarded(key: str, value: object) -> object:
    services = _texts(key, value)
    for service in services:
        parse_forwarded(service)
    return services


def _rules(key: str, value: object) -> object:
    rules = _texts(key, value)
    for rule in rules:
        parse_rule(rule)
    return rules


def _place(key: str, value: object) -> object:
    """None with an empty text, as with no such setting."""
    if value == "":
        return value
    place = _text(key, str(value) if isinstance(value, int) and not isinstance(value, bool) else value)
    if place != NO_PAGE:
        parse_service_listen(str(place))
    return place


def _endpoint(key: str, value: object) -> object:
    """None with an empty text, as with no such setting."""
    if value == "":
        return value
    return parse_endpoint(str(_text(key, value)))


def _truth(key: str, value: object) -> object:
    return value if isinstance(value, bool) else _wrong(key, "true or false")


def _word(*words: str) -> Callable[[str, object], object]:
    def read(key: str, value: object) -> object:
        return value if value in words else _wrong(key, " or ".join(words))

    return read


def _text(key: str, value: object) -> object:
    return value if isinstance(value, str) and value else _wrong(key, "a text")


def _file(key: str, value: object) -> object:
    return value if isinstance(value, str) else _wrong(key, "the name of a file")


def _period(key: str, value: object) -> object:
    return _seconds(key, value, PERIOD)


def _wait(key: str, value: object) -> object:
    return _seconds(key, value, WAIT)


def _bytes(key: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 2**20 <= value <= 2**53 or value != int(value):
        _wrong(key, f"bytes from {2**20} to {2**53}")
    return int(value)


def _seconds(key: str, value: object, within: tuple[float, float]) -> object:
    low, high = within
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        _wrong(key, f"seconds from {low:g} to {high:g}")
    return float(value)


def _split(text: str) -> object:
    return [part.strip() for part in text.split(",") if part.strip()]


def _split_services(text: str) -> object:
    return [part.strip() for part in text.split(";") if part.strip()]


def _bool_of(text: str) -> object:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(text.lower(), text)


def _number_of(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _written(value: object) -> object:
    """As a person would write it in the file."""
    match value:
        case (str() as host, int() as port):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple():
            return list(value)
        case _:
            return value


TABLE: Final = (
    Setting("listen", "address to listen on, host:port", _listen, metavar="ADDRESS"),
    Setting("seeds", "host:port of a member to dial; may be repeated", _seeds, _split, many=True, metavar="ADDRESS"),
    Setting("mdns", "find others by multicast DNS", _truth, _bool_of),
    Setting("include_loopback", "announce on the loopback interface too", _truth, _bool_of),
    Setting("interfaces", "network interface to announce on; may be repeated", _texts, _split, many=True, metavar="NAME"),
    Setting("evidence", "what to prove with: auto, tpm or software", _word("auto", "tpm", "software"), metavar="KIND"),
    Setting("tcti", "how the TPM is reached, such as device:/dev/tpmrm0", _text),
    Setting("boot_log", "boot event log to show, instead of the machine's own", _file, metavar="FILE"),
    Setting("ima", "measurement list of the kernel to show, instead of its own", _file, metavar="FILE"),
    Setting("rekey_after", "seconds after which a link gets fresh keys", _period, _number_of, metavar="SECONDS"),
    Setting("attest_every", "seconds between two proofs of our software", _period, _number_of, metavar="SECONDS"),
    Setting("refresh_every", "seconds after which signers make new shares unasked", _wait, _number_of, metavar="SECONDS"),
    Setting("witness_wait", "seconds that a start waits for the witnesses of its log", _wait, _number_of, metavar="SECONDS"),
    Setting(
        "audit_max_bytes", "bytes that the store of audit logs may have: a status warns at 80 %", _bytes, _number_of,
        metavar="BYTES",
    ),
    Setting("refresh_wait", "seconds that new shares wait for a signer that is away", _wait, _number_of, metavar="SECONDS"),
    Setting("recovery_wait", "seconds in which the authority can answer a recovery", _wait, _number_of, metavar="SECONDS"),
    Setting(
        "expose", "NAME=ADDRESS RULE, a service for members; may be repeated", _exposed, _split_services, many=True,
        metavar="SERVICE",
    ),
    Setting(
        "forward", "NAME=ADDRESS, where a member's service is to be had here; may be repeated", _forwarded, _split_services,
        many=True, metavar="SERVICE",
    ),
    Setting(
        "telemetry_send", "rule, such as role:collector: who gets the metrics of this machine; may be repeated", _rules,
        _split_services, many=True, metavar="RULE",
    ),
    Setting("telemetry_every", "seconds between two readings of this machine", _period, _number_of, metavar="SECONDS"),
    Setting("telemetry_collect", "collect, with /metrics at this address; - without that page", _place, metavar="ADDRESS"),
    Setting("telemetry_otlp", "OTLP/HTTP endpoint to which a collector exports", _endpoint, metavar="URL"),
    Setting("work", "run signed work that schedulers of the mesh place here", _truth, _bool_of),
    Setting("work_dual_control", "run only work that two persons have signed", _truth, _bool_of),
    Setting("log_level", "debug, info, warning or error", _word("debug", "info", "warning", "error"), metavar="LEVEL"),
)
SETTING: Final = {setting.key: setting for setting in TABLE}
