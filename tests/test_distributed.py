"""Many processes: how they meet, what they end with, and what they say when one is lost."""

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from benchmarks.soak import free_port
from resnet_jax import distributed, trained
from resnet_jax.training import metrics


def start(workdir, *words, devices=1):
    """A training command of ten steps on digits, in float64 and in a process of its own."""
    flags = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count="
    changes = "model.width=4 steps=10 chunk_steps=2 eval_every=4 checkpoint_every=4 batch_size=16"
    changes += " schedule.boundaries=(6,8) data.flip=True dtype=float64 norm.group_size=0"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "resnet_jax.train", "--config=configs/digits.py:depth=8"),
            *(f"--config.{change}" for change in changes.split()),
            *(f"--workdir={workdir}", *words),
        ],
        env=os.environ | {"JAX_ENABLE_X64": "1", "XLA_FLAGS": f"{flags}{devices}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(workdir, *words, processes=2, timeout=300):
    port = free_port()
    return [
        start(
            workdir,
            f"--coordinator_address=127.0.0.1:{port}",
            f"--num_processes={processes}",
            f"--process_id={index}",
            f"--initialization_timeout={timeout}",
            *words,
        )
        for index in range(2)
    ]


def finish(processes, timeout=300):
    said = [process.communicate(timeout=timeout) for process in processes]
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, said, strict=True)]


def learned(workdir):
    found = trained.load(workdir).state
    return jax.tree.map(np.asarray, (found.params, found.batch_stats, found.opt_state))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process on one device."""
    workdir = tmp_path_factory.mktemp("alone")
    found = finish([start(workdir)])
    assert found[0][0] == 0, found
    return workdir


def same_but_for_rounding(workdir, alone):
    """The same batches, and after ten steps in float64 the same numbers."""
    records = [metrics.read(run / "metrics.jsonl") for run in (alone, workdir)]
    keys = [[(r["step"], r["split"], r["examples"]) for r in run] for run in records]
    assert keys[0] == keys[1] and len(keys[0]) == 5 + 3
    for one, two in zip(*records, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-10)
    with jax.enable_x64(True):
        one, two = learned(alone), learned(workdir)
    gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, two)
    assert max(jax.tree.leaves(gaps)) < 1e-10


def test_two_processes_end_with_the_records_and_parameters_of_one(tmp_path, alone):
    """Streamed, so that each process reads its own rows."""
    found = finish(together(tmp_path / "two", "--config.data.stream=always"))
    assert [code for code, *_ in found] == [0, 0], found
    assert "starts at step 0" in found[0][1] and "starts" not in found[1][1]
    same_but_for_rounding(tmp_path / "two", alone)
    (entry,) = json.loads((tmp_path / "two" / "run.json").read_text())
    assert entry["devices"] == ["cpu:cpu"] * 2


def test_a_checkpoint_of_eight_devices_goes_on_on_fewer_and_on_two_processes(tmp_path, alone):
    eight = tmp_path / "eight"
    assert finish([start(eight, "--config.steps=4", devices=8)])[0][0] == 0
    for name in ("1", "2", "4", "two"):
        shutil.copytree(eight, tmp_path / name)
    starts = [start(tmp_path / str(devices), devices=devices) for devices in (1, 2, 4)]
    found = finish([*starts, *together(tmp_path / "two")])
    assert [code for code, *_ in found] == [0] * 5, found
    assert all("resumes at step 4" in said for _, said, _ in found[:4])  # process 0 speaks
    for name in ("1", "2", "4", "two"):
        same_but_for_rounding(tmp_path / name, alone)


def test_processes_that_do_not_come_are_named_to_all_that_did(tmp_path):
    found = finish(together(tmp_path / "run", processes=4, timeout=3), timeout=60)
    for code, _, said in found:
        assert code == 2
        assert re.fullmatch(r"error: processes 2, 3 of 4 did not come to .* within 3 s .*\n", said)
    assert not (tmp_path / "run").exists()


def cluster(**given):
    names = ("coordinator_address", "num_processes", "process_id")
    return distributed.cluster(*(given.get(name) for name in names))


def test_one_process_needs_no_flag_and_many_need_all_three(monkeypatch):
    for name in [n for n in os.environ if n.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    assert cluster() is None
    one = cluster(coordinator_address="host:1234", num_processes=1, process_id=0)
    assert one is None
    many = {"coordinator_address": "host:1234", "num_processes": 4, "process_id": 3}
    assert cluster(**many) == ("host:1234", 4, 3)
    for name in many:
        with pytest.raises(ValueError, match=f"--{name} missing"):
            cluster(**{k: v for k, v in many.items() if k != name})
    with pytest.raises(ValueError, match="--process_id=4 is not one of --num_processes=4"):
        cluster(**many | {"process_id": 4})
    for address in ("host", "host:", ":1234", "host:99999", "host:x"):
        with pytest.raises(ValueError, match=f"--coordinator_address={address} is not HOST:PORT"):
            cluster(**many | {"coordinator_address": address})


def test_slurm_is_found_where_a_step_has_several_tasks(monkeypatch):
    step = {"JOB_ID": "1000", "STEP_NODELIST": "node[03-05]", "NTASKS": "3", "PROCID": "2"}
    step |= {"LOCALID": "0", "STEP_NUM_NODES": "3"}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    found = cluster()
    assert found is not None and found.address.startswith("node03:")
    assert (found.processes, found.index) == (3, 2)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert cluster() is None


def gather(processes, port, timeout=10.0):
    """Process 0's wait in a thread; its outcome comes into the list."""
    found = []
    one = distributed.Cluster(f"127.0.0.1:{port}", processes, 0)

    def wait():
        try:
            found.append(distributed._gather(one, time.monotonic() + timeout, timeout))
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    return found, thread


def reach(index, processes, port, timeout=10.0):
    one = distributed.Cluster(f"127.0.0.1:{port}", processes, index)
    return distributed._reach(one, time.monotonic() + timeout, timeout)


def test_a_second_process_of_one_number_is_refused_and_the_run_goes_on():
    port = free_port()
    found, thread = gather(3, port)
    came = []
    first = threading.Thread(target=lambda: came.append(reach(1, 3, port)[0]))
    first.start()
    time.sleep(0.5)
    with pytest.raises(ValueError, match="process 1 of 3 came .* there already"):
        reach(1, 3, port)
    with pytest.raises(ValueError, match="process 2 of 4 came to a run of 3"):
        reach(2, 4, port)
    stranger = socket.create_connection(("127.0.0.1", port))
    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    stranger.close()
    reach(2, 3, port)[0].close()
    first.join()
    thread.join()
    assert set(found[0]) == {1, 2}
    for peer in (*came, *found[0].values()):
        peer.close()


def test_a_missing_process_0_is_named_with_its_address():
    port = free_port()
    with pytest.raises(
        ValueError, match=f"process 0 of 2 was not found at 127.0.0.1:{port} .* 1 s"
    ):
        reach(1, 2, port, timeout=1.0)


def test_process_0_says_where_it_cannot_listen():
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        found, thread = gather(2, port, timeout=1.0)
        thread.join()
    assert re.search(f"process 0 cannot listen at 127.0.0.1:{port} .* another", str(found[0]))


def test_a_process_of_another_command_ends_all_and_says_why(tmp_path):
    port = free_port()
    words = [f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2"]
    rates = ("0.1", "0.7")
    found = finish(
        [
            start(
                tmp_path / "run",
                *words,
                f"--process_id={index}",
                f"--config.optimizer.learning_rate={rate}",
            )
            for index, rate in enumerate(rates)
        ],
        timeout=120,
    )
    (first, _, _), (second, _, said) = found
    assert (first, second) == (1, 2)
    assert "process 1 is not of the run of process 0 (optimizer.learning_rate: 0.1 there" in said
    assert "ended before the run did" in found[0][2]
    assert not (tmp_path / "run").exists()


def test_what_is_wished_for_is_granted_to_all_two_boundaries_after_process_0_heard(monkeypatch):
    """Each process in turn, over a store as jax.distributed has it."""

    class Store(dict):
        def key_value_set(self, key, value, allow_overwrite=False):
            assert allow_overwrite or key not in self, key
            self[key] = value

    store, me = Store(), 0
    monkeypatch.setattr(distributed, "_store", lambda: store)
    monkeypatch.setattr(distributed, "_read", store.get)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "first", lambda: me == 0)
    for _ in range(2):  # two runs in one process: nothing is left over of the first
        monkeypatch.setattr(distributed, "_WISHES", itertools.count(len(store)))
        leader = distributed.Wish()
        monkeypatch.setattr(distributed, "_WISHES", itertools.count(len(store)))
        other = distributed.Wish()
        granted = {0: [], 1: []}
        for boundary in range(1, 20):
            for me, wish in ((0, leader), (1, other)):  # noqa: B007 - `first` reads it
                wished = me == 1 and boundary in (3, 10)
                if wish.granted(wished, boundary):
                    granted[me].append(boundary)
        assert granted[0] == granted[1] == [6, 13]
