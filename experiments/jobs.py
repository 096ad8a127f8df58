"""Commands in processes of their own: several runs at once on this machine, or one claim.

The process of a run does the sweep's own command with `--run=I`, as a cluster's scheduler would.
Nothing is recorded here: the directories of the runs say what is finished.
"""

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TypeVar

from resnet_jax import command

# Seconds between the signal that asks a run to stop and the signal that kills it.
GRACE = 30.0
# Bytes of the longest line that a run may print.
LONGEST_LINE = 1 << 24
# The environment variable that tells a process that it is a run of a sweep.
TOGETHER = "RESNET_JAX_RUN_OF_A_SWEEP"

Environment = dict[str, str]
Result = TypeVar("Result")


def run(runs: Mapping[int, str], at_once: int, words: Sequence[str]) -> list[str]:
    """Do the runs {number in --list: name}, `at_once` at a time; return the reasons of failures.

    `words` are the arguments of Python that start the sweep. A run that fails does not stop the
    others. Ctrl-C and SIGTERM stop all runs: each run gets SIGTERM, and is killed after GRACE
    seconds or at a second Ctrl-C.
    Raises: ValueError if the machine cannot do several runs at once.
    """
    shares = share(min(at_once, len(runs)), *_devices(), os.environ)
    stopped = "stopped, and its runs with it; the same command goes on"
    return complete(_share_out(runs, shares, words), stopped)


def complete(work: Coroutine[None, None, Result], stopped: str) -> Result:
    """Return the result of asynchronous work, which Ctrl-C and SIGTERM cancel.

    This process then says `stopped` and ends, as a process does that was ended by the signal.
    """

    async def cancellable() -> Result:
        task = asyncio.create_task(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(cancellable())
    except KeyboardInterrupt:
        command.fail(stopped, 128 + signal.SIGINT)
    except asyncio.CancelledError:
        command.fail(stopped, 128 + signal.SIGTERM)


def share(
    jobs: int, platform: str, count: int, environment: Mapping[str, str]
) -> list[Environment]:
    """Return the environment variables by which `jobs` processes share `count` devices.

    Each GPU belongs to one process, or to equally many processes if there are more processes than
    GPUs. The operating system shares out the cores of a CPU: the last digits of a run depend on the
    number of cores that the run sees, and must not depend on --jobs. (Two runs on two cores took as
    long if each run was pinned to one core.)
    Raises: ValueError for a platform whose devices belong to one process.
    """
    if platform == "cpu":
        return [{} for _ in range(jobs)]
    if platform != "gpu":
        raise ValueError(
            f"--jobs={jobs}: one process holds all {platform} devices of a machine; do one run "
            "after another, or use several slices (docs/sweeps.md)"
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
        # Otherwise each process takes three quarters of the GPU's memory when it starts.
        fraction = 0.75 / math.ceil(jobs / count)
        shares = [own | {"XLA_CLIENT_MEM_FRACTION": f"{fraction:.3f}"} for own in shares]
    return shares


def end_with_the_sweep() -> None:
    """Send SIGTERM to this process, if it is a run of a sweep, when the sweep's process ends.

    The sweep's process may have been killed. Its run would go on unseen, and a second process might
    be started in the run's directory.
    """
    if os.environ.pop(TOGETHER, None):

        def wait() -> None:
            os.read(0, 1)  # the sweep writes nothing: this returns when the sweep's end is closed
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, daemon=True).start()


def _devices() -> tuple[str, int]:
    """Return the platform and the number of the devices that a run would see.

    Another process looks: this process would take the devices from the runs.
    """
    ask = "import jax; print(jax.default_backend(), jax.local_device_count())"
    asked = subprocess.run((sys.executable, "-c", ask), capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ValueError(f"JAX finds no device: {asked.stderr.strip().splitlines()[-1]}")
    platform, count = asked.stdout.split()[-2:]
    return platform, int(count)


async def _share_out(
    runs: Mapping[int, str], shares: Sequence[Environment], words: Sequence[str]
) -> list[str]:
    """Do the runs, as many at a time as there are shares; return the reasons of failures."""
    waiting, failed = iter(runs.items()), []

    async def work(environment: Environment) -> None:
        for index, name in waiting:  # all workers take from the same iterator
            show = lambda line, index=index: print(f"run {index}:", line, flush=True)
            own = (*words, f"--run={index}", "--jobs=1")
            if reason := await do(own, environment, show):
                failed.append(f"{name}: {reason.removeprefix(f'{name}: ')}")

    async with asyncio.TaskGroup() as workers:
        for environment in shares:
            workers.create_task(work(environment))
    return failed


async def do(words: Sequence[str], environment: Environment, show: Callable[[str], None]) -> str:
    """Do a command of Python and show each line that it prints; return why it failed, or ''.

    If this is cancelled, the process gets SIGTERM, and is killed after GRACE seconds.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        stdin=subprocess.PIPE,  # see end_with_the_sweep
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | environment | {TOGETHER: "1"},
        process_group=0,  # Ctrl-C reaches the sweep alone, which then stops its runs by SIGTERM
        limit=LONGEST_LINE,
    )
    shown = asyncio.create_task(_show(process, show))
    try:
        last = await asyncio.shield(shown)
    except asyncio.CancelledError:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(shown, GRACE)
        raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = await process.wait()
    return last if code > 0 else f"ended by {signal.Signals(-code).name}" if code else ""


async def _show(process: asyncio.subprocess.Process, show: Callable[[str], None]) -> str:
    """Show each line until the process has ended; return the last line."""
    last = "its process printed nothing"
    async for line in process.stdout or ():
        last = line.decode(errors="replace").rstrip()
        show(last)
    await process.wait()
    return last.removeprefix("error: ")
