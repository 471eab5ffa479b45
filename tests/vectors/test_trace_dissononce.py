"""The steps in trace.json beside `dissononce`: after each message both have the same hash and chaining key."""

from typing import Any

import pytest

from overlay.core.keys import X25519Pair
from tests.vectors.conftest import Load

pytest.importorskip("dissononce", reason="dissononce is not installed")

from tests.vectors.test_interop_dissononce import Theirs, their_kk, their_xx

Json = dict[str, Any]


def pair(private: str) -> X25519Pair:
    return X25519Pair.from_private(bytes.fromhex(private))


def state(theirs: Theirs) -> dict[str, str]:
    return {"h": theirs._symmetric._h.hex(), "ck": theirs._symmetric._ck.hex()}


def compare(first: Theirs, second: Theirs, payloads: list[bytes], steps: list[Json]) -> None:
    """Take turns and look at both after each message but the last, at which they forget their state."""
    ends = {step["message"]: step for step in steps}
    for number, payload in enumerate(payloads, 1):
        assert second.read(first.write(payload)) == payload
        wanted = {name: ends[number][name] for name in ("h", "ck")}
        assert state(first) == state(second) == wanted
        first, second = second, first


def test_the_steps_of_xx(ours: Load) -> None:
    (session,) = ours("session.json")["vectors"]
    inputs, values = session["xx"]["inputs"], session["xx"]["values"]
    opener, other = (
        their_xx(
            initiator=side == "opener", static=pair(session["static_private"][side]),
            ephemeral=pair(inputs[f"{side}_ephemeral_private"]), prologue=bytes.fromhex(values["prologue"]),
        )
        for side in ("opener", "other")
    )  # fmt: skip
    payloads = [b"", bytes.fromhex(values["payload_2"]), bytes.fromhex(values["payload_3"])]
    compare(opener, other, payloads, ours("trace.json")["vectors"][0]["steps"])


@pytest.mark.parametrize("index", [0, 1])
def test_the_steps_of_a_rekey(ours: Load, index: int) -> None:
    (session,) = ours("session.json")["vectors"]
    inputs, values = session["rekeys"][index]["inputs"], session["rekeys"][index]["values"]
    statics = {side: pair(private) for side, private in session["static_private"].items()}
    names = inputs["answerer"], inputs["driver"]
    first, second = (
        their_kk(
            initiator=side == names[0], static=statics[side], ephemeral=pair(inputs[f"{side}_ephemeral_private"]),
            remote=statics[peer].public, prologue=bytes.fromhex(values["prologue"]), psk=bytes.fromhex(values["psk"]),
        )
        for side, peer in (names, names[::-1])
    )  # fmt: skip
    compare(first, second, [b"", b""], ours("trace.json")["vectors"][1 + index]["steps"])
