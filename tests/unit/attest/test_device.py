"""The thread that owns a device: one job at a time, a limit for callers, bugs that show."""

import threading
from collections.abc import Iterator

import pytest

from attest.device import DeviceThread
from overlay.errors import InternalError, LocalProtocolError, OverlayError

PATIENT = 10.0


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread("device", expected=(OverlayError,), farewell=lambda: None)
    yield thread
    thread.close()


def test_all_jobs_run_in_one_thread_and_none_at_once(device: DeviceThread) -> None:
    threads: set[int] = set()
    running: list[int] = []

    def job() -> int:
        threads.add(threading.get_ident())
        running.append(1)
        assert len(running) == 1
        running.pop()
        return len(threads)

    callers = [threading.Thread(target=device.call, args=(job,), kwargs={"timeout": PATIENT}) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert device.call(job, timeout=PATIENT) == 1
    assert threading.get_ident() not in threads


def test_an_expected_error_reaches_the_caller_and_the_thread_goes_on(device: DeviceThread) -> None:
    def fail() -> None:
        raise OverlayError("no")

    with pytest.raises(OverlayError, match="no"):
        device.call(fail, timeout=PATIENT)
    assert device.call(lambda: 5, timeout=PATIENT) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_is_reported_at_once_and_ends_the_thread(device: DeviceThread) -> None:
    def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(InternalError):
        device.call(bug, timeout=PATIENT)
    device.close()
    with pytest.raises(LocalProtocolError):
        device.call(lambda: 5, timeout=PATIENT)


def test_a_caller_waits_no_longer_than_its_limit_and_takes_its_job_along(device: DeviceThread) -> None:
    release, ran = threading.Event(), []
    blocked = threading.Thread(target=device.call, args=(lambda: release.wait(PATIENT),), kwargs={"timeout": PATIENT})
    blocked.start()
    with pytest.raises(OverlayError) as error:
        device.call(lambda: ran.append("late"), timeout=0.02)
    assert error.value.hint
    release.set()
    blocked.join()
    device.call(lambda: None, timeout=PATIENT)
    assert ran == []


def test_the_device_is_given_back_in_its_own_thread() -> None:
    names: list[str] = []
    thread = DeviceThread("owner", expected=(), farewell=lambda: names.append(threading.current_thread().name))
    thread.close(timeout=PATIENT)
    thread.close()
    assert names == ["owner"]
    with pytest.raises(LocalProtocolError):
        thread.call(lambda: None, timeout=PATIENT)
