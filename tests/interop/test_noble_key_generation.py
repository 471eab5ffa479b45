"""One key made by members of ours and members of noble's (`@noble/curves`, `ed25519_FROST`), who then sign together.

Noble's key generation is the classic one of the FROST paper (Komlo and Goldberg, 2020, figure 1): shares in the clear over
secure channels, a proof of knowledge over another message, no certificates. It cannot take part in COCKTAIL, which seals the
shares and signs a transcript. So here our side plays the classic protocol, in this file, on our polynomials, commitments and
checks; what COCKTAIL adds is compared with its own vectors (`tests/vectors/test_cocktail.py`).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from overlay.core.authority.cocktail import check_share
from overlay.core.authority.cocktail_primitives import add_points, add_scalars, random_scalar, sha512
from overlay.core.authority.frost import Commitment, aggregate, commit, sign
from overlay.core.authority.group import BASE, Point, Scalar
from overlay.core.authority.sharing import GroupKey, Share, commit_to, evaluate, evaluate_commitment
from overlay.core.keys import verify_ed25519
from overlay.errors import Refused
from overlay.net.system import SystemChance

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("OVERLAY_INTEROP") or HERE.parents[1] / ".venv" / "interop")
THERE = shutil.which("node") is not None and (FOLDER / "node_modules" / "@noble" / "curves").is_dir()
pytestmark = pytest.mark.skipif(not THERE, reason=f"there is no node, or @noble/curves is not in {FOLDER}")

CHANCE = SystemChance()
Round1 = dict[str, Any]


class NobleError(Exception):
    """What noble said."""


class Noble:
    """A process that plays any number of members."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise NobleError(answer["error"])
        return answer


@pytest.fixture
def noble() -> Iterator[Noble]:
    command = ["node", str(HERE / "noble_key_generation.js"), str(FOLDER)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield Noble(process)
        assert process.stdin is not None
        process.stdin.close()


def proof_challenge(identifier: int, key: Point, commitment: Point) -> Scalar:
    """H(i, phi_i0, R_i) as noble and ZcashFoundation's frost have it: domain "dkg" of the ciphersuite."""
    said = Scalar.of(identifier).encode() + key.encode() + commitment.encode()
    return Scalar.reduce(sha512(b"FROST-ED25519-SHA512-v1dkg", said))


@dataclass
class OurMember:
    """Classic FROST key generation on our arithmetic."""

    identifier: int
    threshold: int
    coefficients: list[Scalar] = field(default_factory=list)

    def round1(self) -> Round1:
        self.coefficients = [random_scalar(CHANCE) for _ in range(self.threshold)]
        commitment = commit_to(self.coefficients)
        nonce = random_scalar(CHANCE)
        challenge = proof_challenge(self.identifier, commitment[0], BASE * nonce)
        proof = (BASE * nonce).encode() + (nonce + self.coefficients[0] * challenge).encode()
        return {
            "id": self.identifier, "commitment": [point.encode().hex() for point in commitment], "proof": proof.hex()
        }  # fmt: skip

    def round2(self, others: list[Round1]) -> dict[int, str]:
        """Check their proofs, and a share for each of them."""
        for other in others:
            points = read_commitment(other)
            proof = bytes.fromhex(other["proof"])
            nonce, response = Point.from_bytes(proof[:32]), Scalar.from_bytes(proof[32:])
            assert BASE * response == nonce + points[0] * proof_challenge(other["id"], points[0], nonce)
            assert len(points) == self.threshold
        return {other["id"]: evaluate(self.coefficients, other["id"]).encode().hex() for other in others}

    def round3(self, everyone: list[Round1], shares: Mapping[int, str]) -> Share:
        """Check the shares, and what they come to."""
        received = [evaluate(self.coefficients, self.identifier)]
        for other in everyone:
            if other["id"] != self.identifier:
                received.append(Scalar.from_bytes(bytes.fromhex(shares[other["id"]])))
                check_share(read_commitment(other), self.identifier, received[-1])
        total = [add_points(points) for points in zip(*[read_commitment(each) for each in everyone], strict=True)]
        verification = {each["id"]: evaluate_commitment(total, each["id"]).encode() for each in everyone}
        group = GroupKey(self.threshold, total[0].encode(), verification)
        return Share(self.identifier, 0, add_scalars(received), group)


def read_commitment(said: Round1) -> list[Point]:
    return [Point.from_bytes(bytes.fromhex(text)) for text in said["commitment"]]


@dataclass
class Mixed:
    """A key of both."""

    ours: dict[int, Share]
    theirs: dict[int, dict[str, Any]]


def make_key(noble: Noble, ours: tuple[int, ...], theirs: tuple[int, ...], threshold: int) -> Mixed:
    count = len(ours) + len(theirs)
    members = {identifier: OurMember(identifier, threshold) for identifier in ours}
    first = [member.round1() for member in members.values()]
    first += [{"id": one, **noble.ask("round1", id=one, min=threshold, max=count)} for one in theirs]
    first.sort(key=lambda said: int(said["id"]))
    second: dict[int, dict[int, str]] = {}
    for one in range(1, count + 1):
        others = [said for said in first if said["id"] != one]
        if one in members:
            second[one] = members[one].round2(others)
        else:
            second[one] = {int(to): share for to, share in noble.ask("round2", id=one, others=others)["shares"].items()}
    sent_to = {one: {other: second[other][one] for other in second if other != one} for one in second}
    return Mixed(
        {one: member.round3(first, sent_to[one]) for one, member in members.items()},
        {one: noble.ask("round3", id=one, shares=sent_to[one]) for one in theirs},
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "threshold"), [((1,), (2, 3), 2), ((1, 3), (2,), 3), ((2, 4, 5), (1, 3), 4), ((1, 2), (3, 4, 5), 3)]
)  # fmt: skip
def test_they_make_one_key_and_sign_with_it(
    noble: Noble, ours: tuple[int, ...], theirs: tuple[int, ...], threshold: int
) -> None:
    key = make_key(noble, ours, theirs, threshold)
    group = next(iter(key.ours.values())).group
    assert all(share.group == group for share in key.ours.values())
    for result in key.theirs.values():
        assert result["public"] == group.public.hex()
        assert {int(one): bytes.fromhex(data) for one, data in result["verification"].items()} == group.shares
    for one, result in key.theirs.items():  # theirs are shares of ours
        Share(one, 0, Scalar.from_bytes(bytes.fromhex(result["share"])), group)
    sign_together(noble, key, group)


def sign_together(noble: Noble, key: Mixed, group: GroupKey) -> None:
    """As many as are needed, of both sides."""
    message = b"made by both"
    signers = sorted([*sorted(key.theirs)[: group.threshold - 1], *key.ours][: group.threshold])
    assert set(signers) & set(key.ours)
    assert set(signers) & set(key.theirs)
    nonces, commitments = {}, []
    for one in signers:
        if one in key.ours:
            nonces[one], made = commit(key.ours[one], CHANCE)
        else:
            said = {name: Point.from_bytes(bytes.fromhex(data)) for name, data in noble.ask("commit", id=one).items()}
            made = Commitment(one, said["hiding"], said["binding"])
        commitments.append(made)
    listed = [
        {"id": one.identifier, "hiding": one.hiding.encode().hex(), "binding": one.binding.encode().hex()}
        for one in commitments
    ]
    shares = {one: sign(key.ours[one], nonces[one], message, commitments) for one in signers if one in key.ours}
    for one in signers:
        if one not in key.ours:
            shares[one] = bytes.fromhex(noble.ask("sign", id=one, message=message.hex(), list=listed)["share"])
    verify_ed25519(group.public, aggregate(group, message, commitments, shares), message)


def test_noble_refuses_a_proof_of_ours_for_another_member(noble: Noble) -> None:
    noble.ask("round1", id=1, min=2, max=2)
    said = OurMember(2, 2).round1()
    wrong = bytes.fromhex(said["proof"])[:32] + Scalar.of(5).encode()
    with pytest.raises(NobleError, match="proof of knowledge"):
        noble.ask("round2", id=1, others=[said | {"proof": wrong.hex()}])


def test_a_bad_share_of_nobles_is_noticed(noble: Noble) -> None:
    member = OurMember(1, 2)
    everyone = [member.round1(), {"id": 2, **noble.ask("round1", id=2, min=2, max=2)}]
    with pytest.raises(Refused):
        member.round3(everyone, {2: Scalar.of(5).encode().hex()})


def test_a_bad_share_of_ours_is_noticed_by_noble(noble: Noble) -> None:
    said = OurMember(1, 2).round1()
    noble.ask("round1", id=2, min=2, max=2)
    noble.ask("round2", id=2, others=[said])
    with pytest.raises(NobleError):
        noble.ask("round3", id=2, shares={"1": Scalar.of(5).encode().hex()})
