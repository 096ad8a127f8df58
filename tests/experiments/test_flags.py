"""The command line to options: what each flag means, and which flags contradict each other."""

import pytest

from experiments import flags
from experiments.flags import CONFIGS


@pytest.fixture
def read(tmp_path):
    """read("--steps=4", ...) -> the options of a command line."""

    def read(*words):
        arguments = flags.parser("test", "A test.").read([f"--workdir={tmp_path}", *words])
        return flags.options(arguments, "digits", lambda dataset, full: (8, 20)[: 2 - full])

    return read


def test_without_flags_the_claims_own_data_set_and_depths_are_taken(read, tmp_path):
    options = read()
    assert options.recipe == CONFIGS / "digits.py"
    assert options.networks == (("resnet", 8), ("resnet", 20))
    assert str(options.workdir) == str(tmp_path) and not options.overrides and not options.data
    assert read("--full").networks == (("resnet", 8),)


def test_a_claims_steps_are_those_of_its_own_data_and_three_times_as_many_are_the_full_scale(
    tmp_path,
):
    def steps(*words, own=None):
        arguments = flags.parser("test", "A test.").read([f"--workdir={tmp_path}", *words])
        return flags.options(arguments, "digits", lambda *_: (8,), steps=own).steps

    assert steps() is None and steps("--full") == 900  # the recipe has 300
    assert steps(own=90) == steps("--dataset=digits", own=90) == 90
    assert steps("--full", own=90) == 270
    assert steps("--steps=40", "--full", own=90) == 40
    assert steps("--dataset=reconstruction", "--full", own=90) is None
    assert steps("--config=configs/digits.py", "--full", own=90) is None


def test_flags_choose_networks_seeds_and_steps(read):
    assert read("--depths=8,14,8").networks == (("resnet", 8), ("resnet", 14))
    options = read("--models=vgg:11,resnet:8", "--seeds=2", "--steps=40")
    assert options.networks == (("vgg", 11), ("resnet", 8))
    assert (options.seeds_per_model, options.steps) == (2, 40)


def test_a_config_brings_its_data_set_its_family_and_switches(read):
    options = read("--config=configs/cifar10.py:merge=two_gate", "--config.model.carry_bias=1")
    assert options.switches == {"merge": "two_gate"}
    assert options.overrides == {"model.carry_bias": "1"}
    assert options.recipe.name == "cifar10.py" and not options.data
    options = read("--config=configs/cifar10.py", "--dataset=digits")
    assert options.data["data.name"] == "digits" and options.data["data.shape"] == (8, 8, 1)
    options = read("--config=configs/reconstruction.py", "--depths=4")
    assert options.networks == (("highway", 4),)


def test_a_data_set_has_its_config_or_that_of_its_image_size(read, tmp_path, write_tfds):
    folder = tmp_path / "tfds"
    write_tfds(folder, "tiny", {"train": [[(b"x", 0)]], "test": [[(b"x", 0)]]}, (28, 28, 1))
    assert read("--dataset=digits").recipe == CONFIGS / "digits.py"
    assert read("--dataset=cifar10").recipe == CONFIGS / "cifar10.py"
    options = read("--dataset=tiny", f"--data_dir={folder}")
    assert options.recipe == CONFIGS / "mnist.py"
    assert options.data == {
        "data.dir": str(folder),
        "data.name": "tiny",
        "data.shape": (28, 28, 1),
        "model.num_classes": 3,
    }


def test_a_name_runs_no_file_outside_configs(read, tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')\n")
    away = "../" * len(CONFIGS.parts)
    names = (f"{tmp_path}/evil", f"{away}{tmp_path}/evil", "../configs/digits", "x/../digits")
    for name in names:
        with pytest.raises(ValueError, match="(is not the name of|no) a? ?data set"):
            read(f"--dataset={name}")


@pytest.mark.parametrize(
    "words,message",
    [
        (("--config.data.name=mnist",), "--config.data.name is set by --dataset"),
        (("--config.model.depth=8",), "--config.model.depth is set by --depths"),
        (("--config.model.family=vgg",), "--config.model.family is set by --models"),
        (("--data_dir=x", "--config.data.dir=y"), "--config.data.dir is set by --data_dir"),
        (("--config=configs/digits.py:depth=8",), "depth=8 is set by --depths"),
        (("--config=configs/digits.py:family=vgg",), "family=vgg is set by --models"),
        (("--config.steps=3",), "--config.steps is set by --steps"),
        (("--models=alexnet",), "'alexnet' is not FAMILY:DEPTH, such as alexnet:8"),
        (("--depths=8,x",), "'x' is not a depth, in resnet:x; give layers, as 20"),
        (("--depths=8,",), "'' is not a depth"),
        (("--depths=0,8",), "'0' is not a depth"),
        (("--config=configs/digit.py",), "nearest: configs/digits.py"),
        (("--config=configs/digits.py:skp=B",), "nearest: skip"),
    ],
)
def test_flags_that_contradict_the_sweep_are_refused(read, words, message):
    with pytest.raises(ValueError, match=message):
        read(*words)


@pytest.mark.parametrize(
    "words,message",
    [
        (("--steps=0",), "argument --steps: 0 is less than 1"),
        (("--seeds=100000000000",), "argument --seeds: 100000000000 is more than 1000"),
        (("--depths=8", "--models=vgg:11"), "not allowed with argument"),
        (("--lr=1",), "unknown flag --lr; nearest: --config.optimizer.learning_rate"),
        (("--jobs=x",), "'x' is no whole number"),
    ],
)
def test_wrong_flags_are_one_line(read, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        read(*words)
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
