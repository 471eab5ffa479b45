"""Memory for what links receive: one buffer for all links of an event loop, and pieces that come and go without page faults."""

import trio

from overlay.core.limits import MEMORY_KEPT, RECEIVE_SIZE

_BUFFER = trio.lowlevel.RunVar[memoryview]("overlay receive buffer")


def receive_buffer() -> memoryview:
    """Room for what links receive. All links of one event loop share it: nobody keeps bytes in it over a turn."""
    try:
        return _BUFFER.get()
    except LookupError:
        keep_freed_memory()
        buffer = memoryview(bytearray(RECEIVE_SIZE))
        _BUFFER.set(buffer)
        return buffer


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, where it would give it back to the kernel and ask for it again.

    glibc keeps about twice the largest piece that was ever freed (mallopt(3), M_MMAP_THRESHOLD, "dynamic"), so this frees
    one. Otherwise each piece that a stream receives may cost 128 page faults, as long as all the rest: that depends on what
    happens to lie behind it in memory. It takes no memory by itself; elsewhere than on glibc nothing happens.
    """
    bytes(MEMORY_KEPT)
