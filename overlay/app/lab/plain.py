"""TCP without anything around it, the control of every capture; a script on its own, with the standard library.

    python -I plain.py listen ADDRESS PORT            prints "listening", then what one connection sent, in hex
    python -I plain.py send ADDRESS PORT HEX
"""

import socket
import sys


def listen(address: str, port: int) -> None:
    """Take one connection."""
    with socket.create_server((address, port)) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            print(file.read().hex(), flush=True)


def send(address: str, port: int, data: bytes) -> None:
    """Make one connection."""
    with socket.create_connection((address, port)) as connection:
        connection.sendall(data)


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen(sys.argv[2], int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), bytes.fromhex(sys.argv[4]))
