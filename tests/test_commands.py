"""The terminal's words when something is wrong: one line, status 2, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAIN = ("-m", "resnet_jax.train", "--config=configs/digits.py")


def python(*words, **environment):
    """Run a command of ours as a user would, on one device and without the suite's flags."""
    return subprocess.run(
        (sys.executable, *map(str, words)),
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


MISTAKES = [
    (
        ("--config.modle.depth=8",),
        "unknown config key --config.modle.depth; nearest: --config.model",
    ),
    (("--config.model.dept=8",), "nearest: --config.model.depth"),
    (("--config.batch_size=many",), "--config.batch_size=many"),
    (("--config.model.depth=21",), "depth 21 is not 6n+2 (basic blocks); nearest 20 and 26"),
    (("--wrokdir=x",), "unknown flag --wrokdir; nearest: --workdir"),
    (("--config.data.name=cifra10", "--data_dir=/nowhere"), "/nowhere"),
    (("--config.batch_size=1600",), "batch_size=1600 is larger than the training split of digits"),
    (("--config.schedule.warmup_steps=300",), "not shorter than the run of steps=300"),
    (("leftover",), "unexpected argument 'leftover'"),
    (
        ("--config.model={'depth': 8}",),
        "unknown config key --config.model; nearest: --config.model.",
    ),
    (("--config.batch_size=1e400",), "--config.batch_size=1e400"),
    (("--config.steps=9223372036854775808",), "must be at most 16777216: the schedule counts in"),
    (("--config.optimizer.learning_rate=nan",), "optimizer.learning_rate=nan must be finite"),
    (
        ("--config.norm.groups=4",),
        "norm.groups=4 changes nothing: norm.kind=batch with model.block=",
    ),
    (
        ("--config.norm.kind=none", "--config.norm.group_size=25"),
        "norm.group_size=25 changes nothing",
    ),
    (("--config.model.family=vgg",), "chosen by the config's argument: configs/NAME.py:family=vgg"),
]


@pytest.mark.parametrize("words,message", MISTAKES, ids=[m[0][0] for m in MISTAKES])
def test_bad_input_is_one_line_and_leaves_nothing_behind(tmp_path, words, message):
    workdir = tmp_path / "run"
    done = python(*TRAIN, f"--workdir={workdir}", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not workdir.exists() and not done.stdout


@pytest.mark.parametrize(
    "argument,message",
    [
        ("depth=-8", "depth=-8 is not a number of layers"),
        ("depth=6000000002", "depth=6000000002 is more than 1000000, the most layers of any"),
        ("family=resnets", "family=resnets is not one of resnet, "),
        ("depht=8", "config argument 'depht=8' is not key=value"),
    ],
)
def test_a_bad_argument_of_a_config_file_is_one_line_without_a_traceback(
    tmp_path, argument, message
):
    workdir = tmp_path / "run"
    done = python(
        "-m", "resnet_jax.train", f"--config=configs/digits.py:{argument}", f"--workdir={workdir}"
    )
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr and not workdir.exists() and not done.stdout


def test_a_config_file_that_is_not_there_is_one_line(tmp_path):
    done = python("-m", "resnet_jax.train", "--config=configs/none.py", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "configs/none.py" in done.stderr and done.stderr.count("\n") == 1


def test_training_says_where_it_runs_first(tmp_path):
    words = ["--config.model.width=2", "--config.steps=2", "--config.chunk_steps=1"]
    words += ["--config.eval_every=2", "--config.checkpoint_every=2", "--config.model.depth=8"]
    done = python(*TRAIN, f"--workdir={tmp_path / 'run'}", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("devices: cpu")
    assert "train error" in done.stdout.splitlines()[-1]
    again = python(*TRAIN, f"--workdir={tmp_path / 'run'}", *words)
    assert again.returncode == 0 and "finished at step 2" in again.stdout


CONVERT = ("-m", "resnet_jax.convert", "--layout=akamaster")


@pytest.mark.parametrize(
    "words,message",
    [
        ((*CONVERT, "--import=a"), "--import needs --config"),
        (CONVERT, "give --import=FILE with --config, or --export=FILE"),
        (("-m", "resnet_jax.convert", "--layout=keras"), "<torchvision|timm|akamaster>"),
        ((*CONVERT, "--export=a.safetensors"), "holds no run of ours"),
        ((*CONVERT, "--import=/none.pth", "--config=configs/digits.py"), "/none.pth"),
        (("-m", "resnet_jax.check_data", "--config=configs/mnist.py"), "'mnist' needs data.dir"),
        (("-m", "resnet_jax.check_data"), "--config must have a value"),
        (("-m", "resnet_jax.evaluate"), "holds no run of ours"),
        (("-m", "resnet_jax.evaluate", "a.png"), "unexpected argument 'a.png'"),
        (("-m", "resnet_jax.predict"), "no IMAGE is given"),
        (("-m", "resnet_jax.predict", "a.png"), "holds no run of ours"),
    ],
)
def test_bad_input_of_the_other_commands_is_one_line(tmp_path, words, message):
    done = python(*words, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not done.stdout and not list(tmp_path.iterdir())


def test_weights_go_in_are_measured_and_come_out_again(imported, tmp_path):
    _, config, file = imported
    workdir, out = tmp_path / "run", tmp_path / "out.safetensors"
    words = ["--config=configs/digits.py:depth=14,skip=A_split", f"--import={file}"]
    words += [f"--config.model.width={config.model.width}", f"--workdir={workdir}"]
    made = python(*CONVERT, *words)
    assert made.returncode == 0 and "checkpoint of step 0" in made.stdout, made.stderr
    done = python("-m", "resnet_jax.evaluate", f"--workdir={workdir}")
    assert done.returncode == 0 and "over 297 examples" in done.stdout, done.stderr
    done = python(*CONVERT, f"--export={out}", f"--workdir={workdir}")
    assert done.returncode == 0 and out.read_bytes() == file.read_bytes(), done.stderr
