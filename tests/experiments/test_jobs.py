"""Several runs at once: as many as asked for, none left behind, and the same numbers."""

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
def run(monkeypatch):
    """Run a Python script in the place of each run, two at a time, on a machine without GPUs."""
    monkeypatch.setattr(jobs, "_devices", lambda: ("cpu", 1))
    prelude = "import os, signal, sys, time\nrun = int(sys.argv[1].removeprefix('--run='))\n"
    return lambda script: jobs.run(NAMES, 2, ["-c", prelude + script])


def test_so_many_run_at_a_time_and_each_once(run, tmp_path, capsys):
    failed = run(
        f"os.chdir({str(tmp_path)!r})\n"
        "mine = os.path.join(os.getcwd(), f'running-{run}')\n"
        "open(mine, 'x').close()\n"
        "print(len(os.listdir()), 'running')\n"
        "time.sleep(0.5)\n"
        "os.remove(mine)\n"
    )
    assert failed == []
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["run 0", "run 1", "run 2", "run 4"]
    assert {line.split(": ")[1] for line in lines} == {"1 running", "2 running"}


def test_a_run_that_fails_is_named_with_its_reason_and_stops_no_other(run, capsys):
    failed = run(
        "if run == 1: sys.exit('error: resnet-8, seed 0: the training loss is nan')\n"
        "if run == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "print('fine')\n"
    )
    assert sorted(failed) == [
        "plain-14, seed 0: ended by SIGKILL",
        "resnet-8, seed 0: the training loss is nan",
    ]
    said = capsys.readouterr().out
    assert "run 0: fine" in said and "run 4: fine" in said
    assert "run 1: error: resnet-8, seed 0: the training loss is nan" in said


def test_a_signal_stops_the_runs_too_even_one_that_does_not_listen(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(jobs, "GRACE", 0.5)
    script = (
        f"os.chdir({str(tmp_path)!r})\n"
        "if run == 0: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(str(os.getpid()), 'x').close()\n"
        "while run == 1 and len(os.listdir()) < 2: time.sleep(0.01)\n"
        "if run == 1: os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(300)\n"
    )
    with pytest.raises(SystemExit) as stopped:
        run(script)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err.startswith("error: stopped, and its runs with it")
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2  # the two other runs never began
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_run_ends_when_the_sweep_is_gone():
    script = "from experiments import jobs; jobs.end_with_the_sweep(); print('up', flush=True)"
    run = subprocess.Popen(
        (sys.executable, "-c", script + "; import time; time.sleep(300)"),
        cwd=ROOT,
        env=os.environ | {jobs.TOGETHER: "1"},
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


def words(workdir, steps):
    tiny = ("--seeds=1", "--depths=4", "--config.model.stages=(1,)")
    return [f"--workdir={workdir}", f"--steps={steps}", *tiny]


def sweep(small, workdir, steps):
    """Start a small claim, two runs at a time."""
    return subprocess.Popen(
        (sys.executable, "-m", small.__name__, *words(workdir, steps), "--jobs=2"),
        cwd=Path(small.__file__).parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def numbers(workdir):
    """What results.json says of the runs, without the times and the folders."""
    runs = json.loads((workdir / "results.json").read_text("utf-8"))["runs"]
    return [{k: v for k, v in run.items() if k not in ("seconds", "workdir")} for run in runs]


def test_a_whole_sweep_of_two_at_a_time_has_the_numbers_of_one_by_one(small, tmp_path, capsys):
    together, alone = tmp_path / "together", tmp_path / "alone"
    done = sweep(small, together, 4)
    said, _ = done.communicate()
    assert done.returncode == 0, said
    assert "run 0: devices: cpu" in said and "run 1: devices: cpu" in said
    assert said.count("warning: 1 seed") == 1, "each run warns, too"
    assert {"results.json", "table.md", "figure.png", "report.html"} <= {
        path.name for path in together.iterdir()
    }
    assert f"python -m {small.__name__}" in (together / "report.html").read_text("utf-8")

    small.main([*words(together, 4), "--list"])
    assert capsys.readouterr().out.count(" finished  ") == 2
    small.main(words(alone, 4))
    assert "[2/2] width-16, seed 0" in capsys.readouterr().out
    assert numbers(together) == numbers(alone)


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on(small, tmp_path):
    workdir = tmp_path / "sweep"
    with sweep(small, workdir, 20) as stopped:
        assert stopped.stdout is not None
        for line in stopped.stdout:
            if "starts at step 0" in line:
                stopped.terminate()
                break
        assert "error: stopped, and its runs with it" in stopped.stdout.read()
    assert stopped.returncode == 128 + signal.SIGTERM and not (workdir / "report.html").exists()
    done = sweep(small, workdir, 20)
    said, _ = done.communicate()
    assert done.returncode == 0 and (workdir / "report.html").exists(), said
