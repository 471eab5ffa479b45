"""What the targets stand on: one mesh, fixed keys, and links that are opened once and copied for each input.

Nothing here is random, so that an input that broke something breaks it again.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import Any

from overlay.core.handshake import HandshakeContext
from overlay.core.keys import X25519Pair
from overlay.core.limits import KEM_CIPHERTEXT_SIZE, KEM_KEY_SIZE, AttestTimes
from overlay.core.session import SessionConfig
from overlay.core.session_events import Event
from overlay.core.session_states import State
from overlay.core.stream_events import StreamData
from overlay.core.wire import sha256
from tests.unit.core.authority_kit import make_member
from tests.unit.core.session_kit import LAB, Pair, context

PATIENT = AttestTimes(lease=1e6, overdue=1e6)
TPM_MEMBER = make_member(LAB, "machine", tpm_like=True)


def cut(data: bytes) -> tuple[int, bytes]:
    """What the first byte decides, and the rest."""
    return (data[0], data[1:]) if data else (0, b"")


# --- chance without chance --------------------------------------------------------------------------------------------


class ToyKey:
    """A KemKey that keeps no secret."""

    public = sha256(b"public").ljust(KEM_KEY_SIZE, b"\0")

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return sha256(self.public, ciphertext)


class ToyKem:
    """ML-KEM without its randomness and its cost."""

    def generate(self) -> ToyKey:
        return ToyKey()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        ciphertext = sha256(b"ciphertext").ljust(KEM_CIPHERTEXT_SIZE, b"\0")
        return sha256(public, ciphertext), ciphertext


class NoChance:
    """The Chance port; always the same."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self.kem = ToyKem()

    def token(self, size: int) -> bytes:
        return sha256(b"token", self._name).ljust(size, b"\0")[:size]

    def x25519(self) -> X25519Pair:
        return X25519Pair.from_private(sha256(b"x25519", self._name))

    def fraction(self) -> float:
        return 0.0


# --- copies of a machine ----------------------------------------------------------------------------------------------


def fork(value: Any, known: dict[int, Any]) -> Any:
    """A copy of a machine that shares with it only what does not change: keys, identities, functions, frozen values."""
    if id(value) in known:
        return known[id(value)]
    kind = type(value)
    if kind in (dict, OrderedDict):
        copy = known[id(value)] = kind()
        copy.update((key, fork(item, known)) for key, item in value.items())
        return copy
    if kind in (list, deque, set, bytearray):
        return known.setdefault(id(value), kind(fork(item, known) for item in value))
    if not _is_machine(value):
        return value
    copy = known[id(value)] = object.__new__(kind)
    for name in _names(value):
        object.__setattr__(copy, name, fork(getattr(value, name), known))
    return copy


def _is_machine(value: Any) -> bool:
    """Whether it may change: one of our own classes that is not frozen, or a configuration that holds one."""
    kind = type(value)
    if not kind.__module__.startswith(("overlay.", "attest.", "audit.", "tests.")) or isinstance(value, Enum | bytes | type):
        return False
    if isinstance(value, HandshakeContext | NoChance ):
        return False
    if isinstance(value, SessionConfig):  # frozen, and it holds what changes
        return True
    return not (is_dataclass(value) and kind.__dataclass_params__.frozen)


def _names(value: Any) -> list[str]:
    """All attributes that are set, in `__dict__` or in slots."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(value, "__dict__", {}), *(name for name in slots if hasattr(value, name))]


def fresh_pair() -> Pair:
    """Nothing said yet."""
    return Pair(
        answer_evidence=False, attest=PATIENT, alice_config=context(chance=NoChance(b"alice")),
        bob_config=context(chance=NoChance(b"bob")),
    )


def opened() -> Pair:
    """An open link; nothing waits to be said."""
    pair = fresh_pair()
    pair.answer_evidence = True
    pair.exchange()
    return pair


def admitting() -> Pair:
    """Both have the other's CHALLENGE, and nobody has proven anything."""
    pair = fresh_pair()
    pair.exchange()
    return pair


def copies(make: Callable[[], Pair]) -> Callable[[], Pair]:
    """The same pair each time, in a tenth of the time. There must be keys: a handshake under way cannot be copied."""
    first = cache(make)

    def copy() -> Pair:
        pair: Pair = fork(first(), {})
        return pair

    return copy


open_pair = copies(opened)
admitting_pair = copies(admitting)


def hear_in_pieces(wire: bytes, places: Iterable[int]) -> tuple[list[Event], State]:
    """What Bob makes of Alice's bytes, cut there; bytes of one stream that come one after the other are one event."""
    pair = open_pair()
    heard: list[Event] = []
    for start, stop in pairwise([0, *sorted(places), len(wire)]):
        for event in pair.bob.session.receive(bytearray(wire[start:stop]), pair.now):
            last = heard[-1] if heard else None
            if isinstance(event, StreamData) and isinstance(last, StreamData) and event.stream == last.stream:
                heard[-1] = StreamData(event.stream, bytes(last.data) + event.data)
            else:
                heard.append(event)
    return heard, pair.bob.session.state
