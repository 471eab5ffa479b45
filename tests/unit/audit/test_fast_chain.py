"""Whole logs go fast, and nothing passes that `extend` refuses: neither alone nor with processes that look ahead."""

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.author import LogSigner, OwnLog
from audit.bodies import application, lifecycle
from audit.chain import Append, ChainState, Extension, extend
from audit.entry import Entry
from audit.fast_chain import Row, Run, extend_by_runs, fast_extend
from audit.lookahead import PART
from audit.part_worker import judge, pack_task, read_part
from audit.store import AuditStore
from audit.verifier import LogReport, verify_store
from overlay.core.mesh.chains import HLC_MAX, hlc_of, item_hash
from overlay.core.wire import make_map, sign1
from overlay.errors import Refused
from overlay.registry import EntryType, Label
from tests.unit.audit.audit_kit import Writer, edit, some_log, start_of, state_after
from tests.unit.core.authority_kit import DAY, make_member, make_mesh

MESH = make_mesh()


def row_of(entry: Entry) -> Row:
    return entry.seq, entry.hlc, entry.type, entry.hash, entry.raw


def opened(log: Writer) -> ChainState:
    return extend(start_of(log), log.raws[:1], MESH.root, at=None).state


def judged(log: Writer, rows: list[Row]) -> tuple[ChainState, list[bytes]]:
    """By the fast way, from entry 1 on."""
    return fast_extend(opened(log), rows, MESH.root)


def mixed_log() -> Writer:
    """Entries of many forms, sizes around those where a length takes another byte."""
    log = some_log(1, mesh=MESH)
    for size in (0, 1, 20, 21, 22, 23, 24, 100, 253, 254, 255, 256, 400):
        log.keep(log.sign(EntryType.APPLICATION, application("k" * max(size % 30, 1), "v" * size)))
    log.keep(log.sign(EntryType.LIFECYCLE, lifecycle("started")))
    log.keep(log.sign(EntryType.APPLICATION, {0: "größe", 1: b"1"}))
    log.keep(log.sign(EntryType.APPLICATION, {5: [1, {1: b""}], 7: True}))
    log.keep(log.sign(200, {0: 1}))
    log.keep(log.sign(EntryType.APPLICATION, {}))
    return log


# --- what holds -------------------------------------------------------------------------------------------------------


def test_entries_of_all_usual_forms_are_judged_fast_and_end_in_the_same_state() -> None:
    log = mixed_log()
    state, hashes = judged(log, [row_of(entry) for entry in log.entries[1:]])
    assert state == state_after(log)
    assert hashes == [entry.hash for entry in log.entries[1:]]


def test_keys_and_the_beginning_are_left_to_extend() -> None:
    log = some_log(2, mesh=MESH)
    log.change_to(make_member(MESH, "alice", start=2))
    log.note()
    assert len(judged(log, [row_of(entry) for entry in log.entries[1:]])[1]) == 1
    assert fast_extend(start_of(log), [row_of(log.entries[0])], MESH.root)[1] == []


# --- what does not ----------------------------------------------------------------------------------------------------


def forged(log: Writer, **fields: Any) -> bytes:
    """Signed by the author, whatever it says: fields by their numbers, the kid and the mesh as they should be or not."""
    place = log.place
    payload = {
        0: 1, 1: bytes(place.node_id), 2: place.log_id, 3: place.seq, 4: place.prev, 5: place.hlc,
        6: int(EntryType.APPLICATION), 7: {0: "a", 1: b"1"}, 8: [],
    } | {int(name.removeprefix("f")): value for name, value in fields.items() if name.startswith("f")}  # fmt: skip
    raw = fields.get("payload") or cbor2.dumps(payload)
    return sign1(raw, signer=log.member.message, aad=fields.get("aad", Label.AUDIT + MESH.mesh_id), kid=log.member.kid)


def beyond() -> int:
    return hlc_of(make_member(MESH, "alice").peer.endorsement.not_after) + (1 << 16)


@pytest.mark.parametrize("fields", [
    {"f1": bytes(32)}, {"f2": bytes(16)}, {"f3": 3}, {"f4": bytes(32)}, {"f5": 0}, {"f5": HLC_MAX + 1}, {"f5": beyond()},
    {"f6": 256}, {"f6": int(EntryType.LOG_OPEN)}, {"f6": int(EntryType.ENDORSEMENT)}, {"f7": []}, {"f7": {"a": 1}},
    {"f7": {0: 1.5}}, {"f7": {-1: 1}}, {"f7": {0: None}}, {"f8": [b"short"]}, {"f8": {}}, {"f9": [1, 2]}, {"f10": 1},
    {"aad": b"other"}, {"payload": make_map(bytes(32))}, {"f7": {0: "a", 1: b"1", 2: [[[[[[[[1]]]]]]]]}},
])  # fmt: skip
def test_what_an_author_signs_and_must_not_is_not_accepted(fields: dict[str, Any]) -> None:
    log = some_log(2, mesh=MESH)
    raw = forged(log, **fields)
    with pytest.raises(Refused):
        extend(state_after(log), [raw], MESH.root, at=None)
    hlc, kind = fields.get("f5", log.place.hlc), fields.get("f6", int(EntryType.APPLICATION))
    assert fast_extend(state_after(log), [(2, hlc, kind, item_hash(raw), raw)], MESH.root)[1] == []


def test_the_plain_forgery_with_nothing_changed_is_accepted() -> None:
    log = some_log(2, mesh=MESH)
    raw = forged(log)
    extend(state_after(log), [raw], MESH.root, at=None)
    assert fast_extend(state_after(log), [(2, log.place.hlc, int(EntryType.APPLICATION), item_hash(raw), raw)], MESH.root)[1]


def test_an_entry_outside_the_life_of_its_endorsement_is_not_accepted() -> None:
    log = some_log(2, mesh=MESH)
    end = make_member(MESH, "alice").peer.endorsement.not_after
    log.keep(log.sign(EntryType.APPLICATION, application("in", 1), hlc=hlc_of(end)))
    log.keep(log.sign(EntryType.APPLICATION, application("out", 1), hlc=hlc_of(end + DAY / 86_400_000)))
    assert len(judged(log, [row_of(entry) for entry in log.entries[1:]])[1]) == 2


@pytest.mark.parametrize(("place", "value"), [(0, 9), (0, "x"), (1, 5), (1, None), (2, 5), (3, bytes(32)), (4, None), (4, "x")])
def test_a_row_that_says_something_else_is_not_accepted(place: int, value: object) -> None:
    log = some_log(3, mesh=MESH)
    rows = [list(row_of(entry)) for entry in log.entries[1:]]
    rows[1][place] = value
    assert len(judged(log, [tuple(row) for row in rows])[1]) == 1


LOG = mixed_log()


@given(st.integers(1, len(LOG.entries) - 1), st.data())
def test_whatever_is_changed_in_an_entry_fast_accepts_only_what_extend_accepts(seq: int, data: st.DataObject) -> None:
    raw = bytearray(LOG.raws[seq])
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw) - 1))
        raw[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    before = extend(start_of(LOG), LOG.raws[:seq], MESH.root, at=None).state
    entry = LOG.entries[seq]
    state, hashes = fast_extend(before, [(seq, entry.hlc, entry.type, item_hash(bytes(raw)), bytes(raw))], MESH.root)
    if hashes:
        assert extend(before, [bytes(raw)], MESH.root, at=None).state == state
    else:
        assert state == before


# --- taking in what others send ---------------------------------------------------------------------------------------


def outcome(judge: Callable[..., Extension], state: ChainState, raws: list[bytes], at: datetime) -> Extension | str:
    try:
        return judge(state, raws, MESH.root, at=at)
    except Refused as error:
        return f"{error.reason} {error}"


def test_a_log_with_entries_of_all_forms_and_keys_is_taken_in_as_extend_takes_it() -> None:
    log = mixed_log()
    log.change_to(make_member(MESH, "alice", start=2))
    log.note()
    log.note()
    quick = extend_by_runs(start_of(log), log.raws, MESH.root, at=MESH.at)
    assert quick == extend(start_of(log), log.raws, MESH.root, at=MESH.at)
    assert quick.entries == tuple(log.entries)


def test_what_is_ahead_of_its_time_waits_and_so_does_what_follows_it() -> None:
    log = some_log(2, mesh=MESH)
    for minutes in (4, 6, 7):
        log.keep(log.sign(EntryType.APPLICATION, application("soon", 1), hlc=hlc_of(MESH.at + timedelta(minutes=minutes))))
    found = extend_by_runs(start_of(log), log.raws, MESH.root, at=MESH.at)
    assert found == extend(start_of(log), log.raws, MESH.root, at=MESH.at)
    assert len(found.entries) == 3
    assert found.held == log.entries[3]


@given(st.data())
def test_whatever_is_changed_in_a_log_it_is_taken_in_as_extend_takes_it(data: st.DataObject) -> None:
    raws = list(LOG.raws)
    for _ in range(data.draw(st.integers(0, 2))):
        which = data.draw(st.integers(0, len(raws) - 1))
        raw = bytearray(raws[which])
        start = data.draw(st.integers(0, len(raw) - 1))
        raw[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        raws[which] = bytes(raw)
    at = MESH.at + timedelta(seconds=data.draw(st.sampled_from([-301, -300, 0])))
    assert outcome(extend_by_runs, start_of(LOG), raws, at) == outcome(extend, start_of(LOG), raws, at)


# --- workers ----------------------------------------------------------------------------------------------------------

LONG = 3 * PART + 700


@pytest.fixture(scope="module")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One log whose keys change in the middle."""
    path = tmp_path_factory.mktemp("long") / "audit.sqlite3"
    alice, later = make_member(MESH, "alice"), make_member(MESH, "alice", start=2)
    own, first = OwnLog.begin(MESH.root, LogSigner(alice.message, alice.credentials), MESH.at)
    entries = [first]
    for seq in range(1, LONG):
        if seq == PART + 300:
            own, entry = own.go_on(LogSigner(later.message, later.credentials), MESH.at)
        else:
            own, entry = own.write(EntryType.APPLICATION, application("count", seq), MESH.at)
        entries.append(entry)
    store = AuditStore.open(path)
    store.append_many([Append(state=own.state, entries=tuple(entries))])
    store.close()
    return path


@pytest.fixture
def long(long_store: Path, tmp_path: Path) -> Path:
    store, path = AuditStore.open_readonly(long_store), tmp_path / "audit.sqlite3"
    store.copy_to(path)
    store.close()
    return path


def report_of(path: Path, workers: int = 0) -> LogReport:
    return verify_store(path, MESH.root, workers=workers).logs[0]


def test_with_workers_a_long_log_holds_and_progress_is_told(long: Path) -> None:
    told: list[tuple[int, int]] = []
    report = verify_store(long, MESH.root, workers=2, progress=lambda done, total: told.append((done, total)))
    assert report.holds
    assert told[-1] == (LONG, LONG)
    assert told == sorted(told)
    assert report_of(long) == report.logs[0]


@pytest.mark.parametrize("seq", [1, PART, PART + 1, PART + 300, LONG - 1])
def test_one_bad_entry_is_named_with_workers_as_without(long: Path, seq: int) -> None:
    store = AuditStore.open_readonly(long)
    raw = bytearray(store.read(store.logs()[0].log_id, seq, 1, limit=1)[0])
    store.close()
    raw[-1] ^= 1
    edit(long, "UPDATE entries SET raw = ?, hash = ? WHERE seq = ?", bytes(raw), item_hash(bytes(raw)), seq)
    report = report_of(long, workers=2)
    assert report == report_of(long)
    assert report.fault is not None
    assert report.fault.seq == seq


@pytest.mark.parametrize("change", [
    "hash = zeroblob(32)", "hash = 'text'", "hlc = hlc + 1", "hlc = 'text'",
])  # fmt: skip
def test_an_edit_of_what_a_part_takes_for_granted_is_found(long: Path, change: str) -> None:
    edit(long, f"UPDATE entries SET {change} WHERE seq = ?", PART)
    report = report_of(long, workers=1)
    assert report == report_of(long)
    assert report.fault is not None
    assert report.fault.seq == PART


@pytest.mark.parametrize("change", [
    "UPDATE nodes SET hash = zeroblob(32) WHERE place = 1", "UPDATE nodes SET hash = 'x' WHERE level = 9",
    "UPDATE nodes SET place = 99 WHERE place = 2 AND level = 8", "UPDATE nodes SET level = 7 WHERE level = 9 AND place = 0",
    "UPDATE nodes SET level = 'x' WHERE level = 9 AND place = 0", "UPDATE nodes SET place = -1 WHERE level = 9 AND place = 0",
])  # fmt: skip
def test_an_edited_node_of_the_tree_is_found(long: Path, change: str) -> None:
    edit(long, change)
    report = report_of(long)
    assert report.fault is not None
    assert (report.fault.seq, "of its tree" in report.fault.detail) == (None, True)


def test_a_worker_that_fails_leaves_its_parts_to_be_judged_here(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/bin/false", "/nowhere/python"):
        monkeypatch.setattr(sys, "executable", program)
        assert report_of(long, workers=2).holds


def test_a_worker_says_nothing_of_what_it_cannot_read(long: Path, tmp_path: Path) -> None:
    state = opened(some_log(2, mesh=MESH))
    assert state.key is not None
    run = Run.under(state, state.key, MESH.root)
    for path in (tmp_path / "none", Path(__file__), long):
        part = read_part(1, judge(pack_task(path, 9, 1, 10, run)))
        assert (part.hashes, part.last) == ([], b"")


def test_a_size_that_is_recorded_too_large_or_is_nonsense_is_found(long: Path) -> None:
    for size in (LONG + 1, "text"):
        edit(long, "UPDATE logs SET size = ?", size)
        assert report_of(long).fault is not None


def test_a_state_with_the_keys_of_another_is_not_mixed_up() -> None:
    one, other = some_log(3, mesh=MESH), some_log(3, mesh=MESH, start=2)
    state = replace(opened(one), last=one.entries[0].hash)
    assert fast_extend(state, [row_of(other.entries[1])], MESH.root)[1] == []
