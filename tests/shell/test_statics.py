"""A fresh Noise static key is for new links: those under the old one go on, and are replaced one after the other."""

import trio

from overlay.core.identity import LocalIdentity
from overlay.core.keys import NodeId
from overlay.events import PeerDown, PeerUp
from overlay.net.link import Link
from tests.shell.node_kit import Watched, fresh_mesh, make_parts, running
from tests.unit.core.authority_kit import Mesh, make_member
from tests.unit.core.session_kit import local


def link_to(node: Watched, peer: NodeId) -> Link:
    return node.node.pool.links[peer]


async def renewed(mesh: Mesh, name: str) -> LocalIdentity:
    return local(make_member(mesh, name, noise_key="another"))


async def until_replaced(one: Watched, old: Link) -> None:
    with trio.fail_after(10):
        while old in one.node.pool.all_links:
            await one.node.pool._shrunk.wait()


async def replaced_after_renewal_of(name: str) -> None:
    mesh = fresh_mesh()

    async def renew() -> LocalIdentity:
        return await renewed(mesh, name)

    async with (
        running(make_parts(mesh, "alice", **({"renew": renew} if name == "alice" else {}))) as alice,
        running(make_parts(mesh, "bob", seeds=[alice.seed], **({"renew": renew} if name == "bob" else {}))) as bob,
    ):
        await alice.saw(PeerUp)
        await bob.saw(PeerUp)
        peer, attester = bob.node.peers[0], (alice if name == "alice" else bob).node._attester
        old = link_to(bob, peer.node_id)
        assert not old.session.statics_changed
        await attester.renew()
        with trio.fail_after(5):
            while not old.session.statics_changed:
                await bob.node.wait_peers_change()
        assert await peer.call("shout", b"on the old link") == b"ON THE OLD LINK"
        bob.node.pool.renew_statics(old, within=0.1)
        await until_replaced(bob, old)
        new = link_to(bob, peer.node_id)
        assert not new.session.statics_changed
        assert await bob.node.peers[0].call("shout", b"on the new link") == b"ON THE NEW LINK"
        assert not any(isinstance(event, PeerDown) for event in alice.events + bob.events)


async def test_a_link_is_replaced_when_its_opener_has_a_fresh_static_key() -> None:
    await replaced_after_renewal_of("bob")


async def test_a_link_is_replaced_by_its_opener_when_the_other_end_has_a_fresh_static_key() -> None:
    await replaced_after_renewal_of("alice")


async def test_whoever_did_not_open_a_link_does_not_replace_it() -> None:
    mesh = fresh_mesh()
    async with running(make_parts(mesh, "alice")) as alice, running(make_parts(mesh, "bob", seeds=[alice.seed])) as bob:
        await alice.saw(PeerUp)
        await bob.saw(PeerUp)
        link = link_to(alice, bob.node.identity.node_id)
        link.session.change_credentials(await renewed(mesh, "alice"))
        assert link.session.statics_changed
        alice.node.pool.renew_statics(link, within=0.0)
        assert link.replace_at > trio.current_time()
