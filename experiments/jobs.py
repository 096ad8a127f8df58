"""Several runs at once on this machine, each in a process of its own.

A process is the command that was typed, with `--run=I`: what a cluster's scheduler would start.
Nothing is kept about them here; what is finished is known from the runs' directories.
"""

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from resnet_jax import command

GRACE = 30.0  # seconds that a run has, once told to stop, before it is killed
_LONGEST_LINE = 1 << 24  # bytes
_TOGETHER = "RESNET_JAX_RUN_OF_A_SWEEP"  # set in a run's process

Environment = dict[str, str]


def run(runs: Mapping[int, str], at_once: int) -> list[str]:
    """Do the runs, numbered as in --list and named, `at_once` at a time; what failed, in words.

    A run that fails does not stop the others. Ctrl-C and SIGTERM stop them all: each is sent
    SIGTERM, and killed after GRACE seconds or at another Ctrl-C.
    Raises: ValueError where the machine cannot do several at once.
    """
    shares = share(min(at_once, len(runs)), *_devices(), os.environ)
    stopped = "stopped, and its runs with it; the same command goes on"
    try:
        failed = asyncio.run(_all(runs, shares))
    except KeyboardInterrupt:
        command.fail(stopped, 128 + signal.SIGINT)
    except asyncio.CancelledError:
        command.fail(stopped, 128 + signal.SIGTERM)
    return failed


def share(
    jobs: int, platform: str, count: int, environment: Mapping[str, str]
) -> list[Environment]:
    """What each of `jobs` processes has set so that they share `count` devices of this platform.

    Each GPU belongs to one process, or to equally many where there are too few. The CPU's cores
    are left to the operating system: a run's last digits depend on how many cores it sees, and
    must not depend on --jobs. (Two runs on two cores took as long pinned to one core each.)
    """
    if platform == "cpu":
        return [{} for _ in range(jobs)]
    if platform != "gpu":
        raise ValueError(
            f"--jobs={jobs}: one process holds all {platform} devices of a machine; run one after "
            "another, or one on each of several slices (docs/sweeps.md)"
        )
    named = environment.get("CUDA_VISIBLE_DEVICES", "")
    names = named.split(",")[:count] if named else [str(i) for i in range(count)]
    if jobs <= count:
        each = count // jobs
        parts = [names[i * each : (i + 1) * each] for i in range(jobs)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]
    shares = [{"CUDA_VISIBLE_DEVICES": names[i % count]} for i in range(jobs)]
    memory = {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"}
    if not environment.keys() & (memory | {"XLA_PYTHON_CLIENT_PREALLOCATE"}):
        # Otherwise each takes three quarters of the GPU's memory when it starts.
        fraction = 0.75 / math.ceil(jobs / count)
        shares = [one | {"XLA_CLIENT_MEM_FRACTION": f"{fraction:.3f}"} for one in shares]
    return shares


def end_with_the_sweep() -> None:
    """In a run's process: get SIGTERM when the sweep's process ends, even if that was killed.

    Otherwise a run could go on unseen, and a second one be started in its directory.
    """
    if os.environ.pop(_TOGETHER, None):

        def wait() -> None:
            os.read(0, 1)  # the sweep never writes: it returns when the sweep's end has closed
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, daemon=True).start()


def _devices() -> tuple[str, int]:
    """Platform and number of the devices that a run would see.

    Asked of another process: here they would be taken from the runs.
    """
    ask = "import jax; print(jax.default_backend(), jax.local_device_count())"
    asked = subprocess.run((sys.executable, "-c", ask), capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ValueError(f"JAX finds no device: {asked.stderr.strip().splitlines()[-1]}")
    platform, count = asked.stdout.split()[-2:]
    return platform, int(count)


async def _all(runs: Mapping[int, str], shares: Sequence[Environment]) -> list[str]:
    all_runs = asyncio.create_task(_share_out(runs, shares))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, all_runs.cancel)
    return await all_runs


async def _share_out(runs: Mapping[int, str], shares: Sequence[Environment]) -> list[str]:
    """Do the runs, as many at a time as there are shares; the reasons of those that failed."""
    waiting, failed = iter(runs.items()), []

    async def work(environment: Environment) -> None:
        for index, name in waiting:  # of which the others take too
            if reason := await _one(index, environment):
                failed.append(f"{name}: {reason.removeprefix(f'{name}: ')}")

    async with asyncio.TaskGroup() as workers:
        for environment in shares:
            workers.create_task(work(environment))
    return failed


async def _one(index: int, environment: Environment) -> str:
    """Do one run, showing what it says; why it failed, '' where it did not."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *sys.orig_argv[1:], f"--run={index}", "--jobs=1"),
        stdin=subprocess.PIPE,  # see end_with_the_sweep
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | environment | {_TOGETHER: "1"},
        process_group=0,  # Ctrl-C reaches the sweep alone, which stops its runs as SIGTERM does
        limit=_LONGEST_LINE,
    )
    said = asyncio.create_task(_show(process, f"run {index}:"))
    try:
        last = await asyncio.shield(said)
    except asyncio.CancelledError:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(said, GRACE)
        raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = await process.wait()
    return last if code > 0 else f"ended by {signal.Signals(-code).name}" if code else ""


async def _show(process: asyncio.subprocess.Process, label: str) -> str:
    """Print each line behind the label until the process has ended; the last one."""
    last = "it said nothing"
    async for line in process.stdout or ():
        last = line.decode(errors="replace").rstrip()
        print(label, last, flush=True)
    await process.wait()
    return last.removeprefix("error: ")
