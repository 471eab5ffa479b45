"""The search with stations that are played by the test."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
import trio.testing

from discovery.announcement import Announcement
from discovery.interfaces import Interface
from discovery.search import ADDRESSES_MAX, NAMES_MAX, TAGS_MAX, WAITING_MAX, Heard, Search, Sightings
from overlay.core.keys import NodeId
from overlay.core.mesh.found import AnnouncementFacts, Candidate

ALICE, BOB = NodeId(b"A" * 32), NodeId(b"B" * 32)
KEY, NEWER, OLDER = b"k" * 32, b"n" * 32, b"o" * 32
ETH, WLAN = Interface("eth0", 2, ("10.0.0.1",)), Interface("wlan0", 3, ("10.1.0.1",))


def facts(node_id: NodeId, tag: bytes, port: int = 4711) -> AnnouncementFacts:
    return AnnouncementFacts(port=port, tag=tag, node_id=node_id, gate_keys=(KEY,), known=lambda: [ALICE, BOB])


def heard(said: AnnouncementFacts) -> Heard:
    return heard_of(Announcement.of(said))


def heard_of(announcement: Announcement) -> Heard:
    txt = announcement.to_txt()
    return Heard({key.encode(): value.encode() for key, value in txt.items()}, ("10.0.0.9",))


class Air:
    """What can be heard, and what happened to the stations."""

    def __init__(self) -> None:
        self.names: dict[str, Heard | None] = {}
        self.log: list[tuple[str, str]] = []
        self.speak: dict[str, Callable[[str], None]] = {}
        self.broken: set[str] = set()
        self.asked: list[str] = []
        self.at_once: list[str] = []
        self.hold = threading.Event()
        self.hold.set()

    def open(self, interface: Interface, speak: Callable[[str], None]) -> "PlayedStation":
        if interface.name in self.broken:
            raise OSError("no multicast")
        self.speak[interface.name] = speak
        self.log.append(("open", interface.name))
        return PlayedStation(self, interface)


class PlayedStation:
    def __init__(self, air: Air, interface: Interface) -> None:
        self.air = air
        self.interface = interface

    def start(self) -> None:
        if f"start {self.interface.name}" in self.air.broken:
            raise OSError("gone")
        for name in self.air.at_once:
            self.air.speak[self.interface.name](name)

    def follow(self, interface: Interface) -> None:
        self.air.log.append(("follow", ",".join(interface.addresses)))

    def resolve(self, name: str) -> Heard | None:
        self.air.hold.wait(5)
        self.air.asked.append(name)
        return self.air.names.get(name)

    def close(self) -> None:
        self.air.log.append(("close", self.interface.name))


class Listening:
    def __init__(self, air: Air, search: Search, found: trio.MemoryReceiveChannel[Candidate]) -> None:
        self.air = air
        self.search = search
        self.found = found

    async def next(self) -> Candidate:
        with trio.fail_after(5):
            return await self.found.receive()


@asynccontextmanager
async def listening(gate_keys: tuple[bytes, ...] = (KEY,)) -> AsyncIterator[Listening]:
    air = Air()
    send, receive = trio.open_memory_channel[Candidate](100)
    async with trio.open_nursery() as nursery:
        own = replace(facts(ALICE, b"alicetag"), gate_keys=gate_keys)
        search = Search(own, send.send_nowait, open_station=air.open, nursery=nursery)
        yield Listening(air, search, receive)
        await search.close()
        nursery.cancel_scope.cancel()


async def test_an_announcement_of_a_known_node_becomes_a_candidate() -> None:
    async with listening() as here:
        here.air.names["bob"] = heard(facts(BOB, b"bobs tag", 99))
        assert await here.search.follow((ETH,))
        here.air.speak["eth0"]("bob")
        assert await here.next() == Candidate(
            addresses=(("10.0.0.9", 99),), tag=b"bobs tag", node_id=BOB, gate_key=KEY, ours=True, source="mdns"
        )


async def test_who_announces_under_two_gate_keys_is_one_candidate_that_knows_the_newer_one() -> None:
    async with listening(gate_keys=(NEWER, KEY, OLDER)) as here:
        said = replace(facts(BOB, b"bobs tag"), gate_keys=(KEY, OLDER))
        newest, before = (heard_of(one) for one in Announcement.all_of(said))
        here.air.names = {"bob": before, "bob too": newest, "bob again": before}
        await here.search.follow((ETH,))
        keys = []
        for name in here.air.names:
            here.air.speak["eth0"](name)
            keys.append((await here.next()).gate_key)
        assert keys == [OLDER, KEY, KEY]


async def test_our_own_announcement_and_nonsense_are_not_candidates() -> None:
    async with listening() as here:
        here.air.names = {
            "own": heard(facts(ALICE, b"alicetag")),
            "nonsense": Heard({b"v": b"1", b"p": b"x"}, ("10.0.0.9",)),
            "silent": None,
            "bob": heard(facts(BOB, b"bobs tag")),
        }
        await here.search.follow((ETH,))
        for name in here.air.names:
            here.air.speak["eth0"](name)
            await trio.testing.wait_all_tasks_blocked()
        assert (await here.next()).node_id == BOB


async def test_a_stranger_is_a_candidate_that_is_not_ours() -> None:
    async with listening() as here:
        other = AnnouncementFacts(port=1, tag=b"stranger", node_id=BOB, gate_keys=(b"x" * 32,), known=lambda: ())
        here.air.names["other"] = heard(other)
        await here.search.follow((ETH,))
        here.air.speak["eth0"]("other")
        candidate = await here.next()
        assert not candidate.ours
        assert candidate.node_id is None


async def test_stations_follow_the_interfaces() -> None:
    async with listening() as here:
        moved = Interface("eth0", 2, ("10.0.0.2",))
        await here.search.follow((ETH, WLAN))
        await here.search.follow((moved,))
        assert here.air.log == [("open", "eth0"), ("open", "wlan0"), ("close", "wlan0"), ("follow", "10.0.0.2")]
    assert here.air.log[-1] == ("close", "eth0")


async def test_an_interface_without_multicast_is_tried_again_and_does_not_hinder_others() -> None:
    async with listening() as here:
        here.air.broken = {"eth0"}
        assert not await here.search.follow((ETH,))
        assert await here.search.follow((ETH, WLAN))
        here.air.broken.clear()
        await here.search.follow((ETH, WLAN))
        assert ("open", "eth0") in here.air.log


async def test_a_station_that_could_not_announce_is_closed_and_opened_again() -> None:
    async with listening() as here:
        here.air.broken = {"start eth0"}
        assert not await here.search.follow((ETH,))
        here.air.broken.clear()
        assert await here.search.follow((ETH,))
        assert here.air.log == [("open", "eth0"), ("close", "eth0"), ("open", "eth0")]


async def test_a_flood_of_names_is_bounded() -> None:
    async with listening() as here:
        await here.search.follow((ETH,))
        here.air.hold.clear()
        for number in range(WAITING_MAX * 3):
            here.air.speak["eth0"](f"name {number}")
        await trio.testing.wait_all_tasks_blocked()
        here.air.names["last"] = heard(facts(BOB, b"bobs tag"))
        here.air.hold.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        here.air.speak["eth0"]("last")
        assert (await here.next()).node_id == BOB
        assert len(here.air.asked) <= WAITING_MAX + 8 + 1


async def test_a_name_heard_while_the_station_starts_is_not_lost() -> None:
    async with listening() as here:
        here.air.names["bob"] = heard(facts(BOB, b"bobs tag"))
        here.air.at_once = ["bob"]
        await here.search.follow((ETH,))
        assert (await here.next()).node_id == BOB


async def test_what_is_heard_on_two_interfaces_is_one_candidate_with_all_addresses() -> None:
    async with listening() as here:
        txt = heard(facts(BOB, b"bobs tag")).txt
        here.air.names = {"wired": Heard(txt, ("10.0.0.9", "fe80::9%eth0")), "radio": Heard(txt, ("10.1.0.9",))}
        await here.search.follow((ETH, WLAN))
        here.air.speak["eth0"]("wired")
        await here.next()
        here.air.speak["wlan0"]("radio")
        assert [host for host, _ in (await here.next()).addresses] == ["10.0.0.9", "10.1.0.9", "fe80::9%eth0"]


def test_a_copied_announcement_does_not_take_the_addresses_of_the_original_away() -> None:
    sightings = Sightings()
    sightings.add(b"bobs tag", (2, "bob"), (("10.0.0.9", 1),))
    for number in range(1000):
        impostor = tuple((f"10.6.6.{part}", number) for part in range(20))
        found = sightings.add(b"bobs tag", (2, f"impostor {number}"), impostor)
        assert found[0] == ("10.0.0.9", 1)
        assert len(found) <= ADDRESSES_MAX
    assert len(sightings._by_tag[b"bobs tag"]) == NAMES_MAX


def test_new_addresses_of_a_name_stand_for_its_old_ones() -> None:
    sightings = Sightings()
    sightings.add(b"bobs tag", (2, "bob"), (("10.0.0.9", 1),))
    assert sightings.add(b"bobs tag", (2, "bob"), (("10.0.0.10", 1),)) == (("10.0.0.10", 1),)


def test_the_number_of_remembered_starts_is_bounded() -> None:
    sightings = Sightings()
    sightings.add(b"bobs tag", (2, "bob"), (("10.0.0.9", 1),))
    for number in range(TAGS_MAX):
        sightings.add(number.to_bytes(8, "big"), (2, "flood"), (("10.6.6.6", 1),))
    assert sightings.add(b"bobs tag", (3, "bob"), (("10.1.0.9", 1),)) == (("10.1.0.9", 1),)


def test_a_name_heard_after_the_end_of_trio_harms_nobody() -> None:
    air = Air()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            search = Search(facts(ALICE, b"alicetag"), print, open_station=air.open, nursery=nursery)
            await search.follow((ETH,))

    trio.run(main)
    air.speak["eth0"]("late")


async def test_a_name_heard_after_the_goodbye_is_not_asked_for() -> None:
    async with listening() as here:
        await here.search.follow((ETH,))
        await here.search.close()
        here.air.speak["eth0"]("late")
        await trio.testing.wait_all_tasks_blocked()
        assert here.air.asked == []
