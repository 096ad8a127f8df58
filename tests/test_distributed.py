"""Runs of several processes: they compute what a single process computes, and end together."""

import itertools
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks.soak import free_port
from resnet_jax import config_file, distributed, train, trained
from resnet_jax.run import records

CHANGES = {
    "model.stages": "(1,)",
    "model.width": "4",
    "steps": "10",
    "chunk_steps": "2",
    "eval_every": "4",
    "checkpoint_every": "4",
    "batch_size": "16",
    "schedule.boundaries": "(6,8)",
    "data.flip": "True",
    "dtype": "float64",
    "norm.group_size": "0",
}


def start(workdir, *words, devices=1):
    """The training command in its own process, in float64 and compiled quickly."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "resnet_jax.train", "--config=configs/digits.py:depth=4"),
            *(f"--config.{key}={value}" for key, value in CHANGES.items()),
            *(f"--workdir={workdir}", *words),
        ],
        env=os.environ | {"JAX_ENABLE_X64": "1", "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(workdir, *words, rates=("0.01", "0.01")):
    """Two processes of one run; each has its own learning rate."""
    cluster = [f"--coordinator_address=127.0.0.1:{free_port()}", "--num_processes=2"]
    return [
        start(
            workdir,
            *cluster,
            f"--process_id={index}",
            f"--config.optimizer.learning_rate={rate}",
            *words,
        )
        for index, rate in enumerate(rates)
    ]


def finish(processes):
    """Wait for all; return (status, stdout, stderr) of each."""
    outputs = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def learned(workdir):
    state = trained.load(workdir).state
    return jax.tree.map(np.asarray, (state.params, state.batch_stats, state.opt_state))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The directory of the run in a single process, this one, on one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    with jax.enable_x64(True):
        run = train.prepare(config_file.load("configs/digits.py:depth=4", CHANGES), workdir)
        assert run is not None
        train.train(run)
    return workdir


def assert_same_but_for_rounding(workdir, alone):
    """Assert that the batches are the same, and after ten steps in float64 the numbers."""
    logs = [records.read(run / "metrics.jsonl") for run in (alone, workdir)]
    keys = [[(r["step"], r["split"], r["examples"]) for r in log] for log in logs]
    assert keys[0] == keys[1] and len(keys[0]) == 5 + 3
    for expected, record in zip(*logs, strict=True):
        assert record["loss"] == pytest.approx(expected["loss"], abs=1e-10)
    with jax.enable_x64(True):
        gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), learned(alone), learned(workdir))
    assert max(jax.tree.leaves(gaps)) < 1e-10


def test_two_processes_compute_what_a_single_process_computes(tmp_path, alone):
    """The data is streamed, so that each process reads its own rows."""
    ended = finish(start_two(tmp_path / "two", "--config.data.stream=always"))
    assert [status for status, *_ in ended] == [0, 0], ended
    assert "starts at step 0" in ended[0][1] and "starts" not in ended[1][1]
    assert_same_but_for_rounding(tmp_path / "two", alone)
    (entry,) = json.loads((tmp_path / "two" / "run.json").read_text("utf-8"))
    assert entry["devices"] == ["cpu:cpu"] * 2


@pytest.mark.slow  # 40 s: pytest -m slow tests/test_distributed.py
def test_a_checkpoint_of_eight_devices_resumes_on_fewer_and_on_two_processes(tmp_path, alone):
    eight = tmp_path / "eight"
    assert finish([start(eight, "--config.steps=4", devices=8)])[0][0] == 0
    for name in ("1", "2", "4", "two"):
        shutil.copytree(eight, tmp_path / name)
    starts = [start(tmp_path / str(devices), devices=devices) for devices in (1, 2, 4)]
    ended = finish([*starts, *start_two(tmp_path / "two")])
    assert [status for status, *_ in ended] == [0] * 5, ended
    assert all("resumes at step 4" in stdout for _, stdout, _ in ended[:4])  # process 0 prints
    for name in ("1", "2", "4", "two"):
        assert_same_but_for_rounding(tmp_path / name, alone)


def test_a_process_of_another_command_ends_all_and_says_why(tmp_path):
    (status_0, _, stderr_0), (status_1, _, stderr_1) = finish(
        start_two(tmp_path / "run", rates=("0.1", "0.7"))
    )
    assert (status_0, status_1) == (1, 2)
    assert (
        "process 1 is not of the run of process 0 (optimizer.learning_rate: 0.1 there" in stderr_1
    )
    assert "error: process 1 of 2 ended before the run did" in stderr_0
    assert not (tmp_path / "run").exists()


def test_a_wish_is_granted_to_all_two_boundaries_after_process_0_heard_of_it(monkeypatch):
    """The processes take turns, over a store that behaves as that of jax.distributed."""

    class Store(dict):
        def key_value_set(self, key, value, allow_overwrite=False):
            assert allow_overwrite or key not in self, key
            self[key] = value

    store, index = Store(), 0
    monkeypatch.setattr(distributed, "_store", lambda: store)
    monkeypatch.setattr(distributed, "_read", store.get)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed, "first", lambda: index == 0)
    for _ in range(2):  # two runs in one process: the second is not confused by the first
        monkeypatch.setattr(distributed, "_WISHES", itertools.count(len(store)))
        of_process_0 = distributed.Wish()
        monkeypatch.setattr(distributed, "_WISHES", itertools.count(len(store)))
        of_process_1 = distributed.Wish()
        granted = {0: [], 1: []}
        for boundary in range(1, 20):
            for index, wish in ((0, of_process_0), (1, of_process_1)):  # noqa: B007 - for `first`
                wished = index == 1 and boundary in (3, 10)
                if wish.granted(wished, boundary):
                    granted[index].append(boundary)
        assert granted[0] == granted[1] == [6, 13]


def test_a_single_process_agrees_with_itself():
    assert distributed.first() and distributed.by_first(lambda number: number + 1)(2) == 3
    assert distributed.agree(None) is None and distributed.agree(3) == 3
    assert distributed.of_first("text") == "text"
    assert [distributed.Wish().granted(wished, 1) for wished in (True, False)] == [True, False]
    fetched = distributed.fetch({"a": jax.numpy.ones(2)})
    assert isinstance(fetched["a"], np.ndarray)
