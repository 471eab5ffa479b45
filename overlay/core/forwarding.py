"""Forwarding of existing services over the mesh: who may use one, where it is, and what the two ends say to each other.

The opener of a stream to the handler `forward` names the service; the other end answers with one byte as soon as the
service has taken the connection. From then on the stream carries the connection's bytes and nothing else.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from overlay.core.keys import NodeId
from overlay.core.wire import Array, Text, make_map, malformed, open_map
from overlay.errors import UsageError

HANDLER: Final = "forward"  # the stream's name
OFFERS: Final = "forward.offers"  # the call that lists what its caller may use
READY: Final = b"\x00"  # the first byte back: the service has taken the connection
SERVICE_MAX: Final = 63  # as DNS labels, which they look like
SERVICES_MAX: Final = 256  # our guess, exposed by one node
RULES_MAX: Final = 64  # our guess, of one service
LEVEL_MAX: Final = 5
OPENING_LIMIT: Final = SERVICE_MAX + 16
OFFERS_LIMIT: Final = SERVICES_MAX * (SERVICE_MAX + 2) + 16
UNIX: Final = "unix:"
LOCALHOST: Final = "127.0.0.1"

_SERVICE: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TCP: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]+)):(?P<port>[0-9]{1,5})", re.ASCII)
_PORT_MAX: Final = 65_535
_SOCKET_PATH_MAX: Final = 107  # sockaddr_un of Linux, without its zero byte


class Caller(Protocol):
    """Whoever wants to use a service, as far as it has proven who it is."""

    @property
    def node_id(self) -> NodeId:
        """Its id."""
        ...

    @property
    def name(self) -> str:
        """The name in its certificate."""
        ...

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles in its certificate."""
        ...

    @property
    def level(self) -> int:
        """How well it is attested now: 0 to 5."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may use a service: whoever fits all of it. Every caller is a member; without any condition every member fits."""

    role: str | None = None
    node: str | None = None  # a name, or an id in base32
    level: int = 0

    def fits(self, caller: Caller) -> bool:
        """Whether the caller is meant."""
        named = self.node is None or self.node in (caller.name, str(caller.node_id))
        return named and (self.role is None or self.role in caller.roles) and caller.level >= self.level

    def __str__(self) -> str:
        terms = [f"role:{self.role}"] * (self.role is not None) + [f"node:{self.node}"] * (self.node is not None)
        terms += [f"level:{self.level}"] * (self.level > 0)
        return ",".join(terms) or "member"


def parse_rule(text: str) -> Rule:
    """`role:ROLE`, `node:NAME-OR-ID` and `level:N`, each at most once and joined by commas; or `member`, for every member.

    Raises:
        UsageError: naming what is wrong.
    """
    found: dict[str, str] = {}
    for term in text.split(",") if text != "member" else ():
        key, colon, value = term.strip().partition(":")
        if key not in {"role", "node", "level"} or not colon or key in found:
            raise UsageError(f"{term!r} in {text!r} is not a rule", hint=_RULES)
        good = value.isdecimal() and 1 <= int(value) <= LEVEL_MAX if key == "level" else _NAME.fullmatch(value)
        if not good:
            raise UsageError(f"{value!r} in {text!r} is not a {key}", hint=_RULES)
        found[key] = value
    return Rule(role=found.get("role"), node=found.get("node"), level=int(found.get("level", 0)))


_RULES: Final = 'write role:ROLE, node:NAME or level:1 to level:5, joined by commas where all must hold; "member" is everybody'


def may_use(rules: Iterable[Rule], caller: Caller) -> bool:
    """Whether one of the rules fits. Without rules nobody may."""
    return any(rule.fits(caller) for rule in rules)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service listens, or we do for it: a TCP address, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{UNIX}{self.path}" if self.path else f"{host}:{self.port}"


def parse_place(text: str, *, host: str | None = None) -> Place:
    """`host:port`, `[ipv6]:port`, `unix:/path`. With a usual host a port alone will do, 0 for any. Raises UsageError."""
    path = text.removeprefix(UNIX)
    if path != text:
        if not path.startswith("/") or len(path.encode()) > _SOCKET_PATH_MAX or "\0" in path:
            hint = f"an absolute path of at most {_SOCKET_PATH_MAX} bytes"
            raise UsageError(f"{text!r} is not the path of a socket", hint=hint)
        return Place(path=path)
    match = _TCP.fullmatch(f"{host}:{text}" if host is not None and text.isdecimal() else text)
    lowest = 1 if host is None else 0
    if match is None or not lowest <= int(match["port"]) <= _PORT_MAX:
        raise UsageError(f"{text!r} is not an address", hint="write host:port, [ipv6]:port or unix:/path")
    return Place(host=match["six"] or match["host"], port=int(match["port"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """A service that members may use through this node."""

    service: str
    to: Place
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, service: str, to: str, allow: Sequence[str]) -> "Exposed":
        """From texts. Raises UsageError."""
        rules = tuple(map(parse_rule, allow))
        if not 0 < len(rules) <= RULES_MAX:
            hint = f'say who may use it, such as --allow role:worker; at most {RULES_MAX} rules'
            raise UsageError(f"nobody may use {service} unless somebody is allowed to", hint=hint)
        return cls(service=check_service(service), to=parse_place(to), rules=rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """A local address that shall lead to a service."""

    service: str
    peer: str | None
    listen: str


def parse_exposed(text: str) -> Exposed:
    """`NAME=ADDRESS RULE ...`, as in the settings. Raises UsageError."""
    name, equals, rest = text.partition("=")
    to, *allow = rest.split() or [""]
    if not equals:
        raise UsageError(f"{text!r} is no service", hint="write NAME=ADDRESS RULE, such as db=127.0.0.1:5432 role:worker")
    return Exposed.of(name.strip(), to, allow)


def parse_forwarded(text: str) -> Forwarded:
    """`NAME=ADDRESS` or `NAME@PEER=ADDRESS`, as in the settings; the address as `parse_listen` takes it. Raises UsageError."""
    name, equals, listen = text.partition("=")
    service, _, peer = name.strip().partition("@")
    if not equals:
        raise UsageError(f"{text!r} is no service", hint="write NAME=ADDRESS, such as db=127.0.0.1:15432")
    parse_listen(listen.strip())
    return Forwarded(service=check_service(service), peer=peer or None, listen=listen.strip())


def parse_listen(text: str) -> Place:
    """`host:port`, `[ipv6]:port`, `unix:/path`, or a port of 127.0.0.1; port 0 stands for any free one. Raises UsageError."""
    return parse_place(text, host=LOCALHOST)


def check_service(name: str) -> str:
    """The name itself. Raises UsageError if no service can have it."""
    if not _SERVICE.fullmatch(name):
        hint = f"a to z, 0 to 9, dots and hyphens inside, at most {SERVICE_MAX} characters"
        raise UsageError(f"{name!r} cannot be the name of a service", hint=hint)
    return name


# --- on the wire ------------------------------------------------------------------------------------------------------


def pack_opening(service: str) -> bytes:
    """What the opener of a stream says: {0:1, 1:service}."""
    return make_map(service)


def unpack_opening(body: bytes) -> str:
    """The service that is wanted. Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    (service,) = open_map(body, Text(SERVICE_MAX), limit=OPENING_LIMIT)
    return str(service)


def pack_offers(services: Iterable[str]) -> bytes:
    """The answer to OFFERS: {0:1, 1:[service, ...]}, sorted."""
    return make_map(sorted(services))


def unpack_offers(body: bytes) -> frozenset[str]:
    """Raises Refused(MALFORMED, TOO_LARGE or UNSUPPORTED)."""
    (services,) = open_map(body, Array(Text(SERVICE_MAX), SERVICES_MAX), limit=OFFERS_LIMIT)
    return frozenset(services)


def check_ready(byte: bytes) -> None:
    """The first byte of an answer. Raises Refused(MALFORMED) for any other than READY."""
    if byte != READY:
        malformed("something else where the service's readiness was expected")
