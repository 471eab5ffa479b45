"""What the lab reports, from what its nodes say of themselves."""

import json
from typing import Any

import pytest

from overlay.app.lab.report import NOTHING, LinkRow, NodeRow, Report, SceneRow, Snapshot, snapshot
from overlay.registry import SUITE_NAME

ROOT = "r" * 64


def link(name: str, *, level: int = 2, epoch: int = 3, rounds: int = 2) -> dict[str, Any]:
    return {"name": name, "level": level, "epoch": epoch, "rounds": rounds}


def chain(log: str, size: int, root: str = ROOT) -> dict[str, Any]:
    return {"node": "n", "log": log, "size": size, "root": root}


def status(node: str, links: list[dict[str, Any]], chains: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"node": node, "links": links, "chains": [chain("a", 3), chain("b", 4)] if chains is None else chains}


def pair(**of_alice: Any) -> dict[str, dict[str, Any]]:
    """alice and bob; what bob says of their link can be changed."""
    return {"alice": status("id-a", [link("bob")]), "bob": status("id-b", [link("alice", **of_alice)])}


def test_a_mesh_of_two() -> None:
    seen = snapshot(pair())
    assert seen.links == [LinkRow(a="alice", b="bob", epochs=3, rounds=2, suite=SUITE_NAME)]
    assert [(node.name, node.id, node.level, node.peers, node.entries) for node in seen.nodes] == [
        ("alice", "id-a", 2, ["bob"], 7), ("bob", "id-b", 2, ["alice"], 7)
    ]  # fmt: skip
    assert seen.heads_equal
    assert seen.complete


def test_a_link_is_reported_by_the_end_that_has_seen_less_of_it() -> None:
    (row,) = snapshot(pair(epoch=2, rounds=9)).links
    assert (row.epochs, row.rounds) == (2, 2)


def test_copies_of_the_log_of_a_proven_liar_may_differ() -> None:
    statuses = pair()
    for name, size in (("alice", 1), ("bob", 3)):
        statuses[name]["chains"].append({"log": "mal", "node": "id-mal", "size": size, "root": f"{size}"})
        statuses[name]["exposed"] = ["id-mal"]
    seen = snapshot(statuses)
    assert seen.heads_equal
    assert {node.entries for node in seen.nodes} == {7}


def test_a_link_that_only_one_end_knows_is_none() -> None:
    seen = snapshot({"alice": status("a", [link("bob")]), "bob": status("b", [])})
    assert seen.links == []
    assert not seen.complete


def test_a_node_has_the_lowest_level_that_a_peer_gives_it() -> None:
    statuses = {
        "alice": status("a", [link("bob", level=2), link("carol", level=1)]),
        "bob": status("b", [link("alice", level=2), link("carol", level=2)]),
        "carol": status("c", [link("alice", level=0), link("bob", level=2)]),
    }
    assert {node.name: node.level for node in snapshot(statuses).nodes} == {"alice": 0, "bob": 2, "carol": 1}


def test_a_node_that_nobody_is_linked_to_has_no_level() -> None:
    seen = snapshot({"alice": status("a", []), "bob": status("b", [])})
    assert [node.level for node in seen.nodes] == [0, 0]


def test_actors_are_no_part_of_the_mesh() -> None:
    statuses = pair()
    statuses["alice"]["links"].append(link("actor-1", level=0, epoch=1))
    seen = snapshot(statuses)
    assert seen.nodes[0].peers == ["bob"]
    assert len(seen.links) == 1


@pytest.mark.parametrize(
    "other",
    [
        [chain("a", 3), chain("b", 5)],  # longer
        [chain("a", 3), chain("b", 4, "other")],  # of the same length, with another content
        [chain("a", 3)],  # not there
        [chain("a", 3), chain("c", 4)],
    ],
)
def test_heads_differ_when_any_log_does(other: list[dict[str, Any]]) -> None:
    statuses = pair()
    statuses["bob"]["chains"] = other
    seen = snapshot(statuses)
    assert not seen.heads_equal
    assert not seen.complete


def test_the_order_in_which_a_node_lists_its_logs_does_not_matter() -> None:
    statuses = pair()
    statuses["bob"]["chains"].reverse()
    assert snapshot(statuses).heads_equal


def test_a_mesh_that_nobody_has_seen_is_not_complete() -> None:
    assert not NOTHING.complete


def test_the_report_has_the_fields_of_the_guide_in_its_order() -> None:
    node = NodeRow(name="alice", id="a", level=2, peers=["bob"], entries=7, head="h")
    mesh = Snapshot(nodes=[node], links=[LinkRow(a="alice", b="bob", epochs=3, rounds=2)], heads_equal=True)
    scene = SceneRow(name="stranger", expected="BAD_GATE", observed="BAD_GATE", by="alice", status="passed", seconds=1.5)
    report = Report(
        ok=True, version="1", evidence="tpm", network="namespaces", degraded=[], seconds=33.333, before=mesh,
        scenes=[scene], after=mesh, why="for people only",
    )  # fmt: skip
    fields = json.loads(json.dumps(report.fields()))
    assert list(fields) == [
        "ok", "version", "evidence", "network", "degraded", "seconds", "nodes", "links", "heads_equal", "scenes", "after"
    ]  # fmt: skip
    assert list(fields["nodes"][0]) == ["name", "id", "level", "peers", "entries", "head"]
    assert list(fields["links"][0]) == ["a", "b", "epochs", "rounds", "suite"]
    assert list(fields["scenes"][0]) == ["name", "expected", "observed", "by", "status", "why", "seconds"]
    assert list(fields["after"]) == ["nodes", "links", "heads_equal"]
    assert fields["seconds"] == 33.3
