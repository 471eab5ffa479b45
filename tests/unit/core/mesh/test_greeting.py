"""Who shows the gate key in the first 53 bytes."""

import pytest

from overlay.core.gate import NO_TAG, SeenEphemerals, make_hello
from overlay.core.mesh.greeting import GREETING_SIZE, shows_gate_key
from overlay.registry import Mode

KEY, OLDER, TAG, EPHEMERAL = b"k" * 32, b"o" * 32, b"bobs-tag", b"e" * 32


def greeting(key: bytes = KEY, mode: Mode = Mode.MEMBER, tag: bytes = TAG, ephemeral: bytes = EPHEMERAL) -> bytes:
    return make_hello(key, mode, tag, ephemeral) + b"\x00\x20" + ephemeral


def shows(first: bytes, seen: SeenEphemerals | None = None) -> bool:
    return shows_gate_key(first, (KEY, OLDER), (TAG, NO_TAG), seen or SeenEphemerals())


@pytest.mark.parametrize("first", [greeting(), greeting(OLDER), greeting(tag=NO_TAG), greeting(mode=Mode(2))])
def test_whoever_holds_an_accepted_gate_key_shows_it(first: bytes) -> None:
    assert len(first) == GREETING_SIZE
    assert shows(first)


@pytest.mark.parametrize(
    "first",
    [
        greeting(b"x" * 32), greeting(tag=b"anothers"), greeting()[:-1], greeting() + b"x", b"", bytes(GREETING_SIZE),
        greeting()[:21] + b"f" * 32, greeting()[:19] + b"\x00\x21" + EPHEMERAL, b"\x02" + greeting()[1:],
        greeting()[:2] + b"\x09" + greeting()[3:],
    ],
    ids=["key", "tag", "short", "long", "nothing", "zeros", "e", "record", "version", "mode"],
)
def test_anything_else_counts_as_a_strangers(first: bytes) -> None:
    assert not shows(first)


def test_a_recorded_greeting_counts_as_a_strangers() -> None:
    seen = SeenEphemerals()
    seen.add(EPHEMERAL)
    assert not shows(greeting(), seen)
