"""Single values of a policy file: each reader gives what the policy holds, or says what should have been written."""

import re
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from overlay.core.policy import EK_ROOT_MAX, EK_ROOTS_MAX
from overlay.core.policy_parts import FLOORS_MAX, PCRS, FirmwareFloor
from overlay.errors import UsageError

DIGEST_SIZE: Final = 32
GRACE_MAX: Final = timedelta(days=30)  # our guess: a month for a machine that is away


def wrong(key: str, wanted: str) -> NoReturn:
    """Raises UsageError that names the key."""
    raise UsageError(f"{key} in the policy is wrong", hint=f"write {wanted}")


def whole_number(low: int, high: int) -> Callable[[str, object], int]:
    """From `low` to `high`."""

    def read(key: str, value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            wrong(key, f"a whole number from {low} to {high}")
        return value

    return read


def choice(kind: type[IntEnum]) -> Callable[[str, object], IntEnum]:
    """One of the names of `kind`, lower case."""
    words: dict[object, IntEnum] = {member.name.lower(): member for member in kind}

    def read(key: str, value: object) -> IntEnum:
        if not isinstance(value, str) or value not in words:
            wrong(key, " or ".join(f'"{word}"' for word in words))
        return words[value]

    return read


def pcrs(key: str, value: object) -> int:
    """A list of PCRs, as a bitmap."""
    good = isinstance(value, list) and all(type(item) is int and 0 <= item < PCRS for item in value)
    if not isinstance(value, list) or not good or len(set(value)) != len(value):
        wrong(key, f"a list of different numbers from 0 to {PCRS - 1}")
    return sum(1 << item for item in value)


def digests(most: int) -> Callable[[str, object], tuple[bytes, ...]]:
    """A list of at most so many SHA-256 digests."""

    def read(key: str, value: object) -> tuple[bytes, ...]:
        if not isinstance(value, list) or len(value) > most:
            wrong(key, f"a list of at most {most} SHA-256 digests")
        try:
            found = tuple(bytes.fromhex(item) for item in value)
        except (TypeError, ValueError):
            found = (b"",)
        if any(len(digest) != DIGEST_SIZE for digest in found):
            wrong(key, "a list of SHA-256 digests of 64 hexadecimal digits")
        return found

    return read


def ek_roots(key: str, value: object) -> tuple[bytes, ...]:
    """Certificates in PEM, one or several in each text; as DER, sorted, none twice."""
    wanted = f"a list of at most {EK_ROOTS_MAX} certificates in PEM"
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        wrong(key, wanted)
    try:
        found = [one.public_bytes(Encoding.DER) for item in value for one in x509.load_pem_x509_certificates(item.encode())]
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        wrong(key, wanted)
    roots = tuple(sorted(set(found)))
    if len(roots) > EK_ROOTS_MAX or any(len(der) > EK_ROOT_MAX for der in roots):
        wrong(key, f"{wanted}, of at most {EK_ROOT_MAX} bytes each")
    return roots


_FIRMWARE: Final = re.compile(r"[0-9a-fA-F]{1,16}|[0-9]{1,5}(?:\.[0-9]{1,5}){3}")


def _firmware(text: str) -> int:
    """As `overlay attest check` shows it, in hexadecimal, or as `overlay doctor` does: four numbers of 16 bits."""
    if "." not in text:
        return int(text, 16)
    return int.from_bytes(b"".join(min(int(part), 0xFFFF).to_bytes(2, "big") for part in text.split(".")))


def firmware_floors(key: str, value: object) -> tuple[FirmwareFloor, ...]:
    """Tables with `floor`, and `first` if it is not for all."""
    form = '{ floor = "7.63.0.0", first = "7.0.0.0" }'
    wanted = f"at most {FLOORS_MAX} of {form}, or 16 hexadecimal digits; first may be left out"
    if not isinstance(value, list) or len(value) > FLOORS_MAX or not all(isinstance(item, dict) for item in value):
        wrong(key, wanted)
    floors = []
    for item in value:
        texts = [item.get("first", "0"), item.get("floor")]
        if item.keys() - {"first", "floor"} or not all(isinstance(text, str) and _FIRMWARE.fullmatch(text) for text in texts):
            wrong(key, wanted)
        first, floor = map(_firmware, texts)
        if first >= floor:
            wrong(key, "a floor that is higher than its first version")
        floors.append(FirmwareFloor(floor, first))
    return tuple(sorted(floors, key=lambda one: (one.first, one.floor)))


_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def grace(value: object) -> timedelta:
    """A time with its unit."""
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        wrong("grace", 'a time such as "90s", "30m", "1h" or "2d"')
    found_time = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if found_time > GRACE_MAX:
        wrong("grace", f"at most {GRACE_MAX.days} days")
    return found_time
