"""tpm2_checkquote and we judge the same quotes of a TPM, good ones and changed ones: a thousand of them, some by default."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.areas import PublicArea
from attest.key_blob import KeyBlob
from attest.offline import appraise
from attest.structures import sized
from attest.tpm import Tpm
from overlay.core.keys import P256_ORDER
from overlay.core.wire import sha256
from overlay.errors import Refused
from tests.tpm.conftest import Tool
from tests.tpm.test_tools import pem

pytestmark = pytest.mark.tpm

PCRS = (0, 7, 14)


@dataclass(frozen=True)
class Shown:
    """What both are given. `honest`: nothing was changed that a verifier may mind."""

    key: PublicArea
    attested: bytes
    signature: bytes
    nonce: bytes
    pcrs: bytes
    honest: bool = True


def ours(shown: Shown) -> bool:
    try:
        found = appraise(
            shown.attested, shown.signature, shown.key.raw, nonce=shown.nonce, boot=None, measured=None
        )
    except Refused:
        return False
    return found.quote.pcr_digest == sha256(shown.pcrs)


def theirs(shown: Shown, tool: Tool, folder: Path) -> bool:
    parts = {"key": pem(shown.key), "attested": shown.attested, "signature": shown.signature, "pcrs": shown.pcrs}
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    found = tool.run(
        "tpm2_checkquote", "-u", folder / "key", "-m", folder / "attested", "-s", folder / "signature", "-g", "sha256",
        "-f", folder / "pcrs", "-l", "sha256:0,7,14", "-q", shown.nonce.hex(),
    )  # fmt: skip
    return found.returncode == 0


# --- changes: each gives something that is no good quote any more, or says that it still is one ------------------------------


def flipped(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def numbers(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[6:38], "big"), int.from_bytes(signature[40:72], "big")


def signed(signature: bytes, r: int, s: int) -> bytes:
    return signature[:4] + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))


Change = Callable[[Shown, Shown, random.Random], Shown]
CHANGES: tuple[Change, ...] = (
    lambda shown, _, __: shown,
    lambda shown, _, __: replace(shown, signature=signed(  # what a TPM gives half the time
        shown.signature, numbers(shown.signature)[0], P256_ORDER - numbers(shown.signature)[1]
    )),
    lambda shown, _, chance: replace(shown, attested=flipped(shown.attested, chance), honest=False),
    lambda shown, _, chance: replace(shown, signature=flipped(shown.signature, chance), honest=False),
    lambda shown, _, chance: replace(shown, nonce=flipped(shown.nonce, chance), honest=False),
    lambda shown, _, chance: replace(shown, pcrs=flipped(shown.pcrs, chance), honest=False),
    lambda shown, other, _: replace(shown, key=other.key, honest=False),
    lambda shown, other, _: replace(shown, attested=other.attested, honest=False),
    lambda shown, other, _: replace(shown, signature=other.signature, honest=False),
    lambda shown, other, _: replace(shown, nonce=other.nonce, honest=False),
    lambda shown, _, chance: replace(shown, attested=shown.attested[: chance.randrange(len(shown.attested))], honest=False),
    lambda shown, _, chance: replace(shown, signature=shown.signature[: chance.randrange(len(shown.signature))], honest=False),
    lambda shown, _, chance: replace(shown, nonce=shown.nonce[: chance.randrange(1, 32)], honest=False),
    lambda shown, _, __: replace(shown, signature=signed(shown.signature, *reversed(numbers(shown.signature))), honest=False),
    lambda shown, _, __: replace(shown, signature=signed(shown.signature, 0, numbers(shown.signature)[1]), honest=False),
    lambda shown, _, __: replace(shown, signature=signed(shown.signature, numbers(shown.signature)[0], 0), honest=False),
)  # fmt: skip


def quotes(tpm: Tpm, count: int) -> list[Shown]:
    """By two keys, over PCRs that change in between."""
    found, keys = [], (tpm.create_attestation_key(), tpm.create_attestation_key())
    for number in range(count):
        tpm.extend_pcr(14, sha256(bytes([number])))
        found.append(quoted(tpm, keys[number % 2], sha256(b"nonce", bytes([number]))))
    return found


def quoted(tpm: Tpm, key: KeyBlob, nonce: bytes) -> Shown:
    attested, signature = tpm.quote(key, nonce, sum(1 << pcr for pcr in PCRS))
    return Shown(key.area, attested, signature, nonce, b"".join(map(tpm.read_pcr, PCRS)))


def compare(tpm: Tpm, tool: Tool, folder: Path, rounds: int, each: int) -> int:
    """How many were compared; fails for the first about which we differ."""
    chance, shown = random.Random(7), quotes(tpm, rounds)
    compared = 0
    for number, one in enumerate(shown):
        for _ in range(each):
            for kind, change in enumerate(CHANGES):
                changed = change(one, shown[number - 1], chance)
                verdicts = ours(changed), theirs(changed, tool, folder)
                assert verdicts == (changed.honest, changed.honest), (kind, verdicts, changed)
                compared += 1
    return compared


def test_some_quotes(tpm: Tpm, tool: Tool, tmp_path: Path) -> None:
    assert compare(tpm, tool, tmp_path, rounds=2, each=1) == 2 * len(CHANGES)


@pytest.mark.slow
def test_a_thousand_quotes(tpm: Tpm, tool: Tool, tmp_path: Path) -> None:
    assert compare(tpm, tool, tmp_path, rounds=22, each=3) > 1000
