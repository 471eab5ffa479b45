"""A throw-away mesh in one process, for users' own tests: real keys, real links on loopback, no mDNS and no TPM."""

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from overlay.app.compose import open_node
from overlay.app.config import Config
from overlay.app.enrol import admit, found_mesh, install, make_request
from overlay.app.local import LocalNode
from overlay.core.policy import Policy
from overlay.net.node import StreamHandler
from overlay.net.request import Handler
from overlay.store.state import StateFolder

LINKED_WITHIN = 20.0  # seconds: our guess, for a loaded machine


@asynccontextmanager
async def mesh(
    *names: str, services: Mapping[str, Mapping[str, Handler]] | None = None, name: str = "test", rekey_after: float = 60.0,
    attest_every: float = 60.0, roles: Mapping[str, Sequence[str]] | None = None,
    streams: Mapping[str, Mapping[str, StreamHandler]] | None = None, workers: Sequence[str] = (),
) -> AsyncIterator[tuple[LocalNode, ...]]:
    """Nodes of these names, each linked to all others; everything is gone after the block.

    Args:
        names: at least one; the first founds the mesh.
        services: what a node serves, by its name: `{"alice": {"shout": shout}}`.
        name: of the mesh.
        rekey_after: seconds between fresh keys on each link; at least 1.
        attest_every: seconds between proofs of each node; at least 1.
        streams: to what a node takes streams, by its name: `{"alice": {"backup": keep}}`.
        workers: names of those that run signed work.
        roles: of nodes but the first, by their names: `{"bob": ("signer",)}`; the founder has operator and signer.

    Raises:
        ValueError: there is no name, or one is given twice; `services`, `streams` or `roles` names somebody else, or
            `roles` the founder.
        trio.TooSlowError: the nodes did not link in twenty seconds.
    """
    given, taken = dict(services or {}), dict(streams or {})
    granted = dict(roles or {})
    if not names or len(set(names)) != len(names) or {*given, *taken} - set(names) or set(granted) - set(names[1:]):
        raise ValueError("give each node one name, services to those nodes only, and roles to all but the first")
    with tempfile.TemporaryDirectory(prefix="overlay-test-") as path:
        folders = await trio.to_thread.run_sync(_enrol, Path(path), names, name, granted)
        async with AsyncExitStack() as stack:
            nodes: list[LocalNode] = []
            for node_name, folder in zip(names, folders, strict=True):
                config = Config(
                    listen=("127.0.0.1", 0), mdns=False, evidence="software", rekey_after=rekey_after,
                    attest_every=attest_every, work=node_name in workers,
                    seeds=tuple(f"127.0.0.1:{node.port}" for node in nodes),
                )
                opened = open_node(folder, config=config, services=given.get(node_name, {}), streams=taken.get(node_name, {}))
                nodes.append(await stack.enter_async_context(opened))
            with trio.fail_after(LINKED_WITHIN):
                for node in nodes:
                    await node.wait_members(len(names))
            yield tuple(nodes)


def _enrol(path: Path, names: tuple[str, ...], mesh_name: str, roles: Mapping[str, Sequence[str]]) -> list[Path]:
    """A state folder for each, all of one mesh."""
    folders = [path / node_name for node_name in names]
    with StateFolder.create(folders[0]) as founder:
        found_mesh(founder, names[0], mesh_name, Policy.default(), None)
    for node_name, folder in zip(names[1:], folders[1:], strict=True):
        with StateFolder.create(folder) as member:
            install(member, admit(folders[0], make_request(member, None), node_name, tuple(roles.get(node_name, ()))), None)
    return folders
