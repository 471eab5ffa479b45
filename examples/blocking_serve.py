"""A node with a service, without async: `python examples/blocking_serve.py`, until Ctrl-C or `overlay stop`."""

import overlay.blocking


def shout(request: overlay.Request) -> bytes:
    print(request.peer.name, "at level", request.peer.level, "asks")
    return request.body.upper()


with overlay.blocking.open_node(services={"shout": shout}) as node:
    print("serving as", node.name)
    node.wait_stopped()
