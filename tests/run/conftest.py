"""A small run through the whole program, which these tests harm in copies."""

import shutil

import pytest

# A network of a single block is compiled in half of the time of three.
CHANGES = {
    "model.stages": "(1,)",
    "model.width": "32",
    "steps": "6",
    "chunk_steps": "2",
    "eval_every": "6",
    "checkpoint_every": "2",
    "batch_size": "16",
}


@pytest.fixture(scope="session")
def changes():
    """What the small run changes in configs/digits.py:depth=4: {key: text}."""
    return CHANGES


@pytest.fixture(scope="session")
def digits():
    """digits(depth, {key: text}) -> the config of a network of that depth."""
    from resnet_jax import config_file

    return lambda depth, overrides=None: config_file.load(
        f"configs/digits.py:depth={depth}", overrides
    )


@pytest.fixture(scope="session")
def train(digits):
    """train(workdir) starts or resumes the small run in a directory."""
    from resnet_jax import train

    def start(workdir):
        prepared = train.prepare(digits(4, CHANGES), workdir)
        assert prepared is not None
        train.train(prepared)

    return start


@pytest.fixture(scope="session")
def unbroken(train, tmp_path_factory):
    """The directory of a finished run, of which the steps 4 and 6 are kept. Do not change it."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    train(workdir)
    return workdir


@pytest.fixture
def copied(unbroken, tmp_path):
    """A copy of the finished run."""
    shutil.copytree(unbroken, tmp_path / "run")
    return tmp_path / "run"
