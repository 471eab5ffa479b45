"""Many members in one process that dial one node and then say nothing: `python -m bench.crowd FOLDER COUNT PORT`."""

import sys
from pathlib import Path

import trio

import overlay

AT_ONCE = 16  # while they dial: each waits a little before it does


class Crowd:
    """All of them."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._config = overlay.Config(listen=("127.0.0.1", 0), mdns=False, evidence="software", seeds=(f"127.0.0.1:{port}",))
        self._dialling = trio.CapacityLimiter(AT_ONCE)

    async def stay(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        """One member, until cancelled."""
        async with overlay.open_node(self._folder / str(number), config=self._config) as node:
            await node.wait_members(2)
            task_status.started()
            await trio.sleep_forever()

    async def add(self, number: int, staying: trio.Nursery) -> None:
        """One more, linked."""
        async with self._dialling:
            await staying.start(self.stay, number)


async def main(folder: str, count: str, port: str) -> None:
    """Dial, say so, and stay until we are ended."""
    crowd = Crowd(Path(folder), int(port))
    async with trio.open_nursery() as staying:
        async with trio.open_nursery() as adding:
            for number in range(int(count)):
                adding.start_soon(crowd.add, number, staying)
        sys.stdout.write("linked\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
