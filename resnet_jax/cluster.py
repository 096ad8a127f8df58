"""A cluster: the processes of one run meet, watch each other, and end together.

Process 0 listens at the coordinator's address. Every other process connects to process 0 and sends
its number. When all processes have come, each starts `jax.distributed` on the next port. The
connections stay open: if a process is killed, the kernel closes its connection, and all other
processes learn of it at once and end. JAX alone aborts with a stack trace if a process does not
come, and does not say which process is missing. A run with one process needs nothing of this.
"""

import argparse
import contextlib
import json
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils

from resnet_jax import command

RETRY = 0.2  # seconds between two attempts to reach process 0
MESSAGE = 10  # seconds that a message may take to arrive
GOODBYE = b"\0"  # the message of a process that leaves because all processes have finished


class Cluster(NamedTuple):
    """The processes of a run.

    Attributes:
        address: HOST:PORT at which process 0 listens.
        processes: the number of processes.
        index: the number of this process, from 0.
    """

    address: str
    processes: int
    index: int


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a command that many processes may run."""
    whole = command.whole
    parser.add_argument(
        "--coordinator_address",
        metavar="HOST:PORT",
        help="of process 0, which also uses the next port; not needed on TPU pods and under "
        "SLURM's srun",
    )
    parser.add_argument("--num_processes", type=whole(1), help="number of processes of the run")
    parser.add_argument("--process_id", type=whole(0), help="number of this process, from 0")
    parser.add_argument(
        "--initialization_timeout",
        type=whole(1),
        default=300,
        help="seconds to wait for all processes (default: %(default)s)",
    )


def join(arguments: argparse.Namespace) -> contextlib.AbstractContextManager:
    """Return the context in which this process is one of the processes that the flags name.

    Raises: ValueError if the flags do not fit together.
    """
    members = cluster(arguments.coordinator_address, arguments.num_processes, arguments.process_id)
    return joined(members, float(arguments.initialization_timeout))


def cluster(address: str | None, processes: int | None, index: int | None) -> Cluster | None:
    """Return the cluster of the flags or the cluster that JAX detects; None for a single process.

    Raises: ValueError if the flags do not fit together.
    """
    given = {
        "coordinator_address": address,
        "num_processes": processes,
        "process_id": index,
    }
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == 3:
        return _detected()
    if missing or address is None or processes is None or index is None:
        raise ValueError(
            f"{' and '.join(missing)} missing: many processes need --coordinator_address, "
            "--num_processes and --process_id, a single process needs none of them"
        )
    if index >= processes:
        raise ValueError(
            f"--process_id={index} is not one of --num_processes={processes}, which are "
            f"0 to {processes - 1}"
        )
    host, _, port = address.rpartition(":")
    if not host or ":" in host or not port.isdecimal() or not 0 < int(port) < 65535:
        raise ValueError(
            f"--coordinator_address={address} is not HOST:PORT; give a name or an IPv4 address, "
            "and a port from 1 to 65534"
        )
    return Cluster(address, processes, index) if processes > 1 else None


def _detected() -> Cluster | None:
    """Return the cluster of a TPU pod, SLURM, Open MPI or Kubernetes."""
    # This is the private detection of jax.distributed.initialize(). It runs here, so that a process
    # can be told which others are missing.
    from jax._src.clusters import ClusterEnv

    kinds = (k for k in ClusterEnv._cluster_types if not k.opt_in_only_method)
    kind = next((k for k in kinds if k.is_env_present()), None)
    # In the shell that salloc opens SLURM_NTASKS is the number of the job's tasks, which JAX reads.
    # The shell itself is a step of one task, as is a command under `srun --ntasks=1`.
    if kind is not None and kind.name == "slurm" and os.environ.get("SLURM_STEP_NUM_TASKS") == "1":
        return None
    if kind is None or (processes := kind.get_process_count()) == 1:
        return None
    port = os.environ.get("JAX_COORDINATOR_PORT")
    address = kind.get_coordinator_address(300, port)
    host, _, port = address.rpartition(":")
    # Under SLURM the port follows from the job's number and may be the very last port.
    return Cluster(f"{host}:{min(int(port), 65534)}", processes, kind.get_process_id())


@contextlib.contextmanager
def joined(cluster: Cluster | None, timeout: float) -> Iterator[None]:
    """Meet the other processes on entering, and wait on leaving until all have finished.

    If the body raises, this process ends, and so do all others.
    Raises: ValueError that names the missing processes, after at most `timeout` seconds.
    """
    if cluster is None:
        yield
        return
    deadline = time.monotonic() + timeout
    meet = _gather if cluster.index == 0 else _reach
    peers = meet(cluster, deadline, timeout)
    leaving = threading.Event()
    threading.Thread(target=_watch, args=(cluster, peers, leaving), daemon=True).start()
    host, port = _parts(cluster.address)
    # Otherwise JAX would handle SIGTERM for a service that is not used.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        f"{host}:{port + 1}",
        cluster.processes,
        cluster.index,
        initialization_timeout=max(1, round(timeout)),
        coordinator_bind_address=f"{_interface(host)}:{port + 1}",
    )
    try:
        yield
    except BaseException as error:
        _end_all(error, peers, leaving)
    multihost_utils.sync_global_devices("finished")
    for peer in peers.values():
        with contextlib.suppress(OSError):
            peer.sendall(GOODBYE)
    jax.distributed.shutdown()


def _end_all(
    error: BaseException, peers: dict[int, socket.socket], leaving: threading.Event
) -> None:
    """End this process without waiting; its closed connections end all others.

    A usual exit would wait in JAX for processes that never come, and then abort all processes.
    """
    if isinstance(error, SystemExit):
        leaving.set()  # this process has said why; others with the same error may say so, too
        status = error.code if isinstance(error.code, int) else 1
    else:
        # The error may be the consequence of a killed process. Then `_watch` names that process
        # and ends this one during the sleep.
        time.sleep(1)
        leaving.set()
        status = 1
        traceback.print_exception(error)
    time.sleep(1)
    for peer in peers.values():
        peer.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _gather(cluster: Cluster, deadline: float, timeout: float) -> dict[int, socket.socket]:
    """Process 0: wait for the others; tell them that all have come, or which did not come."""
    host, port = _parts(cluster.address)
    peers: dict[int, socket.socket] = {}
    try:
        socket.create_server((_interface(host), port + 1)).close()  # JAX will need this port
        server = socket.create_server((_interface(host), port))
    except OSError as error:
        raise ValueError(
            f"process 0 cannot listen at {cluster.address} and the port after it "
            f"({error.strerror}); give all processes another --coordinator_address"
        ) from error
    with server:
        while len(peers) < cluster.processes - 1 and time.monotonic() < deadline:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                peer, _ = server.accept()
            except OSError:
                continue
            peer.settimeout(max(0.1, min(MESSAGE, deadline - time.monotonic())))
            refusal = _admit(peer, cluster, peers)
            if refusal is not None:
                _send(peer, refusal)
                peer.close()
    absent = sorted(set(range(1, cluster.processes)) - set(peers))
    problem = (
        f"{_names(absent)} of {cluster.processes} did not come to {cluster.address} within "
        f"{timeout:.0f} s (--initialization_timeout); start all processes with the same flags, "
        "each with its own --process_id"
        if absent
        else ""
    )
    for peer in peers.values():
        _send(peer, problem)
        if absent:
            peer.close()
    if absent:
        raise ValueError(problem)
    return peers


def _admit(peer: socket.socket, cluster: Cluster, peers: dict[int, socket.socket]) -> str | None:
    """Add a process that has connected to `peers`; return the reason if it is refused."""
    try:
        index, processes = map(int, json.loads(_receive(peer)))
    except (OSError, ValueError, TypeError):
        return "this is the port of a training run"
    if processes != cluster.processes or not 0 < index < processes or _waits(peers.get(index)):
        return (
            f"process {index} of {processes} came to a run of {cluster.processes} processes, which "
            "has no such process or has it already; give each process its own --process_id, and "
            "all the same --num_processes"
        )
    peers[index] = peer
    return None


def _reach(cluster: Cluster, deadline: float, timeout: float) -> dict[int, socket.socket]:
    """Other processes: connect to process 0, and wait until all processes have come."""
    host, port = _parts(cluster.address)
    reason = "no answer"
    while (seconds_left := deadline - time.monotonic()) > 0:
        try:
            peer = socket.create_connection((host, port), seconds_left)
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(RETRY)
            continue
        try:
            peer.sendall(json.dumps((cluster.index, cluster.processes)).encode() + b"\n")
            # Wait a little longer than process 0, which will name the missing processes.
            peer.settimeout(max(0.0, deadline - time.monotonic()) + MESSAGE)
            problem = json.loads(_receive(peer))
        except (OSError, ValueError) as error:
            reason = str(error)
            peer.close()
            time.sleep(RETRY)
            continue
        if problem:
            peer.close()
            raise ValueError(problem)
        peer.settimeout(None)
        return {0: peer}
    raise ValueError(
        f"process 0 of {cluster.processes} was not found at {cluster.address} within "
        f"{timeout:.0f} s ({reason}); start process 0, or give all processes the address of "
        "process 0 as --coordinator_address"
    )


def _receive(peer: socket.socket) -> str:
    """Return a process's message, which is one line, within the connection's timeout."""
    message, deadline = b"", time.monotonic() + (peer.gettimeout() or MESSAGE)
    while not message.endswith(b"\n"):
        part = peer.recv(4096)
        if not part or len(message) > 4096 or time.monotonic() > deadline:
            raise ValueError("the connection was closed")
        message += part
    return message.decode()


def _send(peer: socket.socket, message: str) -> None:
    with contextlib.suppress(OSError):
        peer.sendall(json.dumps(message).encode() + b"\n")


def _watch(cluster: Cluster, peers: dict[int, socket.socket], leaving: threading.Event) -> None:
    """End this process at once, with one line, if another process ends before it has finished."""
    running = dict(peers)
    while running:
        ready, _, _ = select.select(list(running.values()), [], [])
        for index, peer in list(running.items()):
            if peer not in ready:
                continue
            message = b""
            with contextlib.suppress(OSError):
                message = peer.recv(4096)
            if message == GOODBYE or leaving.is_set():
                del running[index]
                continue
            # All processes are connected to process 0 alone, which tells them the lost process.
            lost = int(message) if message.isdigit() else index
            for other in peers.values() if cluster.index == 0 else ():
                with contextlib.suppress(OSError):
                    other.sendall(str(lost).encode())
            print(
                f"error: process {lost} of {cluster.processes} ended before the run did, and so "
                f"process {cluster.index} ends; see the last output of process {lost}, and start "
                "all processes again with the same command: the run resumes from its last "
                "checkpoint",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)


def _waits(peer: socket.socket | None) -> bool:
    """Return whether a process still waits; it sends nothing, and its connection is open."""
    return peer is not None and not select.select([peer], [], [], 0)[0]


def _names(indices: list[int]) -> str:
    return ("process " if len(indices) == 1 else "processes ") + ", ".join(map(str, indices))


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _interface(host: str) -> str:
    """Return where process 0 listens: only on the loopback if that is its address."""
    return host if host in ("localhost", "127.0.0.1") else "0.0.0.0"
