"""Say what a run's newest checkpoint sees in image files.

python -m resnet_jax.predict --workdir=DIR [--data_dir=DIR] [--replica=0] IMAGE...
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from etils import epath
from jaxtyping import Float, UInt8

from resnet_jax import command, trained
from resnet_jax.config import Config
from resnet_jax.data import normalise, photographs, sources
from resnet_jax.training import directory
from resnet_jax.training.compile import program

# Images a call: all files make calls of one size, so that one program does for any number.
BATCH = 16


def main(workdir: directory.AnyPath, data_dir: str | None, files: Sequence[str], replica: int = 0):
    """Print the likeliest classes of every file, five or all there are."""
    with command.refusals():
        run = trained.load(workdir, data_dir, replica)
        shape = tuple(run.config.data.shape)
        images = np.stack([photographs.read(Path(file), shape) for file in files])
        names = _names(run.config, required=data_dir is not None)
        normalisation = trained.normalisation(run)
    for file, row in zip(files, log_probabilities(run, normalisation, images), strict=True):
        print(f"{file}:")
        for label in np.argsort(-row, kind="stable")[:5]:
            print(f"  {np.exp(row[label]):7.2%}  {names[label]}")


def log_probabilities(
    run: trained.Trained, normalisation: normalise.Normalisation, images: UInt8[np.ndarray, "n ..."]
) -> Float[np.ndarray, "n y"]:
    """Log-softmax of the network's logits, by the running statistics.

    Logarithms, because the probabilities of a certain network are 0 for all classes but one.
    """

    def predict(state, images):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return jax.nn.log_softmax(run.net.apply(variables, normalise.apply(normalisation, images)))

    size = min(BATCH, len(images))
    padded = np.concatenate([images, images[:1].repeat(-len(images) % size, axis=0)])
    batches = [jnp.asarray(padded[i : i + size]) for i in range(0, len(padded), size)]
    compiled = program(predict, run.state, batches[0])
    rows = [np.asarray(compiled(run.state, batch)) for batch in batches]
    return np.concatenate(rows)[: len(images)]


def _names(config: Config, required: bool) -> Sequence[str]:
    """The data set's names of the classes where it is at hand, else their numbers."""
    names: Sequence[str] = ()
    try:
        names = sources.class_names(config.data.name, config.data.dir)
    except ValueError:
        if required:
            raise
    classes = config.model.num_classes
    return names if len(names) == classes else [str(label) for label in range(classes)]


if __name__ == "__main__":
    # Defined here, not on import: flags are global, and other commands have these names too.
    workdir: Any = flags.DEFINE_string("workdir", None, "the run's directory")
    data_dir: Any = flags.DEFINE_string("data_dir", None, "tensorflow-datasets folder (data.dir)")
    replica: Any = flags.DEFINE_integer("replica", 0, "of a run of several, from 0", lower_bound=0)
    flags.mark_flag_as_required("workdir")
    command.run(
        lambda *files: main(epath.Path(workdir.value), data_dir.value, files, replica.value),
        takes="IMAGE",
    )
