"""Seeds and remembered peers as candidates."""

from functools import partial

import pytest
import trio
import trio.testing

from discovery.static import BookFinder, StaticFinder, parse_seed
from overlay.core.keys import NodeId
from overlay.core.mesh.found import AnnouncementFacts, Candidate
from overlay.errors import UsageError
from overlay.net.ports import Finder

ALICE, BOB = NodeId(b"A" * 32), NodeId(b"B" * 32)
FACTS = AnnouncementFacts(port=1, tag=bytes(8), node_id=ALICE, gate_keys=(b"k",), known=lambda: ())


async def all_found(finder: Finder) -> list[Candidate]:
    found: list[Candidate] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(finder.run, FACTS, found.append))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:4711", ("10.0.0.1", 4711)),
        (" box.example.org:1 ", ("box.example.org", 1)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65_535)),
    ],
)
def test_a_seed_is_read(text: str, address: tuple[str, int]) -> None:
    assert parse_seed(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:65536", ":1", "fe80::1:1", "[::1]", "a b:1"])
def test_a_seed_of_another_form_is_an_error_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_seed(text)
    assert error.value.hint


async def test_seeds_are_candidates_without_a_name_or_tag() -> None:
    assert await all_found(StaticFinder(["10.0.0.1:1", "[::1]:2"])) == [
        Candidate(addresses=(("10.0.0.1", 1),), ours=True, source="static"),
        Candidate(addresses=(("::1", 2),), ours=True, source="static"),
    ]


async def test_remembered_peers_are_candidates_with_their_id_but_we_are_not() -> None:
    finder = BookFinder(lambda: {ALICE: [("10.0.0.1", 1)], BOB: [("10.0.0.2", 2)], NodeId(b"C" * 32): []})
    assert await all_found(finder) == [
        Candidate(addresses=(("10.0.0.2", 2),), node_id=BOB, ours=True, source="book"),
    ]
