"""Addresses as a token holds them: 6 bytes for IPv4 and port, 18 for IPv6 and port, else the text `host:port`."""

import ipaddress
from typing import Any, Final

from overlay.core.mesh.found import Address
from overlay.core.wire import Anything, Array, malformed

ADDRESSES_MAX: Final = 8  # our guess: some members' addresses, the first that answers is enough
HOST_MAX: Final = 253  # RFC 1035, section 2.3.4, as text
PORT_SIZE: Final = 2
_SIZES: Final = (4 + PORT_SIZE, 16 + PORT_SIZE)

ADDRESSES: Final = Array(Anything(), ADDRESSES_MAX)


def pack_address(address: Address) -> bytes | str:
    """For a field of the kind ADDRESSES."""
    host, port = address
    try:
        numeric = ipaddress.ip_address(host)
    except ValueError:
        return f"{host}:{port}"
    if isinstance(numeric, ipaddress.IPv6Address) and numeric.scope_id is not None:
        return f"{host}:{port}"
    return numeric.packed + port.to_bytes(PORT_SIZE, "big")


def unpack_address(value: Any) -> Address:
    """Raises Refused(MALFORMED) for what is none, or not in its one form."""
    found = _of_bytes(value) if isinstance(value, bytes) else _of_text(value)
    if not 0 < found[1] < 2**16 or pack_address(found) != value:
        malformed("an address in another form")
    return found


def _of_bytes(value: bytes) -> Address:
    if len(value) not in _SIZES:
        malformed("length of an address")
    return str(ipaddress.ip_address(value[:-PORT_SIZE])), int.from_bytes(value[-PORT_SIZE:], "big")


def _of_text(value: object) -> Address:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not 0 < len(host) <= HOST_MAX or not (port.isascii() and port.isdigit() and len(port) <= len("65535")):
        malformed("an address is host:port")
    return host, int(port)
