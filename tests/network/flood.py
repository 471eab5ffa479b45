"""An attacker: bogus connections to one node, as many as it can make, from many addresses of the loopback interface.

`python -m tests.network.flood HOST PORT SECONDS ADDRESSES` with the mesh's gate key as hex on standard input; prints one
line of JSON at the end. Of ten connections eight show a wrong gate, one the right one and garbage after it, one nothing.
"""

import hashlib
import hmac
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from overlay.core.gate import NO_TAG, make_hello
from overlay.registry import Mode

IN_FLIGHT = 512  # connections under way that say something
PATIENCE = 0.25  # seconds: then the attacker drops a connection that the node has not dropped, silent ones excepted
SILENT_HELD = 400  # and silent ones that the node has not thrown out yet
RESET = struct.pack("ii", 1, 0)
KINDS = ("wrong",) * 8 + ("garbage", "silent")
GARBAGE = 1500  # bytes
READABLE = select.EPOLLIN | select.EPOLLRDHUP


@dataclass(slots=True)
class Attack:
    """One attacking process."""

    target: tuple[str, int]
    gate_key: bytes
    sources: list[str]
    made: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    _open: dict[int, tuple[socket.socket, str]] = field(default_factory=dict)
    _spoken: dict[int, float] = field(default_factory=dict)  # when they began, by descriptor, oldest first
    _silent: int = 0
    _next: int = 0
    _epoll: select.epoll = field(default_factory=select.epoll)

    def run(self, seconds: float) -> dict[str, object]:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            while len(self._open) - self._silent < IN_FLIGHT:
                self._begin()
            for descriptor, what in self._epoll.poll(0.05):
                self._go_on(descriptor, what)
            self._give_up(time.monotonic() - PATIENCE)
        lasted = time.monotonic() - began
        for connection, _ in self._open.values():
            connection.close()
        total = sum(self.made.values())
        return {"seconds": lasted, "made": dict(self.made), "failed": self.failed, "per_second": total / lasted}

    def _begin(self) -> None:
        kind = KINDS[self._next % len(KINDS)]
        source = self.sources[(self._next // len(KINDS)) % len(self.sources)]
        self._next += 1
        if kind == "silent" and self._silent >= SILENT_HELD:
            return
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # leaves no TIME_WAIT behind: ports do not run out
        try:
            connection.bind((source, 0))
            connection.connect_ex(self.target)
        except OSError:
            self.failed += 1
            connection.close()
            return
        self._open[connection.fileno()] = connection, kind
        if kind == "silent":
            self._silent += 1
        else:
            self._spoken[connection.fileno()] = time.monotonic()
        self._epoll.register(connection, select.EPOLLOUT)

    def _go_on(self, descriptor: int, what: int) -> None:
        connection, kind = self._open[descriptor]
        try:
            if what & select.EPOLLOUT and not what & select.EPOLLERR:
                self.made[kind] += 1
                self._epoll.modify(descriptor, READABLE)
                if kind != "silent":
                    connection.send(self._bytes_of(kind))
                return
            if what & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP) or not connection.recv(65_536):
                self._drop(descriptor)
        except OSError:
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        connection, kind = self._open.pop(descriptor)
        self._silent -= kind == "silent"
        self._spoken.pop(descriptor, None)
        connection.close()

    def _give_up(self, before: float) -> None:
        while self._spoken:
            descriptor, began = next(iter(self._spoken.items()))
            if began > before:
                return
            self._drop(descriptor)

    def _bytes_of(self, kind: str) -> bytes:
        ephemeral = os.urandom(32)
        message_1 = b"\x00\x20" + ephemeral
        if kind == "wrong":
            return make_hello(hmac.digest(ephemeral, b"wrong", hashlib.sha256), Mode.MEMBER, NO_TAG, ephemeral) + message_1
        return make_hello(self.gate_key, Mode.MEMBER, NO_TAG, ephemeral) + message_1 + os.urandom(GARBAGE)


def main() -> None:
    host, port, seconds, addresses = sys.argv[1:]
    gate_key = bytes.fromhex(sys.stdin.readline())
    sources = [f"127.0.0.{number}" for number in range(1, int(addresses) + 1)]
    print(json.dumps(Attack((host, int(port)), gate_key, sources).run(float(seconds))), flush=True)


if __name__ == "__main__":
    main()
