"""What this machine measures of itself, by psutil: processors, memory, disks, network, load. All of it may block."""

from typing import Any

from overlay.app.telemetry.extras import psutil
from overlay.app.telemetry.sampling import Reading


class HostSource:
    """Raises HostLacks where psutil is missing."""

    blocks = True

    def __init__(self) -> None:
        self._psutil: Any = psutil()

    def read(self, reading: Reading) -> None:
        """Everything that this machine has; what one of its devices refuses is left out."""
        for part in (self._processors, self._memory, self._disks, self._network):
            try:
                part(reading)
            except (OSError, RuntimeError):  # a container without that file of /proc or /sys
                reading.left_out += 1

    def _processors(self, reading: Reading) -> None:
        for mode, seconds in self._psutil.cpu_times()._asdict().items():
            reading.counter("host_cpu_seconds_total", seconds, mode=mode)
        reading.gauge("host_cpus", self._psutil.cpu_count() or 0)
        for name, value in zip(("host_load1", "host_load5", "host_load15"), self._psutil.getloadavg(), strict=True):
            reading.gauge(name, value)
        reading.gauge("host_boot_time_seconds", self._psutil.boot_time())

    def _memory(self, reading: Reading) -> None:
        memory, swap = self._psutil.virtual_memory(), self._psutil.swap_memory()
        reading.gauge("host_memory_size_bytes", memory.total)
        reading.gauge("host_memory_available_bytes", memory.available)
        reading.gauge("host_swap_size_bytes", swap.total)
        reading.gauge("host_swap_used_bytes", swap.used)

    def _disks(self, reading: Reading) -> None:
        for partition in {one.mountpoint: one for one in self._psutil.disk_partitions(all=False)}.values():
            try:
                usage = self._psutil.disk_usage(partition.mountpoint)
            except OSError:  # an empty drive, or a mount of somebody else
                continue
            reading.gauge("host_disk_size_bytes", usage.total, mount=partition.mountpoint)
            reading.gauge("host_disk_free_bytes", usage.free, mount=partition.mountpoint)
        for device, done in (self._psutil.disk_io_counters(perdisk=True) or {}).items():
            reading.counter("host_disk_read_bytes_total", done.read_bytes, device=device)
            reading.counter("host_disk_written_bytes_total", done.write_bytes, device=device)

    def _network(self, reading: Reading) -> None:
        for interface, done in self._psutil.net_io_counters(pernic=True).items():
            reading.counter("host_network_received_bytes_total", done.bytes_recv, interface=interface)
            reading.counter("host_network_sent_bytes_total", done.bytes_sent, interface=interface)
            reading.counter("host_network_errors_total", done.errin + done.errout, interface=interface)
