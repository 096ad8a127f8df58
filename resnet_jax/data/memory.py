"""Memory of the device and the host, and whether a data set fits."""

import os
import re
from pathlib import Path
from typing import Any


def device_limit(device: Any) -> int | None:
    """The device's memory in bytes; for a CPU the memory available now; None if it is unknown."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return host_memory() if device.platform == "cpu" else None


def host_memory() -> int | None:
    """The host's memory in bytes that is available now; None if it is unknown."""
    try:
        meminfo = Path("/proc/meminfo").read_text()
        return 1024 * int(re.findall(r"MemAvailable:\s*(\d+) kB", meminfo)[0])
    except (OSError, IndexError):  # not Linux
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError):  # Windows
            return None


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
