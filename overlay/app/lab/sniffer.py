"""Writes every packet on an interface to a pcap file; a script on its own, with the standard library.

    python -I sniffer.py INTERFACE FILE

Prints "ready" once no later packet can be missed. On SIGTERM it takes what is queued and prints "SEEN DROPPED".
(dumpcap neither says when it has begun, nor writes what the kernel still holds when it is told to stop.)
"""

import os
import select
import signal
import socket
import struct
import sys
import time
from typing import BinaryIO, Final

ETH_P_ALL: Final = 0x0003  # <linux/if_ether.h>
SOL_PACKET: Final = 263  # <linux/socket.h>
PACKET_ADD_MEMBERSHIP: Final = 1  # <linux/if_packet.h>
PACKET_STATISTICS: Final = 6
PACKET_MR_PROMISC: Final = 1
SO_RCVBUFFORCE: Final = 33  # <asm/socket.h>
QUEUE: Final = 64 * 1024 * 1024  # bytes: seconds of what five nodes say
PACKET_MAX: Final = 256 * 1024  # more than segmentation offload puts together
LINKTYPE_ETHERNET: Final = 1  # draft-ietf-opsawg-pcap, the file's header
PCAP_MAGIC_NANOSECONDS: Final = 0xA1B23C4D


def open_socket(interface: str) -> socket.socket:
    """Hears all that passes the interface, and for a bridge that is all that its ports say to each other."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: nothing is queued before the bind
    try:
        packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE)
    except PermissionError:
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE)  # as much as we may have
    index = socket.if_nametoindex(interface)
    packets.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("IHH8x", index, PACKET_MR_PROMISC, 0))
    packets.bind((interface, ETH_P_ALL))
    packets.settimeout(0)
    return packets


def write_queued(packets: socket.socket, file: BinaryIO) -> None:
    """Everything that waits in the socket, to the file."""
    while True:
        try:
            data = packets.recv(PACKET_MAX)
        except BlockingIOError:
            return
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        file.write(struct.pack("<IIII", seconds, nanoseconds, len(data), len(data)) + data)


def main(interface: str, path: str) -> None:
    """See the first lines of this file."""
    stop, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, lambda *_: None)
    with open_socket(interface) as packets, open(path, "xb") as file:
        file.write(struct.pack("<IHHiIII", PCAP_MAGIC_NANOSECONDS, 2, 4, 0, 0, PACKET_MAX, LINKTYPE_ETHERNET))
        print("ready", flush=True)
        events = select.poll()
        events.register(packets, select.POLLIN)
        events.register(stop, select.POLLIN)
        while stop not in (ready for ready, _ in events.poll()):
            write_queued(packets, file)
        write_queued(packets, file)
        seen, dropped = struct.unpack("II", packets.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(seen, dropped, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
