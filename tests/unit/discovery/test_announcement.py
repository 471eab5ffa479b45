"""What is said on the LAN: its form, who recognises it, and what a stranger can learn."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.announcement import Announcement
from overlay.core.keys import NodeId, base32
from overlay.core.mesh.found import AnnouncementFacts
from overlay.errors import Refused
from overlay.registry import Reason

ALICE, BOB = NodeId(b"A" * 32), NodeId(b"B" * 32)
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
TAG = bytes(range(8))


def facts(*, node_id: NodeId = ALICE, keys: tuple[bytes, ...] = (KEY,), tag: bytes = TAG) -> AnnouncementFacts:
    return AnnouncementFacts(port=4711, tag=tag, node_id=node_id, gate_keys=keys, known=lambda: ())


def wire(announcement: Announcement) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in announcement.to_txt().items()}


def test_the_record_is_as_the_protocol_says() -> None:
    def mac(label: bytes) -> str:
        return base32(hmac.new(KEY, label, hashlib.sha256).digest()[:8])

    assert Announcement.of(facts()).to_txt() == {
        "v": "1",
        "p": "4711",
        "t": base32(TAG),
        "m": mac(b"overlay/1 mdns mesh\0" + TAG),
        "n": mac(b"overlay/1 mdns node\0" + TAG + ALICE),
    }


@given(st.integers(1, 65_535), st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
def test_what_was_written_is_read_again(port: int, tag: bytes, hint: bytes) -> None:
    announcement = Announcement(port=port, tag=tag, mesh_hint=hint, node_hint=hint[::-1])
    assert Announcement.from_txt(wire(announcement)) == announcement


def test_a_member_recognises_a_node_that_it_knows() -> None:
    said = Announcement.of(facts())
    assert said.matches_mesh([KEY])
    assert said.recognise([KEY], [BOB, ALICE]) == ALICE


def test_a_member_sees_that_an_unknown_node_is_of_the_mesh() -> None:
    said = Announcement.of(facts())
    assert said.recognise([KEY], [BOB]) is None
    assert said.matches_mesh([KEY])


def test_a_stranger_recognises_nothing() -> None:
    said = Announcement.of(facts())
    assert not said.matches_mesh([OTHER_KEY])
    assert said.recognise([OTHER_KEY], [ALICE, BOB]) is None


def test_a_node_hint_without_the_mesh_hint_recognises_nobody() -> None:
    said = Announcement.of(facts())
    forged = Announcement(port=said.port, tag=said.tag, mesh_hint=bytes(8), node_hint=said.node_hint)
    assert forged.recognise([KEY], [ALICE]) is None


def test_the_hints_of_one_node_do_not_fit_the_tag_of_another_start() -> None:
    said = Announcement.of(facts())
    copied = Announcement(port=said.port, tag=bytes(8), mesh_hint=said.mesh_hint, node_hint=said.node_hint)
    assert not copied.matches_mesh([KEY])


def test_two_starts_of_one_node_share_nothing_but_version_and_port() -> None:
    one, two = Announcement.of(facts()).to_txt(), Announcement.of(facts(tag=b"another!")).to_txt()
    assert {key for key in one if one[key] == two[key]} == {"v", "p"}


def test_the_older_gate_key_is_recognised_and_the_newest_announced() -> None:
    renewed = Announcement.of(facts(keys=(OTHER_KEY, KEY)))
    assert renewed.matches_mesh([OTHER_KEY])
    assert not renewed.matches_mesh([KEY])
    assert Announcement.of(facts()).recognise([OTHER_KEY, KEY], [ALICE]) == ALICE


def test_the_two_newest_gate_keys_are_announced_and_no_more() -> None:
    newest, before = Announcement.all_of(facts(keys=(OTHER_KEY, KEY, b"oldest key of the mesh, 32 bytes")))
    assert (newest.key_among([KEY, OTHER_KEY]), before.key_among([KEY, OTHER_KEY])) == (OTHER_KEY, KEY)
    assert (newest.tag, newest.port) == (before.tag, before.port)
    assert len(Announcement.all_of(facts())) == 1
    assert newest.key_among([KEY]) is None


def test_unknown_keys_are_skipped_and_letter_case_of_keys_does_not_matter() -> None:
    txt = {key.upper(): value for key, value in wire(Announcement.of(facts())).items()} | {b"x": b"y", b"flag": None}
    assert Announcement.from_txt(txt) == Announcement.of(facts())


@pytest.mark.parametrize("version", [b"2", b"", None, b"01"])
def test_another_version_is_unsupported(version: bytes | None) -> None:
    with pytest.raises(Refused) as refused:
        Announcement.from_txt(wire(Announcement.of(facts())) | {b"v": version})
    assert refused.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    "change",
    [
        {b"p": b"0"}, {b"p": b"65536"}, {b"p": b"+1"}, {b"p": b"007"}, {b"p": b" 1"}, {b"p": b"1" * 5000}, {b"p": None},
        {b"p": "٣".encode()}, {b"t": b""}, {b"t": b"aaaa"}, {b"t": b"1" * 13}, {b"t": None}, {b"t": b"\xff" * 13},
        {b"m": b"a" * 500}, {b"m": b"aaaaaaaaaaaab"}, {b"n": b"A" * 13}, {b"n": b"aaaaaaaaaaaaa==="},
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_form_is_refused(change: dict[bytes, bytes | None]) -> None:
    with pytest.raises(Refused) as refused:
        Announcement.from_txt(wire(Announcement.of(facts())) | change)
    assert refused.value.reason is Reason.MALFORMED


@given(st.dictionaries(st.sampled_from([b"v", b"p", b"t", b"m", b"n", b"z"]), st.none() | st.binary(max_size=80)))
def test_any_record_is_read_or_refused(txt: dict[bytes, bytes | None]) -> None:
    try:
        Announcement.from_txt(txt)
    except Refused:
        return


@pytest.mark.parametrize("change", [{"port": 0}, {"port": 65_536}, {"tag": b"short"}, {"gate_keys": ()}])
def test_facts_that_cannot_be_announced_are_an_error(change: dict[str, object]) -> None:
    good: dict[str, object] = {"port": 1, "tag": TAG, "node_id": ALICE, "gate_keys": (KEY,), "known": lambda: ()}
    with pytest.raises(ValueError, match="tag"):
        AnnouncementFacts(**(good | change))  # type: ignore[arg-type]


def test_the_gate_key_is_not_in_the_repr_of_the_facts() -> None:
    assert "kkkk" not in repr(facts())
