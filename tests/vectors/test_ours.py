"""Our own vectors, in JSON, so that others can test against us: recomputed here from their inputs.

`PYTHONPATH=. python tests/vectors/test_ours.py` writes `ours/session.json` again; everything but the ML-KEM ciphertexts
follows from the inputs, and those are kept once recorded. The other files hold fixed cases.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overlay.core.epochs import (
    EpochKeys,
    MlKem768,
    MlKem768Key,
    first_epoch,
    hkdf_extract,
    next_epoch,
    rekey_prologue,
    rekey_psk,
)
from overlay.core.frames import Frame, pack, parse_frames
from overlay.core.gate import SeenEphemerals, check_hello, make_hello, prologue
from overlay.core.keys import X25519Pair
from overlay.core.noise import XX, Handshake, Inputs, KKpsk0, NoiseResult
from overlay.core.records import Opener, Sealer
from overlay.core.wire import make_map, u64
from overlay.errors import Refused
from overlay.registry import SUITES, FrameType, Mode, Role

Json = dict[str, Any]
SIDES = {"opener": Role.OPENER, "other": Role.OTHER}


def pair(private: str) -> X25519Pair:
    """From hex."""
    return X25519Pair.from_private(bytes.fromhex(private))


def outcome(act: Callable[[], object]) -> str:
    """What a vector's `expect` says."""
    try:
        act()
    except Refused as error:
        return error.reason.name.lower()
    return "ok"


# --- a session: XX with ML-KEM in its payloads, and rekeys


def kem_of(inputs: Json) -> tuple[MlKem768Key, bytes]:
    """The recorded half of an exchange: the key and what was encapsulated to it."""
    return MlKem768Key.from_seed(bytes.fromhex(inputs["kem_seed"])), bytes.fromhex(inputs["kem_ciphertext"])


def make_payload(inputs: Json, side: str, kem: bytes) -> bytes:
    """Payload 2 or 3; stand-ins take the place of credentials."""
    endorsement, leaf = (bytes.fromhex(inputs[f"{side}_{name}"]) for name in ("endorsement", "leaf"))
    return make_map(endorsement, leaf, [], kem, [list(one) for one in SUITES])


def epoch_values(keys: EpochKeys, result: NoiseResult, prk: bytes) -> Json:
    """The end of both key schedules, and the first record each way."""
    plaintext = pack(Frame(FrameType.CONFIRM, body=make_map(keys.epoch)))
    values = {"k1": result.k1, "k2": result.k2, "prk": prk, "h": keys.h, "i2r": keys.i2r, "r2i": keys.r2i}
    values |= {"export": keys.export, "first_plaintext": plaintext}
    values |= {f"first_record_of_{side}": Sealer(keys.sending(role)).seal(plaintext) for side, role in SIDES.items()}
    return {name: value.hex() for name, value in values.items()}


def play_xx(session: Json) -> tuple[Json, EpochKeys]:
    """All values of the handshake, and its keys."""
    inputs = session["xx"]["inputs"]
    statics = {side: pair(session["static_private"][side]) for side in SIDES}
    fresh = {side: pair(inputs[f"{side}_ephemeral_private"]) for side in SIDES}
    gate_key, tag = bytes.fromhex(inputs["gate_key"]), bytes.fromhex(inputs["responder_tag"])
    hello = make_hello(gate_key, Mode.MEMBER, tag, fresh["opener"].public)
    start = prologue(bytes.fromhex(session["mesh_id"]), hello[:3])
    opener = XX.initiator(start, statics["opener"], fresh["opener"])
    other = XX.responder(start, statics["other"], fresh["other"])
    kem_key, ciphertext = kem_of(inputs)
    payloads = [b"", make_payload(inputs, "other", kem_key.public), make_payload(inputs, "opener", ciphertext)]
    messages = [opener.write()]
    other.read(messages[0])
    messages.append(other.write(payloads[1]))
    opener.read(messages[1])
    messages.append(opener.write(payloads[2]))
    other.read(messages[2])
    result, secret = opener.result(), kem_key.decapsulate(ciphertext)
    assert first_epoch(result, secret) == first_epoch(other.result(), secret)
    keys = first_epoch(result, secret)
    values = {"hello": hello, "prologue": start, "kem_public": kem_key.public, "kem_secret": secret, "h_xx": result.h}
    values |= {f"payload_{number}": payloads[number - 1] for number in (2, 3)}
    values |= {f"message_{number}": messages[number - 1] for number in (1, 2, 3)}
    prk = hkdf_extract(salt=result.h, ikm=result.k1 + result.k2 + secret)
    return {name: value.hex() for name, value in values.items()} | epoch_values(keys, result, prk), keys


def play_rekey(session: Json, rekey: Json, previous: EpochKeys) -> tuple[Json, EpochKeys]:
    """All values of one rekey, and its keys."""
    inputs, epoch = rekey["inputs"], previous.epoch + 1
    kem_key, ciphertext = kem_of(inputs)
    offer, secret = u64(epoch) + kem_key.public, kem_key.decapsulate(ciphertext)
    psk = rekey_psk(previous, secret)
    start = rekey_prologue(bytes.fromhex(session["mesh_id"]), epoch, previous.h, offer, ciphertext)
    statics = {side: pair(session["static_private"][side]) for side in SIDES}
    fresh = {side: pair(inputs[f"{side}_ephemeral_private"]) for side in SIDES}
    driver, answerer = inputs["driver"], inputs["answerer"]
    first = KKpsk0.initiator(start, statics[answerer], fresh[answerer], statics[driver].public, psk)
    second = KKpsk0.responder(start, statics[driver], fresh[driver], statics[answerer].public, psk)
    message_a = first.write()
    second.read(message_a)
    message_b = second.write()
    first.read(message_b)
    result = first.result()
    assert next_epoch(epoch, result) == next_epoch(epoch, second.result())
    keys = next_epoch(epoch, result)
    values = {"offer": offer, "kem_secret": secret, "psk": psk, "prologue": start}
    values |= {"message_a": message_a, "init": u64(epoch) + ciphertext + message_a}
    values |= {"message_b": message_b, "resp": u64(epoch) + message_b}
    prk = hkdf_extract(salt=result.h, ikm=result.k1 + result.k2)
    return {name: value.hex() for name, value in values.items()} | epoch_values(keys, result, prk), keys


def test_the_session_is_recomputed_from_its_inputs(ours: Callable[[str], Any]) -> None:
    (session,) = ours("session.json")["vectors"]
    assert session["expect"] == "ok"
    values, keys = play_xx(session)
    assert values == session["xx"]["values"]
    for epoch, rekey in enumerate(session["rekeys"], 2):
        values, keys = play_rekey(session, rekey, keys)
        assert keys.epoch == rekey["inputs"]["epoch"] == epoch
        assert values == rekey["values"]


def hkdf_by_hand(salt: bytes, ikm: bytes, info: bytes) -> bytes:
    """RFC 5869 for 32 bytes, from the standard library alone."""
    prk = hmac.digest(salt, ikm, hashlib.sha256)
    return hmac.digest(prk, info + b"\x01", hashlib.sha256)


def test_the_key_schedule_of_the_session_by_hand(ours: Callable[[str], Any]) -> None:
    (session,) = ours("session.json")["vectors"]
    xx = {name: bytes.fromhex(value) for name, value in session["xx"]["values"].items()}
    assert xx["h"] == hashlib.sha256(b"overlay/1 h\0" + u64(1) + xx["h_xx"]).digest()
    salt, ikm = xx["h_xx"], xx["k1"] + xx["k2"] + xx["kem_secret"]
    before = xx
    for label in ("i2r", "r2i", "export"):
        assert xx[label] == hkdf_by_hand(salt, ikm, f"overlay/1 {label}\0".encode() + u64(1))
    for epoch, rekey in enumerate(session["rekeys"], 2):
        now = {name: bytes.fromhex(value) for name, value in rekey["values"].items()}
        ikm = now["kem_secret"] + before["export"]
        assert now["psk"] == hkdf_by_hand(before["h"], ikm, b"overlay/1 rekey psk\0" + u64(epoch))
        for label in ("i2r", "r2i", "export"):
            info = f"overlay/1 {label}\0".encode() + u64(epoch)
            assert now[label] == hkdf_by_hand(now["h"], now["k1"] + now["k2"], info)
        before = now


# --- what is let in and what is refused


def play_gate(case: Json) -> None:
    """One hello."""
    seen = SeenEphemerals()
    for ephemeral in case["seen"]:
        seen.add(bytes.fromhex(ephemeral))
    keys, tags = ([bytes.fromhex(one) for one in case[name]] for name in ("gate_keys", "tags"))
    mode = check_hello(bytes.fromhex(case["hello"]), bytes.fromhex(case["ephemeral"]), keys, tags, seen)
    assert mode == case["mode"]


def play_handshake(case: Json) -> None:
    """One side, which reads what it is given and writes empty payloads in between."""
    given = {name: bytes.fromhex(case[name]) for name in ("remote_static", "psk") if name in case}
    inputs = Inputs(
        prologue=bytes.fromhex(case["prologue"]),
        static=pair(case["static_private"]),
        ephemeral=pair(case["ephemeral_private"]),
        remote_static=given.get("remote_static"),
        psk=given.get("psk"),
    )
    pattern = {"XX": XX.PATTERN, "KKpsk0": KKpsk0.PATTERN}[case["pattern"]]
    side = Handshake(pattern, inputs, initiator=case["initiator"])
    messages = iter(case["messages"])
    for number in range(len(case["messages"])):
        if case["initiator"] == (number % 2 == 0):
            assert side.write().hex() == next(messages)
        else:
            side.read(bytes.fromhex(next(messages)))


def play_records(case: Json) -> None:
    """Records under one key, in the order in which they come."""
    opener = Opener(bytes.fromhex(case["key"]))
    for record, plaintext in zip(case["records"], case["plaintexts"], strict=True):
        body = bytes.fromhex(record)
        assert int.from_bytes(body[:2], "big") == len(body) - 2
        assert opener.open(body[2:]).hex() == plaintext


def play_frames(case: Json) -> None:
    """The frames of one record."""
    frames = parse_frames(bytes.fromhex(case["plaintext"]))
    found = [[int(frame.type), int(frame.flags), frame.stream, frame.body.hex()] for frame in frames]
    assert found == case["frames"]


@pytest.mark.parametrize(
    ("file", "play"),
    [
        ("gate.json", play_gate),
        ("handshake.json", play_handshake),
        ("records.json", play_records),
        ("frames.json", play_frames),
    ],
)
def test_each_case_ends_as_it_says(ours: Callable[[str], Any], file: str, play: Callable[[Json], None]) -> None:
    cases = ours(file)["vectors"]
    found = {case["name"]: outcome(lambda case=case: play(case)) for case in cases}  # type: ignore[misc]
    assert found == {case["name"]: case["expect"] for case in cases}
    assert {"ok"} < set(found.values())


# --- writing session.json


def main() -> None:
    """Play the session again and write it down."""
    path = Path(__file__).parent / "ours" / "session.json"
    file = json.loads(path.read_text())
    (session,) = file["vectors"]
    for step in (session["xx"], *session["rekeys"]):
        inputs = step["inputs"]
        if "kem_ciphertext" not in inputs:
            public = MlKem768Key.from_seed(bytes.fromhex(inputs["kem_seed"])).public
            inputs["kem_ciphertext"] = MlKem768().encapsulate(public)[1].hex()
    session["xx"]["values"], keys = play_xx(session)
    for rekey in session["rekeys"]:
        rekey["values"], keys = play_rekey(session, rekey, keys)
    path.write_text(json.dumps(file, indent=1) + "\n")


if __name__ == "__main__":
    main()
