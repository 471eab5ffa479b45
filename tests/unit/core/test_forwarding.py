"""Who may use a service, where it is, and what the two ends say: every text that people write, and every byte of a peer."""

from dataclasses import dataclass

import pytest

from overlay.core.forwarding import (
    READY,
    RULES_MAX,
    SERVICES_MAX,
    Exposed,
    Place,
    Rule,
    check_ready,
    check_service,
    may_use,
    pack_offers,
    pack_opening,
    parse_exposed,
    parse_forwarded,
    parse_listen,
    parse_place,
    parse_rule,
    unpack_offers,
    unpack_opening,
)
from overlay.core.keys import NodeId
from overlay.core.wire import make_map
from overlay.errors import Refused, UsageError

NODE = NodeId(b"\7" * 32)


@dataclass(frozen=True)
class Member:
    """Somebody who calls."""

    name: str = "bob"
    roles: tuple[str, ...] = ("worker",)
    level: int = 2
    node_id: NodeId = NODE


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ("member", True), ("role:worker", True), ("role:operator", False), ("node:bob", True), (f"node:{NODE}", True),
        ("node:carol", False), ("level:2", True), ("level:3", False), ("role:worker,level:2", True),
        ("role:worker,level:3", False), ("role:operator,level:1", False), ("node:bob,role:worker,level:1", True),
        ("node:carol,role:worker", False), (" role:worker, level:1", True),
    ],
)  # fmt: skip
def test_a_rule_fits_whoever_fits_all_of_it(rule: str, fits: bool) -> None:
    assert parse_rule(rule).fits(Member()) is fits


def test_one_of_several_rules_is_enough_and_without_any_nobody_may() -> None:
    assert may_use([parse_rule("role:operator"), parse_rule("node:bob")], Member())
    assert not may_use([], Member())


@pytest.mark.parametrize(
    "text",
    [
        "", "any", "role", "role:", "role:Worker", "roles:worker", "level:0", "level:6", "level:two", "level:²",
        "role:a,role:b", "role:worker,", "member,level:2", "node:", "role:worker;level:2", "node:bob smith",
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_rule(text)
    assert "role:ROLE" in error.value.hint


@pytest.mark.parametrize("rule", ["member", "role:worker", "node:bob", "level:3", "role:worker,node:bob,level:3"])
def test_a_rule_is_written_as_it_was_read(rule: str) -> None:
    assert str(parse_rule(rule)) == rule


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:5432", Place(host="127.0.0.1", port=5432)), ("db.lan:1", Place(host="db.lan", port=1)),
        ("[::1]:80", Place(host="::1", port=80)), ("[fe80::1%eth0]:80", Place(host="fe80::1%eth0", port=80)),
        ("unix:/run/db.sock", Place(path="/run/db.sock")),
    ],
)  # fmt: skip
def test_a_place_is_read_and_written_the_same(text: str, place: Place) -> None:
    assert parse_place(text) == place
    assert str(place) == text


@pytest.mark.parametrize(
    "text",
    ["", "5432", "host", "host:", ":80", "host:0", "host:65536", "host:-1", "::1:80", "unix:", "unix:db.sock",
     "unix:/" + "x" * 107, "unix:/a\0b", "ho st:80", "host:80/x", "host:٣"],
)  # fmt: skip
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)


def test_where_we_listen_a_port_alone_is_one_of_this_machine_and_zero_is_any() -> None:
    assert parse_listen("15432") == Place(host="127.0.0.1", port=15432)
    assert parse_listen("0") == Place(host="127.0.0.1", port=0)
    assert parse_listen("[::]:0") == Place(host="::", port=0)
    with pytest.raises(UsageError):
        parse_listen("65536")


@pytest.mark.parametrize("name", ["db", "a", "db-2", "postgres.main", "9"])
def test_names_of_services(name: str) -> None:
    assert check_service(name) == name


@pytest.mark.parametrize("name", ["", "-db", "db-", ".db", "DB", "d b", "x" * 64, "db@alice", "dä"])
def test_what_cannot_name_a_service(name: str) -> None:
    with pytest.raises(UsageError, match="name of a service"):
        check_service(name)


def test_a_service_without_rules_is_not_exposed() -> None:
    with pytest.raises(UsageError, match="nobody may use") as error:
        Exposed.of("db", "127.0.0.1:1", ())
    assert "--allow" in error.value.hint
    with pytest.raises(UsageError):
        Exposed.of("db", "127.0.0.1:1", ["member"] * (RULES_MAX + 1))


def test_services_of_the_settings() -> None:
    exposed = parse_exposed("db=127.0.0.1:5432 role:worker node:bob,level:2")
    assert exposed == Exposed(
        service="db", to=Place(host="127.0.0.1", port=5432), rules=(Rule(role="worker"), Rule(node="bob", level=2))
    )
    wanted = parse_forwarded("db@alice=15432")
    assert (wanted.service, wanted.peer, wanted.listen) == ("db", "alice", "15432")
    assert parse_forwarded("db=unix:/run/db").peer is None


@pytest.mark.parametrize("text", ["db", "db=", "db=127.0.0.1:1", "=127.0.0.1:1 member", "db=127.0.0.1 member"])
def test_what_the_settings_cannot_expose(text: str) -> None:
    with pytest.raises(UsageError):
        parse_exposed(text)


@pytest.mark.parametrize("text", ["db", "db=", "=1", "db=nowhere"])
def test_what_the_settings_cannot_forward(text: str) -> None:
    with pytest.raises(UsageError):
        parse_forwarded(text)


# --- bytes of a peer --------------------------------------------------------------------------------------------------


def test_openings_and_offers_come_out_as_they_went_in() -> None:
    assert unpack_opening(pack_opening("db")) == "db"
    many = [f"s{number}" for number in range(SERVICES_MAX)]
    assert unpack_offers(pack_offers(many)) == frozenset(many)


@pytest.mark.parametrize("body", [b"", b"db", make_map(1), make_map("x" * 64), make_map("a", "b"), make_map(b"db")])
def test_an_opening_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        unpack_opening(body)


@pytest.mark.parametrize(
    "body", [b"", make_map("db"), make_map(["x" * 64]), make_map(["a"] * (SERVICES_MAX + 1)), make_map([1])]
)
def test_offers_of_another_form_are_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        unpack_offers(body)


@pytest.mark.parametrize("byte", [b"", b"\1", b"\0\0"])
def test_only_readiness_begins_a_connection(byte: bytes) -> None:
    check_ready(READY)
    with pytest.raises(Refused):
        check_ready(byte)
