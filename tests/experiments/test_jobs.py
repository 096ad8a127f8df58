"""Several runs at once: as many as asked for, none left behind, and the numbers of one by one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import jobs

ROOT = Path(__file__).parent.parent.parent
NAMES = {0: "plain-8, seed 0", 1: "resnet-8, seed 0", 2: "plain-14, seed 0", 4: "resnet-20, seed 0"}


@pytest.fixture
def typed(monkeypatch):
    """Takes a Python script for the command that was typed, on a machine with a CPU alone."""
    monkeypatch.setattr(jobs, "_devices", lambda: ("cpu", 1))
    prelude = "import os, signal, sys, time\nrun = int(sys.argv[1].removeprefix('--run='))\n"
    return lambda script: monkeypatch.setattr(sys, "orig_argv", ["python", "-c", prelude + script])


def test_so_many_run_at_a_time_and_each_once(typed, tmp_path, capsys):
    typed(
        f"os.chdir({str(tmp_path)!r})\n"
        "mine = os.path.join(os.getcwd(), f'running-{run}')\n"
        "open(mine, 'x').close()\n"
        "print(len(os.listdir()), 'running')\n"
        "time.sleep(0.5)\n"
        "os.remove(mine)\n"
    )
    assert jobs.run(NAMES, 2) == []
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["run 0", "run 1", "run 2", "run 4"]
    assert {line.split(": ")[1] for line in lines} == {"1 running", "2 running"}


def test_a_run_that_fails_is_named_with_its_reason_and_stops_no_other(typed, capsys):
    typed(
        "if run == 1: sys.exit('error: resnet-8, seed 0: the training loss is nan')\n"
        "if run == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "print('fine')\n"
    )
    assert sorted(jobs.run(NAMES, 2)) == [
        "plain-14, seed 0: ended by SIGKILL",
        "resnet-8, seed 0: the training loss is nan",
    ]
    said = capsys.readouterr().out
    assert "run 0: fine" in said and "run 4: fine" in said
    assert "run 1: error: resnet-8, seed 0: the training loss is nan" in said


def test_a_signal_stops_the_runs_too_even_one_that_does_not_listen(
    typed, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(jobs, "GRACE", 0.5)
    typed(
        f"os.chdir({str(tmp_path)!r})\n"
        "if run == 0: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(str(os.getpid()), 'x').close()\n"
        "while run == 1 and len(os.listdir()) < 2: time.sleep(0.01)\n"
        "if run == 1: os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(300)\n"
    )
    with pytest.raises(SystemExit) as stopped:
        jobs.run(NAMES, 2)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err.startswith("error: stopped, and its runs with it")
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2  # and the two others never began
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_run_ends_when_the_sweep_is_gone():
    script = "from experiments import jobs; jobs.end_with_the_sweep(); print('up', flush=True)"
    run = subprocess.Popen(
        (sys.executable, "-c", script + "; import time; time.sleep(300)"),
        cwd=ROOT,
        env=os.environ | {jobs._TOGETHER: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert run.stdin is not None and run.stdout is not None
    with run:
        assert run.stdout.readline() == b"up\n"
        run.stdin.close()
        assert run.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize(
    "count,count_jobs,environment,visible,fraction",
    [
        (4, 2, {}, ["0,1", "2,3"], None),
        (3, 2, {}, ["0", "1"], None),
        (2, 2, {"CUDA_VISIBLE_DEVICES": "5,GPU-ab"}, ["5", "GPU-ab"], None),
        (1, 2, {}, ["0", "0"], "0.375"),
        (2, 3, {"CUDA_VISIBLE_DEVICES": "4,5"}, ["4", "5", "4"], "0.375"),
        (1, 2, {"XLA_CLIENT_MEM_FRACTION": "0.2"}, ["0", "0"], None),
        (1, 2, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, ["0", "0"], None),
    ],
)
def test_each_job_gets_its_own_gpus_or_its_part_of_one(
    count, count_jobs, environment, visible, fraction
):
    shares = jobs.share(count_jobs, "gpu", count, environment)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == visible
    assert {share.get("XLA_CLIENT_MEM_FRACTION") for share in shares} == {fraction}


def test_cores_are_not_divided_and_a_tpu_cannot_be():
    assert jobs.share(3, "cpu", 1, {}) == [{}, {}, {}]
    with pytest.raises(ValueError, match="one process holds all tpu devices"):
        jobs.share(2, "tpu", 4, {})


def test_the_sweep_itself_holds_no_accelerator(tmp_path):
    script = (
        "import sys, jax; from experiments import degradation, jobs, sweep\n"
        "jobs.run = lambda runs, n: sys.exit(f'{jax.config.jax_platforms} {runs} {n}')\n"
        "sweep.parse(degradation.main, degradation.depths)\n"
    )
    words = ("--depths=8", "--jobs=2", f"--workdir={tmp_path}")
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    done = subprocess.run(
        (sys.executable, "-c", script, *words),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stderr == "cpu {0: 'plain-8, seed 0', 1: 'resnet-8, seed 0'} 2\n"


def sweep(workdir, *words):
    command = (sys.executable, "-m", "experiments.degradation", f"--workdir={workdir}")
    return subprocess.Popen(
        (*command, "--depths=8", "--steps=20", "--config.model.width=2", *words),
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def numbers(workdir):
    """What results.json says of the runs, but for the time they took and where they are."""
    runs = json.loads((workdir / "results.json").read_text())["runs"]
    return [{k: v for k, v in run.items() if k not in ("seconds", "workdir")} for run in runs]


def test_a_sweep_of_two_at_a_time_is_stopped_goes_on_and_has_the_numbers_of_one_by_one(tmp_path):
    together, alone = tmp_path / "together", tmp_path / "alone"
    with sweep(together, "--jobs=2") as stopped:
        assert stopped.stdout is not None
        for line in stopped.stdout:
            if "starts at step 0" in line:
                stopped.terminate()
                break
        assert "error: stopped, and its runs with it" in stopped.stdout.read()
    assert stopped.returncode == 128 + signal.SIGTERM and not (together / "report.html").exists()

    for workdir, words in ((together, ["--jobs=2"]), (alone, [])):
        done = sweep(workdir, *words)
        said, _ = done.communicate()
        assert done.returncode == 0, said
        assert ("run 1: devices: cpu" in said) == bool(words)
    assert numbers(together) == numbers(alone)
