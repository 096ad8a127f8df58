"""The memory that a process may take: the host's, or less in a container."""

import pytest

from resnet_jax.data import memory

GB = 10**9


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    "files,left",
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": f"{2 * GB}\n"}, 2 * GB),
        (
            {"proc/self/cgroup": "0::/job/step\n", "sys/fs/cgroup/job/memory.max": f"{3 * GB}\n"},
            3 * GB,
        ),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/memory.max": f"{GB}\n"}, GB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/slurm\n",
                "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes": f"{4 * GB}\n",
            },
            4 * GB,
        ),
        ({}, None),
    ],
)
def test_the_smallest_limit_of_the_control_groups_counts(tmp_path, files, left):
    write(tmp_path, files)
    limits = [name for name in files if name.endswith(("memory.max", "limit_in_bytes"))]
    used = {
        name.rpartition("/")[0] + "/memory.stat": "cache 5\nrss 0\ntotal_rss 0\nanon 0\n"
        for name in limits
    }
    write(tmp_path, used)
    assert min(memory._control_groups(tmp_path), default=None) == left
    write(
        tmp_path,
        dict.fromkeys(used, "file 7\nanon 900\nshmem 100\nrss 1\ntotal_rss 900\ntotal_shmem 100\n"),
    )
    after = min(memory._control_groups(tmp_path), default=None)
    assert after == (None if left is None else left - 1000)
