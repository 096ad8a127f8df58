"""Read and decode every example of a config's data set, and say what is wrong with any of it."""

import time
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from resnet_jax import command
from resnet_jax import config as configs
from resnet_jax.data import scan, sources
from resnet_jax.keys import Config
from resnet_jax.run import directory
from resnet_jax.tasks import TASKS, image_data
from resnet_jax.tasks.task import Dataset, check_batches

LISTED = 20  # problems


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line; print every problem, or what the data set holds."""
    parser = command.Parser(
        "resnet_jax.check_data",
        "Read and decode every example of a config's data set, and say what is wrong with any of "
        "it. The status is 2 if there is a problem.",
        "python -m resnet_jax.check_data --config=configs/cifar10.py --data_dir=DIR",
    )
    parser.add_config()
    parser.add_argument("--data_dir", help="tensorflow-datasets folder (data.dir)")
    parser.add_argument(
        "--workdir", help="a run's directory: say whether the data has changed since it began"
    )
    arguments = parser.read(words)
    with command.refusals():
        workdir = None if arguments.workdir is None else directory.at(arguments.workdir)
        config = command.load_config(arguments, arguments.data_dir)
        check(config, workdir)


def check(config: Config, workdir: directory.AnyPath | None = None) -> None:
    """Print every problem and leave with status 2, or print what the data set holds.

    Raises: ValueError for a task without a data set, and for a data set that is missing.
    """
    configs.check(config)
    if config.task != "classification":
        raise ValueError(f"task={config.task} has no data set to check")
    info = sources.info(config.data.name, config.data.dir)
    splits = {split: sources.records(info, config.data.dir, split) for split in info.used_splits}
    began = time.perf_counter()
    with tqdm(total=sum(map(len, splits.values())), unit="image", disable=None) as bar:
        scans = {split: scan.scan(examples, bar.update) for split, examples in splits.items()}
    seconds = time.perf_counter() - began
    problems = [problem for of_split in scans.values() for problem in of_split.problems]
    dataset = None
    if not problems:  # else training would not come as far
        try:
            dataset = TASKS[config.task].build(config)
            # Statistics of images that differ in size cannot be computed.
            TASKS[config.task].statistics(config, dataset)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    else:
        problems += _unfit(config, info)
    if workdir is not None:
        problems += _changed(workdir, config, info, dataset)
    if problems:
        for problem in problems[:LISTED]:
            print(problem)
        if len(problems) > LISTED:
            print(f"... and {len(problems) - LISTED:,} more")
        count = f"{len(problems):,} problem{'s' if len(problems) > 1 else ''}"
        command.fail(f"{count} with data set {info.name!r}; no run should start on it")
    assert dataset is not None, "a data set without problems was loaded"
    print(_summary(info, scans, dataset.fingerprint, seconds))
    if workdir is not None:
        print(f"unchanged since the run in {workdir} began")


def _unfit(config: Config, info: sources.DatasetInfo) -> Iterator[str]:
    """Yield what training would refuse about this config with this data set."""
    try:
        image_data.check_fits(config, info)
        if "train" in info.used_splits:
            check_batches(config, info.name, image_data.trained_on(config, info))
    except ValueError as error:
        yield str(error)


def _changed(
    workdir: directory.AnyPath,
    config: Config,
    info: sources.DatasetInfo,
    dataset: Dataset | None,
) -> Iterator[str]:
    """Yield what keeps the run in `workdir` from going on with the data as it is now.

    Without a loaded `dataset` the description of the data set and its files' sizes are compared.
    """
    try:
        if not directory.read_starts(workdir):
            yield f"{workdir} holds no run that has begun: there is no {workdir}/run.json"
            return
        fingerprint = sources.fingerprint(info, config.data.dir) if dataset is None else ""
        directory.refuse_other_data(workdir, dataset.fingerprint if dataset else fingerprint)
    except (KeyError, TypeError, AttributeError) as error:
        yield f"{workdir}/run.json is damaged ({error!r})"
    except (ValueError, OSError) as error:
        yield str(error)


def _summary(
    info: sources.DatasetInfo, scans: dict[str, scan.Scan], fingerprint: str, seconds: float
) -> str:
    lines = []
    for split, of_split in scans.items():
        counts = [of_split.labels[label] for label in range(info.num_classes)]
        lines.append(
            f"{split}: {sum(counts):,} examples of {info.num_classes} classes, "
            f"{min(counts):,} to {max(counts):,} of each; images {_sizes(of_split)}"
        )
    images = sum(of_split.labels.total() for of_split in scans.values())
    lines.append(f"fingerprint: {fingerprint}")
    lines.append(f"every image decoded, {images / seconds:,.0f} images/s")
    return "\n".join(lines)


def _sizes(of_split: scan.Scan) -> str:
    """Return the shape of all images, or the smallest and the largest."""
    shapes = sorted(of_split.shapes, key=lambda shape: (shape[0] * shape[1], shape))
    ends = dict.fromkeys("x".join(map(str, shape)) for shape in (shapes[0], shapes[-1]))
    return " to ".join(ends)


if __name__ == "__main__":
    command.run(main)
