"""Our vectors, recomputed from their inputs without our modules: an implementation of a few lines over `cryptography` alone."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate

from tests.vectors.by_hand import (
    Side,
    epoch_keys,
    first_h,
    hello,
    lv,
    noise,
    record,
    rekey_prologue,
    rekey_psk,
    sha256,
    u64,
)
from tests.vectors.conftest import Load
from tests.vectors.cose_by_hand import (
    attest_leaf,
    bind,
    cbor,
    ed25519,
    ed25519_public,
    fields,
    merkle_path,
    merkle_root,
    proof_input,
    protected,
    qualifying_data,
    sign1,
    to_be_signed,
)
from tests.vectors.make_credentials import ES256, endorsement, pop_input
from tests.vectors.make_messages import LABELS
from tests.vectors.make_ours import FILES, made
from tests.vectors.vector_kit import ALICE, BOB, MACHINE

Json = dict[str, Any]
SIDES = ("opener", "other")


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def same(found: dict[str, bytes], wanted: Json) -> None:
    assert {name: value.hex() for name, value in found.items()} == {name: wanted[name] for name in found}


def good(ours: Load, name: str) -> list[Json]:
    found = [case for case in ours(name)["vectors"] if case["expect"] == "ok"]
    assert found
    return found


# --- session.json: from private keys to the first records of three epochs -------------------------------------------------


def sides(session: Json, inputs: Json) -> dict[str, Side]:
    statics = session["static_private"]
    return {name: Side(unhex(statics[name]), unhex(inputs[f"{name}_ephemeral_private"])) for name in SIDES}


def kem(inputs: Json) -> tuple[bytes, bytes, bytes]:
    """Encapsulation key, ciphertext, secret."""
    key, ciphertext = MLKEM768PrivateKey.from_seed_bytes(unhex(inputs["kem_seed"])), unhex(inputs["kem_ciphertext"])
    return key.public_key().public_bytes_raw(), ciphertext, key.decapsulate(ciphertext)


def first_records(epoch: int, keys: dict[str, bytes]) -> dict[str, bytes]:
    body = fields(epoch)
    plaintext = b"\x0b\0\0\0\0\0" + len(body).to_bytes(2, "big") + body
    records = {"first_record_of_opener": record(keys["i2r"], 0, plaintext)}
    return records | {"first_record_of_other": record(keys["r2i"], 0, plaintext), "first_plaintext": plaintext}


def payload(inputs: Json, side: str, shared: bytes) -> bytes:
    return fields(unhex(inputs[f"{side}_endorsement"]), unhex(inputs[f"{side}_leaf"]), [], shared, [[1, 1]])


def test_the_handshake(ours: Load) -> None:
    (session,) = ours("session.json")["vectors"]
    inputs, wanted = session["xx"]["inputs"], session["xx"]["values"]
    both, (public, ciphertext, secret) = sides(session, inputs), kem(inputs)
    start = hello(unhex(inputs["gate_key"]), 1, unhex(inputs["responder_tag"]), unhex(wanted["message_1"]))
    prologue = b"overlay/1\0" + unhex(session["mesh_id"]) + start[:3]
    payloads = [b"", payload(inputs, "other", public), payload(inputs, "opener", ciphertext)]
    found = noise("XX", prologue, both["opener"], both["other"], payloads)
    keys = epoch_keys(1, found.h, found.k1 + found.k2 + secret, first_h(found.h))
    values = {"hello": start, "prologue": prologue, "kem_public": public, "kem_secret": secret, "h_xx": found.h}
    values |= {"k1": found.k1, "k2": found.k2, "payload_2": payloads[1], "payload_3": payloads[2]}
    values |= {f"message_{number}": message for number, message in enumerate(found.messages, 1)}
    values |= keys | first_records(1, keys)
    assert set(values) == set(wanted)
    same(values, wanted)


@pytest.mark.parametrize("index", [0, 1])
def test_a_rekey(ours: Load, index: int) -> None:
    (session,) = ours("session.json")["vectors"]
    before = [session["xx"], *session["rekeys"]][index]["values"]
    inputs, wanted = session["rekeys"][index]["inputs"], session["rekeys"][index]["values"]
    both, epoch, (public, ciphertext, secret) = sides(session, inputs), inputs["epoch"], kem(inputs)
    offer, previous_h = u64(epoch) + public, unhex(before["h"])
    prologue = rekey_prologue(unhex(session["mesh_id"]), epoch, previous_h, offer, ciphertext)
    psk = rekey_psk(epoch, previous_h, secret, unhex(before["export"]))
    found = noise("KKpsk0", prologue, both[inputs["answerer"]], both[inputs["driver"]], [b"", b""], psk)
    keys = epoch_keys(epoch, found.h, found.k1 + found.k2, found.h)
    a, b = found.messages
    values = {"offer": offer, "kem_secret": secret, "psk": psk, "prologue": prologue, "k1": found.k1, "k2": found.k2}
    values |= {"message_a": a, "init": u64(epoch) + ciphertext + a, "message_b": b, "resp": u64(epoch) + b}
    values |= keys | first_records(epoch, keys)
    assert set(values) == set(wanted)
    same(values, wanted)


# --- single cases -----------------------------------------------------------------------------------------------------


def test_the_hellos(ours: Load) -> None:
    for case in good(ours, "gate.json"):
        made_with = {
            hello(unhex(key), case["mode"], unhex(tag), unhex(case["ephemeral"])).hex()
            for key in case["gate_keys"] for tag in case["tags"]
        }  # fmt: skip
        assert case["hello"] in made_with


def test_the_records(ours: Load) -> None:
    for case in good(ours, "records.json"):
        sealed = [record(unhex(case["key"]), counter, unhex(text)).hex() for counter, text in enumerate(case["plaintexts"])]
        assert sealed == case["records"]


def test_the_records_at_any_counter(ours: Load) -> None:
    for case in good(ours, "counters.json"):
        key, counter, nonce = unhex(case["key"]), int(case["counter"]), unhex(case["nonce"])
        assert nonce == bytes(4) + u64(counter)
        assert lv(AESGCM(key).encrypt(nonce, unhex(case["plaintext"]), None)).hex() == case["record"]


def test_the_endorsements(ours: Load) -> None:
    content = ours("credentials.json")
    root, mesh_id = load_der_x509_certificate(unhex(content["context"]["root"])), unhex(content["context"]["mesh_id"])
    assert sha256(b"overlay/1 mesh\0", spki(root)) == mesh_id
    for member, case in zip((ALICE, BOB, MACHINE), (case for case in content["vectors"] if "inputs" in case), strict=True):
        inputs, values, leaf = case["inputs"], case["values"], load_der_x509_certificate(unhex(case["leaf"]))
        leaf.verify_directly_issued_by(root)
        node_id = sha256(spki(leaf))
        noise_public = Side(unhex(inputs["noise_private"]), b"").public
        popped = pop_input(mesh_id, node_id, noise_public, unhex(inputs["start_id"]))
        message_key = unhex(inputs["message_private"])
        pop = ed25519(message_key, popped)
        said = fields(
            node_id, sha256(unhex(case["leaf"])), noise_public, ed25519_public(message_key), unhex(inputs["start_id"]),
            inputs["not_before"], inputs["not_after"], pop,
        )  # fmt: skip
        algorithm = ES256 if member is MACHINE else -8
        signed = to_be_signed(said, b"overlay/1 endorse\0" + mesh_id, None, algorithm)
        _, raw = endorsement(member)
        same({"node_id": node_id, "pop_input": popped, "pop": pop, "payload": said, "to_be_signed": signed}, values)
        same({"kid": sha256(raw), "signature": raw[-64:]}, values)
        assert raw.hex() == case["endorsement"] == sign1(said, unhex(values["signature"]), None, algorithm).hex()


def spki(certificate: Any) -> bytes:
    """SubjectPublicKeyInfo DER."""
    data: bytes = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return data


def own_and_peer(content: Json, role: int) -> tuple[Json, Json, bytes]:
    """Who shows, to whom, and the message key."""
    names = ("alice", "bob") if role == 1 else ("bob", "alice")
    context = content["context"]
    return context["peers"][names[0]], context["peers"][names[1]], unhex(context["message_private"][names[0]])


def test_the_proofs(ours: Load) -> None:
    content = ours("admission.json")
    mesh_id, h = (unhex(content["context"][name]) for name in ("mesh_id", "h1"))
    for case in (case for case in good(ours, "admission.json") if case["kind"] == "proof"):
        own, peer, key = own_and_peer(content, case["role"])
        hashes = [sha256(unhex(side[what])) for side in (own, peer) for what in ("leaf", "endorsement")]
        facts = [mesh_id, h, bytes([case["role"]]), *hashes, unhex(case["nonce"])]
        signed = proof_input(facts, unhex(case["evidence"]))
        same({"to_sign": signed, "signature": ed25519(key, signed)}, case["values"])
        assert fields(ed25519(key, signed), unhex(case["claims"]), unhex(case["evidence"])).hex() == case["body"]


def test_the_evidence(ours: Load) -> None:
    content = ours("admission.json")
    mesh_id = unhex(content["context"]["mesh_id"])
    for case in (case for case in good(ours, "admission.json") if case["kind"] == "evidence"):
        own, peer, key = own_and_peer(content, case["role"])
        leaves = [sha256(unhex(side["leaf"])) for side in (own, peer)]
        bound = bind([mesh_id, unhex(case["h"]), bytes([case["role"]]), *leaves, unhex(case["nonce"])], case["epoch"],
                     unhex(case["claims"]))  # fmt: skip
        tree = [unhex(leaf) for leaf in case["values"]["leaves"]]
        index = tree.index(attest_leaf(bound))
        assert tree == sorted(tree) and len(tree) == case["others"] + 1
        root, path = merkle_root(tree), merkle_path(tree, index)
        data = qualifying_data(len(tree), root)
        kid = sha256(unhex(own["endorsement"]))
        signed = to_be_signed(fields(data), b"overlay/1 software evidence\0" + mesh_id, kid)
        quote = sign1(fields(data), ed25519(key, signed), kid)
        same({"bind": bound, "leaf": tree[index], "root": root, "qualifying_data": data}, case["values"])
        same({"to_be_signed": signed, "quote": quote, "payload": fields(data), "signature": quote[-64:]}, case["values"])
        assert [one.hex() for one in path] == case["values"]["path"]
        assert case["values"]["index"] == index
        assert fields(len(tree), index, path, b"", quote, b"").hex() == case["body"]


def test_the_messages(ours: Load) -> None:
    content = ours("messages.json")
    mesh_id, alice = unhex(content["context"]["mesh_id"]), content["context"]["peers"]["alice"]
    key, kid = unhex(content["context"]["message_private"]["alice"]), sha256(unhex(alice["endorsement"]))
    for case in (case for case in good(ours, "messages.json") if "fields" in case):
        said = fields(*(unhex(item["hex"]) if isinstance(item, dict) else item for item in case["fields"]))
        aad = LABELS[case["kind"]] + mesh_id
        signed = to_be_signed(said, aad, kid)
        same({"aad": aad, "payload": said, "to_be_signed": signed, "protected": protected(kid)}, case["values"])
        same({"signature": ed25519(key, signed)}, case["values"])
        assert sign1(said, ed25519(key, signed), kid).hex() == case["raw"]


def test_the_batch(ours: Load) -> None:
    content = ours("messages.json")
    mesh_id, alice = unhex(content["context"]["mesh_id"]), content["context"]["peers"]["alice"]
    key, kid = unhex(content["context"]["message_private"]["alice"]), sha256(unhex(alice["endorsement"]))
    (case,) = (case for case in good(ours, "messages.json") if case["kind"] == "batch")
    said = [unhex(one) for one in case["messages"]]
    leaves = [sha256(b"\0", one) for one in said]
    node_id, hlc = sha256(spki(load_der_x509_certificate(unhex(alice["leaf"])))), content["context"]["at"] * 1000 << 16
    head = fields(node_id, b"overlay/1 transient\0", hlc, len(said), merkle_root(leaves))
    raw = sign1(head, ed25519(key, to_be_signed(head, b"overlay/1 batch\0" + mesh_id, kid)), kid)
    assert cbor({0: 1, 1: raw, 2: said}).hex() == case["raw"]
    alone = [case for case in good(ours, "messages.json") if case["kind"] == "proof"]
    for index, one in enumerate(alone):
        assert one["raw"] == fields(raw, index, merkle_path(leaves, index), said[index]).hex()


@pytest.mark.parametrize("name", FILES)
def test_the_generator_makes_the_same_file_again(ours: Load, name: str) -> None:
    assert made(name) == ours(name)
