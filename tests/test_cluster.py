"""A cluster: which flags make it, how processes meet, and what they say if one is missing."""

import os
import re
import socket
import threading
import time

import pytest

from benchmarks.soak import free_port
from resnet_jax import cluster
from resnet_jax.cluster import Cluster


def from_flags(**given):
    names = ("coordinator_address", "num_processes", "process_id")
    return cluster.cluster(*(given.get(name) for name in names))


def test_a_single_process_needs_no_flag_and_many_need_all_three(monkeypatch):
    for name in [n for n in os.environ if n.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    assert from_flags() is None
    single = from_flags(coordinator_address="host:1234", num_processes=1, process_id=0)
    assert single is None
    many = {"coordinator_address": "host:1234", "num_processes": 4, "process_id": 3}
    assert from_flags(**many) == ("host:1234", 4, 3)
    for name in many:
        with pytest.raises(ValueError, match=f"--{name} missing"):
            from_flags(**{k: v for k, v in many.items() if k != name})
    with pytest.raises(ValueError, match="--process_id=4 is not one of --num_processes=4"):
        from_flags(**many | {"process_id": 4})
    for address in ("host", "host:", ":1234", "host:99999", "host:x", "::1:1234"):
        with pytest.raises(ValueError, match=f"--coordinator_address={address} is not HOST:PORT"):
            from_flags(**many | {"coordinator_address": address})


def test_slurm_is_detected_if_a_step_has_several_tasks(monkeypatch):
    step = {"JOB_ID": "1000", "STEP_NODELIST": "node[03-05]", "NTASKS": "3", "PROCID": "2"}
    step |= {"LOCALID": "0", "STEP_NUM_NODES": "3"}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    detected = from_flags()
    assert detected is not None and detected.address.startswith("node03:")
    assert (detected.processes, detected.index) == (3, 2)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert from_flags() is None


class Process(threading.Thread):
    """A process that meets the others, as a thread; `outcome` is its peers or its error."""

    def __init__(self, index, processes, port, timeout=10.0):
        super().__init__()
        self._cluster = Cluster(f"127.0.0.1:{port}", processes, index)
        self._timeout = timeout
        self.start()

    def run(self):
        meet = cluster._gather if self._cluster.index == 0 else cluster._reach
        try:
            self.outcome = meet(self._cluster, time.monotonic() + self._timeout, self._timeout)
        except ValueError as error:
            self.outcome = str(error)

    def result(self):
        self.join()
        return self.outcome


def test_a_second_process_with_the_same_number_is_refused_and_the_run_goes_on():
    port = free_port()
    zero, one = Process(0, 3, port), Process(1, 3, port)
    time.sleep(0.5)  # until process 1 waits
    says = "process 1 of 3 came to a run of 3 processes, which has no such process or has it "
    assert Process(1, 3, port).result().startswith(says)
    assert Process(2, 4, port).result().startswith("process 2 of 4 came to a run of 3 processes")
    stranger = socket.create_connection(("127.0.0.1", port))
    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    stranger.close()
    two = Process(2, 3, port)
    assert set(zero.result()) == {1, 2} and set(one.result()) == set(two.result()) == {0}
    for process in (zero, one, two):
        for peer in process.outcome.values():
            peer.close()


def test_processes_that_do_not_come_are_named_to_all_that_came():
    port = free_port()
    came = [Process(index, 4, port, timeout=1.0) for index in (0, 1)]
    for process in came:
        says = r"processes 2, 3 of 4 did not come to 127.0.0.1:\d+ within 1 s .*; start all .*"
        assert re.fullmatch(says, process.result())


def test_a_missing_process_0_is_named_with_its_address():
    port = free_port()
    says = f"process 0 of 2 was not found at 127.0.0.1:{port} within 1 s .*--coordinator_address"
    assert re.match(says, Process(1, 2, port, timeout=1.0).result())


@pytest.mark.parametrize("offset", [0, 1])
def test_process_0_says_that_it_cannot_listen_at_either_port(offset):
    port = free_port()
    with socket.create_server(("127.0.0.1", port + offset)):
        said = Process(0, 2, port, timeout=1.0).result()
    assert re.search(f"process 0 cannot listen at 127.0.0.1:{port} and .* another", said)


class Ended(Exception):
    """The process would have ended."""


@pytest.mark.parametrize(
    "message,lost", [(b"", 2), (b"1", 1)], ids=["a connection is closed", "process 0 tells"]
)
def test_a_process_ends_when_another_one_is_lost_and_says_which(monkeypatch, capsys, message, lost):
    def end(status):
        raise Ended(status)

    monkeypatch.setattr(cluster.os, "_exit", end)
    watched = [socket.socketpair() for _ in range(2)]
    peers = {index: pair[0] for index, pair in enumerate(watched, start=1)}
    watched[1][1].sendall(message) if message else watched[1][1].close()
    with pytest.raises(Ended, match="1"):
        cluster._watch(Cluster("host:1234", 3, 0), peers, threading.Event())
    assert watched[0][1].recv(10) == str(lost).encode()  # process 0 tells the others
    said = capsys.readouterr().err
    assert said.startswith(f"error: process {lost} of 3 ended before the run did, and so process 0")
    assert said.count("\n") == 1
    for pair in watched:
        for connection in pair:
            connection.close()


def test_processes_that_finish_say_goodbye_and_end_nobody():
    watched = [socket.socketpair() for _ in range(2)]
    for _, peer in watched:
        peer.sendall(cluster.GOODBYE)
    peers = {index: pair[0] for index, pair in enumerate(watched, start=1)}
    cluster._watch(Cluster("host:1234", 3, 0), peers, threading.Event())
    for pair in watched:
        for connection in pair:
            connection.close()


def test_a_command_typed_into_the_shell_of_salloc_is_a_single_process(monkeypatch):
    """The shell is a step of one task, and keeps the number of tasks of its job."""
    job = {"JOB_ID": "1234", "STEP_NODELIST": "localhost", "NTASKS": "4", "PROCID": "0"}
    job |= {"LOCALID": "0", "STEP_NUM_NODES": "1", "STEP_NUM_TASKS": "1"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert from_flags() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    several = from_flags()
    assert several is not None and several.processes == 4
