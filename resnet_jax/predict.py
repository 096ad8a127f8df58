"""Say what a run's newest checkpoint sees in image files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from resnet_jax import command, trained
from resnet_jax.data import photographs, sources
from resnet_jax.tasks import image_data


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, and print the likeliest classes of every file, five or all."""
    parser = command.Parser(
        "resnet_jax.predict",
        "Say what a run's newest checkpoint sees in image files.",
        "python -m resnet_jax.predict --workdir=runs/resnet-50 photograph.jpg",
    )
    parser.add_run()
    parser.add_data()
    parser.add_argument("files", nargs="+", metavar="IMAGE", help="image files")
    arguments = parser.read(words)
    with command.refusals():
        run = trained.load(
            *(arguments.workdir, arguments.data_dir, arguments.replica, arguments.data_name),
            best=arguments.best,
        )
        if run.config.task != "classification":
            raise ValueError(
                f"{run.workdir} is a run of task={run.config.task}; predict needs "
                "task=classification"
            )
        shape = tuple(run.config.data.shape)
        images = np.stack([photographs.read(Path(file), shape) for file in arguments.files])
        given = arguments.data_dir is not None or arguments.data_name is not None
        names = _class_names(run, required=given)
        turned = [photographs.is_turned(Path(file)) for file in arguments.files]
        rows = run.predict(images, check=False)
    for file, row, is_turned in zip(arguments.files, rows, turned, strict=True):
        note = " (not turned upright, as in training: its EXIF orientation is ignored)"
        print(f"{file}:{note if is_turned else ''}")
        for label in np.argsort(-row, kind="stable")[:5]:
            print(f"  {np.exp(row[label]):7.2%}  {names[label]}")


def _class_names(run: trained.Trained, required: bool) -> Sequence[str]:
    """Return the names of the classes that the run saved, else its data set's, else numbers.

    Imported weights have no names. If a flag says where the data is, it is `required`.
    """
    config, classes = run.config, run.config.model.num_classes
    names = image_data.saved_names(config, trained.statistics(run))
    if not names:
        try:
            names = sources.class_names(config.data.name, config.data.dir)
        except ValueError:
            if required:
                raise
    return names if len(names) == classes else [str(label) for label in range(classes)]


if __name__ == "__main__":
    command.run(main)
