"""Import another library's weights as a work directory, or export a run's for it.

python -m resnet_jax.convert --layout=LAYOUT --import=FILE --config=configs/NAME.py --workdir=DIR
python -m resnet_jax.convert --layout=LAYOUT --export=FILE --workdir=DIR [--replica=0]

FILE is a safetensors; the layouts are torchvision, timm and akamaster. evaluate, predict and train
(with the same config: fine-tuning) take the directory that an import makes.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from etils import epath
from jax import tree
from ml_collections import config_flags

from resnet_jax import command, layouts, tensors, trained, weights
from resnet_jax import config as configs
from resnet_jax.checkpoint import Checkpoints, Found
from resnet_jax.config import Config
from resnet_jax.data import normalise
from resnet_jax.training import directory
from resnet_jax.training import state as states
from resnet_jax.training.directory import AnyPath
from resnet_jax.training.optimizer import optimizer


def main(
    layout: str,
    source: str | None,
    target: str | None,
    config: Config | None,
    workdir: AnyPath,
    replica: int = 0,
) -> None:
    """Import `source` or export to `target`."""
    with command.refusals():
        if (source is None) == (target is None):
            raise ValueError("give --import=FILE with --config, or --export=FILE")
        if source is not None:
            if config is None:
                raise ValueError("--import needs --config=configs/NAME.py[:key=value,...]")
            if directory.is_remote(workdir):
                raise ValueError(
                    f"--import writes a local folder, not {workdir}; copy it there after"
                )
            import_weights(layout, Path(source), config, Path(workdir))
            print(f"{workdir}: the weights of {source}, as a checkpoint of step 0")
        if target is not None:
            if config is not None:
                raise ValueError("--export takes the config of its --workdir, and no --config")
            command.check_file("--export", Path(target), "weights.safetensors")
            step = export_weights(layout, workdir, Path(target), replica)
            print(f"{target}: the weights of {workdir} at step {step}")


def import_weights(layout: str, file: Path, config: Config, workdir: Path) -> None:
    """Make `workdir` a run of `config` at step 0 with the weights of `file`: whole or not at all.

    Raises: ValueError for a directory that is not empty, a config that cannot run, a file that is
        no safetensors, and tensors that do not fit.
    """
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise ValueError(f"{workdir} is not empty; import into a new --workdir")
    configs.check(config)
    if config.replicas > 1:
        raise ValueError(f"replicas={config.replicas} of the same weights; import with replicas=1")
    variables = weights.from_tensors(tensors.read(file), layout, config)
    state = states.begin(config.seed, tree.map(jnp.asarray, variables), optimizer(config))
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir.parent, prefix=f"{workdir.name}.tmp") as folder:
        made = Path(folder) / workdir.name
        directory.claim(made, config)
        if config.data.normalisation == "constants":  # the others need the data
            none = np.zeros((0, *config.data.shape), np.uint8)
            mean, std = tuple(config.data.mean), tuple(config.data.std)
            saved = normalise.statistics("constants", none, mean, std).to_json()
            directory.write(made / "normalisation.json", json.dumps(saved))
        with Checkpoints(made, Found(None, {}, [])) as checkpoints:
            checkpoints.save(0, state)
        made.replace(workdir)


def export_weights(layout: str, workdir: AnyPath, file: Path, replica: int = 0) -> int:
    """Write the newest checkpoint's weights to `file`; returns its step.

    Raises: ValueError for a directory without a checkpoint, or a network that the layout has not.
    """
    run = trained.load(workdir, replica=replica)
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    tensors.write(file, weights.to_tensors(variables, layout, run.config))
    return int(run.state.step)


if __name__ == "__main__":
    # Defined here, not on import: flags are global, and other commands have some of these names.
    layout: Any = flags.DEFINE_enum("layout", None, layouts.NAMES, "whose names the tensors have")
    source: Any = flags.DEFINE_string("import", None, "safetensors file to read")
    target: Any = flags.DEFINE_string("export", None, "safetensors file to write")
    workdir: Any = flags.DEFINE_string("workdir", None, "the run's directory")
    config: Any = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,...]")
    replica: Any = flags.DEFINE_integer("replica", 0, "of a run of several, from 0", lower_bound=0)
    flags.mark_flags_as_required(["layout", "workdir"])
    command.run(
        lambda: main(
            layout.value,
            source.value,
            target.value,
            config.value,
            epath.Path(workdir.value),
            replica.value,
        )
    )
