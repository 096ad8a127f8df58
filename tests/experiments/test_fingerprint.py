"""The digest of a claim's code changes with what the claim imports, and with nothing else."""

import pytest

from experiments import fingerprint, listing

FILES = {
    "experiments/mine.py": "from experiments import claim\nfrom experiments.other import ARMS",
    "experiments/claim.py": "def command():\n    from experiments import report",
    "experiments/report.py": "import json",
    "experiments/other.py": "from resnet_jax.analysis import norms\nimport experiments.mine",
    "experiments/apart.py": "",
    "resnet_jax/analysis/norms.py": "from resnet_jax import train",
    "resnet_jax/train.py": "from resnet_jax.tasks import TASKS",
    "resnet_jax/tasks/__init__.py": "TASKS = {}",
    "resnet_jax/predict.py": "",
}
TRAINING = {"resnet_jax/train.py", "resnet_jax/tasks/__init__.py"}
APART = {"experiments/apart.py", "resnet_jax/predict.py"}


@pytest.fixture
def change(tmp_path, monkeypatch):
    """change(path) writes something else into a file; return a folder with FILES as the code."""
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    return lambda path: (tmp_path / path).write_text(f"{FILES[path]}\nchanged = True\n")


@pytest.mark.parametrize("path", FILES)
def test_only_the_code_that_a_claim_imports_changes_its_digest(change, path):
    before = [fingerprint.digest("mine", trained) for trained in (True, False)]
    change(path)
    changed = [
        fingerprint.digest("mine", trained) != old
        for trained, old in zip((True, False), before, strict=True)
    ]
    assert changed == [path not in APART | TRAINING, path not in APART]


def test_every_claim_has_a_digest_of_its_own():
    digests = {
        name: fingerprint.digest(name, claim.kind == "trained")
        for name, claim in listing.claims().items()
    }
    assert len(set(digests.values())) == len(digests)
