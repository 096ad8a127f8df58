"""Read and decode every example of a config's data set, and say what is wrong with any of it.

python -m resnet_jax.check_data --config=configs/cifar10.py[:key=value,...] [--data_dir=DIR]
    [--workdir=DIR]

With --workdir also whether the data has changed since the run in there began. Status 2 where there
is a problem.
"""

import time
from collections.abc import Iterator
from typing import Any

from absl import flags
from etils import epath
from ml_collections import config_flags
from tqdm import tqdm

from resnet_jax import command
from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.data import normalise, scan, sources, stream
from resnet_jax.data.records import Records
from resnet_jax.training import directory, inputs

LISTED = 20  # problems


def main(config: Config, workdir: directory.AnyPath | None) -> None:
    """Print every problem and leave with status 2, or print what the data set holds."""
    with command.refusals():
        configs.check(config)
        about = sources.info(config.data.name, config.data.dir)
        splits = _splits(about, config.data.dir)
    began = time.perf_counter()
    with tqdm(total=sum(map(len, splits.values())), unit="image", disable=None) as bar:
        found = {split: scan.scan(examples, bar.update) for split, examples in splits.items()}
    seconds = time.perf_counter() - began
    problems = [problem for one in found.values() for problem in one.problems]
    problems += _unfit(config, about, splits["train"])
    fingerprint = ""
    if not problems:  # else training would not come as far
        try:
            fingerprint = inputs.dataset(config).fingerprint
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if workdir is not None:
        problems += _changed(workdir, config, about, fingerprint)
    if problems:
        for problem in problems[:LISTED]:
            print(problem)
        if len(problems) > LISTED:
            print(f"... and {len(problems) - LISTED:,} more")
        count = f"{len(problems):,} problem{'s' if len(problems) > 1 else ''}"
        command.fail(f"{count} with data set {about.name!r}; no run should start on it")
    print(_summary(about, found, fingerprint, seconds))
    if workdir is not None:
        print(f"unchanged since the run in {workdir} began")


def _splits(about: sources.DatasetInfo, data_dir: str) -> dict[str, stream.Examples]:
    """The split that is trained on, and the one that errors are measured on."""
    if about is sources.DIGITS:
        digits = sources.load(about.name, data_dir)
        return {"train": digits.train, about.test_split: digits.test}
    return {split: sources.records(about, data_dir, split) for split in ("train", about.test_split)}


def _unfit(config: Config, about: sources.DatasetInfo, train: stream.Examples) -> Iterator[str]:
    """What training would refuse about this config with this data set."""
    try:
        configs.check_data(config, about.shape, about.num_classes, about.splits["train"])
    except ValueError as error:
        yield str(error)
    data = config.data
    # Others than constants are computed from all images, which can fail for no other reason.
    if isinstance(train, Records) and (None in train.shape or data.normalisation == "constants"):
        try:
            constants = tuple(data.mean), tuple(data.std)
            normalise.streamed_statistics(data.normalisation, train, *constants)
        except ValueError as error:
            yield str(error)


def _changed(
    workdir: directory.AnyPath, config: Config, about: sources.DatasetInfo, fingerprint: str
) -> Iterator[str]:
    """What keeps the run in `workdir` from going on with the data as it is now.

    Where there is no whole `fingerprint`, by the data set's description and its files' sizes.
    """
    try:
        if not directory.read_starts(workdir):
            yield f"{workdir} holds no run of ours that has begun: there is no {workdir}/run.json"
            return
        if not fingerprint and about is not sources.DIGITS:
            fingerprint = sources.fingerprint(about, config.data.dir)
        directory.refuse_other_data(workdir, fingerprint)
    except (KeyError, TypeError, AttributeError) as error:
        yield f"{workdir}/run.json is damaged ({error!r})"
    except (ValueError, OSError) as error:
        yield str(error)


def _summary(
    about: sources.DatasetInfo, found: dict[str, scan.Scan], fingerprint: str, seconds: float
) -> str:
    lines = []
    for split, one in found.items():
        counts = [one.labels[label] for label in range(about.num_classes)]
        lines.append(
            f"{split}: {sum(counts):,} examples of {about.num_classes} classes, "
            f"{min(counts):,} to {max(counts):,} of each; images {_sizes(one)}"
        )
    images = sum(one.labels.total() for one in found.values())
    lines.append(f"fingerprint: {fingerprint}")
    lines.append(f"every image decoded, {images / seconds:,.0f} images/s")
    return "\n".join(lines)


def _sizes(found: scan.Scan) -> str:
    """The shape of all images, or the smallest and the largest."""
    shapes = sorted(found.shapes, key=lambda shape: (shape[0] * shape[1], shape))
    ends = dict.fromkeys("x".join(map(str, shape)) for shape in (shapes[0], shapes[-1]))
    return " to ".join(ends)


if __name__ == "__main__":
    # Defined here, not on import: flags are global, and other commands have these names too.
    config: Any = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,...]")
    data_dir: Any = flags.DEFINE_string("data_dir", None, "tensorflow-datasets folder (data.dir)")
    workdir: Any = flags.DEFINE_string("workdir", None, "a run's directory, to compare its data")
    flags.mark_flag_as_required("config")

    def checked() -> None:
        """Check the data of the flags."""
        if data_dir.value is not None:
            config.value.data.dir = data_dir.value
        main(config.value, None if workdir.value is None else epath.Path(workdir.value))

    command.run(checked)
