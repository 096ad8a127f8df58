"""The words of a command that is refused or done: one line, its status, nothing left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax import command as commands
from resnet_jax import config_file, provenance
from resnet_jax.data import sources
from tests.in_process import command

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "configs" / "digits.py"
# A network and a run that are over as soon as they have begun.
TINY = ("--config.model.width=2", "--config.steps=2", "--config.chunk_steps=1")
TINY += ("--config.eval_every=2", "--config.checkpoint_every=2")


def process(*words):
    """Run a command as a user would, in a process of its own and on one device."""
    return subprocess.run(
        (sys.executable, *map(str, words)),
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


MISTAKES = [
    (
        "",
        ("--config.modle.depth=8",),
        "unknown config key --config.modle.depth; nearest: depth=VALUE in the config's argument",
    ),
    ("", ("--config.model.dept=8",), "nearest: depth=VALUE in the config's argument"),
    ("", ("--config.batch_size=many",), "--config.batch_size=many is not a whole number, such as"),
    ("depth=21", (), "depth 21 is not 6n+2 (basic blocks); nearest 20 and 26"),
    ("", ("--wrokdir=x",), "unknown flag --wrokdir; nearest: --workdir"),
    ("", ("--config.data.name=cifra10", "--data_dir=/nowhere"), "/nowhere"),
    ("", ("--config.batch_size=1600",), "batch_size=1600 is larger than the training split of dig"),
    ("", ("--config.schedule.warmup_steps=300",), "not shorter than the run of steps=300"),
    ("", ("leftover",), "unexpected argument 'leftover'"),
    (
        "",
        ("--config.model={'depth': 8}",),
        "unknown config key --config.model; nearest: --config.m",
    ),
    ("", ("--config.batch_size=1e400",), "--config.batch_size=1e400"),
    ("", ("--config.steps=9223372036854775808",), "must be at most "),
    ("", ("--config.optimizer.learning_rate=nan",), "optimizer.learning_rate=nan must be finite"),
    ("", ("--config.norm.groups=4",), "norm.groups is a key of norm=group; this config has norm="),
    ("norm=none", ("--config.norm.group_size=25",), "norm.group_size is a key of norm=batch; this"),
    (
        "",
        ("--config.model.family=vgg",),
        "chosen in the config's argument, configs/NAME.py:family=",
    ),
    ("", ("--config.norm.kind=none",), "chosen in the config's argument, configs/NAME.py:norm="),
    ("", ("--config.model.depth=8",), "chosen in the config's argument, configs/NAME.py:depth="),
    ("", ("--config.seed",), "--config.seed needs a value: --config.seed=VALUE"),
    ("", ("--config.optimizer.groups=.*bias",), "in brackets, such as (('.*bias', 0.1, 0.0),)"),
    ("", ("--noconfig.steps",), "--config.steps needs a value: --config.steps=VALUE"),
    ("", ("--noconfig.data.flip=2",), "unknown flag --noconfig.data.flip"),
    ("", ("--config.data.flip=maybe",), "--config.data.flip=maybe is not true or false"),
    ("", ("--config.seed=x",), "--config.seed=x is not a whole number, such as 0"),
    ("", ("--process_id=0",), "--coordinator_address and --num_processes missing"),
    ("", ("--num_processes=0",), "0 is less than 1"),
    ("depth=-8", (), "depth=-8 is not a number of layers"),
    ("depth=6000000002", (), "depth=6000000002 is more than 1000000, the most layers of any"),
    ("family=resnets", (), "family=resnets is not one of resnet, "),
    ("depht=8", (), "config argument 'depht=8' is not switch=value with a switch of "),
]


ADDRESSES = {
    "": "--workdir is empty; name a folder, such as --workdir=runs/resnet-20",
    "s3://bucket/run": "--workdir=s3://bucket/run is neither a folder nor gs://BUCKET/FOLDER",
    "file:///tmp/run": "--workdir=file:///tmp/run is neither a folder nor gs://BUCKET/FOLDER",
    "gs://bucket/run": "pip install gcsfs google-cloud-storage",
}


@pytest.mark.parametrize("workdir", ADDRESSES)
@pytest.mark.parametrize(
    "name,words",
    [
        ("train", (f"--config={DIGITS}",)),
        ("evaluate", ()),
        ("predict", ("a.png",)),
        ("convert", ("--layout=timm", "--export=a")),
        ("check_data", (f"--config={DIGITS}",)),
    ],
)
def test_a_directory_that_runs_cannot_have_is_one_line(monkeypatch, name, words, workdir):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    assert ADDRESSES[workdir] in command(name, *words, f"--workdir={workdir}").refusal


def test_a_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "notes").write_text("")
    done = command("train", f"--config={DIGITS}", f"--workdir={tmp_path}/notes/run")
    assert done.refusal.endswith(f"cannot be made, because {tmp_path}/notes is a file")


@pytest.mark.parametrize("argument,words,message", MISTAKES)
def test_bad_input_is_one_line_and_leaves_nothing_behind(tmp_path, argument, words, message):
    workdir = tmp_path / "run"
    done = command("train", f"--config={DIGITS}:{argument}", f"--workdir={workdir}", *words)
    assert message in done.refusal
    assert not workdir.exists()


IMPORT = ("--layout=akamaster", f"--import={ROOT}/none.pth", f"--config={DIGITS}")


@pytest.mark.parametrize(
    "name,words,message",
    [
        ("train", ("--confg=x",), "unknown flag --confg; nearest: --config"),
        ("train", (), "the following arguments are required: --config; see python -m resnet_jax."),
        ("convert", ("--layout=akamaster", "--import=a"), "--import needs --config"),
        ("convert", ("--layout=akamaster",), "give --import=FILE with --config, or --export=FILE"),
        ("convert", (*IMPORT, "--export=a"), "give --import=FILE with --config, or --export=FILE"),
        ("convert", ("--layout=keras",), "invalid choice: 'keras' (choose from "),
        ("convert", ("--layout=akamaster", "--export=a"), "holds no run"),
        ("convert", ("--layout=akamaster", "--export=a", "--config=b"), "takes the config of its"),
        ("convert", IMPORT, "none.pth; give a safetensors file"),
        ("convert", (IMPORT[0], "--import=~", IMPORT[2]), f"there is no file {Path.home()}; give "),
        ("check_data", (f"--config={ROOT}/configs/mnist.py",), "'mnist' needs data.dir"),
        ("check_data", (), "the following arguments are required: --config"),
        ("evaluate", (), "holds no run"),
        ("evaluate", ("--json=/nowhere/a.json",), "--json=/nowhere/a.json: there is no folder"),
        ("evaluate", ("a.png",), "unexpected argument 'a.png'"),
        ("evaluate", ("--replica=-1",), "-1 is less than 0"),
        ("evaluate", ("--replica=one",), "'one' is no whole number"),
        ("evaluate", ("--config.steps=2",), "unknown flag --config.steps; see python -m resnet_ja"),
        ("predict", (), "the following arguments are required: IMAGE"),
        ("predict", ("a.png",), "holds no run"),
    ],
)
def test_bad_input_of_any_command_is_one_line(tmp_path, name, words, message):
    done = command(name, *words, f"--workdir={tmp_path / 'run'}")
    assert message in done.refusal
    assert not list(tmp_path.iterdir())


def test_a_run_says_first_where_it_trains_and_is_finished_the_second_time(tmp_path):
    argument = "family=highway,block=dense,depth=3"
    words = (f"--config={DIGITS}:{argument}", f"--workdir={tmp_path / 'run'}", *TINY)
    done = process("-m", "resnet_jax.train", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("devices: cpu")
    assert "train error" in done.stdout.splitlines()[-1]
    again = command("train", *words)
    assert again == (0, f"{tmp_path / 'run'}: finished at step 2\n", "")


@pytest.mark.parametrize(
    "error,status,line",
    [
        (SystemExit(2), 2, ""),
        (FloatingPointError("the loss\nis nan"), 1, "error: the loss is nan\n"),
        (OSError("no space left"), 1, "error: no space left\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_what_fails_later_is_one_line_and_another_status(monkeypatch, capsys, error, status, line):
    def main():
        raise error

    monkeypatch.setattr(commands, "use_compilation_cache", lambda: None)
    with pytest.raises(SystemExit) as left:
        commands.run(main)
    assert left.value.code == status
    assert capsys.readouterr() == ("", line)


def test_weights_go_in_are_measured_and_come_out_again(imported, tmp_path):
    _, config, file = imported
    workdir, out = tmp_path / "run", tmp_path / "out.safetensors"
    words = [f"--config={DIGITS}:depth=14,skip=A_split", f"--import={file}"]
    words += [f"--config.model.width={config.model.width}", f"--workdir={workdir}"]
    done = command("convert", "--layout=akamaster", *words)
    assert done.status == 0 and "checkpoint of step 0" in done.out, done.err
    done = command("evaluate", f"--workdir={workdir}")
    assert done.status == 0 and "over 297 examples (center) at step 0" in done.out, done.err
    done = command("convert", "--layout=akamaster", f"--export={out}", f"--workdir={workdir}")
    assert done.status == 0 and out.read_bytes() == file.read_bytes(), done.err


def test_the_flags_of_a_file_stand_for_themselves(tmp_path):
    file = tmp_path / "flags"
    file.write_text("# a run\n--config.model.width=3\n\n--config.batch_size=x\n")
    words = (f"--config={DIGITS}", f"--workdir={tmp_path}/run")
    for flag in ([f"--flagfile={file}"], ["--flagfile", file]):
        assert "--config.batch_size=x is not a whole" in command("train", *words, *flag).refusal
    assert "/none: " in command("train", *words, f"--flagfile={tmp_path}/none").refusal
    assert "needs a file" in command("train", "--flagfile").refusal
    file.write_text(f"--flagfile={file}\n")
    done = command("train", *words, f"--flagfile={file}")
    assert "a file of flags cannot name another one" in done.refusal


@pytest.mark.parametrize("name", ["lr=0.1,stages=[1,1]", "what?", "*"])
def test_a_path_from_which_no_checkpoint_could_be_restored_is_refused(tmp_path, name):
    workdir = tmp_path / name / "run"
    done = command("train", f"--config={DIGITS}", f"--workdir={workdir}")
    assert "Orbax would restore no checkpoint from it" in done.refusal
    assert not (tmp_path / name).exists()


def test_a_path_of_other_bytes_than_utf_8_is_refused(tmp_path):
    workdir = tmp_path / os.fsdecode(b"caf\xe9")
    done = command("train", f"--config={DIGITS}", f"--workdir={workdir}")
    assert "is not UTF-8, and Orbax would save no checkpoint there" in done.refusal
    assert not workdir.exists()


NAMED = "resnet_jax.describe", f"--config={DIGITS}:depth=8"


def test_a_backend_that_does_not_exist_is_one_line(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    done = subprocess.run(
        (sys.executable, "-m", *NAMED), capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert last.startswith("error: JAX finds no device for JAX_PLATFORMS='cuda'"), last


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"),
        RuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 9 bytes."),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_helps(capsys, error, monkeypatch):
    def main():
        raise error

    advices = {"--config=configs/digits.py": "make --config.batch_size smaller"}
    advices["--workdir=runs/a"] = "end other programs on this device"  # evaluate has no --config
    for word, advice in advices.items():
        monkeypatch.setattr(sys, "argv", ["command", word])
        with pytest.raises(SystemExit) as end:
            commands.run(main)
        line = capsys.readouterr().err
        assert end.value.code == 1 and line.count("\n") == 1
        assert f"not enough memory; {advice}" in line
        assert str(error).splitlines()[0] in line


def test_a_full_disk_is_no_lack_of_memory(capsys):
    said = "RESOURCE_EXHAUSTED: /disk/checkpoint: No space left on device"

    def main():
        raise RuntimeError(said)

    with pytest.raises(SystemExit):
        commands.run(main)
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_backend_that_does_not_start_is_told_in_its_own_words():
    in_use = "The TPU is already in use by process with pid 7. Not attempting to load libtpu.so."
    assert commands.no_device("", in_use) == f"JAX finds no device: {in_use}"
    assert commands.no_device("tpu", in_use).endswith(in_use)
    assert "unset JAX_PLATFORMS" in commands.no_device("cuda", "")


def test_a_folder_that_cannot_be_written_is_told_before_the_work(imported, tmp_path, monkeypatch):
    # The user who runs the tests may be root, who may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    done = command("evaluate", f"--workdir={imported[0]}", f"--json={tmp_path}/a.json")
    assert f"--json={tmp_path}/a.json: this user may not write there" in done.refusal


def test_another_error_is_no_lack_of_memory_and_no_lack_of_devices():
    def main():
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        commands.run(main)


def test_a_user_without_a_home_has_no_cache_and_no_error(tmp_path, monkeypatch):
    def none(_):
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", none)
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    set_options = {}
    monkeypatch.setattr(commands.jax.config, "update", set_options.__setitem__)
    for folder, cache in ((None, None), ("/proc", None), (tmp_path, f"{tmp_path}/resnet_jax/xla")):
        if folder is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        commands.use_compilation_cache()
        assert set_options.get("jax_compilation_cache_dir") == cache


def test_the_revision_is_none_of_a_repository_around_an_environment(tmp_path):
    installed = tmp_path / "thesis" / ".venv" / "packages"
    shutil.copytree(ROOT / "resnet_jax", installed / "resnet_jax")
    git = lambda *words: subprocess.run(
        ("git", "-c", "user.name=a", "-c", "user.email=a@b", *words), cwd=tmp_path / "thesis"
    )
    (tmp_path / "thesis" / ".gitignore").write_text(".venv\n")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "thesis")):
        assert git(*words).returncode == 0
    code = "from resnet_jax import provenance as p; print(p.__file__, repr(p.revision()))"
    done = subprocess.run(
        (sys.executable, "-c", code),
        env=os.environ | {"PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{installed}/resnet_jax/provenance.py ''\n", done.stderr


def test_a_file_that_the_repository_around_it_does_not_track_has_no_revision(tmp_path, monkeypatch):
    (tmp_path / "resnet_jax").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "resnet_jax" / "command.py"))
    (tmp_path / "resnet_jax" / "command.py").write_text("")
    who = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*who, "init", "-q"], check=True)
    subprocess.run([*who, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    assert provenance.revision() == ""


@pytest.mark.parametrize("word", ["-config=a.py", "\u2013config=a.py", "\u2014config.seed=3"])
def test_a_flag_with_another_hyphen_is_named(word):
    assert "is no flag, which begins with two hyphens: --config" in command("train", word).refusal


def test_a_config_file_may_lie_anywhere_and_import_its_neighbours(tmp_path, monkeypatch):
    """The working directory may have a package `configs` of its own."""
    folder = tmp_path / "a:b" / "configs"
    folder.mkdir(parents=True)
    (folder / "other.py").write_text("RECIPE = {'seed': 7}\n")
    (folder / "beside.py").write_text("STEPS = 70\n")
    own = "from resnet_jax.config import make\nfrom . import other\nfrom beside import STEPS\n"
    own += (
        "def get_config(argument=''):\n    return make(argument, other.RECIPE | {'steps': STEPS})"
    )
    (folder / "own.py").write_text(own)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = config_file.load(f"{folder}/own.py:depth=14")
    assert (config.seed, config.steps, config.model.depth) == (7, 70, 14)
    assert config_file.load(f"{folder}/own.py").model.depth == 20


@pytest.mark.parametrize("module", ["resnet_jax", "experiments"])
def test_a_list_may_end_in_a_pipe_that_ends_first(module):
    code = "import os, runpy; r, w = os.pipe(); os.dup2(w, 1); os.close(w); os.close(r); "
    code += f"runpy.run_module({module!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert b"Traceback" not in done.stderr, done.stderr


def test_a_backend_for_figures_that_is_not_installed_is_passed_over():
    code = "import os; from resnet_jax.reporting import figures; print(os.environ['MPLBACKEND'])"
    env = os.environ | {"MPLBACKEND": "module://a_notebook.backend"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert done.stdout == b"agg\n"


def test_the_revision_is_told_of_another_users_checkout_and_in_a_hook(tmp_path, monkeypatch):
    checkout = ["git", "-C", str(tmp_path)]
    (tmp_path / "resnet_jax").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "resnet_jax" / "command.py"))
    (tmp_path / "resnet_jax" / "command.py").write_text("")
    subprocess.run([*checkout, "init", "-q"], check=True)
    subprocess.run([*checkout, "add", "."], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*checkout, *who, "commit", "-qm", "a"], check=True)
    revision = provenance.revision()
    assert len(revision) == 40
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refused = subprocess.run([*checkout, "rev-parse", "HEAD"], capture_output=True, check=False)
    assert refused.returncode != 0, "git reads another user's checkout"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert provenance.revision() == revision


def test_a_data_set_of_arrays_is_trained_on_measured_and_predicted(tmp_path):
    random, file, workdir = np.random.default_rng(0), tmp_path / "own.npz", tmp_path / "run"
    images = random.integers(0, 256, (20, 6, 6), np.uint8)
    labels = np.arange(20) % 3
    names = np.array(["ant", "bee", "fly"])
    arrays = {"x_train": images[:14], "y_train": labels[:14], "class_names": names}
    np.savez(file, x_test=images[14:], y_test=labels[14:], **arrays)
    words = [f"--config={DIGITS}:family=highway,block=dense,depth=2", *TINY]
    words += [f"--config.data.name=npz:{file}", "--config.batch_size=7"]
    done = command("check_data", *words)
    assert "data.shape=(8, 8, 1), but the images of npz:" in done.out
    assert 'use --config.data.shape="(6, 6, 1)"' in done.out
    words += ["--config.data.shape=(6, 6, 1)", "--config.model.num_classes=3"]
    done = command("check_data", *words)
    assert done.status == 0, done.out + done.err
    assert done.out.startswith("train: 14 examples of 3 classes, 4 to 5 of each; images 6x6x1\n")
    done = command("train", *words, f"--workdir={workdir}")
    assert done.status == 0 and "train error" in done.out.splitlines()[-1], done.err
    done = command("check_data", *words, f"--workdir={workdir}")
    assert done.out.endswith(f"unchanged since the run in {workdir} began\n")
    done = command("evaluate", f"--workdir={workdir}")
    assert "over 6 examples (center) at step 2" in done.out, done.err
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    done = command("predict", f"--workdir={workdir}", tmp_path / "image.png")
    assert done.status == 0 and {line.split()[-1] for line in done.out.splitlines()[1:]} == {*names}
    # The data of a run may move.
    file = file.rename(tmp_path / "moved.npz")
    done = command("evaluate", f"--workdir={workdir}")
    assert "own.npz does not exist" in done.refusal
    done = command("evaluate", f"--workdir={workdir}", f"--data_name=npz:{file}")
    assert "over 6 examples (center) at step 2" in done.out, done.err
    image = tmp_path / "image.png"
    done = command("predict", f"--workdir={workdir}", f"--data_name=npz:{file}", image)
    assert {line.split()[-1] for line in done.out.splitlines()[1:]} == {*names}
    words = [word.replace("own.npz", "moved.npz") for word in words]
    done = command("train", *words, "--config.steps=3", f"--workdir={workdir}")
    assert done.status == 0 and "train error" in done.out.splitlines()[-1], done.err
    # A network can be measured on a test split alone, and not trained.
    np.savez(tmp_path / "only.npz", x_test=images[10:], y_test=labels[10:])
    done = command("evaluate", f"--workdir={workdir}", f"--data_name=npz:{tmp_path}/only.npz")
    assert "over 10 examples (center) at step 3" in done.out, done.err
    only = [word.replace("moved.npz", "only.npz") for word in words]
    done = command("train", *only, f"--workdir={tmp_path}/other")
    assert "only.npz has no split train; evaluate --data_name measures a run" in done.refusal
    # The data of a run must not change. Another process would read it again.
    for cached in (sources._load, sources._in_memory):
        cached.cache_clear()
    np.savez(file, x_test=images[14:], y_test=labels[14:], **arrays | {"x_train": images[1:15]})
    done = command("check_data", *words, f"--workdir={workdir}")
    assert done.status == 2 and "has changed since it began" in done.out
