"""What --dataset names."""

import pytest

from experiments import sweep
from experiments.sweep import CONFIGS


@pytest.fixture
def recipe(monkeypatch, tmp_path, write_tfds):
    """--dataset=NAME -> the config file, where `tiny` is a data set of 28x28."""
    write_tfds(
        tmp_path / "tfds", "tiny", {"train": [[(b"x", 0)]], "test": [[(b"x", 0)]]}, (28, 28, 1)
    )

    def recipe(name):
        with monkeypatch.context() as flags:
            flags.setattr(sweep, "DATASET", type("", (), {"value": name}))
            flags.setattr(sweep, "DATA_DIR", type("", (), {"value": str(tmp_path / "tfds")}))
            return sweep._recipe()

    return recipe


def test_a_data_set_has_its_config_or_that_of_its_image_size(recipe):
    assert recipe(None) == recipe("digits") == str(CONFIGS / "digits.py")
    assert recipe("cifar10") == str(CONFIGS / "cifar10.py")
    assert recipe("tiny") == str(CONFIGS / "mnist.py")


def test_a_name_runs_no_file_outside_configs(recipe, tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')\n")
    away = "../" * len(CONFIGS.parts)
    names = (f"{tmp_path}/evil", f"{away}{tmp_path}/evil", "../configs/digits", "x/../digits")
    for name in names:
        with pytest.raises(ValueError, match="is no data set's name"):
            recipe(name)
