"""Signatures by signers of ours and of noble's (`@noble/curves`, `ed25519_FROST`) together, put together by both."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overlay.core.authority.frost import Commitment, Nonces, aggregate, bad_shares, commit, sign, verify_share
from overlay.core.authority.group import BASE, WIDE_SIZE, Point, Scalar
from overlay.core.authority.sharing import GroupKey, Share, commit_to, split
from overlay.core.keys import verify_ed25519
from overlay.errors import Refused
from overlay.net.system import SystemChance

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("OVERLAY_INTEROP") or HERE.parents[1] / ".venv" / "interop")
THERE = shutil.which("node") is not None and (FOLDER / "node_modules" / "@noble" / "curves").is_dir()
pytestmark = pytest.mark.skipif(not THERE, reason=f"there is no node, or @noble/curves is not in {FOLDER}")

CHANCE = SystemChance()
MESSAGE = b"signed by both"


class NobleError(Exception):
    """What noble said, and whom it blames."""

    def __init__(self, text: str, cheaters: Sequence[int]) -> None:
        super().__init__(text)
        self.cheaters = tuple(cheaters)


class Noble:
    """A process that plays any number of signers, and a coordinator."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise NobleError(answer["error"], answer["cheaters"])
        return answer


@pytest.fixture
def noble() -> Iterator[Noble]:
    command = ["node", str(HERE / "noble_signing.js"), str(FOLDER)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield Noble(process)
        assert process.stdin is not None
        process.stdin.close()


@dataclass
class Meeting:
    """Signers of both sides who have shown their commitments."""

    noble: Noble
    shares: dict[int, Share]
    ours: dict[int, Nonces]
    commitments: list[Commitment]

    @property
    def group(self) -> GroupKey:
        return self.shares[1].group

    @property
    def listed(self) -> list[dict[str, Any]]:
        return [
            {"id": one.identifier, "hiding": one.hiding.encode().hex(), "binding": one.binding.encode().hex()}
            for one in self.commitments
        ]

    def sign(self) -> dict[int, bytes]:
        """Each with its own side's code."""
        return {one.identifier: self._share(one.identifier) for one in self.commitments}

    def _share(self, identifier: int) -> bytes:
        if identifier in self.ours:
            return sign(self.shares[identifier], self.ours[identifier], MESSAGE, self.commitments)
        answer = self.noble.ask("sign", id=identifier, message=MESSAGE.hex(), list=self.listed)
        return bytes.fromhex(answer["share"])

    def aggregate_there(self, signed: dict[int, bytes]) -> bytes:
        shares = {one: share.hex() for one, share in signed.items()}
        answer = self.noble.ask("aggregate", message=MESSAGE.hex(), list=self.listed, shares=shares)
        return bytes.fromhex(answer["signature"])

    def good_there(self, identifier: int, share: bytes) -> bool:
        answer = self.noble.ask("verify", id=identifier, message=MESSAGE.hex(), list=self.listed, share=share.hex())
        return bool(answer["good"])


def meet(noble: Noble, threshold: int, members: int, ours: tuple[int, ...], theirs: tuple[int, ...]) -> Meeting:
    """A key dealt to n members, and round one of those named."""
    coefficients = [Scalar.reduce(CHANCE.token(WIDE_SIZE)) for _ in range(threshold)]
    parts = split(coefficients[0], threshold, members, coefficients[1:])
    verification = {one: (BASE * part).encode() for one, part in parts.items()}
    points = [point.encode() for point in commit_to(coefficients)]
    group = GroupKey(threshold, points[0], verification)
    shares = {one: Share(one, 0, part, group) for one, part in parts.items()}
    noble.ask(
        "group", min=threshold, max=members, commitments=[point.hex() for point in points],
        verification={one: data.hex() for one, data in verification.items()},
    )  # fmt: skip
    nonces = {one: commit(shares[one], CHANCE)[0] for one in ours}
    shown = [one.commitment for one in nonces.values()] + [commit_there(noble, one, parts[one]) for one in theirs]
    return Meeting(noble, shares, nonces, sorted(shown, key=lambda one: one.identifier))


def commit_there(noble: Noble, identifier: int, part: Scalar) -> Commitment:
    said = noble.ask("commit", id=identifier, share=part.encode().hex())
    hiding, binding = (Point.from_bytes(bytes.fromhex(said[name])) for name in ("hiding", "binding"))
    return Commitment(identifier, hiding, binding)


@pytest.mark.parametrize(
    ("threshold", "members", "ours", "theirs"),
    [
        (2, 3, (1,), (3,)), (2, 3, (3,), (2,)), (4, 5, (1, 4), (2, 5)), (3, 5, (5, 1), (2, 3, 4)),
        (2, 2, (1, 2), ()), (2, 2, (), (1, 2)),
    ],
)
def test_both_sign_and_both_put_together_the_same_signature(
    noble: Noble, threshold: int, members: int, ours: tuple[int, ...], theirs: tuple[int, ...]
) -> None:
    meeting = meet(noble, threshold, members, ours, theirs)
    signed = meeting.sign()
    for identifier, share in signed.items():
        assert verify_share(meeting.group, identifier, share, MESSAGE, meeting.commitments)
        assert meeting.good_there(identifier, share)
    signature = aggregate(meeting.group, MESSAGE, meeting.commitments, signed)
    assert meeting.aggregate_there(signed) == signature
    verify_ed25519(meeting.group.public, signature, MESSAGE)


@pytest.mark.parametrize("liar", [1, 2])
def test_both_name_the_same_liar(noble: Noble, liar: int) -> None:
    meeting = meet(noble, 3, 3, (1, 3), (2,))
    signed = meeting.sign()
    signed[liar] = (Scalar.from_bytes(signed[liar]) + Scalar.of(1)).encode()
    assert bad_shares(meeting.group, MESSAGE, meeting.commitments, signed) == (liar,)
    assert not meeting.good_there(liar, signed[liar])
    with pytest.raises(Refused):
        aggregate(meeting.group, MESSAGE, meeting.commitments, signed)
    with pytest.raises(NobleError) as caught:
        meeting.aggregate_there(signed)
    assert caught.value.cheaters == (liar,)
