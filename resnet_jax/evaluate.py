"""Measure a run's newest checkpoint on its whole test split.

python -m resnet_jax.evaluate --workdir=DIR [--json=FILE] [--data_dir=DIR] [--replica=0]
"""

import json
import math
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath

from resnet_jax import command, trained
from resnet_jax.data import sources
from resnet_jax.data.normalise import Normalisation
from resnet_jax.training import directory, inputs, metrics, shard
from resnet_jax.training.evaluation import evaluator


def main(workdir: directory.AnyPath, file: Path | None, data_dir: str | None, replica: int = 0):
    """Print what was measured, and write it to `file` as JSON."""
    with command.refusals():
        if file is not None:
            command.check_file("--json", file, "evaluation.json")
        run = trained.load(workdir, data_dir, replica)
        dataset = inputs.dataset(run.config)
        normalisation = trained.normalisation(run)
    found = evaluate(run, dataset, normalisation)
    print(
        f"{workdir}: {found['split']} error {found['error']:.2%}, top-5 error "
        f"{found['error_top5']:.2%}, loss {found['loss']:.4f} over {found['examples']:,} examples "
        f"({found['protocol']})"
    )
    if file is not None:
        with command.refusals():
            file.write_text(json.dumps(found, indent=2) + "\n")


def evaluate(
    run: trained.Trained, dataset: sources.Dataset, normalisation: Normalisation
) -> dict[str, Any]:
    """Loss, error and top-5 error on the test split: each image once, as it is ('center').

    Raises: FloatingPointError where the loss is not finite.
    """
    mesh = shard.mesh(devices=1)
    with inputs.feed(mesh, dataset, "test", run.config) as feed:
        one = evaluator(run.net, normalisation, run.state, feed, mesh, metrics.sums_top5)
        (measured,) = one(run.state)
    split = dataset.info.test_split
    if not math.isfinite(measured["loss"]):
        raise FloatingPointError(f"{run.workdir}: the {split} loss is {measured['loss']}")
    return {
        "split": split,
        "examples": measured["examples"],
        "loss": measured["loss"],
        "error": measured["error"],
        "error_top5": measured["error_top5"],
        "protocol": "center",
    }


if __name__ == "__main__":
    # Defined here, not on import: flags are global, and other commands have these names too.
    workdir: Any = flags.DEFINE_string("workdir", None, "the run's directory")
    file: Any = flags.DEFINE_string("json", None, "file to write the numbers to")
    data_dir: Any = flags.DEFINE_string("data_dir", None, "tensorflow-datasets folder (data.dir)")
    replica: Any = flags.DEFINE_integer("replica", 0, "of a run of several, from 0", lower_bound=0)
    flags.mark_flag_as_required("workdir")
    command.run(
        lambda: main(
            epath.Path(workdir.value),
            None if file.value is None else Path(file.value),
            data_dir.value,
            replica.value,
        )
    )
