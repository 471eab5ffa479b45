"""What a workload, or whoever places many, cannot do to the worker: end its node, fill its log, take what others need."""

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from overlay.app.work.staging import FILES_MAX, Stage, Staged
from overlay.core.wire import sha256
from overlay.core.work.workload import RunLimits
from overlay.errors import Refused
from overlay.events import WorkStarted
from overlay.registry import Reason, WorkState
from overlay.store.artifacts import ArtifactStore, HostLacks
from tests.shell.test_work_staging import source
from tests.shell.work_kit import LIMITS, crew, sends, worker_of

HELLO = b"print('hello')\n"


async def test_a_workload_gets_no_more_than_the_worker_gives_one_run() -> None:
    async with crew() as found:
        for asked in ({"memory": 2**50}, {"output": 2**50}, {"processes": 65_536}):
            limits = RunLimits(**{"seconds": 20, "memory": LIMITS.memory, "processes": 16, "output": 1 << 20} | asked)
            result = await found.run(HELLO, limits=limits)
            assert (result.state, result.reason) == (WorkState.NOT_STARTED, Reason.TOO_LARGE)


async def test_a_disk_that_takes_no_results_does_not_end_the_worker() -> None:
    async with crew() as found:
        store = worker_of(found)._store
        placement = await found.place(found.sign(b"import time\ntime.sleep(1)\nprint('y')\n"))
        await found.wait_event(WorkStarted)
        store._fetch("PRAGMA query_only=1", ())  # as on a disk that takes nothing more
        result = await found.result(placement)
        assert result.state is WorkState.EXITED
        assert await found.output(result) == b"y\n"
        assert store.unfinished(), "the result was written all the same: this test shows nothing"


class _Full(Stage):
    """Of a machine that has no descriptors left."""

    async def take(self, what: str, digest: bytes, size: int, source: AsyncIterator[bytes]) -> Staged:  # type: ignore[override]
        async for _ in source:
            break
        raise OSError(errno.EMFILE, "Too many open files")


async def test_a_machine_without_descriptors_starts_nothing_and_its_node_stays() -> None:
    async with crew() as found:
        worker = worker_of(found)
        usual, worker._stage = worker._stage, _Full()
        result = await found.run(HELLO)
        assert (result.state, result.reason) == (WorkState.NOT_STARTED, Reason.BUSY)
        worker._stage = usual
        assert (await found.run(HELLO + b"#")).state is WorkState.EXITED


async def test_placements_that_never_begin_do_not_fill_the_log() -> None:
    async with crew() as found:
        signed = found.sign(HELLO)
        found.files[sha256(HELLO)] = sends(b"")
        placement = await found.place(signed)
        assert (await found.result(placement)).state is WorkState.NOT_STARTED
        before = len(await found.logged())
        for _ in range(5):
            await found.hand_over(signed, placement)
            with trio.fail_after(20):
                for live in tuple(worker_of(found)._live.values()):
                    await live.over.wait()
        assert len(await found.logged()) <= before + 1  # a new minute may have begun


async def test_no_more_files_are_staged_than_the_process_has_descriptors_for() -> None:
    stage = Stage()
    held = [await stage.take("a file", sha256(b"x"), 1, source(b"x")) for _ in range(FILES_MAX)]
    with pytest.raises(Refused) as caught:
        await stage.take("one more", sha256(b"x"), 1, source(b"x"))
    assert caught.value.reason is Reason.BUSY
    stage.drop(held.pop())
    held.append(await stage.take("again", sha256(b"x"), 1, source(b"x")))
    for one in held:
        stage.drop(one)


def test_files_are_not_kept_on_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"data")
    artifacts = ArtifactStore(tmp_path / "artifacts")
    artifacts.keep(tmp_path / "file")
    monkeypatch.setattr("overlay.store.artifacts.SPARE", 2**62)
    with pytest.raises(HostLacks):
        artifacts.keep(tmp_path / "file")
    assert len(list((tmp_path / "artifacts").iterdir())) == 1
