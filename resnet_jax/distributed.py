"""Many processes as one run: they meet, they watch each other, and the first of them writes.

Process 0 listens at the coordinator's address. The others come and say their numbers; when all are
there each starts `jax.distributed` on the port after it, and the connections stay open: the kernel
closes that of a process which is killed, so that the others know at once and end, whatever they
were doing. JAX alone aborts with a stack trace where a process does not come, and does not say
which. On one process nothing here does anything.
"""

import contextlib
import functools
import itertools
import json
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

# Seconds between two tries to reach process 0, and for a message that has begun to arrive whole.
RETRY, MESSAGE = 0.2, 10
# What a process says when it leaves and all have finished.
BYE = b"\0"


class Cluster(NamedTuple):
    """Where process 0 listens (host:port), how many processes there are, and which this one is."""

    address: str
    processes: int
    index: int


def define_flags() -> Callable[[], Any]:
    """Define the flags of a command that many processes may run; returns what joins them."""
    address = flags.DEFINE_string(
        "coordinator_address",
        None,
        "HOST:PORT of process 0, the next port too; found on TPU pods and under SLURM's srun",
    )
    processes = flags.DEFINE_integer("num_processes", None, "processes of the run", lower_bound=1)
    index = flags.DEFINE_integer("process_id", None, "this process, from 0", lower_bound=0)
    timeout = flags.DEFINE_integer(
        "initialization_timeout", 300, "seconds to wait for all processes", lower_bound=1
    )
    return lambda: joined(
        cluster(address.value, processes.value, index.value), float(timeout.value)
    )


def cluster(address: str | None, processes: int | None, index: int | None) -> Cluster | None:
    """The cluster of the flags, or the one that JAX finds itself in; None is one process alone.

    Raises: ValueError where the flags do not go together.
    """
    given = {
        "coordinator_address": address,
        "num_processes": processes,
        "process_id": index,
    }
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == 3:
        return _found()
    if missing or address is None or processes is None or index is None:
        raise ValueError(
            f"{' and '.join(missing)} missing: many processes need --coordinator_address, "
            "--num_processes and --process_id, and one needs none of them"
        )
    if index >= processes:
        raise ValueError(
            f"--process_id={index} is not one of --num_processes={processes}, which are "
            f"0 to {processes - 1}"
        )
    host, _, port = address.rpartition(":")
    if not host or ":" in host or not port.isdecimal() or not 0 < int(port) < 65535:
        raise ValueError(
            f"--coordinator_address={address} is not HOST:PORT, a name or an IPv4 address and a "
            "port from 1 to 65534"
        )
    return Cluster(address, processes, index) if processes > 1 else None


def _found() -> Cluster | None:
    # Private, but the very detection of jax.distributed.initialize(): TPU pods, SLURM, Open MPI,
    # Kubernetes. It is asked here so that those who wait can be told who is missing.
    from jax._src.clusters import ClusterEnv

    kinds = (k for k in ClusterEnv._cluster_types if not k.opt_in_only_method)
    kind = next((k for k in kinds if k.is_env_present()), None)
    if kind is None or (processes := kind.get_process_count()) == 1:
        return None
    port = os.environ.get("JAX_COORDINATOR_PORT")
    address = kind.get_coordinator_address(300, port)
    host, _, port = address.rpartition(":")
    # SLURM's are from the job's number, up to the last port that there is.
    return Cluster(f"{host}:{min(int(port), 65534)}", processes, kind.get_process_id())


@contextlib.contextmanager
def joined(cluster: Cluster | None, timeout: float) -> Iterator[None]:
    """Meet the other processes, and leave when all of them have finished.

    Raises: ValueError within `timeout` seconds where one does not come, naming it.
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
    # JAX would catch SIGTERM for a service that nobody here asks.
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
        _leave(error, peers, leaving)
    multihost_utils.sync_global_devices("finished")
    for peer in peers.values():
        with contextlib.suppress(OSError):
            peer.sendall(BYE)
    jax.distributed.shutdown()


def _leave(error: BaseException, peers: dict[int, socket.socket], leaving: threading.Event) -> None:
    """End this process, and by its closed connections all others, without waiting for any of them.

    Leaving the usual way, JAX would wait for processes that never come, and then abort them all.
    """
    if isinstance(error, SystemExit):
        leaving.set()  # it has said why; others that met the same may say so too
        status = error.code if isinstance(error.code, int) else 1
    else:
        time.sleep(1)  # where a message failed because a process was killed: the watcher names it
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
    """Process 0: wait for the others, and tell them that all are here, or who is not."""
    host, port = _parts(cluster.address)
    peers: dict[int, socket.socket] = {}
    try:
        socket.create_server((_interface(host), port + 1)).close()  # which JAX will take
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
            refused = _admit(peer, cluster, peers)
            if refused is not None:
                _tell(peer, refused)
                peer.close()
    absent = sorted(set(range(1, cluster.processes)) - set(peers))
    word = (
        f"{_names(absent)} of {cluster.processes} did not come to {cluster.address} within "
        f"{timeout:.0f} s (--initialization_timeout); start all of them with the same flags, "
        "each with its own --process_id"
        if absent
        else ""
    )
    for peer in peers.values():
        _tell(peer, word)
    if absent:
        raise ValueError(word)
    return peers


def _admit(peer: socket.socket, cluster: Cluster, peers: dict[int, socket.socket]) -> str | None:
    """Take a process that came into `peers`, or say why not."""
    try:
        index, processes = map(int, json.loads(_line(peer)))
    except (OSError, ValueError, TypeError):
        return "this is a training run's port"
    if processes != cluster.processes or not 0 < index < processes or _alive(peers.get(index)):
        return (
            f"process {index} of {processes} came to a run of {cluster.processes} whose process of "
            "that number is there already, or that has none; give each its own --process_id, and "
            "all the same --num_processes"
        )
    peers[index] = peer
    return None


def _reach(cluster: Cluster, deadline: float, timeout: float) -> dict[int, socket.socket]:
    """Another process: reach process 0, and hear whether all came."""
    host, port = _parts(cluster.address)
    why = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            peer = socket.create_connection((host, port), left)
        except OSError as error:
            why = error.strerror or str(error)
            time.sleep(RETRY)
            continue
        try:
            peer.sendall(json.dumps((cluster.index, cluster.processes)).encode() + b"\n")
            # A little longer than process 0 waits where both were started together: it names them.
            peer.settimeout(max(0.0, deadline - time.monotonic()) + MESSAGE)
            word = json.loads(_line(peer))
        except (OSError, ValueError) as error:
            why = str(error)
            peer.close()
            time.sleep(RETRY)
            continue
        if word:
            peer.close()
            raise ValueError(word)
        peer.settimeout(None)
        return {0: peer}
    raise ValueError(
        f"process 0 of {cluster.processes} was not found at {cluster.address} within "
        f"{timeout:.0f} s ({why}); start it, or give all processes its --coordinator_address"
    )


def _line(peer: socket.socket) -> str:
    """What a process says until the end of its line, within the connection's timeout."""
    said, deadline = b"", time.monotonic() + (peer.gettimeout() or MESSAGE)
    while not said.endswith(b"\n"):
        part = peer.recv(4096)
        if not part or len(said) > 4096 or time.monotonic() > deadline:
            raise ValueError("the connection was closed")
        said += part
    return said.decode()


def _tell(peer: socket.socket, word: str) -> None:
    with contextlib.suppress(OSError):
        peer.sendall(json.dumps(word).encode() + b"\n")


def _watch(cluster: Cluster, peers: dict[int, socket.socket], leaving: threading.Event) -> None:
    """End this process, at once and in one line, when another one ends before it has finished."""
    waiting = dict(peers)
    while waiting:
        ready, _, _ = select.select(list(waiting.values()), [], [])
        for index, peer in list(waiting.items()):
            if peer not in ready:
                continue
            said = b""
            with contextlib.suppress(OSError):
                said = peer.recv(4096)
            if said == BYE or leaving.is_set():
                del waiting[index]
                continue
            # Process 0 hands on which it was; the others are connected to process 0 alone.
            lost = int(said) if said.isdigit() else index
            for other in peers.values() if cluster.index == 0 else ():
                with contextlib.suppress(OSError):
                    other.sendall(str(lost).encode())
            print(
                f"error: process {lost} of {cluster.processes} ended before the run did, and so "
                f"process {cluster.index} ends; see what it said last, and start all of them "
                "again with the same command: the run goes on from its last checkpoint",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)


def _alive(peer: socket.socket | None) -> bool:
    """Whether a process that came is still there: it says nothing while it waits."""
    return peer is not None and not select.select([peer], [], [], 0)[0]


def _names(indices: list[int]) -> str:
    return ("process " if len(indices) == 1 else "processes ") + ", ".join(map(str, indices))


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _interface(host: str) -> str:
    """What process 0 listens on: the loopback alone where that is its address, else everything."""
    return host if host in ("localhost", "127.0.0.1") else "0.0.0.0"


def first() -> bool:
    """Whether this is process 0, which alone writes and speaks."""
    return jax.process_index() == 0


def by_first(function: Callable) -> Callable:
    """`function` on process 0, and nothing (None) on every other."""

    @functools.wraps(function)
    def maybe(*arguments, **keywords):
        return function(*arguments, **keywords) if first() else None

    return maybe


def agree(number: int | None) -> int | None:
    """Process 0's number, on every process."""
    if jax.process_count() == 1:
        return number
    found = multihost_utils.broadcast_one_to_all(np.int32(-1 if number is None else number))
    return None if int(found) < 0 else int(found)


def of_first(text: str) -> str:
    """Process 0's text, on every process."""
    if jax.process_count() == 1:
        return text
    size = agree(len(text.encode())) or 0
    data = np.frombuffer(text.encode()[:size].ljust(size), np.uint8)
    return multihost_utils.broadcast_one_to_all(data).tobytes().decode()


def wait(name: str) -> None:
    """Wait until every process is here; `name` says where, and is the same on all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


_WISHES = itertools.count()


class Wish:
    """What any process may wish for, and all then do at the same boundary of the run.

    Every process asks at every boundary. Process 0 sets the boundary two ahead of its own, in the
    key-value store of `jax.distributed`, before it dispatches the next piece of work; a process
    that gets there has seen that piece's results, to which process 0 contributed, and so finds it.
    """

    def __init__(self):
        # All processes make the same Wishes in the same order, also in a second run.
        self._name = f"wish/{next(_WISHES)}"
        self._number, self._at, self._told = 0, None, False

    def granted(self, wished: bool, boundary: int) -> bool:
        """Whether to do it now, at this boundary; of boundaries that rise by one."""
        if jax.process_count() == 1:
            return wished
        key = f"{self._name}/{self._number}"
        if not first() and wished and not self._told:
            _store().key_value_set(f"{key}/wished", "1", allow_overwrite=True)
            self._told = True
        if self._at is None:
            if first() and (wished or _read(f"{key}/wished")):
                self._at = boundary + 2
                _store().key_value_set(f"{key}/at", str(self._at))
            elif not first() and (told := _read(f"{key}/at")):
                self._at = int(told)
        if self._at != boundary:
            return False
        self._number, self._at, self._told = self._number + 1, None, False
        return True


def _store() -> Any:
    from jax._src.distributed import global_state  # private, and what orbax uses

    return global_state.client


def _read(key: str) -> str | None:
    """What is in the store under a key now."""
    try:
        return _store().key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def fetch(tree: Any) -> Any:
    """The arrays of a tree as NumPy's, on every process, wherever their parts lie."""
    if all(a.is_fully_addressable or a.is_fully_replicated for a in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
