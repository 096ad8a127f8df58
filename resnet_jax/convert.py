"""Import another library's weights as a work directory, or export a run's weights for it.

FILE is a safetensors file. The commands evaluate, predict and, with the same config, train
(fine-tuning) take the directory that an import makes.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import tree

from resnet_jax import command, config_file, layouts, tensors, trained, weights
from resnet_jax import config as configs
from resnet_jax.adapt import Head, adapt
from resnet_jax.keys import Config
from resnet_jax.run import directory
from resnet_jax.run.checkpoint import Checkpoints, Found
from resnet_jax.run.directory import AnyPath
from resnet_jax.tasks import image_inputs
from resnet_jax.training import state as states
from resnet_jax.training.optimizer import optimizer


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, and import or export."""
    parser = command.Parser(
        "resnet_jax.convert",
        "Import another library's weights as a work directory, or export a run's weights.",
        "python -m resnet_jax.convert --layout=torchvision --import=resnet50.safetensors "
        "--config=configs/imagenet_torchvision.py:depth=50 --workdir=runs/resnet-50",
    )
    parser.add_config(required=False)
    names = parser.add_argument_group("direction")
    names.add_argument(
        "--layout", required=True, choices=layouts.NAMES, help="the library whose names are used"
    )
    names.add_argument(
        "--import",
        dest="source",
        type=command.file,
        metavar="FILE",
        help="safetensors file to read",
    )
    names.add_argument(
        "--export", dest="target", type=command.file, metavar="FILE", help="file to write"
    )
    parser.add_argument(
        "--new_head",
        action="store_true",
        help="start the classifier anew, to fine-tune an import on other classes",
    )
    parser.add_run()
    arguments = parser.read(words)
    with command.refusals():
        workdir = directory.at(arguments.workdir)
        if (arguments.source is None) == (arguments.target is None):
            raise ValueError("give --import=FILE with --config, or --export=FILE")
        if arguments.source is not None:
            if arguments.config is None:
                raise ValueError("--import needs --config=configs/NAME.py[:switch=value,...]")
            if directory.is_remote(workdir):
                raise ValueError(
                    f"--import writes a local folder, not {workdir}; copy it there after"
                )
            config = config_file.load(arguments.config, arguments.overrides)
            # A number of classes on the command line asks for a classifier of that size.
            head = "fit" if "model.num_classes" in arguments.overrides else "keep"
            head = "new" if arguments.new_head else head
            notes = import_weights(arguments.layout, arguments.source, config, Path(workdir), head)
            for note in notes:
                print(note)
            if (known := image_inputs.given(config)) is not None:
                print(
                    f"images are normalised by mean {_short(known.mean)} and std "
                    f"{_short(known.std)} (data.mean, data.std), which must be the weights' own"
                )
            print(f"{workdir}: the weights of {arguments.source}, as a checkpoint of step 0")
        if arguments.target is not None:
            if arguments.new_head:
                raise ValueError("--new_head is for --import")
            if arguments.config is not None or arguments.overrides:
                raise ValueError("--export takes the config of its --workdir, and no --config")
            target = arguments.target
            command.check_file("--export", target, "weights.safetensors")
            chosen = arguments.replica, arguments.best
            step = export_weights(arguments.layout, workdir, target, *chosen)
            print(f"{target}: the weights of {workdir} at step {step}")


def import_weights(
    layout: str, file: Path, config: Config, workdir: Path, head: Head = "keep"
) -> list[str]:
    """Make `workdir` a run of `config` at step 0 with the weights of `file`: whole or not at all.

    The result tells what was changed in the file's tensors (adapt.py).
    Raises: ValueError for a directory that is not empty, a config that cannot run, a file that is
        no safetensors, and tensors that do not fit.
    """
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise ValueError(f"{workdir} is not empty; import into a new --workdir")
    directory.refuse_unwritable(workdir)
    configs.check(config)
    if config.replicas > 1:
        raise ValueError(f"replicas={config.replicas} of the same weights; import with replicas=1")
    adapted, notes = adapt(tensors.read(file), layout, config, head)
    variables = weights.from_tensors(adapted, layout, config)
    ema = config.optimizer.ema_decay > 0
    state = states.begin(config.seed, tree.map(jnp.asarray, variables), optimizer(config), ema)
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir.parent, prefix=f"{workdir.name}.tmp") as folder:
        made = Path(folder) / workdir.name
        directory.claim(made, config)
        # The other normalisations need the data.
        if (known := image_inputs.given(config)) is not None:
            directory.write(made / "normalisation.json", json.dumps(known.to_json()))
        with Checkpoints(made, Found(None, {}, [])) as checkpoints:
            checkpoints.save(0, state)
        made.replace(workdir)
    return notes


def _short(numbers: np.ndarray) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)})"


def export_weights(
    layout: str, workdir: AnyPath, file: Path, replica: int = 0, best: bool = False
) -> int:
    """Write the weights of the newest checkpoint, or of the best, to `file`; return its step.

    Raises: ValueError for a directory without a checkpoint, or a network that the layout lacks.
    """
    run = trained.load(workdir, replica=replica, best=best)
    try:
        named = weights.to_tensors(run.variables, layout, run.config)
    except ValueError as error:
        raise ValueError(f"{workdir} is no network of that layout: {error}") from None
    tensors.write(file, named)
    return run.step


if __name__ == "__main__":
    command.run(main)
