"""Eight devices: a process of their own runs what tests/eight_devices says of them."""

import os
import subprocess
import sys


def test_eight_devices():
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-q", "tests/eight_devices"],
        env=os.environ | {"XLA_FLAGS": flags, "RESNET_JAX_EIGHT_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
