"""noise-c, the C reference of Noise, as WebAssembly in a Node process: a peer for handshakes of ours.

It knows XX and KK; its `psk` names are those of an older revision of Noise, so KKpsk0 is dissononce's part.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("OVERLAY_INTEROP") or HERE.parents[1] / ".venv" / "interop")
HOW = (
    f"the Debian packages nodejs and npm, then: mkdir -p {FOLDER}; cp {HERE}/package*.json {FOLDER}; "
    f"npm ci --ignore-scripts --prefix {FOLDER}"
)


def missing() -> str:
    """Why there is no noise-c here and how to get it; empty if there is."""
    if shutil.which("node") is None:
        return f"there is no node; to have it: {HOW}"
    if not (FOLDER / "node_modules" / "noise-c.wasm").is_dir():
        return f"noise-c.wasm is not in {FOLDER}; to have it: {HOW}"
    return ""


class NoiseCError(Exception):
    """What noise-c said."""


class NoiseC:
    """One process, one handshake at a time. `write` and `read` have the shape of our own handshakes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @classmethod
    @contextmanager
    def running(cls) -> "Iterator[NoiseC]":
        """A process for as long as the block lasts."""
        command = ["node", str(HERE / "noise_c.js"), str(FOLDER)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            yield cls(process)
            assert process.stdin is not None
            process.stdin.close()  # it ends with its input

    def _ask(self, **request: Any) -> dict[str, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer: dict[str, str] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise NoiseCError(answer["error"])
        return answer

    def start(
        self, protocol: str, *, initiator: bool, prologue: bytes, static: bytes, remote: bytes = b""
    ) -> "NoiseC":
        """Begin a handshake; the ephemeral key is its own secret."""
        self._ask(
            do="start", protocol=protocol, initiator=initiator, prologue=prologue.hex(), static=static.hex(),
            remote=remote.hex(),
        )  # fmt: skip
        return self

    def write(self, payload: bytes = b"") -> bytes:
        return bytes.fromhex(self._ask(do="write", payload=payload.hex())["message"])

    def read(self, message: bytes) -> bytes:
        return bytes.fromhex(self._ask(do="read", message=message.hex())["payload"])

    def split(self) -> tuple[bytes, bytes]:
        """Its handshake hash and our static key, as it saw them."""
        answer = self._ask(do="split")
        return bytes.fromhex(answer["h"]), bytes.fromhex(answer["remote"])

    def seal(self, plaintext: bytes) -> bytes:
        """Under its sending key."""
        return bytes.fromhex(self._ask(do="seal", plaintext=plaintext.hex())["ciphertext"])

    def open(self, ciphertext: bytes) -> bytes:
        """Under its receiving key."""
        return bytes.fromhex(self._ask(do="open", ciphertext=ciphertext.hex())["plaintext"])
