"""The memory that links receive into and hand on."""

import subprocess
import sys

import pytest

BURSTS = """
import resource
from overlay.net.buffers import keep_freed_memory
record = memoryview(bytearray(65_511))

def two(records):  # as a reader that takes one piece while it still has the last
    one = b"".join([record] * records)
    other = b"".join([record] * records)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

{keep}
for records in (4, 6, 7, 8):
    two(records)
before = faults()
for _ in range(100):
    two(8)
print(faults() - before)
"""


def page_faults(keep: str) -> int:
    done = subprocess.run([sys.executable, "-c", BURSTS.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_pieces_of_half_a_mib_that_come_and_go_cost_no_page_faults() -> None:
    if page_faults("") < 1000:
        pytest.skip("the C library of this host keeps freed memory by itself")
    assert page_faults("keep_freed_memory()") < 100
