"""Memory of the device and the host, and whether a data set fits."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The file with a control group's limit, and the keys in memory.stat of what its processes hold and
# the kernel cannot give back.
VERSION_1 = "memory.limit_in_bytes", ("total_rss", "total_shmem")
VERSION_2 = "memory.max", ("anon", "shmem")


def device_limit(device: Any) -> int | None:
    """The device's memory in bytes; for a CPU the memory available now; None if it is unknown."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return host_memory() if device.platform == "cpu" else None


def host_memory() -> int | None:
    """The memory in bytes that this process may still take; None if it is unknown.

    It is what the host has available, or less in a container or a job whose memory is limited.
    """
    limits = (_available(), *_control_groups())
    return min((limit for limit in limits if limit is not None), default=None)


def _available() -> int | None:
    """The host's memory that is available now."""
    try:
        meminfo = Path("/proc/meminfo").read_text("utf-8")
        return 1024 * int(re.findall(r"MemAvailable:\s*(\d+) kB", meminfo)[0])
    except (OSError, IndexError):  # not Linux
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError):  # Windows
            return None


def _control_groups(root: Path = Path("/")) -> Iterator[int]:
    """Yield, for each control group of this process, its limit less what its processes use.

    A line of /proc/self/cgroup is `0::PATH` (version 2) or `N:memory:PATH` (version 1). In a
    container PATH may be the host's, and the container's own group is then the root.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        limit_file, used_keys = VERSION_1 if controllers else VERSION_2
        own = top / path.lstrip("/")
        for folder in filter(lambda folder: folder.is_relative_to(top), (own, *own.parents)):
            try:
                limit = int((folder / limit_file).read_text("utf-8"))
                stat = (folder / "memory.stat").read_text("utf-8")
            except (OSError, ValueError):  # no such group here, or "max"
                continue
            used = re.findall(rf"^(?:{'|'.join(used_keys)}) (\d+)$", stat, re.MULTILINE)
            yield max(0, limit - sum(map(int, used)))


def fits(dataset_bytes: int, limit_bytes: int | None) -> bool:
    """Whether a data set takes at most half of the device's memory; True if that is unknown."""
    return limit_bytes is None or 2 * dataset_bytes <= limit_bytes


def check_fits(dataset_bytes: int, limit_bytes: int | None, name: str) -> None:
    """Refuse a data set that takes more than half of the device's memory (None: unknown).

    Raises: ValueError with both sizes.
    """
    if limit_bytes is not None and not fits(dataset_bytes, limit_bytes):
        raise ValueError(
            f"data set {name!r} needs {dataset_bytes / 1e9:.1f} GB on the device, which has "
            f"{limit_bytes / 1e9:.1f} GB, and half of that has to stay free; "
            "use data.stream=auto"
        )


def may_keep(encoded_bytes: int, num_examples: int) -> bool:
    """Whether a split's image files are few enough to stay in the host's memory once read.

    Several processes may share a host, and each of them keeps the files that it reads. A count
    above the number of bytes cannot be true, and would reserve memory for examples that do not
    exist.
    """
    memory = host_memory()
    return memory is not None and encoded_bytes <= memory / 32 and num_examples <= encoded_bytes
