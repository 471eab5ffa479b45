"""Our modules on our vectors of what is signed: credentials, proofs, evidence, messages; and records at any counter."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from attest.software import check_software
from audit.checkpoint import parse_checkpoint, verify_cosignature, witness_key
from audit.forks import parse_fork
from overlay.core.admission import Proof, ProofFacts
from overlay.core.batches import parse_batch
from overlay.core.certificates import Root, parse_root, verify_leaf
from overlay.core.endorsement import verify_endorsement
from overlay.core.evidence import Binding, Evidence
from overlay.core.keys import Ed25519Signer
from overlay.core.limits import PROOF_MAX
from overlay.core.mesh.topics import Author, verify_publication
from overlay.core.mesh.transients import verify_transient, verify_transients
from overlay.core.messages import verify_call, verify_reply
from overlay.core.records import Opener, Sealer
from overlay.core.segments import SignedStream, verify_segment
from overlay.core.trust import Credentials, VerifiedPeer
from overlay.core.work.envelopes import SignedPlacement, SignedResult, SignedWorkload
from overlay.errors import LocalProtocolError, Refused
from overlay.registry import Reason, Role
from tests.vectors.conftest import OURS, Load

Json = dict[str, Any]
NAMES = {Role.OPENER: "alice", Role.OTHER: "bob"}


def outcome(act: Callable[[], object]) -> str:
    """What a vector's `expect` says."""
    try:
        act()
    except Refused as error:
        return error.reason.name.lower()
    return "ok"


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


class Context:
    """What the vectors of a file share, read by our modules."""

    def __init__(self, file: Json) -> None:
        self.file = file
        context = file["context"]
        self.root: Root = parse_root(unhex(context["root"]))
        self.at = datetime.fromtimestamp(context["at"], UTC)
        self.h = unhex(context.get("h1", ""))
        assert self.root.mesh_id.hex() == context["mesh_id"]
        self.peers = {name: self.verify(shown, self.at) for name, shown in context.get("peers", {}).items()}
        self.stream = SignedStream(
            mesh_id=self.root.mesh_id, first_h=self.h, stream=context.get("stream", 0),
            opening=unhex(context.get("opening", "")),
        )

    def verify(self, shown: Json, at: datetime) -> VerifiedPeer:
        certificate = verify_leaf(unhex(shown["leaf"]), (), self.root, at)
        return VerifiedPeer(certificate, verify_endorsement(unhex(shown["endorsement"]), certificate, self.root.mesh_id, at))


def play_checkpoints(context: Context, case: Json) -> None:
    author, witness = context.peers["alice"], Ed25519Signer(unhex(context.file["context"]["witness_private"]))
    found = parse_checkpoint(unhex(case["raw"]))
    assert (found.says.mesh_id, found.says.node_id) == (context.root.mesh_id, author.node_id)
    found.verify(author.message_public)
    key = found.says.author_key(author.message_public)
    values = {"text": found.note.text.encode(), "signature": found.note.signature_of(key).signature}
    if case["kind"] == "cosignature":
        key = witness_key(context.root.mesh_id, context.peers["bob"].node_id, witness.public_key)
        line = next(line for line in found.cosignatures if line.name == key.name)
        assert verify_cosignature(found.says, line, context.peers["bob"].node_id, witness.public_key) == case["at"]
        values = {"signature": line.signature[8:]}
    if "values" in case:
        values |= {"key_id": key.id, "verifier_key": key.text.encode()}
        assert {name: found.hex() for name, found in values.items()} == {name: case["values"][name] for name in values}


def play_forks(context: Context, case: Json) -> None:
    raw = unhex(case["raw"])
    found = parse_fork(raw).verify(context.root, datetime.fromtimestamp(case["at"], UTC))
    assert (found.name, found.kind, found.raw) == ("alice", case["kind"], raw)


# --- one case of each file --------------------------------------------------------------------------------------------


def play_credentials(context: Context, case: Json) -> None:
    peer = context.verify(case, datetime.fromtimestamp(case["at"], UTC))
    if "values" in case:
        found = {"node_id": peer.node_id, "kid": peer.kid, "leaf_hash": peer.certificate.hash}
        assert {name: found[name].hex() for name in found} == {name: case["values"][name] for name in found}


def play_admission(context: Context, case: Json) -> None:
    role = Role(case["role"])
    own, peer = context.peers[NAMES[role]], context.peers[NAMES[role.peer]]
    nonce, body = unhex(case["nonce"]), unhex(case["body"])
    if case["kind"] == "proof":
        facts = ProofFacts(
            mesh_id=context.root.mesh_id, h=context.h, role=role, own_leaf=own.certificate.hash, own_endorsement=own.kid,
            peer_leaf=peer.certificate.hash, peer_endorsement=peer.kid, nonce=nonce,
        )  # fmt: skip
        assert Proof.verify(body, facts, own.message_public).pack().hex() == case["evidence"]
        return
    binding = Binding(
        mesh_id=context.root.mesh_id, h=context.h, role=role, attester_leaf=own.certificate.hash,
        verifier_leaf=peer.certificate.hash, nonce=nonce, epoch=case["epoch"],
    )  # fmt: skip
    check_software(Evidence.unpack(body, unhex(case["claims"]), limit=PROOF_MAX), binding, own)


def play_message(context: Context, case: Json) -> None:
    alice, bob, raw = context.peers["alice"], context.peers["bob"], unhex(case["raw"])
    mesh_id, own_id = context.root.mesh_id, bob.node_id
    author = Author(
        node_id=alice.node_id, name="alice", message_public=alice.message_public, not_before=alice.endorsement.not_before,
        not_after=alice.endorsement.not_after, logs=(),
    )  # fmt: skip
    match case["kind"]:
        case "call":
            verify_call(raw, own_id=own_id, mesh_id=mesh_id, first_h=context.h, peer=alice)
        case "reply":
            verify_reply(raw, own_id=own_id, mesh_id=mesh_id, peer=alice)
        case "segment":
            verify_segment(raw, context.stream, own_id=own_id, peer=alice)
        case "publish":
            verify_publication(raw, mesh_id=mesh_id, author_of=lambda kid: author if kid == alice.kid else None)
        case "batch":
            found = verify_transients(parse_batch(raw), mesh_id=mesh_id, author=author)
            assert [one.hex() for one in found.batch.messages] == case["messages"]
        case "proof":
            verify_transient(raw, mesh_id=mesh_id, author_of=lambda kid: author if kid == alice.kid else None)


def play_work(context: Context, case: Json) -> None:
    raw, shown = unhex(case["raw"]), context.file["context"]["peers"]
    credentials = [Credentials(unhex(one["endorsement"]), unhex(one["leaf"])) for one in (shown["alice"], shown["bob"])]
    alice, mesh_id = context.peers["alice"], context.root.mesh_id
    found: SignedWorkload | SignedPlacement | SignedResult
    match case["kind"]:
        case "placement":
            found = SignedPlacement.read(raw, credentials[0])
            found.check_signature(alice, mesh_id)
            author = found.says.scheduler
        case "result":
            found = SignedResult.read(raw, credentials[0])
            found.check_signature(alice, mesh_id)
            author = found.says.worker
        case kind:
            found = SignedWorkload.read(raw, credentials[: 2 if kind == "workload of two" else 1])
            for index, name in enumerate(("alice", "bob")[: len(found.credentials)]):
                found.check_signature(index, context.peers[name], mesh_id)
            author = found.says.originator
    if author != alice.node_id:
        raise Refused(Reason.WRONG_AUTHOR, "in the name of another node")
    if "values" in case:
        assert (found.hash.hex(), found.says.pack().hex()) == (case["values"]["hash"], case["values"]["payload"])


def play_counter(_: Context, case: Json) -> None:
    opener = Opener(unhex(case["key"]))
    opener.records = int(case["counter"])
    assert opener.open(unhex(case["record"])[2:]).hex() == case["plaintext"]
    sealer = Sealer(unhex(case["key"]))
    sealer.records = int(case["counter"])
    assert sealer.seal(unhex(case["plaintext"])).hex() == case["record"]


FILES: dict[str, Callable[[Any, Json], None]] = {
    "credentials.json": play_credentials, "admission.json": play_admission, "messages.json": play_message,
    "counters.json": play_counter, "checkpoints.json": play_checkpoints, "forks.json": play_forks,
    "work.json": play_work,
}  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_each_case_ends_as_it_says(ours: Load, file: str) -> None:
    content = ours(file)
    context = Context(content) if "context" in content else None
    found = {case["name"]: outcome(lambda case=case: FILES[file](context, case)) for case in content["vectors"]}  # type: ignore[misc]
    assert len(found) == len(content["vectors"])
    assert found == {case["name"]: case["expect"] for case in content["vectors"]}
    assert {"ok"} < set(found.values())


def test_the_last_counter_is_not_sealed_under_either() -> None:
    sealer = Sealer(bytes(32))
    sealer.records = 2**64 - 1
    with pytest.raises(LocalProtocolError):
        sealer.seal(b"plaintext")


def test_every_file_of_ours_is_played_by_some_test() -> None:
    elsewhere = {"session.json", "gate.json", "handshake.json", "records.json", "frames.json", "trace.json", "logs.json"}
    assert {path.name for path in OURS.iterdir()} == set(FILES) | elsewhere
