"""Call a service of a peer, without async: `python examples/blocking_ask.py bob hello`."""

import sys

import overlay.blocking

with overlay.blocking.connect_local() as node:
    peer = node.wait_peer(sys.argv[1], timeout=10)
    print(peer.call("shout", sys.argv[2].encode()).decode())
